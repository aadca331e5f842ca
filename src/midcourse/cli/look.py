"""Verbs that look at a run directory, and repair it."""

from __future__ import annotations

from typing import Annotated

import typer

from midcourse.cli.app import Group, RunFolder, verb
from midcourse.errors import ConfigError


@verb(Group.LOOK, "midcourse status runs/my")
def status(run_dir: RunFolder) -> None:
    """Say what a run directory holds, from its files alone; works while it is being written."""
    from midcourse.progress import open_console
    from midcourse.report.status import status_table

    open_console().print(status_table(run_dir))


@verb(Group.LOOK, "midcourse repair runs/my --check")
def repair(
    run_dir: RunFolder,
    check: Annotated[bool, typer.Option("--check", help="Report only; exit code 1.")] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Have requests that failed asked again instead.")
    ] = False,
) -> None:
    """Compare every checksum of a run directory; have just what is damaged made again."""
    from midcourse.store.repair import check_run, failed_requests, repair_run

    look, what = (failed_requests, "failed") if failed else (check_run, "damaged")
    damages = look(run_dir) if check else repair_run(run_dir, look)
    for damage in damages:
        typer.echo(str(damage))
    if not damages:
        typer.echo(f"{run_dir}: nothing {'' if failed else 'is '}{what}")
    elif check:
        typer.echo(f"{len(damages)} {what}: run the same command without --check")
        raise typer.Exit(1)
    else:
        typer.echo(f"{len(damages)} repaired: run the same command as before to go on")


@verb(Group.LOOK, "midcourse show runs/my --rl --iteration 0")
def show(
    run_dir: RunFolder,
    record_id: Annotated[str, typer.Argument(help="A proposal, rollout or problem id.")] = "",
    rl: Annotated[bool, typer.Option("--rl", help="List groups of RL, of a problem's id.")] = False,
    iteration: Annotated[
        int | None, typer.Option(help="With --rl: of this iteration alone, counted from 0.")
    ] = None,
) -> None:
    """Show proposals in the terminal: prefix, first error, intervention, outcome; or RL's groups.

    With the id of a rollout that RL sampled, or of its problem: its text, verdict and advantage.
    """
    from midcourse.progress import open_console
    from midcourse.report.status import show_groups, show_proposals

    if iteration is not None and not rl:
        raise ConfigError("--iteration chooses among groups of RL: give --rl too")
    found = show_groups(run_dir, record_id, iteration) if rl else show_proposals(run_dir, record_id)
    open_console().print(found)
