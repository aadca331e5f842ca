"""Comparisons with intervals: a claim holds, does not hold, or the data cannot tell.

Samples of one problem hang together, so problems are resampled whole, and both sides of a
comparison are resampled together: a problem that both saw enters both, or neither. A claim holds
if the 95 % interval of the difference lies above zero, does not hold if it lies below, and is left
open in between.

Where all problems agree a bootstrap has no width, however few they are. Wilson's interval over
problems then stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

from midcourse.metrics import Count, Interval, accuracy, bootstrap, mean, pass_at_k, wilson

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K", bound=Hashable)

Clusters = Mapping[str, Sequence[T]]
"""By problem id, one item (a count, a number) of each run or text that belongs to it."""
Counts = Clusters[Count]
Statistic = Callable[[Sequence[T]], float]

#: The margin of equivalence, as a share: a change is "nothing" if its whole interval lies within.
#: It is a choice: the three points that the lab's claim about a patch's cost has always allowed.
MARGIN = 0.03
#: Fewer problems can tell nothing at 5 %: if all five of five agree, a sign test gives 6 %.
MIN_PROBLEMS = 6
#: An interval that is narrower has no width but that of rounding.
_NO_WIDTH = 1e-9


@dataclass(frozen=True, slots=True)
class ShapeLine:
    """One expectation, e.g. "intervention ≥ 10 × original step": holds, with figures."""

    claim: str
    holds: bool | None
    """None: the data cannot tell."""
    figures: str

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "holds", False: "does not hold", None: "cannot tell"}[self.holds]


def grouped(items: Iterable[tuple[K, T]]) -> dict[K, list[T]]:
    """Return the items by what they are paired with, e.g. their problem."""
    found: dict[K, list[T]] = {}
    for key, item in items:
        found.setdefault(key, []).append(item)
    return found


def pool(runs: Iterable[Clusters[T]]) -> dict[str, list[T]]:
    """Join runs of several seeds; the same problem in two of them stays one cluster."""
    return grouped((p, item) for run in runs for p, items in run.items() for item in items)


def each(clusters: Clusters[T], function: Callable[[T], U]) -> dict[str, list[U]]:
    """Return what a function makes of every item."""
    return {problem_id: list(map(function, items)) for problem_id, items in clusters.items()}


def only(clusters: Clusters[T], chosen: Callable[[T], bool]) -> dict[str, list[T]]:
    """Return the items that are chosen; a problem without any is left out."""
    return grouped((p, item) for p, items in clusters.items() for item in items if chosen(item))


def flat(clusters: Clusters[T]) -> list[T]:
    """Return all items of all clusters."""
    return _joined(clusters.values())


def _joined(members: Iterable[Sequence[T]]) -> list[T]:
    return list(chain.from_iterable(members))


def covered(clusters: Counts) -> dict[str, list[Count]]:
    """Turn counts into one trial per problem and run: was any sample correct? (coverage)."""
    return each(clusters, lambda count: Count(1, int(count.is_solved)))


def passes(clusters: Counts, k: int) -> dict[str, list[float]]:
    """Turn counts into pass@k of each problem and run."""
    return each(clusters, lambda count: pass_at_k(count.num_samples, count.num_correct, k))


def estimate(clusters: Clusters[T], statistic: Statistic[T], num_resamples: int = 1000) -> Interval:
    """Return a statistic of all items with its interval, clusters resampled whole."""
    members = list(clusters.values())
    return bootstrap(members, lambda drawn: statistic(_joined(drawn)), num_resamples=num_resamples)


def by_place(counts: Sequence[T]) -> dict[str, list[T]]:
    """Return counts of a list of problems as clusters, for comparisons within one run."""
    return {str(place): [count] for place, count in enumerate(counts)}


def passed(counts: Counts, k: int, num_resamples: int = 1000) -> Interval:
    """Return mean pass@k with its interval, as `mean_share` makes it."""
    return mean_share(passes(counts, k), num_resamples)


def mean_share(shares: Clusters[float], num_resamples: int = 1000) -> Interval:
    """Return the mean of shares; its interval is Wilson's over problems where all are equal."""
    found, every = estimate(shares, mean, num_resamples), flat(shares)
    if len(set(every)) != 1:
        return found
    return wilson(every[0] * len(shares), len(shares))


def difference(
    ours: Clusters[T],
    theirs: Clusters[T],
    statistic: Statistic[T],
    *,
    factor: float = 1.0,
    margins: tuple[float, float] = (0.0, 0.0),
) -> Interval:
    """Return ``statistic(ours) − factor · statistic(theirs)``, problems resampled on both sides.

    `margins` widen the interval downward and upward.
    """
    pairs = [(ours.get(p, ()), theirs.get(p, ())) for p in sorted(ours.keys() | theirs.keys())]

    def apart(drawn: Sequence[tuple[Sequence[T], Sequence[T]]]) -> float:
        left, right = (_joined(side) for side in zip(*drawn, strict=True))
        return statistic(left) - factor * statistic(right)

    found = bootstrap(pairs, apart)
    return Interval(found.estimate, found.low - margins[0], found.high + margins[1])


def share_difference(
    ours: Clusters[T],
    theirs: Clusters[T],
    statistic: Statistic[T],
    margins: tuple[float, float] = (0.0, 0.0),
) -> Interval:
    """Return the difference of two shares; where resamples do not vary, as wide as Wilson's.

    Wilson's is over the problems of the side that has fewer.
    """
    found = difference(ours, theirs, statistic, margins=margins)
    if not found.high - found.low < _NO_WIDTH:
        return found
    size, num_problems = abs(found.estimate), min(len(ours), len(theirs))
    outer = wilson(size * num_problems, num_problems)
    ends = (outer.low, outer.high) if size else (-outer.high, outer.high)
    low, high = sorted(math.copysign(1, found.estimate) * end for end in ends)
    return Interval(found.estimate, low, high)


def mean_difference(ours: Clusters[float], theirs: Clusters[float]) -> Interval:
    """Return the difference of means of shares, e.g. of pass@k."""
    return share_difference(ours, theirs, mean)


def accuracy_of(counts: Counts, num_resamples: int = 1000) -> Interval:
    """Return an accuracy with its interval, Wilson's over samples where none or all are correct."""
    every = flat(counts)
    correct, samples = (sum(c.num_correct for c in every), sum(c.num_samples for c in every))
    return (
        wilson(correct, samples)
        if correct in (0, samples)
        else estimate(counts, accuracy, num_resamples)
    )


def unpaired_difference(ours: Interval, theirs: Interval) -> Interval:
    """Return the difference of two independent estimates.

    Their distances to the ends of the interval add up in squares.
    """
    below = math.hypot(ours.estimate - ours.low, theirs.high - theirs.estimate)
    above = math.hypot(ours.high - ours.estimate, theirs.estimate - theirs.low)
    middle = ours.estimate - theirs.estimate
    return Interval(middle, middle - below, middle + above)


def more(
    claim: str,
    ours: Clusters[T],
    theirs: Clusters[T],
    statistic: Statistic[T],
    *,
    factor: float = 1.0,
    tolerance: float | None = None,
    margins: tuple[float, float] = (0.0, 0.0),
    scale: float = 100.0,
    unit: str = " %",
) -> ShapeLine:
    """Return whether a statistic is larger for `ours` than `factor` times that for `theirs`.

    With a tolerance, in the statistic's own unit, whether the two differ by less. `margins` widen
    the interval downward and upward; `scale` and `unit` are for the words.
    """
    if not (flat(ours) and flat(theirs)):
        return ShapeLine(claim, None, "nothing to compare: one side has no items")
    found = difference(ours, theirs, statistic, factor=factor, margins=margins)
    low, high = found.low, found.high
    values = statistic(flat(ours)), statistic(flat(theirs)), found.estimate, low, high
    left, right, middle, lower, upper = (f"{scale * value:.3g}" for value in values)
    name = "difference" if factor == 1 else f"ours − {factor:g} × theirs"
    words = f"{left} against {right}{unit}; {name} {middle} [{lower}, {upper}]"
    is_above, is_below = low > (tolerance or 0), high < -(tolerance or 0)
    if tolerance is None:
        return ShapeLine(claim, True if is_above else False if is_below else None, words)
    is_close = -tolerance < low and high < tolerance
    holds = True if is_close else False if is_above or is_below else None
    return ShapeLine(claim, holds, f"{words}, tolerance {scale * tolerance:.3g}")


def more_accurate(claim: str, ours: Counts, theirs: Counts, factor: float = 1.0) -> ShapeLine:
    """Return whether `ours` succeeds more than `factor` times as often as `theirs`.

    Where nothing of one side succeeds its resamples are all zero; Wilson's bound, which knows the
    number of samples, then stands for it.
    """
    margins = accuracy_margins(ours, theirs, factor)
    line = more(claim, ours, theirs, accuracy, factor=factor, margins=margins)
    samples = (f"{sum(count.num_samples for count in flat(side)):,}" for side in (ours, theirs))
    return replace(line, figures=f"{line.figures}; n = {' and '.join(samples)}")


def accuracy_margins(ours: Counts, theirs: Counts, factor: float = 1.0) -> tuple[float, float]:
    """Return by how much an interval of accuracies widens where none or all of a side are correct.

    Downward and upward.
    """
    (lower, higher), (their_lower, their_higher) = _room(ours), _room(theirs)
    return lower + factor * their_higher, higher + factor * their_lower


def _room(counts: Counts) -> tuple[float, float]:
    """Return by how much a share may be lower where all are correct, and higher where none is."""
    every = flat(counts)
    correct, samples = (sum(c.num_correct for c in every), sum(c.num_samples for c in every))
    share = wilson(correct, samples)
    below = share.estimate - share.low if correct == samples else 0.0
    return below, 0.0 if correct else share.high
