"""Pure numbers: pass@k, coverage, accuracy, group shares, and their intervals.

Nothing here clamps or guesses: a k that the samples cannot support is an error, and a count that
could not be graded never enters as a zero (callers leave it out and show it).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from midcourse.records import GroupCount

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Count:
    """Graded samples of one problem, e.g. ``Count(num_samples=32, num_correct=3)``."""

    num_samples: int
    num_correct: int

    @property
    def is_solved(self) -> bool:
        """Whether any sample is correct."""
        return self.num_correct > 0


@dataclass(frozen=True, slots=True)
class StoppedCount:
    """Samples of one problem that were drawn until the first correct one.

    That rule favours the correct: a share of such a count overstates the chance of success. So it
    has no ``num_samples``, and only `coverage` takes it.
    """

    num_drawn: int
    is_solved: bool


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval; all three are NaN where there is nothing to estimate."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class GroupShares:
    """How GRPO groups fell, as shares that sum to 1; Fig. 11's zero-advantage is `none_correct`."""

    none_correct: float
    mixed: float
    all_correct: float
    num_groups: int


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the unbiased estimate 1 − C(n−c, k) / C(n, k) as a product, stable for any n.

    Raises ValueError if k is not in 1 … n, or c not in 0 … n: too few samples are an error,
    never a clamp.
    """
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"num_correct={num_correct} is not within 0 … num_samples={num_samples}")
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} needs k within 1 … num_samples={num_samples}")
    if num_samples - num_correct < k:
        return 1.0
    failing = math.prod(1.0 - k / i for i in range(num_samples - num_correct + 1, num_samples + 1))
    return 1.0 - failing


def mean_pass_at_k(counts: Sequence[Count], k: int) -> float:
    """Return the mean over problems of pass@k; NaN without problems."""
    return mean([pass_at_k(count.num_samples, count.num_correct, k) for count in counts])


def coverage(counts: Sequence[Count] | Sequence[StoppedCount]) -> int:
    """Return the number of problems with at least one correct sample (Table 1)."""
    return sum(count.is_solved for count in counts)


def accuracy(counts: Sequence[Count]) -> float:
    """Return correct samples per graded sample over all problems (Table 1); NaN without any."""
    total = sum(count.num_samples for count in counts)
    return sum(count.num_correct for count in counts) / total if total else math.nan


def count_of(group: GroupCount) -> Count:
    """Return the graded and the correct rollouts of a group."""
    return Count(group.num_correct + group.num_incorrect, group.num_correct)


def group_shares(groups: Sequence[Count]) -> GroupShares:
    """Return the shares of groups with none, some and all correct; groups of 0 are left out."""
    kinds = [
        "none" if not g.num_correct else "all" if g.num_correct == g.num_samples else "mixed"
        for g in groups
        if g.num_samples
    ]
    if not kinds:
        return GroupShares(math.nan, math.nan, math.nan, 0)
    none, mixed, full = (kinds.count(kind) / len(kinds) for kind in ("none", "mixed", "all"))
    return GroupShares(none, mixed, full, len(kinds))


def bootstrap(
    counts: Sequence[T],
    statistic: Callable[[Sequence[T]], float],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return `statistic` with its 95 % percentile interval, resampling whole problems.

    `counts` hold one entry per problem, as samples of one are not independent. Where all agree the
    interval has no width: show `wilson` too. Resamples without a value (NaN) are left out.
    """
    if not counts:
        return Interval(math.nan, math.nan, math.nan)
    rng = random.Random(seed)
    drawn = (statistic(rng.choices(counts, k=len(counts))) for _ in range(num_resamples))
    values = sorted(value for value in drawn if not math.isnan(value)) or [math.nan]
    low, high = values[int(0.025 * len(values))], values[max(0, int(0.975 * len(values)) - 1)]
    return Interval(statistic(counts), low, high)


def paired_difference(
    before: Sequence[Count],
    after: Sequence[Count],
    statistic: Callable[[Sequence[Count]], float],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return ``statistic(after) − statistic(before)`` with its interval, over pairs of problems.

    Raises ValueError if their lengths differ.
    """

    def difference(drawn: Sequence[tuple[Count, Count]]) -> float:
        return statistic([b for _, b in drawn]) - statistic([a for a, _ in drawn])

    pairs = list(zip(before, after, strict=True))
    return bootstrap(pairs, difference, num_resamples=num_resamples, seed=seed)


def wilson(num_correct: float, num_samples: int) -> Interval:
    """Return a share with its 95 % Wilson interval: wider than zero where nothing succeeded.

    `num_correct` may be a sum of shares, e.g. of pass@k over `num_samples` problems.
    """
    if not num_samples:
        return Interval(math.nan, math.nan, math.nan)
    z, share = 1.959964, num_correct / num_samples
    denominator = 1 + z * z / num_samples
    centre = (share + z * z / (2 * num_samples)) / denominator
    spread = share * (1 - share) / num_samples + z * z / (4 * num_samples**2)
    half = z * math.sqrt(spread) / denominator
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan
