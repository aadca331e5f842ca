"""The verb that puts runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from midcourse.cli.app import Group, verb
from midcourse.errors import ConfigError


@verb(Group.LOOK, "midcourse compare runs/a runs/b")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two run directories or more.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for compare.html, compare.md and compare.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
    seeds: Annotated[
        bool | None,
        typer.Option(
            "--seeds/--no-seeds",
            help="Put seeds of one recipe together, or never; default: where there are any.",
        ),
    ] = None,
) -> None:
    """Put runs side by side: settings, counts, results, and differences with intervals."""
    from midcourse.progress import open_console
    from midcourse.report.compare import read_runs, sides_of
    from midcourse.report.compare_page import compare as put_together
    from midcourse.report.compare_page import comparison_json, comparison_page
    from midcourse.report.compare_write import say_comparison, write_comparison

    if len(runs) < 2:
        raise ConfigError("compare needs two run directories or more")
    sides = sides_of(read_runs(runs), seeds)
    found = put_together(sides)
    page, data = comparison_page(sides, found), comparison_json(sides, found)
    if as_json:
        typer.echo(json.dumps(data, indent=1, ensure_ascii=False))
    else:
        say_comparison(page, open_console())
    if out is not None:
        write_comparison(out, page, data)
        typer.echo(f"The comparison is {out / 'compare.html'}", err=as_json)
