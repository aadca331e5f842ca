"""Which problem, in which context, each group of each iteration gets: known before RL begins.

A resumed run asks for the same iteration and finds the same groups there.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise

from midcourse.config import TrainRlConfig
from midcourse.records import Condition
from midcourse.training.jobs import RlContext, RlProblem

#: Parts that an order by pass rate goes through.
_PARTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One group to sample."""

    iteration: int
    index: int
    """0-based, within the iteration; from `prompts_per_iteration` on, of further problems."""
    problem: RlProblem
    context: RlContext
    occurrence: int
    """How many groups of the iteration have the same context and come before it."""
    wanted: Condition = Condition.PROBLEM
    """What it was to begin from; `context` is of another condition where the problem has none."""

    @property
    def falls_back(self) -> bool:
        """Whether the problem has no context of the wanted condition."""
        return self.context.condition is not self.wanted


@dataclass(frozen=True)
class Schedule:
    """The groups of a run, e.g. 25 iterations of 8 problems."""

    problems: Sequence[RlProblem]
    config: TrainRlConfig
    seed: int

    def slots(self, iteration: int) -> list[Slot]:
        """Return the groups of an iteration (0-based), in order."""
        return self._planned[iteration]

    def further(self, iteration: int) -> list[Slot]:
        """Return what an iteration samples further, as far as it needs to, in order.

        A problem comes twice only once all of the iteration's problems have come.
        """
        rng, turns = random.Random(f"{self.seed}/rl/further/{iteration}"), _Turns()
        for slot in chain.from_iterable(self._planned[: iteration + 1]):
            turns.add(slot)
        slots, most = self.slots(iteration), self.config.most_further
        taken = {slot.problem.problem_id for slot in slots}
        (pool,) = (part for part in self._parts if taken & {p.problem_id for p in part})
        others = [problem for problem in pool if problem.problem_id not in taken]
        problems = rng.sample(others, len(others))
        while len(problems) < most:
            problems += rng.sample(pool, len(pool))
        return list(self._filled(iteration, problems[:most], _Shares(), turns, first=len(slots)))

    @cached_property
    def _planned(self) -> list[list[Slot]]:
        count, shares, turns = self.config.prompts_per_iteration, _Shares(), _Turns()
        return [
            list(self._filled(i, self._order[i * count : (i + 1) * count], shares, turns))
            for i in range(self.config.num_iterations)
        ]

    def _filled(
        self,
        iteration: int,
        problems: Sequence[RlProblem],
        shares: _Shares,
        turns: _Turns,
        first: int = 0,
    ) -> Iterator[Slot]:
        """Yield a group of each problem, in the context whose turn it is."""
        for index, problem in enumerate(problems, first):
            wanted = shares.next(self.config.shares(iteration))
            number = self.config.hint_number(iteration) if wanted is Condition.HINT else None
            context = turns.context(problem, wanted, number)
            slot = Slot(
                iteration=iteration,
                index=index,
                problem=problem,
                context=context,
                occurrence=turns.occurrence(iteration, problem, context),
                wanted=wanted,
            )
            turns.add(slot)
            yield slot

    @cached_property
    def _parts(self) -> list[Sequence[RlProblem]]:
        """All problems; with an order, quarters of them, or as many as fill an iteration each."""
        if self.config.order == "shuffled":
            return [self.problems]
        ranked = sorted(self.problems, key=lambda problem: problem.pass_rate or 0.0)
        if self.config.order == "easy_first":
            ranked.reverse()
        fewest, most = self.config.prompts_per_iteration, self.config.num_iterations
        number = max(1, min(_PARTS, len(ranked) // fewest, most))
        borders = [len(ranked) * part // number for part in range(number + 1)]
        return [ranked[a:b] for a, b in pairwise(borders)]

    @cached_property
    def _order(self) -> list[RlProblem]:
        """The problems of all iterations: of each part one shuffle after the other."""
        rng, order = random.Random(f"{self.seed}/rl"), list[RlProblem]()
        iterations, count = self.config.num_iterations, self.config.prompts_per_iteration
        for number, part in enumerate(self._parts, 1):
            # A part ends with an iteration: no iteration draws from two.
            wanted = iterations * number // len(self._parts) * count
            while len(order) < wanted:
                order += rng.sample(part, len(part))
            del order[wanted:]
        return order


@dataclass(eq=False)
class _Shares:
    """Spreads conditions over groups: at any time each has had its share, but for one group."""

    _due: Counter[Condition] = field(default_factory=Counter)
    """Groups that a condition should have had by now and has not."""

    def next(self, shares: Mapping[Condition, float]) -> Condition:
        """Return the condition of the next group."""
        for condition, share in shares.items():
            self._due[condition] += share  # type: ignore[assignment]  # a Counter of floats
        chosen = max(shares, key=lambda condition: round(self._due[condition], 9))
        self._due[chosen] -= 1
        return chosen


@dataclass(eq=False)
class _Turns:
    """Which context of a problem comes next, where it has several of a condition."""

    _of_condition: Counter[tuple[str, Condition]] = field(default_factory=Counter)
    _of_context: Counter[tuple[int, str, Condition, str | None]] = field(default_factory=Counter)

    def context(
        self, problem: RlProblem, wanted: Condition, number: int | None = None
    ) -> RlContext:
        """Return the next context of the wanted condition, or one by number.

        Where there is none of that condition, the problem's first.
        """
        found = [context for context in problem.contexts if context.condition is wanted]
        if not found:
            return problem.contexts[0]
        turn = self._of_condition[problem.problem_id, wanted] if number is None else number
        return found[turn % len(found)]

    def occurrence(self, iteration: int, problem: RlProblem, context: RlContext) -> int:
        """Return how often the iteration has had a context."""
        return self._of_context[_key(iteration, problem, context)]

    def add(self, slot: Slot) -> None:
        """Count a group."""
        self._of_condition[slot.problem.problem_id, slot.context.condition] += 1
        self._of_context[_key(slot.iteration, slot.problem, slot.context)] += 1


def _key(
    iteration: int, problem: RlProblem, context: RlContext
) -> tuple[int, str, Condition, str | None]:
    return iteration, problem.problem_id, context.condition, context.parent_id
