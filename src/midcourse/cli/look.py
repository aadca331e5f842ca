"""Verbs that look at a run directory, and repair it."""

from __future__ import annotations

from typing import Annotated

import typer

from midcourse.cli.app import Group, RunFolder, verb


@verb(Group.LOOK, "midcourse status runs/my")
def status(
    run_dir: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with all numbers.")] = False,
) -> None:
    """Say how far a run is: every step with its result, time, tokens, cost and size.

    It reads files alone, also while they are being written.
    """
    from midcourse.progress import open_console
    from midcourse.report.overview import overview_json, read_overview

    if as_json:
        typer.echo(overview_json(run_dir))
    else:
        console = open_console()
        console.print(read_overview(run_dir).rich(console.width))


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
