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
from statistics import stdev
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


#: Normal points of a two-sided test at 5 % and of a power of 80 %.
_SIZE, _POWER = 1.959964, 0.841621


def runs_needed(differences: Sequence[float], effect: float) -> int | None:
    """Return the pairs of runs that would show a true difference of `effect` in 4 of 5 studies.

    By the spread of the differences seen, two-sided at 5 %; None with fewer than two. The added
    half squared normal point stands for t in place of the normal distribution (Guenther 1981).
    """
    if len(differences) < 2:
        return None
    spread = stdev(differences) / effect
    return max(3, math.ceil(((_SIZE + _POWER) * spread) ** 2 + _SIZE**2 / 2))
