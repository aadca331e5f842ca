"""What an experiment comes to, and the shapes that results share: claims, tables, panels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from midcourse.experiments import estimates
from midcourse.experiments.estimates import Clusters, Counts, T, estimate, flat, passes
from midcourse.experiments.runner import ExperimentRunner, Reading
from midcourse.metrics import Count, accuracy, mean
from midcourse.report.figures import panel
from midcourse.report.plots import Panel
from midcourse.report.shape import ShapeLine
from midcourse.report.tables import ACCURACY_COLUMNS, accuracy_cells
from midcourse.table import Table, share

PASS_NOTE = "Unbiased estimates; 95 % bootstrap over problems."
BOTH = "95 %: bootstrap over problems; Wilson."


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


# --- claims ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement that some counts are more accurate than others, by what they are called."""

    words: str
    ours: str
    theirs: str
    coverage: bool = False
    """Whether it is about problems with a correct continuation instead."""
    factor: float = 1.0
    tenth_of: str = ""
    """They differ by less than a tenth of the accuracy of this one instead."""


def judge(claims: Iterable[Claim], counts: Mapping[str, Counts]) -> list[ShapeLine]:
    """Return the verdicts on claims about counts."""
    return [_judged(claim, counts) for claim in claims]


def _judged(claim: Claim, counts: Mapping[str, Counts]) -> ShapeLine:
    ours, theirs = counts[claim.ours], counts[claim.theirs]
    if claim.tenth_of:
        tolerance = 0.1 * accuracy(flat(counts[claim.tenth_of]))
        return estimates.close(claim.words, ours, theirs, accuracy, tolerance)
    if claim.coverage:
        ours, theirs = estimates.covered(ours), estimates.covered(theirs)
    return estimates.more_accurate(claim.words, ours, theirs, claim.factor)


def above_others(
    words: str, best: str, counts: Mapping[str, Counts], ks: Sequence[int]
) -> list[ShapeLine]:
    """Return whether pass@k of the best is above the others'; `words` name {other} and {k}."""
    return [
        estimates.pass_more(words.format(other=name, k=k), counts[best], found, k)
        for name, found in counts.items()
        if name != best
        for k in ks
    ]


# --- rows of counts ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of continuations, and where its counts come from."""

    cells: tuple[str, ...]
    """What it is called, what it is, the paper's figures."""
    recipe: str
    reading: Reading[Counts]


def read_rows(runner: ExperimentRunner, rows: Iterable[Row]) -> dict[str, dict[str, list[Count]]]:
    """Return the counts of rows by name, those that the scale has a model for."""
    return runner.pooled(
        {row.cells[0]: (row.recipe, row.reading) for row in rows if runner.has(row.recipe)}
    )


def compared(
    runner: ExperimentRunner,
    *,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    claims: Sequence[Claim],
    note: str = BOTH,
) -> Result:
    """Make a table of rows, and the verdicts on claims about them."""
    counts = read_rows(runner, rows)
    missing = [row.cells[0] for row in rows if row.cells[0] not in counts]
    note += "".join(f" The scale names no proposer for row {name}." for name in missing)
    found = ((row.cells, counts[row.cells[0]]) for row in rows if row.cells[0] in counts)
    table = accuracy_table(title, columns, found, note)
    left = [claim for claim in claims if claim.ours in counts and claim.theirs in counts]
    return Result(tables=[table], claims=judge(left, counts))


def accuracy_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[tuple[Sequence[str], Counts]],
    note: str = BOTH,
) -> Table:
    """Return coverage and accuracy with both intervals; `columns` head each row's own cells."""
    cells = tuple(
        (*own, *accuracy_cells(flat(counts), estimate(counts, accuracy))) for own, counts in rows
    )
    return Table(title, (*columns, *ACCURACY_COLUMNS), cells, note)


# --- pass@k ------------------------------------------------------------------------------------


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
    return Table(title, columns, tuple(rows), PASS_NOTE)


def pass_panel(title: str, models: Mapping[str, Counts], ks: Sequence[int]) -> Panel:
    """Return pass@k by model and k."""
    curves = {name: {k: passes(counts, k) for k in ks} for name, counts in models.items()}
    y = partial(estimate, statistic=mean, num_resamples=500)
    return panel(curves, y, ("k", "pass@k, %"), title=title, log_x=True)


# --- cells and panels of single values ---------------------------------------------------------


def pass_cell(counts: Counts, k: int, num_resamples: int = 1000) -> str:
    """Return pass@k in per cent with its interval."""
    return share(estimate(passes(counts, k), mean, num_resamples), 1)


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


def named_table(title: str, rows: Sequence[Mapping[str, str]], note: str) -> Table:
    """Return rows, each cell under the name of its column, as a table."""
    return Table(title, tuple(rows[0]), tuple(tuple(row.values()) for row in rows), note)
