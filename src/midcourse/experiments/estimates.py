"""Comparisons with intervals: a claim holds, does not hold, or the data cannot tell.

Samples of one problem hang together, so problems are resampled whole, and both sides of a
comparison are resampled together: a problem that both saw enters both, or neither. A claim holds
if the 95 % interval of the difference lies above zero, does not hold if it lies below, and is left
open in between.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeVar

from midcourse.metrics import Count, Interval, accuracy, bootstrap, pass_at_k, wilson
from midcourse.report.shape import ShapeLine

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K", bound=Hashable)

Clusters = Mapping[str, Sequence[T]]
"""By problem id, one item (a count, a number) of each run or text that belongs to it."""
Counts = Clusters[Count]
Statistic = Callable[[Sequence[T]], float]


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
    pairs = [(ours.get(p, ()), theirs.get(p, ())) for p in sorted(ours.keys() | theirs.keys())]

    def difference(drawn: Sequence[tuple[Sequence[T], Sequence[T]]]) -> float:
        left, right = (_joined(side) for side in zip(*drawn, strict=True))
        return statistic(left) - factor * statistic(right)

    found = bootstrap(pairs, difference)
    low, high = found.low - margins[0], found.high + margins[1]
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
    margins = factor * _upper_of_zero(theirs), _upper_of_zero(ours)
    line = more(claim, ours, theirs, accuracy, factor=factor, margins=margins)
    samples = (f"{sum(count.num_samples for count in flat(side)):,}" for side in (ours, theirs))
    return replace(line, figures=f"{line.figures}; n = {' and '.join(samples)}")


def _upper_of_zero(counts: Counts) -> float:
    """Return how high the share may be where nothing succeeded; 0 if anything did."""
    every = flat(counts)
    if any(count.num_correct for count in every):
        return 0.0
    return wilson(0, sum(count.num_samples for count in every)).high
