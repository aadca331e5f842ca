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
from functools import cache
from itertools import product
from statistics import NormalDist, stdev, variance
from typing import NamedTuple, TypeVar

from midcourse.metrics import Interval, mean
from midcourse.report.estimates import Clusters, Statistic, flat

T = TypeVar("T")

#: With two runs an interval by t is 18 standard deviations wide: we give none.
MIN_RUNS = 3
#: The part of Student's t between the two ends of our intervals.
_INSIDE = 0.95

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


def over_runs(values: Sequence[float]) -> Interval:
    """Return the mean of one number of every run with its interval by Student's t.

    Its ends are NaN with fewer than `MIN_RUNS` runs, and where all agree: how far runs spread is
    then not known.
    """
    middle = mean(values)
    if len(values) < MIN_RUNS or len(set(values)) == 1:
        return Interval(middle, math.nan, math.nan)
    half = t_point(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(middle, middle - half, middle + half)


class ArmDifference(NamedTuple):
    """The difference of two arms' means over runs."""

    found: Interval
    n: int
    least: int
    """Fewer tell nothing."""
    unit: str
    """What `n` counts."""
    how: str


def difference_of_arms(ours: Mapping[int, float], theirs: Mapping[int, float]) -> ArmDifference:
    """Compare one number a run, by seed: pair by pair where enough seeds are common, else Welch."""
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) >= MIN_RUNS:
        found = over_runs([ours[seed] - theirs[seed] for seed in seeds])
        how = "Student's t over pairs of runs of one seed"
        return ArmDifference(found, len(seeds), MIN_RUNS, "pairs of runs", how)
    found, n = between_runs([*ours.values()], [*theirs.values()]), len(ours) + len(theirs)
    return ArmDifference(found, n, 2 * MIN_RUNS, "runs", "Welch's t over runs")


def between_runs(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Return the difference of the means of two sets of runs that are not paired, by Welch's t.

    Its ends are NaN if a side has fewer than `MIN_RUNS` runs, or if on both sides all agree.
    """
    middle = mean(ours) - mean(theirs)
    if min(len(ours), len(theirs)) < MIN_RUNS:
        return Interval(middle, math.nan, math.nan)
    left, right = (variance(side) / len(side) for side in (ours, theirs))
    if not left + right:
        return Interval(middle, math.nan, math.nan)
    each = left**2 / (len(ours) - 1) + right**2 / (len(theirs) - 1)
    half = t_point(int((left + right) ** 2 / each)) * math.sqrt(left + right)
    return Interval(middle, middle - half, middle + half)


@cache
def t_point(freedom: int) -> float:
    """Return the 97.5 % point of Student's t, by bisection of its distribution function."""
    low, high = 0.0, math.pi / 2
    while high - low > _TIE:
        middle = (low + high) / 2
        low, high = (low, middle) if _inside(middle, freedom) > _INSIDE else (middle, high)
    return math.sqrt(freedom) * math.tan(low)


def _inside(angle: float, freedom: int) -> float:
    """Return P(|t| < √freedom · tan angle): a finite sum (Abramowitz & Stegun 26.7.3-4)."""
    cosine, total = math.cos(angle), 0.0
    term = cosine if freedom % 2 else 1.0
    for k in range(freedom % 2, freedom - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if freedom % 2 else total


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
