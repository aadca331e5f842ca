"""The verb that shows traces in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
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
    )

    if iteration is not None and not rl:
        raise ConfigError("--iteration chooses among groups of RL: give --rl too")
    if rl:
        _show_groups(run_dir, record_id, iteration, as_json=as_json)
        return
    wanted = Wanted(kind=kind, outcome=outcome, verified=verified, problem_id=problem, words=search)
    made = read_view(run_dir, with_rollouts=bool(record_id) or kind is not Kind.PROPOSAL)
    items = find(made, record_id) if record_id else choose(made, wanted)
    console = open_console()
    if as_json:
        typer.echo(json.dumps(as_objects(made, items), indent=2))
    elif record_id:
        console.print(panels(made, items))
    else:
        console.print(item_table(made, items, limit).rich())


def _show_groups(run_dir: Path, problem_id: str, iteration: int | None, *, as_json: bool) -> None:
    from midcourse.progress import open_console
    from midcourse.report.show import group_tables, groups_as_objects, groups_of

    groups = groups_of(run_dir, problem_id, iteration)
    if as_json:
        typer.echo(json.dumps(groups_as_objects(groups), indent=2))
    else:
        open_console().print(group_tables(groups))
