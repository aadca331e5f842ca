"""Verbs before a run: recipes, keys, the plan."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from midcourse.cli.app import (
    AsJson,
    Group,
    Overlays,
    Overrides,
    RecipePath,
    recipes_app,
    verb,
)
from midcourse.cli.completion import key_prefixes, one_of, packaged_names


@verb(Group.START, "midcourse keys train_rl")
def keys(
    prefix: Annotated[
        str,
        typer.Argument(
            help="Only this section or key, e.g. train_rl, or those that hold this text.",
            autocompletion=key_prefixes,
        ),
    ] = "",
    as_json: AsJson = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As a table in Markdown, as it is in a pipe.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="The JSON Schema of a recipe, for an editor.")
    ] = False,
) -> None:
    """List the keys that a recipe may hold: default, allowed values, meaning."""
    from midcourse.config import find_keys, key_table, recipe_schema
    from midcourse.progress import open_console

    console, found = open_console(), find_keys(prefix)
    if schema:
        _echo_json(recipe_schema())
    elif as_json:
        _echo_json([key.plain() for key in found])
    elif markdown or not console.is_terminal:
        typer.echo("\n".join(key_table(found)))
    else:
        from midcourse.cli.keys import key_list

        console.print(key_list(found))


def _echo_json(document: object) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


@recipes_app.callback(invoke_without_command=True)
def recipes(
    context: typer.Context,
    as_json: AsJson = False,
) -> None:
    """List the packaged recipes, one line each."""
    from midcourse.recipes import list_recipes

    if context.invoked_subcommand is not None:
        return
    found = list_recipes()
    if as_json:
        _echo_json([asdict(info) for info in found])
        return
    width = max(len(info.name) for info in found)
    for info in found:
        typer.echo(f"{info.name:{width}}  {info.summary}")


@verb(Group.START, "midcourse recipes show lab", "show", of=recipes_app)
def show_recipe(
    name: Annotated[
        str,
        typer.Argument(
            help="A name that `midcourse recipes` lists.", autocompletion=packaged_names
        ),
    ],
) -> None:
    """Print a recipe."""
    from midcourse.recipes import recipe_text

    typer.echo(recipe_text(name), nl=False)


def _devices() -> Iterable[str]:
    from midcourse.plan.devices import data_sheets

    return data_sheets()


_Assumed = Annotated[
    list[str] | None,
    typer.Option(help="Replace one assumption: rollout_tokens=5000. Repeatable."),
]
_Measured = Annotated[
    Path | None, typer.Option("--from", help="Measure the assumptions of a finished run.")
]
_CpuTime = Annotated[
    bool, typer.Option("--cpu-time", help="Measure processor time: for a busy machine.")
]
_PassRates = Annotated[
    str | None, typer.Option(help="A guess at the problems: pass rate:share, comma-separated.")
]
_Device = Annotated[
    str | None,
    typer.Option(
        help="h100 (default), h200, a100-80gb …, or a data sheet.toml.",
        autocompletion=one_of(_devices),
    ),
]
_ModelConfig = Annotated[Path | None, typer.Option(help="config.json of a model that is not here.")]


@verb(Group.START, "midcourse plan paper/int --with scale/paper-8gpu --device h200")
def plan(
    recipe: RecipePath,
    with_: Overlays = None,
    set_: Overrides = None,
    assume: _Assumed = None,
    from_: _Measured = None,
    cpu_time: _CpuTime = False,
    pass_rates: _PassRates = None,
    device: _Device = None,
    model_config: _ModelConfig = None,
    as_json: AsJson = False,
) -> None:
    """Estimate tokens, time, disk and memory of every stage, without a GPU or a model."""
    from midcourse.config import load_recipe, slow_adapters
    from midcourse.plan.facts import plan_facts
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
    if as_json:
        _echo_json(plan_facts(planned, list(slow_adapters(asked))))
        return
    for table in planned.tables():
        open_console().print(table)
    for line in slow_adapters(asked):
        open_console().print(line, markup=False)
