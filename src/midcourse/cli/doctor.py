"""The verb that says what is wrong before any work starts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from midcourse.cli.app import Group, Overlays, Overrides, RunDir, say, verb


@verb(Group.START, "midcourse doctor my.toml")
def doctor(
    recipe: Annotated[str | None, typer.Argument(help="A recipe to check as well.")] = None,
    with_: Overlays = None,
    set_: Overrides = None,
    run_dir: RunDir = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of name, level, fact and fix.")
    ] = False,
) -> None:
    """Check this machine, and a recipe: a line for each finding, with the fix.

    Nothing is written and no model is fetched; a server of messages is asked one short question.
    Exit code 1 if there is a problem.
    """
    from midcourse.config import without_credentials
    from midcourse.start.checks import Level
    from midcourse.start.doctor import examine

    found = []
    for check in examine(recipe, set_ or [], with_ or [], run_dir):
        found.append(check)
        if not as_json:
            for line in without_credentials(check.line(18)).splitlines():
                say(line)
    if as_json:
        typer.echo(without_credentials(json.dumps([asdict(check) for check in found], indent=2)))
    if any(check.level is Level.PROBLEM for check in found):
        raise typer.Exit(1)
