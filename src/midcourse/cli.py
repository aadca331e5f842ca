"""The command line: argument parsing, and one line for every error a user can mend.

Each stage is a verb; a verb makes what it needs and keeps what is there. Exit codes: 0 done, 1
failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midcourse.errors import MidcourseError

if TYPE_CHECKING:
    from midcourse.pipeline import Pipeline
    from midcourse.runner import Run

__all__ = ["app", "main"]

app = typer.Typer(
    name="midcourse",
    help="Intervention Training (InT): first errors, interventions, patching, GRPO.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train: sft (patching) or rl (GRPO).", no_args_is_help=True)
lab_app = typer.Typer(help="The lab's base model: pretrain it, check it.", no_args_is_help=True)
app.add_typer(train_app, name="train")
app.add_typer(lab_app, name="lab")

RecipePath = Annotated[Path, typer.Argument(help="A .toml recipe, e.g. recipes/lab.toml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one value: sample.num_rollouts=8. Repeatable."),
]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lives; default runs/<name>.")
]


def main() -> None:
    """Run the command line; a `MidcourseError` is one line on stderr and exit code 1."""
    try:
        app()
    except MidcourseError as error:
        sys.stderr.write(f"midcourse: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("midcourse: interrupted; run the same command again to go on\n")
        sys.exit(130)


@contextmanager
def _run(recipe_path: Path, overrides: list[str] | None, run_dir: Path | None) -> Iterator[Run]:
    """Open the run directory of a recipe."""
    from midcourse.config import load_recipe
    from midcourse.progress import ConsoleProgress, open_console
    from midcourse.runner import Run

    recipe = load_recipe(recipe_path, overrides or [])
    directory = run_dir or Path("runs") / recipe.name
    with Run(directory, recipe, ConsoleProgress(open_console())) as run:
        yield run


@contextmanager
def _pipeline(
    recipe_path: Path, overrides: list[str] | None, run_dir: Path | None
) -> Iterator[Pipeline]:
    """Open the pipeline of a recipe."""
    from midcourse.pipeline import Pipeline

    with _run(recipe_path, overrides, run_dir) as run, Pipeline(run) as pipeline:
        yield pipeline


def _stage(name: str, doc: str, make: Callable[[Pipeline], Any]) -> None:
    """Add a verb that completes one stage and everything before it."""

    def command(recipe: RecipePath, set_: Overrides = None, run_dir: RunDir = None) -> None:
        with _pipeline(recipe, set_, run_dir) as pipeline:
            make(pipeline)
            pipeline.run.reporter.say(f"{name}: complete in {pipeline.run.directory}")

    app.command(name, help=doc)(command)


_stage("sample", "Sample rollouts of the training problems.", lambda p: p.train_rollouts.rollouts)
_stage("grade", "Grade the rollouts.", lambda p: p.train_rollouts.grades)
_stage(
    "select", "Find the hard problems: pass@k = 0.",
    lambda p: p.hinted_statuses if p.recipe.select.condition == "hint" else p.statuses,
)  # fmt: skip
_stage("reference", "Have missing reference solutions written, and graded.", lambda p: p.references)
_stage("propose", "Find first errors and write interventions.", lambda p: p.proposals)
_stage("verify", "Continue from the interventions and grade.", lambda p: p.verified)
_stage(
    "reestimate", "Continue kept interventions afresh: no winner's curse.", lambda p: p.reestimated
)
_stage("build-sft", "Build the rows to fine-tune on.", lambda p: p.rows)
_stage(
    "evaluate", "Sample and grade held-out problems.",
    lambda p: (p.evaluations, p.course_evaluations if p.recipe.train_rl.keep_checkpoints else None),
)  # fmt: skip
_stage("likelihood", "Score interventions, references and own rollouts.", lambda p: p.likelihoods)


@train_app.command("sft")
def train_sft(recipe: RecipePath, set_: Overrides = None, run_dir: RunDir = None) -> None:
    """Fine-tune the base model on the rows: the patch, or a baseline."""
    with _pipeline(recipe, set_, run_dir) as pipeline:
        pipeline.run.reporter.say(f"train sft: complete in {pipeline.patched.path}")


@train_app.command("rl")
def train_rl(recipe: RecipePath, set_: Overrides = None, run_dir: RunDir = None) -> None:
    """Run GRPO from the base and from the patched model."""
    with _pipeline(recipe, set_, run_dir) as pipeline:
        for model in pipeline.rl_models.values():
            pipeline.run.reporter.say(f"train rl: {model.label} complete in {model.path}")


@app.command()
def run(recipe: RecipePath, set_: Overrides = None, run_dir: RunDir = None) -> None:
    """Run the whole loop and report: what is there is kept, the rest is done."""
    with _pipeline(recipe, set_, run_dir) as pipeline:
        from midcourse.report.write import is_reported, write_report

        if is_reported(pipeline.run.directory):
            pipeline.run.reporter.say(
                f"{pipeline.run.directory} is complete: nothing to do. "
                f"The report is {pipeline.run.directory / 'report' / 'report.html'}"
            )
            return
        write_report(pipeline)


@app.command()
def report(recipe: RecipePath, set_: Overrides = None, run_dir: RunDir = None) -> None:
    """Write the report again, running what is missing."""
    with _pipeline(recipe, set_, run_dir) as pipeline:
        from midcourse.report.write import write_report

        write_report(pipeline)


@app.command()
def warmup(recipe: RecipePath, set_: Overrides = None, run_dir: RunDir = None) -> None:
    """Teach a small model to answer and to verify, before the method begins; measure it."""
    from midcourse.progress import open_console
    from midcourse.warmup.check import check_table
    from midcourse.warmup.run import Warmup

    with _run(recipe, set_, run_dir) as run:
        prepared = Warmup(run)
        open_console().print(check_table(prepared).rich())
        run.reporter.say(f"warmup: complete in {prepared.verification.path / 'final'}")


@app.command()
def status(run_dir: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Say what a run directory holds, from its files alone; works while it is being written."""
    from midcourse.progress import open_console
    from midcourse.report.status import status_table

    open_console().print(status_table(run_dir).rich())


@app.command()
def show(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    record_id: Annotated[str, typer.Argument(help="A proposal, rollout or problem id.")] = "",
) -> None:
    """Show proposals in the terminal: prefix, first error, intervention, outcome."""
    from midcourse.progress import open_console
    from midcourse.report.status import show_proposals

    open_console().print(show_proposals(run_dir, record_id))


@app.command()
def keys() -> None:
    """List every key a recipe may hold, with its default and meaning, as Markdown."""
    from midcourse.config import describe_keys

    typer.echo("| key | default | meaning |\n|---|---|---|")
    for key, default, meaning in describe_keys():
        typer.echo(f"| `{key}` | `{default}` | {meaning} |")


@app.command()
def plan(
    recipe: RecipePath,
    pass_rates: Annotated[
        str, typer.Option(help="A guess at the problems: pass rate:share, comma-separated.")
    ] = "0:0.05,0.02:0.1,0.1:0.15,0.3:0.2,0.6:0.25,0.9:0.25",
    set_: Overrides = None,
) -> None:
    """Estimate what a search for the hard problems costs against sampling all rollouts."""
    from midcourse.config import load_recipe
    from midcourse.plan import parse_pass_rates, search_table
    from midcourse.progress import open_console

    sample = load_recipe(recipe, set_ or []).sample
    table = search_table(parse_pass_rates(pass_rates), sample.num_rollouts, sample.rounds)
    open_console().print(table.rich())


@app.command()
def validate(problems: Annotated[str, typer.Argument(help="A problems .jsonl file.")]) -> None:
    """Check a problem file; the grader must accept every gold answer. Exit code 1 with a list."""
    from midcourse.data import validate_problems
    from midcourse.grading import Grader

    with Grader() as grader:
        complaints = validate_problems(problems, grader)
    for complaint in complaints:
        typer.echo(complaint)
    if complaints:
        typer.echo(f"{len(complaints)} complaints")
        raise typer.Exit(1)
    typer.echo(f"{problems}: every problem is sound")


@lab_app.command("pretrain")
def lab_pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 8500,
    seed: Annotated[int, typer.Option(help="Seed of weights and documents.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    start: Annotated[str, typer.Option(help="A folder to go on from; default: scratch.")] = "",
    num_layers: Annotated[int, typer.Option(help="Layers; may be more than --start has.")] = 4,
) -> None:
    """Train the lab's base model, from scratch or from where an earlier call left it."""
    from midcourse.lab.pretrain import PretrainConfig, pretrain

    config = PretrainConfig(
        steps=steps, seed=seed, learning_rate=learning_rate, start=start, num_layers=num_layers
    )
    pretrain(config, out, typer.echo)


@lab_app.command("check")
def lab_check(
    model: Annotated[str, typer.Option(help="A model folder; default: the bundled one.")] = "lab",
    num_problems: Annotated[int, typer.Option(help="Problems of each kind.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of problems and samples.")] = 1000,
) -> None:
    """Measure what the base model must and must not be able to do; exit code 1 if it fails."""
    from midcourse.lab.check import check_base
    from midcourse.progress import open_console

    table, passed = check_base(model, num_problems, seed)
    open_console().print(table.rich())
    raise typer.Exit(0 if passed else 1)
