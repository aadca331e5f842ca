"""The verb that watches a run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from midcourse.cli.app import Group, RunFolder, verb
from midcourse.errors import ConfigError, MissingExtra


@verb(Group.LOOK, "midcourse watch runs/my")
def watch(
    run_dir: RunFolder,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Watch a run on the whole screen: its steps, and the traces written last."""
    from midcourse.report.overview import read_overview

    read_overview(run_dir)  # what is not a run directory is one line, before the screen is taken
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(f"watch needs a terminal: 'midcourse status {run_dir}' prints it once")
    try:
        from midcourse.watch.app import WatchApp
    except ModuleNotFoundError as error:
        raise MissingExtra("textual", "watch") from error
    WatchApp(run_dir, every).run()
