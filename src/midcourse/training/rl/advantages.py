"""From verdicts to rewards to advantages: the one place where a rollout gets its worth.

Correct is 1, incorrect and no answer are 0. Ungraded is *no* reward: it is kept out of the mean,
and its own advantage is 0, so that a failure of ours moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import stdev

from midcourse.config import Advantage
from midcourse.records import Verdict

#: Added to a standard deviation that is divided by, as in TRL.
_EPSILON = 1e-4


def reward_of(verdict: Verdict) -> float | None:
    """Return 1, 0 or no reward."""
    if verdict is Verdict.UNGRADED:
        return None
    return 1.0 if verdict is Verdict.CORRECT else 0.0


def advantages_of(rewards: Sequence[float | None], kind: Advantage) -> list[float]:
    """Return the advantages of one group, e.g. 0.75 and three times -0.25 for one success of four.

    ``mean``: reward minus the group's mean (§2); ``mean_std``: that divided by the standard
    deviation of the group (GRPO); ``reward_by_mean``: that divided by the mean (MaxRL), so that a
    problem solved once in a hundred counts as much as one solved always.
    """
    given = [reward for reward in rewards if reward is not None]
    mean = sum(given) / len(given) if given else 0.0
    scale = 1.0
    if kind == "mean_std" and len(given) > 1:
        scale = stdev(given) + _EPSILON
    elif kind == "reward_by_mean" and mean > 0:
        scale = mean
    return [0.0 if reward is None else (reward - mean) / scale for reward in rewards]
