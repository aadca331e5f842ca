"""The command line: argument parsing, and one line for every error a user can fix.

Each stage is a verb; a verb makes what it needs and keeps what is there. Exit codes: 0 done, 1
failed, 2 wrong usage, 130 and 143 interrupted by SIGINT and SIGTERM.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from midcourse.errors import ConfigError, MidcourseError
from midcourse.printable import printable
from midcourse.processes import Interrupted, interruption, raise_on_signals, wait_passively

if TYPE_CHECKING:
    from midcourse.pipeline import Drawn, Method, Session
    from midcourse.run import Step

app = typer.Typer(
    name="midcourse",
    help="Intervention Training (InT): first errors, interventions, patching, GRPO.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train: sft (patching) or rl (GRPO).", no_args_is_help=True)
lab_app = typer.Typer(help="The lab's base model: pretrain it, check it.", no_args_is_help=True)
recipes_app = typer.Typer(help="List the packaged recipes, or show one.")
app.add_typer(train_app, name="train")
app.add_typer(lab_app, name="lab")
app.add_typer(recipes_app, name="recipes")

#: Failures of a write that more room, or another place, repairs.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EROFS}
_KEPT = "what is done is kept: make room and run the same command again"

RecipePath = Annotated[
    str, typer.Argument(help="A .toml file, or a name that `midcourse recipes` lists, e.g. lab.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one value: sample.num_rollouts=8. Repeatable."),
]
Overlays = Annotated[
    list[str] | None,
    typer.Option("--with", help="A recipe to layer on top, e.g. scale/lab. Repeatable."),
]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lives; default runs/<name>.")
]


def main() -> None:
    """Run the command line; what a user can fix is one line on stderr.

    So are a signal that stops us, and a disk or an output that takes no more.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # its encoding may lack a character
    wait_passively(os.environ)
    code, said = 1, ""
    try:
        raise_on_signals()
        code = _run_app()
        if sys.stdout:
            sys.stdout.flush()
    except (MidcourseError, Interrupted) as error:
        said = str(error)
        # Children that got the signal too may have failed first.
        if interrupted := interruption():
            code = interrupted.exit_code
            said = f"{interrupted.message()}; run the same command again to go on"
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        code, said = 1, f"cannot write {error.filename or 'the output'}: {error.strerror}; {_KEPT}"
    _end(code, said)


def _run_app() -> int:
    try:
        app()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _end(code: int, said: str) -> NoReturn:
    """Say one line, if there is one, and end; an output that failed is not tried again."""
    if said:
        from midcourse.config import without_credentials

        with suppress(OSError, AttributeError):  # there may be no stderr
            sys.stderr.write(f"midcourse: {printable(without_credentials(said))}\n")
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _say(text: str) -> None:
    """Print one line that may hold text of others."""
    typer.echo(printable(text, keep=""))


@contextmanager
def _session(
    recipe_path: str,
    overlays: list[str] | None,
    overrides: list[str] | None,
    run_dir: Path | None,
) -> Iterator[tuple[Session, Method]]:
    """Open the run directory of a recipe, and compose its method."""
    from midcourse.config import load_recipe, slow_adapters
    from midcourse.pipeline import method, open_session
    from midcourse.progress import ConsoleProgress, open_console

    recipe = load_recipe(recipe_path, overrides or [], overlays or [])
    directory = run_dir or Path("runs") / recipe.name
    with open_session(recipe, directory, ConsoleProgress(open_console())) as session:
        made = method(session.setup)
        for line in slow_adapters(recipe):
            session.run.reporter.say(line)
        session.run.announce([step for steps in made.steps() for step in steps])
        yield session, made


def _stage(
    name: str, doc: str, steps_of: Callable[[Method], Iterable[Step]], verbs: typer.Typer = app
) -> None:
    """Add a verb that completes some steps and everything before them."""

    def command(
        recipe: RecipePath, with_: Overlays = None, set_: Overrides = None, run_dir: RunDir = None
    ) -> None:
        with _session(recipe, with_, set_, run_dir) as (session, made):
            _complete(session, name, steps_of(made))

    verbs.command(name, help=doc)(command)


def _complete(session: Session, name: str, steps: Iterable[Step]) -> None:
    """Complete the steps of a verb and say where they are."""
    steps = list(steps)
    session.check(steps)
    session.complete(*steps)
    for folder in dict.fromkeys(session.run.path(step) for step in steps):
        session.run.reporter.say(f"{name}: complete in {folder}")


def _both(drawn: Iterable[Drawn]) -> list[Step]:
    return [step for one in drawn for step in (one.rollouts, one.grades)]


def _evaluated(made: Method) -> list[Step]:
    """Return the evaluations of a recipe, along RL too where checkpoints are kept."""
    drawn = list(made.evaluation.all.values())
    if made.setup.recipe.train_rl.keep_checkpoints:
        drawn += made.evaluation.along_rl().values()
    return _both(drawn)


_stage("sample", "Sample rollouts of the training problems.", lambda m: [m.train.rollouts])
_stage("select", "Find the hard problems: pass@k = 0.", lambda m: [m.hinted_statuses or m.statuses])
_stage("reference", "Generate and grade missing reference solutions.", lambda m: [m.references])
_stage("propose", "Find first errors and write interventions.", lambda m: [m.proposals])
_stage(
    "verify",
    "Continue from the interventions and grade.",
    lambda m: _both(m.interventions.verified.values()),
)
_stage(
    "reestimate",
    "Continue kept interventions again: no winner's curse.",
    lambda m: _both([m.interventions.reestimated]),
)
_stage("build-sft", "Build the rows to fine-tune on.", lambda m: [m.models.rows])
_stage("evaluate", "Sample and grade the sets to evaluate on.", _evaluated)
_stage(
    "likelihood",
    "Score interventions, references and own rollouts.",
    lambda m: m.evaluation.likelihoods,
)


_stage(
    "sft",
    "Fine-tune the base model on the rows: the patch, or a baseline.",
    lambda m: [m.models.patched.trained] if m.models.patched.trained else [],
    train_app,
)
_stage(
    "rl",
    "Run GRPO from the base and from the patched model.",
    lambda m: m.models.rl_trainings(),
    train_app,
)


@app.command()
def grade(
    recipe: RecipePath,
    with_: Overlays = None,
    set_: Overrides = None,
    run_dir: RunDir = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Also list where plain math-verify disagrees.")
    ] = False,
) -> None:
    """Grade the rollouts; with --audit, list where a second opinion disagrees, on RL's too."""
    with _session(recipe, with_, set_, run_dir) as (session, made):
        _complete(session, "grade", [made.train.grades])
        if audit:
            from midcourse.progress import open_console
            from midcourse.report.audit import AUDIT_FILE, audit_run

            for table in audit_run(session, made):
                open_console().print(table.rich())
            file = session.run.directory / AUDIT_FILE
            session.run.reporter.say(f"grade: every disagreement is in {file}")


@app.command()
def run(
    recipe: RecipePath, with_: Overlays = None, set_: Overrides = None, run_dir: RunDir = None
) -> None:
    """Run the whole loop and report: existing results are reused, the rest is computed."""
    with _session(recipe, with_, set_, run_dir) as (session, made):
        from midcourse.report.write import is_reported, write_report

        directory = session.run.directory
        if is_reported(directory):
            session.run.reporter.say(
                f"{directory} is complete: nothing to do. "
                f"The report is {directory / 'report' / 'report.html'}"
            )
            return
        session.check(step for steps in made.steps() for step in steps)
        for steps in made.steps():
            session.complete(*steps)
        write_report(session, made)


@app.command()
def report(
    recipe: RecipePath, with_: Overlays = None, set_: Overrides = None, run_dir: RunDir = None
) -> None:
    """Write the report of a finished run again; nothing is sampled or trained."""
    with _session(recipe, with_, set_, run_dir) as (session, made):
        from midcourse.report.write import write_report

        write_report(session, made)


@app.command()
def warmup(
    recipe: RecipePath, with_: Overlays = None, set_: Overrides = None, run_dir: RunDir = None
) -> None:
    """Teach a small model to answer and to verify, before the method begins; measure it."""
    from midcourse.config import load_recipe
    from midcourse.pipeline import open_session
    from midcourse.progress import ConsoleProgress, open_console
    from midcourse.warmup.check import check_table
    from midcourse.warmup.run import Warmup, warmup_setup

    made, console = load_recipe(recipe, set_ or [], with_ or []), open_console()
    directory, setup = run_dir or Path("runs") / made.name, warmup_setup(made)
    with open_session(made, directory, ConsoleProgress(console), setup=setup) as session:
        prepared = Warmup(session)
        folder = prepared.complete()
        console.print(check_table(prepared).rich())
        session.run.reporter.say(f"warmup: complete in {folder}")


@app.command()
def status(run_dir: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Say what a run directory holds, from its files alone; works while it is being written."""
    from midcourse.progress import open_console
    from midcourse.report.status import status_table

    open_console().print(status_table(run_dir).rich())


@app.command()
def repair(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
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


@app.command()
def show(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
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


@app.command()
def reproduce(
    names: Annotated[list[str], typer.Argument(help="table1, fig6, … or all.")],
    scale: Annotated[str, typer.Option(help="Sizes and model names: a recipe.")] = "scale/lab",
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable: seeds are pooled.")] = None,
    with_: Overlays = None,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    page: Annotated[Path | None, typer.Option(help="Also one Markdown page of it all.")] = None,
) -> None:
    """Make the paper's tables and figures at a scale; what is there is kept."""
    from midcourse.experiments.page import write_page
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
    experiments, folder = choose(names), out or default_folder(runner)
    make(experiments, runner, folder)
    if page is not None:
        write_page(experiments, folder, page)
        runner.reporter.say(f"the page is {page}")


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help="A run directory whose rows are built.")],
    format_: Annotated[
        str,
        typer.Option("--format", help="trl, llama-factory, verl, verifiers, pipelinerl or jsonl."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Hand the rows and problems of a run over to another project."""
    from midcourse.export import export_run

    for part in export_run(run_dir, format_, out):
        fidelity = f" ({part.fidelity})" if part.fidelity else ""
        _say(f"{out / part.path}: {part.what}{fidelity}")


@app.command("localize")
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

    console = open_console()
    # A recipe names a model; guesses, scripts and servers of chat messages load none.
    loads_none = baselines_only or engine == "scripted" or "engine.chat=true" in (set_ or [])
    model = model or ("lab" if loads_none else "")
    short = {"engine.kind": engine, "model.path": model}
    overrides = [*(f"{key}={value}" for key, value in short.items() if value), *(set_ or [])]
    bare = {"name": "localize"}
    made = load_recipe(recipe, overrides) if recipe else make_recipe(bare, overrides, "localize")
    cases = load_cases(data, made.localize.limit_per_source)
    if baselines_only:
        tables = first_error_tables({}, baselines(cases))
    else:
        with Run(run_dir or Path("runs") / made.name, made, ConsoleProgress(console)) as run:
            tables = run_localization(run, cases)
    for table in tables:
        console.print(table.rich())


@app.command()
def validate(
    problems: Annotated[str, typer.Argument(help="A file, or another place of docs/data.md.")],
) -> None:
    """Check a problem file; the grader must accept every gold answer. Exit code 1 with a list."""
    from midcourse.checkers import Grader
    from midcourse.data import validate_problems

    with Grader() as grader:
        complaints = validate_problems(problems, grader)
    for complaint in complaints:
        _say(complaint)
    if complaints:
        typer.echo(f"{len(complaints)} complaints")
        raise typer.Exit(1)
    typer.echo(f"{problems}: every problem is sound")


@app.command()
def curate(
    place: Annotated[
        str, typer.Argument(help="FILE, hub:OWNER/NAME, SOURCE, SOURCE:FILE, reasoning-gym:TASK.")
    ],
    out: Annotated[Path, typer.Option(help="The .jsonl file for the problems that are kept.")],
    against: Annotated[
        list[str] | None, typer.Option(help="A benchmark to keep away from. Repeatable.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A column of the file: problem=question. Repeatable.")
    ] = None,
    need_reference: Annotated[
        bool, typer.Option(help="Whether a problem must have a reference solution.")
    ] = True,
    limit: Annotated[int | None, typer.Option(help="Only the first so many rows.")] = None,
) -> None:
    """Keep the problems that can be trained on; print what became of the others."""
    from midcourse.checkers import Grader
    from midcourse.data import curate as curate_place
    from midcourse.data import write_problems

    columns = dict(part.partition("=")[::2] for part in column or [])
    with Grader() as grader:
        curation = curate_place(
            place, grader, require_reference=need_reference, against=against or [],
            columns=columns, limit=limit,
        )  # fmt: skip
    write_problems(curation.kept, out)
    width = max(len(outcome) for outcome in curation.outcomes)
    typer.echo(f"{'rows':{width}} {curation.num_rows:7}")
    for outcome, count in curation.outcomes.items():
        example = curation.examples.get(outcome)
        _say(f"{outcome.value:{width}} {count:7}" + (f"   e.g. {example}" if example else ""))
    typer.echo(f"{out}: {len(curation.kept)} problems")


@lab_app.command("pretrain")
def lab_pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 8500,
    seed: Annotated[int, typer.Option(help="Seed of weights and documents.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    start: Annotated[
        str, typer.Option(help="A folder to continue from, or lab; default: from scratch.")
    ] = "",
    num_layers: Annotated[int, typer.Option(help="Layers; may be more than --start has.")] = 4,
    mix: Annotated[str, typer.Option(help="What is taught: base, solver or capable.")] = "base",
) -> None:
    """Train the lab's base model, from scratch or from where an earlier call left it."""
    from midcourse.engines import resolve_model
    from midcourse.lab.pretrain import MIXES, PretrainConfig, pretrain

    if mix not in MIXES:
        raise ConfigError(f"--mix {mix!r}: choose one of {', '.join(MIXES)}")
    config = PretrainConfig(
        steps=steps,
        seed=seed,
        learning_rate=learning_rate,
        start=resolve_model(start),
        num_layers=num_layers,
        mix=mix,
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
