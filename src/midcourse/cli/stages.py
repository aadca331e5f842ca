"""Verbs that make something: each stage, the whole run, its report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from midcourse.cli.app import Group, Overlays, Overrides, RecipePath, RunDir, app, train_app, verb
from midcourse.cli.ends import Given, StepsOf, following, say_totals, summarise

if TYPE_CHECKING:
    from midcourse.pipeline import Drawn, Method, Session
    from midcourse.run import Step


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
    from midcourse.run import in_order

    recipe = load_recipe(recipe_path, overrides or [], overlays or [])
    directory = run_dir or Path("runs") / recipe.name
    with open_session(recipe, directory, ConsoleProgress(open_console())) as session:
        made = method(session.setup)
        for line in slow_adapters(recipe):
            session.run.reporter.say(line)
        session.run.announce(in_order(made.steps()))
        yield session, made


#: What the verbs complete, by verb.
_VERBS: dict[str, StepsOf] = {}
#: The verbs in the order of the flow: each makes what the next one begins with.
_FLOW = (
    "sample", "grade", "select", "reference", "propose", "verify", "build-sft", "train sft",
    "train rl", "evaluate", "likelihood",
)  # fmt: skip


def _stage(name: str, doc: str, steps_of: StepsOf, verbs: typer.Typer = app) -> None:
    """Add a verb that completes some steps and everything before them."""
    full_name = name if verbs is app else f"train {name}"
    _VERBS[full_name] = steps_of

    def command(
        recipe: RecipePath, with_: Overlays = None, set_: Overrides = None, run_dir: RunDir = None
    ) -> None:
        with _session(recipe, with_, set_, run_dir) as (session, made):
            asked = Given(recipe, tuple(with_ or ()), tuple(set_ or ()), run_dir)
            _complete(session, made, full_name, steps_of(made), asked)
            if verbs is train_app:
                _write_cards(session, made)

    verb(Group.STAGES, f"midcourse {full_name} my.toml", name, doc=doc, of=verbs)(command)


def _complete(
    session: Session, made: Method, name: str, steps: Iterable[Step], asked: Given
) -> None:
    """Complete the steps of a verb; say what came of them, and what is next."""
    steps = list(steps)
    session.check(steps)
    before = [step for step in steps if session.run.is_complete(step)]
    session.complete(*steps)
    summarise(session, name, steps)
    for step in before:
        session.warn(step)
    at = _FLOW.index(name) + 1 if name in _FLOW else 0
    later = {verb: _VERBS[verb] for verb in _FLOW[at:]}
    session.run.reporter.say(f"Next: {asked.command(following(session, made, later))}")


def _write_cards(session: Session, made: Method) -> None:
    """Write the card of every trained model, with what is known of it by now."""
    from midcourse.export.cards import write_cards

    write_cards(session.run, made)


def _both(drawn: Iterable[Drawn]) -> list[Step]:
    return [step for one in drawn for step in (one.rollouts, one.grades)]


def _evaluated(made: Method) -> list[Step]:
    """Return the evaluations of a recipe, along RL too where checkpoints are kept."""
    drawn = list(made.evaluation.all.values())
    if made.setup.recipe.train_rl.keep_checkpoints:
        drawn += made.evaluation.along_rl().values()
    return _both(drawn)


_stage("sample", "Sample rollouts of the training problems.", lambda m: [m.train.rollouts])
_VERBS["grade"] = lambda m: [m.train.grades]
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


@verb(Group.STAGES, "midcourse train proposer my.toml", "proposer", of=train_app)
def train_proposer(
    recipe: RecipePath, with_: Overlays = None, set_: Overrides = None, run_dir: RunDir = None
) -> None:
    """Train the proposer on its own verified proposals; measure it on held-out problems."""
    with _session(recipe, with_, set_, run_dir) as (session, made):
        from midcourse.pipeline.proposer import proposers
        from midcourse.progress import open_console
        from midcourse.report.proposer import compare_answers

        found = proposers(made)
        training = found.trained.trained
        assert training is not None
        session.check([training])
        session.complete(training)
        summarise(session, "train proposer", [training])
        for table in compare_answers(session, found):
            open_console().print(table)


@verb(Group.STAGES, "midcourse grade my.toml --audit")
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
        asked = Given(recipe, tuple(with_ or ()), tuple(set_ or ()), run_dir)
        _complete(session, made, "grade", _VERBS["grade"](made), asked)
        if audit:
            from midcourse.progress import open_console
            from midcourse.report.audit import AUDIT_FILE, audit_run

            for table in audit_run(session, made):
                open_console().print(table)
            file = session.run.directory / AUDIT_FILE
            session.run.reporter.say(f"grade: every disagreement is in {file}")


@verb(Group.START, "midcourse run my.toml --set engine.max_batch_rows=64")
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
            say_totals(session)
            return
        session.check(step for steps in made.steps() for step in steps)
        for steps in made.steps():
            session.complete(*steps)
        write_report(session, made)
        _write_cards(session, made)
        say_totals(session)


@verb(Group.STAGES, "midcourse report my.toml")
def report(
    recipe: RecipePath, with_: Overlays = None, set_: Overrides = None, run_dir: RunDir = None
) -> None:
    """Write the report of a finished run again; nothing is sampled or trained."""
    with _session(recipe, with_, set_, run_dir) as (session, made):
        from midcourse.report.write import write_report

        write_report(session, made)
        _write_cards(session, made)


@verb(Group.START, "midcourse warmup my.toml")
def warmup(
    recipe: RecipePath, with_: Overlays = None, set_: Overrides = None, run_dir: RunDir = None
) -> None:
    """Teach a small model to answer and to verify, before the method begins; measure it."""
    from midcourse.config import load_recipe
    from midcourse.export.cards import write_warmup_cards
    from midcourse.pipeline import open_session
    from midcourse.progress import ConsoleProgress, open_console
    from midcourse.warmup.check import check_table
    from midcourse.warmup.run import Warmup, warmup_setup

    made, console = load_recipe(recipe, set_ or [], with_ or []), open_console()
    directory, setup = run_dir or Path("runs") / made.name, warmup_setup(made)
    with open_session(made, directory, ConsoleProgress(console), setup=setup) as session:
        prepared = Warmup(session)
        folder = prepared.complete()
        checked = check_table(prepared)
        console.print(checked)
        write_warmup_cards(prepared, checked)
        session.run.reporter.say(f"warmup: complete in {folder}")
