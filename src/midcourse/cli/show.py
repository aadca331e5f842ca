"""The verb that shows traces in the terminal."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from midcourse.cli.app import Group, RunFolder, verb
from midcourse.errors import ConfigError
from midcourse.viewer.data import Kind


@verb(Group.LOOK, "midcourse show runs/my --verified --search doubles")
def show(
    run_dir: RunFolder,
    record_id: Annotated[
        str, typer.Argument(help="A proposal, rollout or problem id, or how one begins.")
    ] = "",
    kind: Annotated[Kind, typer.Option(help="What to list.")] = Kind.PROPOSAL,
    outcome: Annotated[str, typer.Option(help="Of this outcome or verdict alone.")] = "",
    verified: Annotated[
        bool | None, typer.Option(help="Proposals with a correct continuation, or without.")
    ] = None,
    problem: Annotated[str, typer.Option(help="Of this problem alone.")] = "",
    search: Annotated[str, typer.Option(help="With these words in problem or text.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="So many lines of a list at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Whole traces, as JSON.")] = False,
    rl: Annotated[bool, typer.Option("--rl", help="List groups of RL, of a problem's id.")] = False,
    iteration: Annotated[
        int | None, typer.Option(help="With --rl: of this iteration alone, counted from 0.")
    ] = None,
) -> None:
    """Show proposals and rollouts in the terminal: a list, or one of them whole."""
    from midcourse.progress import open_console
    from midcourse.report.show import (
        Wanted,
        as_objects,
        choose,
        find,
        item_table,
        panels,
        read_view,
        show_groups,
    )

    if iteration is not None and not rl:
        raise ConfigError("--iteration chooses among groups of RL: give --rl too")
    console = open_console()
    if rl:
        console.print(show_groups(run_dir, record_id, iteration))
        return
    wanted = Wanted(kind=kind, outcome=outcome, verified=verified, problem_id=problem, words=search)
    made = read_view(run_dir, with_rollouts=bool(record_id) or kind is not Kind.PROPOSAL)
    items = find(made, record_id) if record_id else choose(made, wanted)
    if as_json:
        typer.echo(json.dumps(as_objects(made, items), indent=2))
    elif record_id:
        console.print(panels(made, items))
    else:
        console.print(item_table(made, items, limit).rich())
