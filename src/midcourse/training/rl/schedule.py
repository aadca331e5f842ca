"""Which problem, in which context, each group of each iteration gets: known before RL begins.

A resumed run asks for the same iteration and finds the same groups there.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from midcourse.config import TrainRlConfig
from midcourse.records import Condition
from midcourse.training.jobs import RlContext, RlProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One group to sample."""

    iteration: int
    index: int
    """0-based, within the iteration."""
    problem: RlProblem
    context: RlContext
    occurrence: int
    """How many groups of the iteration have the same context and come before it."""


@dataclass(frozen=True)
class Schedule:
    """The groups of a run, e.g. 25 iterations of 8 problems."""

    problems: Sequence[RlProblem]
    config: TrainRlConfig
    seed: int

    def slots(self, iteration: int) -> list[Slot]:
        """Return the groups of an iteration (0-based), in order."""
        count, seen = self.config.prompts_per_iteration, Counter[tuple[str, str | None]]()
        slots = []
        for index, problem in enumerate(self._order[iteration * count : (iteration + 1) * count]):
            context = problem.contexts[0]
            key = (problem.problem_id, context.parent_id)
            slots.append(
                Slot(
                    iteration=iteration,
                    index=index,
                    problem=problem,
                    context=context,
                    occurrence=seen[key],
                )
            )
            seen[key] += 1
        return slots

    @cached_property
    def _order(self) -> list[RlProblem]:
        """The problems of all iterations: one shuffle of all of them after the other."""
        rng, order = random.Random(f"{self.seed}/rl"), list[RlProblem]()
        wanted = self.config.num_iterations * self.config.prompts_per_iteration
        while len(order) < wanted:
            order += rng.sample(self.problems, len(self.problems))
        return order[:wanted]


def conditions_of(problems: Sequence[RlProblem]) -> set[Condition]:
    """Return the conditions that any problem has a context of."""
    return {context.condition for problem in problems for context in problem.contexts}
