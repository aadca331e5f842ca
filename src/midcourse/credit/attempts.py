"""Wrong attempts, step by step: rollouts of a run, or solutions in which people marked the error.

Both become an `Attempt`. Where the first error is known (the lab's truth, a human mark) it goes
along; no signal reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from midcourse.config import ProblemsConfig
from midcourse.localize.ask import Cases
from midcourse.localize.cases import ErrorCase
from midcourse.pipeline.values import Problems
from midcourse.records import Problem, Rollout, content_id
from midcourse.rendering import Renderer
from midcourse.run import Reader, Stage
from midcourse.stages.sample import Budget
from midcourse.steps import BLANK_LINES, STEP_SEPARATOR, StepRule, join_steps

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One wrong attempt at a problem, cut into two steps or more."""

    attempt_id: str
    """A rollout's id, or a hash of a marked solution's source and id."""
    problem: Problem
    steps: tuple[str, ...]
    """Joined, they are the text."""
    token_ids: tuple[int, ...] = ()
    """As sampled; empty where the model at hand did not write it."""
    error_step: int | None = None
    """0-based first error, where it is known; null if not."""
    rule: StepRule = BLANK_LINES
    """By which it was cut."""

    def shown(self) -> dict[str, str]:
        """Return what a prompt may show of it, by placeholder."""
        return {
            "problem": self.problem.text,
            "reference": self.problem.reference_solution or "",
            "attempt": self.rule.number(self.steps),
            "answer": self.problem.answer,
        }

    def ids(self, renderer: Renderer) -> list[int]:
        """Return the ids of its text: those that were sampled, if it was."""
        return list(self.token_ids) or renderer.reply_ids(join_steps(self.steps))

    def step_ends(self, renderer: Renderer) -> list[int]:
        """Return, for each step, how many ids lie within it and the steps before it.

        An id across a border belongs to the later step; the end of the turn to the last one.
        """
        ids = self.ids(renderer)
        inner = (
            len(renderer.cut(ids, join_steps(self.steps[:end])).prefix)
            for end in range(1, len(self.steps))
        )
        return [*inner, len(ids)]


class Attempts(Protocol):
    """Where attempts come from."""

    @property
    def budget(self) -> Budget:
        """What a continuation of their first steps may take: see `midcourse.stages.sample`."""

    def read(self, reader: Reader) -> list[Attempt]:
        """Return them in a fixed order; what they are made of is complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAttempts:
    """The wrong rollouts of a run."""

    cases: Stage[Rollout, Any]
    problems: Problems
    """With texts, golds, references and sources."""
    world: ProblemsConfig | None = None
    """The lab's world, where it knows the first error."""
    seed: int = 0
    """Of the world."""
    steps: StepRule = BLANK_LINES

    @property
    def budget(self) -> Budget:
        """That in which they were sampled."""
        return "total"

    def read(self, reader: Reader) -> list[Attempt]:
        """Return the rollouts in the order of their problems."""
        place = {problem.problem_id: i for i, problem in enumerate(self.problems.items)}
        rollouts = sorted(reader.read(self.cases), key=lambda r: (place[r.problem_id], r.index))
        errors = _true_errors(rollouts, self.world, self.seed) if self.world else {}
        made = (
            Attempt(
                attempt_id=rollout.rollout_id,
                problem=self.problems.by_id[rollout.problem_id],
                steps=tuple(self.steps.split(rollout.text)),
                token_ids=rollout.token_ids,
                error_step=errors.get(rollout.rollout_id),
                rule=self.steps,
            )
            for rollout in rollouts
        )
        return [attempt for attempt in made if len(attempt.steps) >= 2]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedAttempts:
    """Wrong solutions with a human mark, from files."""

    cases: Cases
    limit_per_source: int | None

    @property
    def budget(self) -> Budget:
        """All of the recipe's for a continuation, since others wrote the prefix.

        Did the prefix count, V would drop where a solution is long, not where it is wrong.
        """
        return "new"

    def read(self, reader: Reader) -> list[Attempt]:
        """Return the wrong ones of two steps or more, in the order of the files."""
        return self.of_files()

    def of_files(self) -> list[Attempt]:
        """Return the same; nothing is read of a run."""
        wrong = (_marked(case) for case in self.cases.items if case.error_step is not None)
        chosen = first_of_each(wrong, lambda attempt: attempt.problem.source, self.limit_per_source)
        return [attempt for attempt in chosen if len(attempt.steps) >= 2]


def _marked(case: ErrorCase) -> Attempt:
    """Return a marked solution as an attempt; steps without a blank line at their end get one."""
    *inner, last = case.steps
    ended = (s if s.endswith(STEP_SEPARATOR) else s.rstrip("\n") + STEP_SEPARATOR for s in inner)
    return Attempt(
        attempt_id=content_id("marked", case.source, case.case_id),
        problem=Problem(
            problem_id=content_id("marked", case.problem),
            text=case.problem,
            answer=case.answer or "",
            reference_solution=case.reference,
            source=case.source,
            split="marked",
        ),
        steps=(*ended, last),
        error_step=case.error_step,
    )


def _true_errors(
    rollouts: Sequence[Rollout], world: ProblemsConfig, seed: int
) -> Mapping[str, int]:
    """Return the lab's first error of each rollout; none where it says too little, not wrong."""
    from midcourse.lab.problems import lab_problems
    from midcourse.lab.truth import first_error
    from midcourse.lab.worlds import WORLDS

    stories, rule = lab_problems(world, seed).stories, WORLDS[world.world].steps
    found = {r.rollout_id: first_error(r.text, stories[r.problem_id], rule) for r in rollouts}
    lengths = {r.rollout_id: len(rule.split(r.text)) for r in rollouts}
    return {name: at for name, at in found.items() if at is not None and at < lengths[name]}


def first_of_each(items: Iterable[T], source: Callable[[T], str], limit: int | None) -> list[T]:
    """Return the first `limit` items of each source, in their order; all without a limit."""
    seen, kept = Counter[str](), []
    for item in items:
        seen[source(item)] += 1
        if limit is None or seen[source(item)] <= limit:
            kept.append(item)
    return kept
