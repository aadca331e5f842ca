"""Verbs of experiments: the paper's tables and figures, the first-error benchmark."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from midcourse.cli.app import Group, Overlays, Overrides, RunDir, verb
from midcourse.cli.completion import one_of, packaged_names


def _experiments() -> Iterable[str]:
    from midcourse.experiments.catalogue import experiments

    return ["all", *experiments()]


@verb(Group.EXPERIMENTS, "midcourse reproduce table1 --scale scale/lab --seed 0 --seed 1")
def reproduce(
    names: Annotated[
        list[str],
        typer.Argument(help="table1, fig6, … or all.", autocompletion=one_of(_experiments)),
    ],
    scale: Annotated[
        str,
        typer.Option(help="Sizes and model names: a recipe.", autocompletion=packaged_names),
    ] = "scale/lab",
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable: a training run each.")] = None,
    with_: Overlays = None,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
) -> None:
    """Make the paper's tables and figures at a scale; what is there is kept."""
    from midcourse.experiments.reproduce import choose, default_folder
    from midcourse.experiments.reproduce import reproduce as make
    from midcourse.experiments.runner import ExperimentRunner
    from midcourse.progress import ConsoleProgress, open_console
    from midcourse.recipes import find_recipe

    runner = ExperimentRunner(
        scale=find_recipe(scale),
        seeds=tuple(dict.fromkeys(seed or [0])),
        overlays=tuple(map(find_recipe, with_ or [])),
        settings=tuple(set_ or []),
        reporter=ConsoleProgress(open_console()),
    )
    make(choose(names), runner, out or default_folder(runner))


@verb(Group.EXPERIMENTS, "midcourse localize first_error.jsonl --model ./my-model", "localize")
def localize_command(
    data: Annotated[
        list[str], typer.Argument(help="Files of solutions whose first error people marked.")
    ],
    engine: Annotated[str, typer.Option(help="As --set engine.kind=…")] = "",
    model: Annotated[str, typer.Option(help="As --set model.path=…")] = "",
    recipe: Annotated[
        str | None, typer.Option(help="A recipe whose proposer is asked; default: all defaults.")
    ] = None,
    baselines_only: Annotated[bool, typer.Option(help="Score the baselines only.")] = False,
    set_: Overrides = None,
    run_dir: RunDir = None,
) -> None:
    """Measure how often a model names the first error of a wrong solution."""
    from midcourse.config import load_recipe, make_recipe
    from midcourse.localize.run import load_cases, run_localization
    from midcourse.localize.scores import baselines, first_error_tables
    from midcourse.progress import ConsoleProgress, open_console
    from midcourse.run import Run
    from midcourse.steps import rule_named

    console = open_console()
    # A recipe names a model; guesses, scripts and servers of chat messages load none.
    loads_none = baselines_only or engine == "scripted" or "engine.chat=true" in (set_ or [])
    model = model or ("lab" if loads_none else "")
    short = {"engine.kind": engine, "model.path": model}
    overrides = [*(f"{key}={value}" for key, value in short.items() if value), *(set_ or [])]
    bare = {"name": "localize"}
    made = load_recipe(recipe, overrides) if recipe else make_recipe(bare, overrides, "localize")
    rule = rule_named(made.steps.rule)
    cases = load_cases(data, made.localize.limit_per_source, rule)
    if baselines_only:
        tables = first_error_tables({}, baselines(cases))
    else:
        with Run(run_dir or Path("runs") / made.name, made, ConsoleProgress(console)) as run:
            tables = run_localization(run, cases)
    for table in tables:
        console.print(table)
