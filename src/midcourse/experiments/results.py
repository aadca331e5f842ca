"""What an experiment comes to, and the shapes that results share: claims, tables, panels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from midcourse.experiments.catalogue import Claim, Experiment, Head, Measure
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import accuracy, mean
from midcourse.report import estimates
from midcourse.report.estimates import (
    Clusters,
    Counts,
    ShapeLine,
    T,
    estimate,
    flat,
    mean_share,
    passed,
    passes,
)
from midcourse.report.figures import panel
from midcourse.report.plots import Panel
from midcourse.report.tables import ACCURACY_COLUMNS, accuracy_cells
from midcourse.table import Table, share


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one experiment over all seeds."""

    tables: Sequence[Table] = ()
    claims: Sequence[ShapeLine]
    """What the paper says, and whether it holds here."""
    panels: Sequence[Panel] = ()
    """Its figure."""


Maker = Callable[[ExperimentRunner, Experiment], Result]


def judge(
    claims: Iterable[Claim],
    found: Mapping[str, Clusters[Any]],
    ks: Sequence[int] = (),
    *,
    others: Iterable[str] = (),
    on: str = "",
) -> list[ShapeLine]:
    """Return the verdicts on claims about counts or values; `others` are all rows by default."""
    lines = []
    for claim in claims:
        rest = [name for name in others or found if name != claim.ours]
        for name in [claim.theirs] if claim.theirs else rest:
            is_passed = claim.measure is Measure.PASS_AT_K and not claim.k
            for k in ks if is_passed else [claim.k]:
                words = claim.words.format(other=name, k=k, on=on)
                lines.append(_judged(replace(claim, words=words, theirs=name, k=k), found))
    return lines


def _judged(claim: Claim, found: Mapping[str, Clusters[Any]]) -> ShapeLine:
    ours, theirs, measure = found[claim.ours], found[claim.theirs], claim.measure
    if measure is Measure.PASS_AT_K:
        ours, theirs = passes(ours, claim.k), passes(theirs, claim.k)
    if measure is Measure.COVERAGE:
        ours, theirs = estimates.covered(ours), estimates.covered(theirs)
    is_mean = measure in (Measure.MEAN, Measure.PASS_AT_K)
    if not is_mean and not claim.within:
        return estimates.more_accurate(claim.words, ours, theirs, claim.factor)
    statistic = mean if is_mean else accuracy
    tolerance = claim.within * statistic(flat(found[claim.of])) if claim.within else None
    scale, unit = 100.0 if claim.unit == " %" else 1.0, claim.unit
    return estimates.more(
        claim.words, ours, theirs, statistic, tolerance=tolerance, scale=scale, unit=unit
    )


def accuracy_table(head: Head, rows: Iterable[tuple[Sequence[str], Counts]]) -> Table:
    """Return coverage and accuracy with both intervals next to each row's own cells."""
    cells = [
        (*own, *accuracy_cells(flat(counts), estimate(counts, accuracy))) for own, counts in rows
    ]
    return replace(head, columns=(*head.columns, *ACCURACY_COLUMNS)).table(*cells)


def usable_ks(models: Mapping[str, Counts]) -> list[int]:
    """Return the powers of two that every problem's samples support."""
    limit = min(count.num_samples for counts in models.values() for count in flat(counts))
    return [2**i for i in range(limit.bit_length())]


def pass_table(title: str, models: Mapping[str, Counts], ks: Sequence[int]) -> Table:
    """Return pass@k, one row per model."""
    rows = []
    for name, counts in models.items():
        samples = sum(count.num_samples for count in flat(counts))
        cells = (pass_cell(counts, k, 500) for k in ks)
        rows.append((name, str(num_items(counts)), f"{samples:,}", *cells))
    columns = ("model", "problems", "samples", *(f"pass@{k} %" for k in ks))
    return Table(title, columns, tuple(rows), "Unbiased estimates; 95 % bootstrap over problems.")


def pass_panel(title: str, models: Mapping[str, Counts], ks: Sequence[int]) -> Panel:
    """Return pass@k by model and k."""
    curves = {name: {k: passes(counts, k) for k in ks} for name, counts in models.items()}
    y = partial(mean_share, num_resamples=500)
    return panel(curves, y, ("k", "pass@k, %"), title=title, log_x=True)


def pass_cell(counts: Counts, k: int, num_resamples: int = 1000) -> str:
    """Return pass@k in per cent with its interval."""
    return share(passed(counts, k, num_resamples), 1)


def mean_cell(values: Clusters[float]) -> str:
    """Return a mean of shares in per cent with its interval."""
    return share(estimate(values, mean), 1)


def num_items(clusters: Clusters[T]) -> int:
    """Return how many items there are, of all problems together."""
    return len(flat(clusters))


def text_cells(values: Clusters[float], digits: int = 3) -> tuple[str, str]:
    """Return the number of texts, and their mean with its interval."""
    y = estimate(values, mean)
    low, high = f"{y.low:.{digits}f}", f"{y.high:.{digits}f}"
    return str(num_items(values)), f"{y.estimate:.{digits}f} [{low}, {high}]"


def text_bars(
    values: Mapping[str, Mapping[str, Clusters[float]]], labels: tuple[str, str], title: str = ""
) -> Panel:
    """Return means over texts by series and tick, as they are."""
    y = partial(estimate, statistic=mean)
    return panel(values, y, labels, title=title, kind="bar", scale=1, units=num_items)
