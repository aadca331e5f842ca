"""`midcourse doctor`: what is wrong here, or with a recipe, before any work starts.

Each check asks what a run would ask: the loaders of problems and models, the checks of the stages,
the preflight of servers, the grader's pool.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from midcourse.checkers import runs_programs
from midcourse.config import (
    TRAIN_SET,
    EngineConfig,
    ModelConfig,
    Recipe,
    SamplingConfig,
    load_recipe,
    slow_adapters,
    speaks_messages,
)
from midcourse.data.columns import as_options
from midcourse.data.parts import require_disjoint
from midcourse.data.problems import unsound_golds
from midcourse.engines import check_context, open_renderer
from midcourse.errors import MidcourseError
from midcourse.pipeline import Method, ProblemSets, Session, Setup, method
from midcourse.pipeline.session import identify_model, load_problem_sets, open_grader
from midcourse.progress import SilentProgress
from midcourse.prompts import load_prompt_set
from midcourse.records import Problem
from midcourse.run import Run, in_order
from midcourse.sandbox import Sandbox
from midcourse.start.checks import Check, ok, problem, tried, warning
from midcourse.start.machine import disk_check, machine_checks
from midcourse.start.model import (
    as_it_lies,
    is_whole,
    local_folder,
    longest_prompt,
    model_checks,
)
from midcourse.start.servers import engine_checks

#: Gold answers that are tried.
_GOLDS = 50


@dataclass(frozen=True, slots=True)
class _Role:
    """Who samples something, and how."""

    name: str
    engine: EngineConfig
    model: ModelConfig
    sampling: SamplingConfig


def examine(
    recipe: str | None,
    overrides: Sequence[str] = (),
    overlays: Sequence[str] = (),
    run_dir: Path | None = None,
) -> Iterator[Check]:
    """Yield what is found, of the machine and then of a recipe."""
    if recipe is None:
        yield from machine_checks(needs_training=False)
        yield disk_check(Path.cwd(), None)
        return
    try:
        asked = load_recipe(recipe, overrides, overlays)
    except MidcourseError as error:
        yield from machine_checks(needs_training=False)
        yield problem("recipe", str(error))
        return
    yield from machine_checks(needs_training=asked.engine.kind != "scripted")
    yield ok("recipe", f"{recipe}: {asked.name}")
    yield from (warning("recipe", line) for line in slow_adapters(asked))
    yield from recipe_checks(asked, run_dir or Path("runs") / asked.name)


def recipe_checks(recipe: Recipe, directory: Path) -> Iterator[Check]:
    """Yield what is found of a recipe whose run lies, or will lie, in `directory`."""
    try:
        sets = load_problem_sets(recipe)
    except MidcourseError as error:
        yield problem("problems", str(error))
        sets = None
    if sets is not None:
        yield from _problem_checks(recipe, sets)
    for role in _roles(recipe):
        if not speaks_messages(role.engine):
            yield from model_checks(role.name, role.engine, role.model)
        yield from engine_checks(role.name, role.engine, role.sampling.record())
    loaded = [role.model for role in _roles(recipe) if not speaks_messages(role.engine)]
    if sets is not None and all(map(is_whole, loaded)):
        yield from _length_checks(recipe, sets.train)
        yield from _stage_checks(recipe, directory, sets)
    else:
        yield warning("stages", "not checked: problems or a model are not here")
    yield disk_check(directory, _planned_bytes(recipe))


def _stage_checks(recipe: Recipe, directory: Path, sets: ProblemSets) -> Iterator[Check]:
    """Compose the method, and ask every stage whether it could be made."""
    try:
        made = method(Setup.with_problems(recipe, sets, identify_model))
    except MidcourseError as error:
        yield problem("recipe", str(error))
        return
    yield ok("prompts", f"{recipe.prompts}: every file that the recipe uses")
    yield tried("stages", lambda: _stages(recipe, directory, made))


def _problem_checks(recipe: Recipe, sets: ProblemSets) -> Iterator[Check]:
    lacking = sum(not problem.reference_solution for problem in sets.train)
    references = f"{lacking:,} without a reference solution" if lacking else "all with references"
    yield ok("problems", f"{recipe.problems.path or 'lab'}: {len(sets.train):,}, {references}")
    for name, problems in sets.evaluation.items():
        yield ok("problems", f"{name}: {len(problems):,} to evaluate on")
    if not sets.evaluation:
        is_measured = TRAIN_SET in recipe.evaluate.sets
        gain = "is measured on training problems alone" if is_measured else "is not measured"
        fact = f"none are held out: what training gained {gain}"
        yield warning("problems", fact, "set problems.held_out_path")
    yield tried("overlap", lambda: _disjoint(sets))
    if any(runs_programs(problem.checker) for problem in sets.train):
        yield tried("sandbox", lambda: _sandboxed(recipe))
    yield _graded(recipe, sets.train[:_GOLDS])


def _sandboxed(recipe: Recipe) -> str:
    Sandbox(recipe.grade.sandbox).check()
    return f"answers that are programs run in {recipe.grade.sandbox}"


def _disjoint(sets: ProblemSets) -> str:
    require_disjoint(sets.train, sets.evaluation)
    return "no problem to evaluate on is a training problem"


def _graded(recipe: Recipe, problems: Sequence[Problem]) -> Check:
    with open_grader(recipe.grade) as grader:
        unread = [problem.problem_id for problem, _ in unsound_golds(problems, grader)]
    if unread:
        options = f" {as_options(recipe.problems.columns)}" if recipe.problems.columns else ""
        return warning(
            "grader",
            f"cannot read {len(unread)} of the first {len(problems)} gold answers (first: "
            f"{', '.join(unread[:3])}), so that only the same text is credited",
            f"midcourse validate {shlex.quote(recipe.problems.path)}{options}",
        )
    return ok("grader", f"starts, and reads the first {len(problems)} gold answers")


def _roles(recipe: Recipe) -> Iterator[_Role]:
    """Yield who samples, each once: the policy, and whoever is not the policy."""
    yield _Role("policy", recipe.engine, recipe.model, recipe.sample.sampling)
    helpers = (
        ("proposer", recipe.proposer_engine, recipe.proposer_model, recipe.propose.sampling),
        ("teacher", recipe.teacher_engine, None, recipe.build_sft.sampling),
        ("writer", recipe.reference_engine, None, recipe.reference.sampling),
    )
    for name, engine, model, sampling in helpers:
        if engine is not None or model is not None:
            yield _Role(name, engine or recipe.engine, model or recipe.model, sampling)


def _length_checks(recipe: Recipe, problems: Sequence[Problem]) -> Iterator[Check]:
    """Compare the longest prompt and `max_tokens` with the context that there is."""
    from midcourse.engines.models import context_length

    try:
        folder = local_folder(recipe.model)
        model = as_it_lies(recipe.model, folder) if folder else recipe.model
        check_context(recipe.engine, model)
        solve = load_prompt_set(recipe.prompts)["solve"]
        renderer = open_renderer(recipe.engine, model, model.path)
        length = context_length(model.path)
        prompt = longest_prompt(renderer, [solve.render(problem=p.text) for p in problems])
    except MidcourseError as error:
        yield problem("lengths", str(error))
        return
    asked = recipe.sample.sampling.max_tokens
    fact = f"problems of up to {prompt:,} tokens, replies of up to {asked:,}"
    if length is None or prompt + asked <= length:
        yield ok("lengths", fact)
        return
    fix = f"set sample.sampling.max_tokens = {max(1, length - prompt - 64):,} or less"
    yield warning("lengths", f"{fact}, but {length:,} tokens of context: replies are cut", fix)


def _stages(recipe: Recipe, directory: Path, made: Method) -> str:
    """Ask every stage whether it could be made. Raises MidcourseError."""
    session = Session(Run(directory, recipe, SilentProgress()), made.setup)
    try:
        session.check(step for steps in made.steps() for step in steps)
    finally:
        session.close()
    return f"{len(in_order(made.steps()))} steps can be made, in {directory}"


def _planned_bytes(recipe: Recipe) -> float | None:
    """Return the disk that a run takes, if its plan knows the model."""
    from midcourse.plan.tables import make_plan

    try:
        return sum(step.work.disk_bytes for step in make_plan(recipe).steps)
    except MidcourseError:
        return None
