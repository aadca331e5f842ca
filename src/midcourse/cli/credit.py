"""The verb of the credit map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from midcourse.cli.app import Group, Overlays, Overrides, RunDir, verb
from midcourse.cli.completion import recipe_names

if TYPE_CHECKING:
    from midcourse.config import Recipe
    from midcourse.table import Table


@verb(Group.EXPERIMENTS, "midcourse credit lab --set credit.num_continuations=64", "credit")
def credit_command(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe: whose rollouts are mapped, or, with --sources, whose model scores.",
            autocompletion=recipe_names,
        ),
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(help="A file of solutions whose first error people marked. Repeatable."),
    ] = None,
    engine: Annotated[str, typer.Option(help="As --set engine.kind=…")] = "",
    model: Annotated[str, typer.Option(help="As --set model.path=…")] = "",
    with_: Overlays = None,
    set_: Overrides = None,
    run_dir: RunDir = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; default: the run's report.")
    ] = None,
) -> None:
    """Compare signals of where wrong solutions go wrong, step by step."""
    from midcourse.config import load_recipe, make_recipe
    from midcourse.errors import ConfigError
    from midcourse.progress import open_console

    if recipe is None and not sources:
        raise ConfigError("credit: name a recipe, or files with --sources")
    short = {"engine.kind": engine, "model.path": model}
    overrides = [*(f"{key}={value}" for key, value in short.items() if value), *(set_ or [])]
    bare = {"name": "credit"}
    made = (
        load_recipe(recipe, overrides, with_ or [])
        if recipe
        else make_recipe(bare, overrides, "credit")
    )
    for table in _map(made, sources or [], run_dir or Path("runs") / made.name, out):
        open_console().print(table)


def _map(recipe: Recipe, sources: Sequence[str], directory: Path, out: Path | None) -> list[Table]:
    """Complete the map in a run directory, and write its files."""
    from midcourse.credit.run import map_cases, map_run, write_map
    from midcourse.localize.run import load_cases
    from midcourse.pipeline import method, open_session
    from midcourse.progress import ConsoleProgress, open_console
    from midcourse.run import Run
    from midcourse.steps import rule_named

    reporter, folder = ConsoleProgress(open_console()), out or directory / "report"
    if sources:
        cases = load_cases(sources, None, rule_named(recipe.steps.rule))
        with Run(directory, recipe, reporter) as run:
            tables = write_map(map_cases(run, cases), run, folder)
    else:
        with open_session(recipe, directory, reporter) as session:
            found = map_run(session, method(session.setup))
            tables = write_map(found, session.run, folder)
    reporter.say(f"the credit map is {folder / 'credit.md'}")
    return tables
