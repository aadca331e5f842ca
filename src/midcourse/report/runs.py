"""Comparisons whose unit is a training run: what a claim about a method of training rests on.

Runs of one recipe differ by their seed, and by more than the problems of one run tell: five runs
of RL from one checkpoint ended at 30 to 47 % pass@1. So a run gives one number. Two arms are
compared on the seeds that both have, pair by pair, since arms of a seed share problems, hard set
and the base's rollouts.

- The interval is Student's t over the differences of pairs.
- The p-value is that of an exact sign-flip test (Fisher's randomisation test for pairs): under the
  null each difference is as likely with the other sign. With n pairs it is at least 2 / 2^n, so
  that fewer than six runs never reach 5 %.
- The hierarchical bootstrap resamples seeds first and the problems of each second; it is printed
  next to the interval by t, and is too narrow with few runs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist, stdev
from typing import TypeVar

from midcourse.metrics import Interval, mean
from midcourse.report.estimates import Clusters, Statistic, flat, over_runs

T = TypeVar("T")

Runs = Mapping[int, Clusters[T]]
"""By seed, what one training run came to: items by problem."""
#: Above so many pairs, signs are drawn instead of all being tried.
_MAX_EXACT = 14
_NUM_DRAWN = 20_000
#: Sums that agree to rounding are ties.
_TIE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two arms, run against run; numbers are in the statistic's own unit."""

    seeds: tuple[int, ...]
    """Those that both arms have."""
    ours: tuple[float, ...]
    """One number a run, in the order of `seeds`."""
    theirs: tuple[float, ...]
    difference: Interval
    """Mean of ours − theirs over pairs, with the 95 % interval by t; its ends are NaN with fewer
    than three runs."""
    resampled: Interval
    """The same difference with the interval of the hierarchical bootstrap."""
    p_value: float
    """Two-sided, exact sign-flip; 1 without pairs."""

    @property
    def differences(self) -> tuple[float, ...]:
        """Ours − theirs, by seed."""
        return tuple(a - b for a, b in zip(self.ours, self.theirs, strict=True))


def compare_runs(
    ours: Runs[T], theirs: Runs[T], statistic: Statistic[T], *, num_resamples: int = 1000
) -> Comparison:
    """Compare a statistic of two arms on the seeds that both have."""
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    left = tuple(statistic(flat(ours[seed])) for seed in seeds)
    right = tuple(statistic(flat(theirs[seed])) for seed in seeds)
    pairs = [(ours[seed], theirs[seed]) for seed in seeds]
    apart = [a - b for a, b in zip(left, right, strict=True)]
    return Comparison(
        seeds=seeds,
        ours=left,
        theirs=right,
        difference=over_runs(apart),
        resampled=_resampled(pairs, statistic, mean(apart), num_resamples),
        p_value=sign_flip(apart),
    )


def compare_values(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Comparison:
    """Compare one number a run (an area under a curve, an entropy), problems not resampled."""
    left, right = ({s: {"run": [value]} for s, value in of.items()} for of in (ours, theirs))
    return compare_runs(left, right, mean)


def sign_flip(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the sign-flip test on the mean of paired differences."""
    observed = abs(sum(differences))
    if not differences:
        return 1.0
    if len(differences) <= _MAX_EXACT:
        signs = list(product((1, -1), repeat=len(differences)))
    else:
        rng = random.Random(0)
        signs = [tuple(rng.choices((1, -1), k=len(differences))) for _ in range(_NUM_DRAWN)]
    sums = (sum(s * d for s, d in zip(drawn, differences, strict=True)) for drawn in signs)
    as_far = sum(abs(total) >= observed - _TIE for total in sums)
    # Drawn signs: the observed ones count as a draw, so that p is never 0.
    drawn_too = len(differences) > _MAX_EXACT
    return (as_far + drawn_too) / (len(signs) + drawn_too)


def _resampled(
    pairs: Sequence[tuple[Clusters[T], Clusters[T]]],
    statistic: Statistic[T],
    middle: float,
    num_resamples: int,
) -> Interval:
    """Return the hierarchical bootstrap's interval: seeds, then the problems of each."""
    if not pairs:
        return Interval(math.nan, math.nan, math.nan)
    rng = random.Random(0)
    drawn = sorted(
        mean([_redrawn(rng, *rng.choice(pairs), statistic) for _ in pairs])
        for _ in range(num_resamples)
    )
    low, high = drawn[int(0.025 * len(drawn))], drawn[max(0, int(0.975 * len(drawn)) - 1)]
    return Interval(middle, low, high)


def _redrawn(
    rng: random.Random, ours: Clusters[T], theirs: Clusters[T], statistic: Statistic[T]
) -> float:
    """Return the difference within one seed, its problems drawn again, on both sides the same."""
    problems = sorted(ours.keys() | theirs.keys())
    drawn = rng.choices(problems, k=len(problems))
    left, right = ([item for p in drawn for item in side.get(p, ())] for side in (ours, theirs))
    return statistic(left) - statistic(right)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the given order: at most 5 % of any false claim."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


@dataclass(frozen=True, slots=True)
class Judged:
    """Which way the runs point, and how sure that is before any correction."""

    supports: bool
    """Whether they point the way of the claim."""
    p_value: float
    """Two-sided, of the way in which they point."""


def judge_all(arms: Sequence[Sequence[float]], within: float = 0.0) -> Judged:
    """Judge that ours is above every other arm, or within a margin of each, by its differences.

    That it is takes every arm, so its p-value is the largest. That it is not takes one, so there
    the smallest counts, times the number of arms. A margin takes two tests, one at either end.
    """
    every = [_judge(differences, within) for differences in arms]
    against = [one.p_value for one in every if not one.supports]
    if against:
        return Judged(False, min(1.0, len(every) * min(against)))
    return Judged(True, max(one.p_value for one in every))


def _judge(differences: Sequence[float], within: float) -> Judged:
    middle = mean(differences)
    if not within:
        return Judged(middle > 0, sign_flip(differences))
    ends = [sign_flip([d - end for d in differences]) for end in (-within, within)]
    if abs(middle) < within:
        return Judged(True, max(ends))
    return Judged(False, ends[middle > 0])


#: The share of studies that are to show a true difference.
_POWER = 0.8


def runs_needed(differences: Sequence[float], effect: float, size: float = 0.05) -> int | None:
    """Return the pairs of runs that would show a true difference of `effect` in 4 of 5 studies.

    By the spread of the differences seen, two-sided at `size`; None with fewer than two. The added
    half squared normal point stands for t in place of the normal distribution (Guenther 1981). So
    few pairs that an exact sign-flip test cannot reach `size` are never enough.
    """
    if len(differences) < 2:
        return None
    point = NormalDist().inv_cdf(1 - size / 2)
    spread = stdev(differences) / effect
    wanted = math.ceil(((point + NormalDist().inv_cdf(_POWER)) * spread) ** 2 + point**2 / 2)
    return max(wanted, math.ceil(1 - math.log2(size)))
