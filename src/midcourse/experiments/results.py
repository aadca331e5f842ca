"""What an experiment comes to, and the shapes that results share: panels, tables, claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from midcourse.experiments.estimates import (
    Clusters,
    Statistic,
    covered,
    estimate,
    flat,
    mean,
    more_accurate,
    passes,
)
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count, Interval, accuracy, coverage, wilson
from midcourse.report.figures import percent
from midcourse.report.plots import Panel, Point, Series
from midcourse.report.shape import ShapeLine
from midcourse.table import Table, share

T = TypeVar("T")
X = TypeVar("X", int, str)

Counts = Clusters[Count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one experiment over all seeds."""

    tables: Sequence[Table] = ()
    claims: Sequence[ShapeLine]
    """What the paper says, and whether it holds here."""
    panels: Sequence[Panel] = ()
    """Its figure."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One table, figure or analysis, e.g. ``table1``."""

    name: str
    title: str
    make: Callable[[ExperimentRunner], Result]
    recipes: Sequence[str] = ("int",)
    """The recipes of ``paper/`` that it opens."""
    needs_lab: bool = False
    """Whether it asks for the true first error, which only the lab knows."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement that some counts are more accurate than others, by what they are called."""

    words: str
    ours: str
    theirs: str
    coverage: bool = False
    """Whether it is about problems with a correct continuation instead."""
    factor: float = 1.0


def judge(claims: Iterable[Claim], counts: Mapping[str, Counts]) -> list[ShapeLine]:
    """Return the verdicts on claims about counts."""
    lines = []
    for claim in claims:
        sides = [counts[claim.ours], counts[claim.theirs]]
        ours, theirs = map(covered, sides) if claim.coverage else sides
        lines.append(more_accurate(claim.words, ours, theirs, claim.factor))
    return lines


def panel(
    curves: Mapping[str, Mapping[X, Clusters[T]]],
    statistic: Statistic[T],
    labels: tuple[str, str],
    *,
    title: str = "",
    kind: Literal["line", "bar"] = "line",
    log_x: bool = False,
    shown: Callable[[Interval], Interval] = percent,
    units: Callable[[Clusters[T]], int] = len,
    num_resamples: int = 1000,
) -> Panel:
    """Return a statistic with its interval by series and x; `labels` are those of x and y."""
    series = []
    for name, curve in curves.items():
        points = [
            Point(x, shown(estimate(found, statistic, num_resamples)), units(found))
            for x, found in curve.items()
        ]
        series.append(Series(name, tuple(points)))
    x_label, y_label = labels
    return Panel(
        title=title, x_label=x_label, y_label=y_label, series=tuple(series), kind=kind, log_x=log_x
    )


def pass_panel(title: str, models: Mapping[str, Counts], ks: Sequence[int]) -> Panel:
    """Return pass@k by model and k."""
    curves = {name: {k: passes(counts, k) for k in ks} for name, counts in models.items()}
    labels = ("k", "pass@k, %")
    return panel(curves, mean, labels, title=title, log_x=True, num_resamples=500)


def text_bars(
    values: Mapping[str, Mapping[str, Clusters[float]]], labels: tuple[str, str], title: str = ""
) -> Panel:
    """Return means over texts by series and tick, as they are."""
    return panel(values, mean, labels, title=title, kind="bar", shown=lambda y: y, units=num_items)


def text_cells(values: Clusters[float]) -> tuple[str, str]:
    """Return the number of texts, and their mean with its interval."""
    y = estimate(values, mean)
    return str(num_items(values)), f"{y.estimate:.3f} [{y.low:.3f}, {y.high:.3f}]"


def usable_ks(models: Mapping[str, Counts]) -> list[int]:
    """Return the powers of two that every problem's samples support."""
    limit = min(count.num_samples for counts in models.values() for count in flat(counts))
    return [2**i for i in range(limit.bit_length())]


def num_items(clusters: Clusters[T]) -> int:
    """Return how many items there are, of all problems together."""
    return len(flat(clusters))


def pass_cell(counts: Counts, k: int, num_resamples: int = 1000) -> str:
    """Return pass@k in per cent with its interval."""
    return share(estimate(passes(counts, k), mean, num_resamples), 1)


def mean_cell(values: Clusters[float]) -> str:
    """Return a mean of shares in per cent with its interval."""
    return share(estimate(values, mean), 1)


def named_table(title: str, rows: Sequence[Mapping[str, str]], note: str) -> Table:
    """Return rows, each cell under the name of its column, as a table."""
    return Table(title, tuple(rows[0]), tuple(tuple(row.values()) for row in rows), note)


def pass_table(title: str, models: Mapping[str, Counts], ks: Sequence[int]) -> Table:
    """Return pass@k, one row per model."""
    rows = []
    for name, counts in models.items():
        samples = sum(count.num_samples for count in flat(counts))
        cells = (pass_cell(counts, k, 500) for k in ks)
        rows.append((name, str(num_items(counts)), f"{samples:,}", *cells))
    columns = ("model", "problems", "samples", *(f"pass@{k} %" for k in ks))
    return Table(title, columns, tuple(rows), "Unbiased estimates; 95 % bootstrap over problems.")


def accuracy_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[tuple[Sequence[str], Counts]],
    note: str = "95 %: bootstrap over problems; Wilson.",
) -> Table:
    """Return coverage and accuracy with both intervals; `columns` head each row's own cells."""
    cells = tuple((*own, *_accuracy_cells(counts)) for own, counts in rows)
    ours = ("coverage", "correct", "accuracy %, by problem", "accuracy %, Wilson")
    return Table(title, (*columns, *ours), cells, note)


def _accuracy_cells(counts: Counts) -> tuple[str, ...]:
    every = flat(counts)
    correct, samples = sum(c.num_correct for c in every), sum(c.num_samples for c in every)
    shares = share(estimate(counts, accuracy)), share(wilson(correct, samples))
    return (f"{coverage(every)}/{len(every)}", f"{correct:,}/{samples:,}", *shares)
