"""The method of a recipe without its problems: one stands for all, a plan knows how many there are.

What a run will do is read off the steps that it would complete, in the order in which it would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from midcourse.checkers.reasoning_gym import NAME as TASKS
from midcourse.config import ModelConfig, Part, Recipe
from midcourse.data.parts import place
from midcourse.data.problems import Row, read_problems
from midcourse.data.rows import is_hub
from midcourse.data.sources import find_source
from midcourse.errors import ConfigError, DataError
from midcourse.pipeline.method import Method, method
from midcourse.pipeline.session import Setup, load_problem_sets
from midcourse.pipeline.values import ProblemSets
from midcourse.plan.assumptions import Assumptions
from midcourse.records import Problem, content_id
from midcourse.run import Step

#: Held-out problems where the recipe names a file that is not there.
_HELD_OUT = 200
_STAND_IN = Problem(
    problem_id="one for all", text="", answer="1", reference_solution="1", source="", split=""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many problems a run begins with."""

    problems: int
    held_out: int
    probe: int
    """Of each probe set."""


def compose(recipe: Recipe) -> Method:
    """Return the method of a recipe. No model is looked at and no file of problems is read."""
    return method(Setup.with_problems(recipe, _problem_sets(recipe), _by_path))


def _problem_sets(recipe: Recipe) -> ProblemSets:
    if recipe.problems.kind == "lab":
        return load_problem_sets(recipe)
    evaluation = {"held_out": [_STAND_IN]} if recipe.problems.held_out_path else {}
    return ProblemSets([_STAND_IN], evaluation)


def _by_path(source: ModelConfig) -> str:
    return content_id(source.path, source.revision)[:10]


def in_order(asked: Sequence[tuple[Step, ...]]) -> Iterator[tuple[Step, ...]]:
    """Yield every step once, its inputs first; what one tuple holds is completed together."""
    seen: set[tuple[str, str]] = set()

    def visit(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
        for step in steps:
            if (step.name, step.key) not in seen:
                yield from visit(step.inputs)
        fresh = tuple(step for step in steps if (step.name, step.key) not in seen)
        seen.update((step.name, step.key) for step in fresh)
        if fresh:
            yield fresh

    for steps in asked:
        yield from visit(steps)


def count_problems(setup: Setup, given: Assumptions) -> Counts:
    """Count the problems of a recipe, as far as they are at hand; what is given wins."""
    config, sets = setup.recipe.problems, setup.problems
    held_out = probe = 0
    if config.kind == "lab":
        train: int | None = len(sets.train)
        held_out, probe = (len(sets.evaluation[name]) for name in ("held_out", "known"))
    else:
        train = _count(config.path, config.part, config.limit)
        if config.held_out_path:
            held_out = _count(config.held_out_path, (0, 1), config.held_out_limit) or _HELD_OUT
    train = given.num_problems or train
    if not train:
        raise ConfigError(
            f"plan: no problems at {config.path!r} and no problems.limit: say how many there will "
            "be, e.g. --assume num_problems=50000"
        )
    if given.num_held_out is not None:
        held_out = given.num_held_out
    return Counts(problems=train, held_out=held_out, probe=probe)


def _count(path: str, part: Part, limit: int | None) -> int | None:
    """Return how many problems of a file are in a part, at most `limit`.

    Without a file return `limit`: the hub is not asked and tasks are not generated.
    """
    try:
        if path.startswith(f"{TASKS}:") or is_hub(find_source(path)[1]):
            return limit
        number = sum(_is_in(row, part) for row in read_problems(path))
    except DataError:
        return limit
    return min(number, limit or number)


def _is_in(row: Row, part: Part) -> bool:
    """Whether a row is in a part; one that is broken yet will be in some."""
    return row.problem is None or part[0] <= place(row.problem.text) < part[1]
