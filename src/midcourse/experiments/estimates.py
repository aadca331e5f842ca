"""Comparisons with intervals: a claim holds, does not hold, or the data cannot tell.

Samples of one problem hang together, so problems are resampled whole, and both sides of a
comparison are resampled together: a problem that both saw enters both, or neither. A claim holds
if the 95 % interval of the difference lies above zero, does not hold if it lies below, and is left
open in between.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from midcourse.metrics import Count, Interval, accuracy, bootstrap, mean, pass_at_k, wilson
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


def _difference(
    ours: Clusters[T], theirs: Clusters[T], statistic: Statistic[T], factor: float = 1.0
) -> Interval:
    """Return ours − factor × theirs, over the problems of both resampled together."""
    pairs = [(ours.get(p, ()), theirs.get(p, ())) for p in sorted(ours.keys() | theirs.keys())]

    def difference(drawn: Sequence[tuple[Sequence[T], Sequence[T]]]) -> float:
        left, right = (_joined(side) for side in zip(*drawn, strict=True))
        return statistic(left) - factor * statistic(right)

    return bootstrap(pairs, difference)


def _verdict(found: Interval) -> bool | None:
    return True if found.low > 0 else False if found.high < 0 else None


def _words(
    ours: Clusters[T],
    theirs: Clusters[T],
    statistic: Statistic[T],
    found: Interval,
    *,
    scale: float = 100.0,
    unit: str = " %",
    name: str = "difference",
) -> str:
    values = statistic(flat(ours)), statistic(flat(theirs)), found.estimate, found.low, found.high
    left, right, difference, low, high = (f"{scale * value:.3g}" for value in values)
    return f"{left} against {right}{unit}; {name} {difference} [{low}, {high}]"


def more(
    claim: str,
    ours: Clusters[T],
    theirs: Clusters[T],
    statistic: Statistic[T],
    *,
    scale: float = 100.0,
    unit: str = " %",
) -> ShapeLine:
    """Return whether a statistic is larger for `ours`; `scale` and `unit` are for the words."""
    found = _difference(ours, theirs, statistic)
    words = _words(ours, theirs, statistic, found, scale=scale, unit=unit)
    return ShapeLine(claim, _verdict(found), words)


def pass_more(claim: str, ours: Counts, theirs: Counts, k: int) -> ShapeLine:
    """Return whether pass@k is larger for `ours`."""
    return more(claim, passes(ours, k), passes(theirs, k), mean)


def more_accurate(claim: str, ours: Counts, theirs: Counts, factor: float = 1.0) -> ShapeLine:
    """Return whether `ours` succeeds more than `factor` times as often as `theirs`.

    Where nothing of one side succeeds its resamples are all zero; Wilson's bound, which knows the
    number of samples, then stands for it.
    """
    found = _difference(ours, theirs, accuracy, factor)
    low, high = found.low - factor * _upper_of_zero(theirs), found.high + _upper_of_zero(ours)
    found = Interval(found.estimate, low, high)
    name = "difference" if factor == 1 else f"ours − {factor:g} × theirs"
    words = _words(ours, theirs, accuracy, found, name=name)
    samples = [f"{sum(c.num_samples for c in flat(side)):,}" for side in (ours, theirs)]
    return ShapeLine(claim, _verdict(found), f"{words}; n = {' and '.join(samples)}")


def _upper_of_zero(counts: Counts) -> float:
    """Return how high the share may be where nothing succeeded; 0 if anything did."""
    every = flat(counts)
    if any(count.num_correct for count in every):
        return 0.0
    return wilson(0, sum(count.num_samples for count in every)).high


def close(
    claim: str,
    ours: Clusters[T],
    theirs: Clusters[T],
    statistic: Statistic[T],
    tolerance: float,
    *,
    scale: float = 100.0,
    unit: str = " %",
) -> ShapeLine:
    """Return whether the two differ by less than `tolerance` (in the statistic's own unit)."""
    found = _difference(ours, theirs, statistic)
    is_apart = found.low > tolerance or found.high < -tolerance
    is_close = -tolerance < found.low and found.high < tolerance
    words = _words(ours, theirs, statistic, found, scale=scale, unit=unit)
    holds = True if is_close else False if is_apart else None
    return ShapeLine(claim, holds, f"{words}, tolerance {scale * tolerance:.3g}")
