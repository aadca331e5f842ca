"""Verbs before a run: recipes, keys, the plan."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from midcourse.cli.app import Overlays, Overrides, RecipePath, app, recipes_app


@app.command()
def keys() -> None:
    """List every key a recipe may hold: default, allowed values, meaning; as Markdown."""
    from midcourse.config import key_table

    typer.echo("\n".join(key_table()))


@recipes_app.callback(invoke_without_command=True)
def recipes(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, one object a recipe.")] = False,
) -> None:
    """List the packaged recipes, one line each."""
    from midcourse.recipes import list_recipes

    if context.invoked_subcommand is not None:
        return
    found = list_recipes()
    if as_json:
        typer.echo(json.dumps([asdict(info) for info in found], indent=2))
        return
    width = max(len(info.name) for info in found)
    for info in found:
        typer.echo(f"{info.name:{width}}  {info.summary}")


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A name that `midcourse recipes` lists.")],
) -> None:
    """Print a recipe."""
    from midcourse.recipes import recipe_text

    typer.echo(recipe_text(name), nl=False)


@app.command()
def plan(
    recipe: RecipePath,
    with_: Overlays = None,
    set_: Overrides = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(help="Replace one assumption: rollout_tokens=5000. Repeatable."),
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Measure the assumptions of a finished run.")
    ] = None,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Measure processor time: for a busy machine.")
    ] = False,
    pass_rates: Annotated[
        str | None, typer.Option(help="A guess at the problems: pass rate:share, comma-separated.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="h100 (default), h200, a100-80gb …, or a data sheet.toml.")
    ] = None,
    model_config: Annotated[
        Path | None, typer.Option(help="config.json of a model that is not here.")
    ] = None,
) -> None:
    """Estimate tokens, time, disk and memory of every stage, without a GPU or a model."""
    from midcourse.config import load_recipe, slow_adapters
    from midcourse.plan.tables import make_plan
    from midcourse.progress import open_console

    asked = load_recipe(recipe, set_ or [], with_ or [])
    planned = make_plan(
        asked,
        assume=assume or (),
        pass_rates=pass_rates,
        run_dir=from_,
        clock="cpu" if cpu_time else "wall",
        device=device,
        model_config=model_config,
    )
    for table in planned.tables():
        open_console().print(table.rich())
    for line in slow_adapters(asked):
        open_console().print(line, markup=False)
