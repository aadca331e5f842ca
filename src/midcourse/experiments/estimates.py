"""Comparisons with intervals: a claim holds, does not hold, or the data cannot tell.

Samples of one problem hang together, so problems are resampled whole, and both sides of a
comparison are resampled together: a problem that both saw enters both, or neither. A claim holds
if the 95 % interval of the difference lies above zero, does not hold if it lies below, and is left
open in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from midcourse.metrics import Count, Interval, accuracy, bootstrap, pass_at_k, wilson
from midcourse.report.shape import ShapeLine

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K", bound=Hashable)

Clusters = Mapping[str, Sequence[T]]
"""By problem id, one item (a count, a number) of each run or text that belongs to it."""
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
    return {
        problem_id: [function(item) for item in items] for problem_id, items in clusters.items()
    }


def only(clusters: Clusters[T], chosen: Callable[[T], bool]) -> dict[str, list[T]]:
    """Return the items that are chosen; a problem without any is left out."""
    return grouped((p, item) for p, items in clusters.items() for item in items if chosen(item))


def flat(clusters: Clusters[T]) -> list[T]:
    """Return all items of all clusters."""
    return _concatenated(clusters.values())


def _concatenated(members: Iterable[Sequence[T]]) -> list[T]:
    return [item for member in members for item in member]


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def covered(clusters: Clusters[Count]) -> dict[str, list[Count]]:
    """Turn counts into one trial per problem and run: was any sample correct? (coverage)."""
    return each(clusters, lambda count: Count(1, int(count.is_solved)))


def passes(clusters: Clusters[Count], k: int) -> dict[str, list[float]]:
    """Turn counts into pass@k of each problem and run."""
    return each(clusters, lambda count: pass_at_k(count.num_samples, count.num_correct, k))


def estimate(clusters: Clusters[T], statistic: Statistic[T], num_resamples: int = 1000) -> Interval:
    """Return a statistic of all items with its interval, clusters resampled whole."""
    members = list(clusters.values())
    return bootstrap(
        members, lambda drawn: statistic(_concatenated(drawn)), num_resamples=num_resamples
    )


def _difference(
    ours: Clusters[T], theirs: Clusters[T], statistic: Statistic[T], factor: float
) -> Interval:
    """Return ours − factor × theirs, over the problems of both resampled together."""
    pairs = [(ours.get(p, ()), theirs.get(p, ())) for p in sorted(ours.keys() | theirs.keys())]

    def difference(drawn: Sequence[tuple[Sequence[T], Sequence[T]]]) -> float:
        left = _concatenated(a for a, _ in drawn)
        right = _concatenated(b for _, b in drawn)
        return statistic(left) - factor * statistic(right)

    return bootstrap(pairs, difference)


def _verdict(interval: Interval) -> bool | None:
    if interval.low > 0:
        return True
    return False if interval.high < 0 else None


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
    found = _difference(ours, theirs, statistic, 1.0)
    values = scale * statistic(flat(ours)), scale * statistic(flat(theirs))
    return ShapeLine(claim, _verdict(found), _words(values, found, scale, unit))


def _words(values: tuple[float, float], found: Interval, scale: float, unit: str) -> str:
    return (
        f"{values[0]:.3g} against {values[1]:.3g}{unit}; difference "
        f"{scale * found.estimate:.3g} [{scale * found.low:.3g}, {scale * found.high:.3g}]"
    )


def pass_more(claim: str, ours: Clusters[Count], theirs: Clusters[Count], k: int) -> ShapeLine:
    """Return whether pass@k is larger for `ours`."""
    return more(claim, passes(ours, k), passes(theirs, k), mean)


def more_accurate(
    claim: str, ours: Clusters[Count], theirs: Clusters[Count], factor: float = 1.0
) -> ShapeLine:
    """Return whether `ours` succeeds more than `factor` times as often as `theirs`.

    Where nothing of one side succeeds its resamples are all zero; Wilson's bound, which knows the
    number of samples, then stands for it.
    """
    found = _difference(ours, theirs, accuracy, factor)
    bound, other = _upper_of_zero(theirs), _upper_of_zero(ours)
    low = found.low if bound is None else min(found.low, found.low - factor * bound)
    high = found.high if other is None else max(found.high, found.high + other)
    values = 100 * accuracy(flat(ours)), 100 * accuracy(flat(theirs))
    widened = Interval(found.estimate, low, high)
    name = "difference" if factor == 1 else f"ours − {factor:g} × theirs"
    words = _words(values, widened, 100, " %").replace("difference", name)
    samples = [sum(c.num_samples for c in flat(side)) for side in (ours, theirs)]
    return ShapeLine(claim, _verdict(widened), f"{words}; n = {samples[0]:,} and {samples[1]:,}")


def _upper_of_zero(clusters: Clusters[Count]) -> float | None:
    counts = flat(clusters)
    if any(count.num_correct for count in counts):
        return None
    return wilson(0, sum(count.num_samples for count in counts)).high


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
    found = _difference(ours, theirs, statistic, 1.0)
    if -tolerance < found.low and found.high < tolerance:
        holds: bool | None = True
    else:
        holds = False if found.low > tolerance or found.high < -tolerance else None
    values = scale * statistic(flat(ours)), scale * statistic(flat(theirs))
    words = f"{_words(values, found, scale, unit)}, tolerance {scale * tolerance:.3g}"
    return ShapeLine(claim, holds, words)
