"""Our grader as one function, for the reward files that other projects load.

The workers start on first use and stay up; it may be called from any thread.
"""

from __future__ import annotations

from functools import cache

from midcourse.checkers import Grader
from midcourse.records import Gold
from midcourse.training.rl.advantages import reward_of


@cache
def _grader() -> Grader:
    return Grader()


def reward(response: str, gold: Gold) -> float | None:
    """Return 1 for a correct response, 0 for a wrong one, None where we could not tell."""
    (result,) = _grader().grade([(response, gold)])
    return reward_of(result.verdict)
