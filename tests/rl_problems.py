"""Problems for RL in tests, and who samples and grades there without a model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from midcourse.checkers import GradeResult
from midcourse.engines.base import Completion
from midcourse.records import Condition, FinishReason, Gold, UngradedCause, Verdict
from midcourse.stages.sample import Ask
from midcourse.training.jobs import RlContext, RlProblem


def rl_problem(problem_id: str, text: str, gold: Gold) -> RlProblem:
    """Return a problem that RL begins from its text alone."""
    context = RlContext(condition=Condition.PROBLEM, message=text)
    return RlProblem(problem_id=problem_id, gold=gold, contexts=(context,))


@dataclass(eq=False)
class PatternGrader:
    """Grades the rollouts of a problem in turn as its gold's value says, e.g. ``10u0``."""

    _turn: Counter[str] = field(default_factory=Counter)

    def grade(self, pairs: Iterable[tuple[str, Gold]]) -> Iterator[GradeResult]:
        """Yield correct for 1, incorrect for 0, ungraded for u."""
        for _, gold in pairs:
            sign = gold.value[self._turn[gold.value] % len(gold.value)]
            self._turn[gold.value] += 1
            if sign == "u":
                yield GradeResult(Verdict.UNGRADED, None, UngradedCause.TIMEOUT)
            else:
                yield GradeResult(Verdict.CORRECT if sign == "1" else Verdict.INCORRECT, "4")


@dataclass(eq=False)
class FakeSampler:
    """Draws one to six tokens from the ask's seed, with log-probabilities of -`nats` each."""

    nats: float = 1.0
    asked: list[Ask] = field(default_factory=list)

    def refresh(self, iteration: int) -> None:
        """Do nothing."""

    def sample(self, asks: Sequence[Ask]) -> list[Completion]:
        """Answer every ask."""
        self.asked += asks
        return [self._completion(ask) for ask in asks]

    def _completion(self, ask: Ask) -> Completion:
        rng = random.Random(ask.seed)
        ids = tuple(rng.choices(range(10, 400), k=rng.randint(1, 6)))
        return Completion(
            request_id=ask.rollout_id,
            token_ids=ids,
            logprobs=tuple(-self.nats - index / 10 for index, _ in enumerate(ids)),
            text="?",
            finish_reason=FinishReason.LENGTH,
        )
