"""What an experiment comes to, and the shapes that results share: claims, tables, panels.

What is trained is judged run by run: each gives one number, and arms are compared on the seeds that
both have (`midcourse.report.runs`). What one model is asked is judged over problems.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from midcourse.experiments.catalogue import Claim, Experiment, Head, Measure
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Interval, accuracy, mean
from midcourse.report import estimates
from midcourse.report.estimates import (
    MARGIN,
    Clusters,
    Counts,
    ShapeLine,
    Statistic,
    T,
    accuracy_of,
    estimate,
    flat,
    mean_share,
    passes,
)
from midcourse.report.figures import panel
from midcourse.report.plots import Panel
from midcourse.report.runs import MIN_RUNS, compare_values, over_runs
from midcourse.report.shape import points
from midcourse.report.tables import ACCURACY_COLUMNS, accuracy_cells
from midcourse.table import Table, share

X = TypeVar("X", bound=float | str)

#: An interval that is narrower has no width but that of rounding: how far runs spread is not known.
_NO_WIDTH = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one experiment over all seeds."""

    tables: Sequence[Table] = ()
    claims: Sequence[ShapeLine] = ()
    """What the paper says, and whether it holds here."""
    panels: Sequence[Panel] = ()
    """Its figure."""


Maker = Callable[[ExperimentRunner, Experiment], Result]

Numbers = Mapping[int, float]
"""By seed, the one number that a training run comes to."""


def per_run(runs: Mapping[int, Clusters[T]], statistic: Statistic[T]) -> dict[int, float]:
    """Return a statistic of each run."""
    return {seed: statistic(flat(found)) for seed, found in runs.items()}


def runs_passed(runs: Mapping[int, Counts], k: int) -> dict[int, float]:
    """Return pass@k of each run."""
    return per_run({seed: passes(counts, k) for seed, counts in runs.items()}, mean)


def judge_runs(
    claims: Iterable[Claim],
    found: Mapping[Measure, Mapping[str, Numbers]],
    *,
    k: int = 0,
    on: str = "",
) -> list[ShapeLine]:
    """Return the verdicts on claims about runs by what was measured; the unit is the run.

    Claims about rows that are not there are passed over.
    """
    lines = []
    for claim in claims:
        arms = found.get(claim.measure, {})
        for name in _others(claim, arms):
            words = claim.words.format(other=name, k=k, on=on)
            limit = claim.within * mean([*arms[claim.of].values()]) if claim.within else None
            lines.append(_judged_runs(claim, words, *_in_order(claim, arms, name), limit))
    return lines


def at_most(claim: Claim, other: str, found: Mapping[str, Numbers]) -> ShapeLine:
    """Judge by runs that `ours` is at most `MARGIN` above another: the whole interval lies below.

    Values are shares, by name and seed.
    """
    made = compare_values(found[claim.ours], found[other])
    low, high = made.difference.low, made.difference.high
    holds = True if high < MARGIN else False if low > MARGIN else None
    ours, theirs = (f"{100 * mean(runs):.1f}" for runs in (made.ours, made.theirs))
    change = points(made.difference).replace("[+nan, +nan]", "(no interval)")
    by_seed = " / ".join(f"{100 * value:+.1f}" for value in made.differences)
    figures = f"{ours} against {theirs} %; difference {change} points; by seed {by_seed}"
    return ShapeLine(claim.words, holds, figures)


def _others(claim: Claim, there: Iterable[str]) -> list[str]:
    """Return whom a claim compares its row with, of those that are there."""
    others = [name for name in there if name != claim.ours]
    if len(others) == len(list(there)):
        return []
    return [name for name in others if not claim.theirs or name in claim.theirs]


def _in_order(claim: Claim, rows: Mapping[str, T], other: str) -> tuple[T, T]:
    """Return what a claim says is larger, then the other."""
    pair = rows[claim.ours], rows[other]
    return pair[::-1] if claim.lower else pair


def _judged_runs(
    claim: Claim, words: str, ours: Numbers, theirs: Numbers, limit: float | None
) -> ShapeLine:
    made, scale = compare_values(ours, theirs), 100.0 if claim.unit == " %" else 1.0
    low, high = made.difference.low, made.difference.high
    means = map(mean, (made.ours, made.theirs, made.differences))
    left, right, middle = (f"{scale * value:.3g}" for value in means)
    by_seed = " / ".join(f"{scale * value:.3g}" for value in made.differences)
    said = f"{left} against {right}{claim.unit}; difference {middle}"
    if not high - low > _NO_WIDTH:
        why = "runs do not differ" if len(made.seeds) >= MIN_RUNS else f"needs {MIN_RUNS} runs"
        return ShapeLine(words, None, f"{said}; by seed {by_seed}: {why}")
    said += f" [{scale * low:.3g}, {scale * high:.3g}], p = {made.p_value:.3g}; by seed {by_seed}"
    if limit is None:
        return ShapeLine(words, True if low > 0 else False if high < 0 else None, said)
    is_close, is_apart = -limit < low and high < limit, low > limit or high < -limit
    holds = True if is_close else False if is_apart else None
    return ShapeLine(words, holds, f"{said}; tolerance {scale * limit:.3g}")


def judge(claims: Iterable[Claim], found: Mapping[str, Clusters[Any]]) -> list[ShapeLine]:
    """Return the verdicts on claims about what one model was asked; the unit is the problem."""
    return [
        _judged(replace(claim, words=claim.words.format(other=name)), name, found)
        for claim in claims
        for name in _others(claim, found)
    ]


def _judged(claim: Claim, other: str, found: Mapping[str, Clusters[Any]]) -> ShapeLine:
    ours, theirs = _in_order(claim, found, other)
    if claim.measure is Measure.COVERAGE:
        ours, theirs = estimates.covered(ours), estimates.covered(theirs)
    is_mean = claim.measure is Measure.MEAN
    if not is_mean and not claim.within:
        return estimates.more_accurate(claim.words, ours, theirs, claim.factor)
    statistic = mean if is_mean else accuracy
    tolerance = claim.within * statistic(flat(found[claim.of])) if claim.within else None
    scale, unit = 100.0 if claim.unit == " %" else 1.0, claim.unit
    margins = (0.0, 0.0) if is_mean else estimates.accuracy_margins(ours, theirs)
    return estimates.more(
        claim.words, ours, theirs, statistic,
        tolerance=tolerance, margins=margins, scale=scale, unit=unit,
    )  # fmt: skip


def run_columns(name: str) -> tuple[str, str]:
    """Return what stands above `run_cells`."""
    return name, f"{name}, by seed"


def run_cells(runs: Numbers, digits: int = 1, scale: float = 100.0) -> tuple[str, str]:
    """Return the mean over runs, with its interval from three on, and the value of each."""
    values = [scale * value for value in runs.values()]
    y = over_runs(values)
    if math.isnan(y.estimate):
        return "–", "–"
    ends = "" if math.isnan(y.low) else f" [{y.low:.{digits}f}, {y.high:.{digits}f}]"
    return f"{y.estimate:.{digits}f}{ends}", " / ".join(f"{value:.{digits}f}" for value in values)


def run_panel(
    curves: Mapping[str, Mapping[X, Numbers]], labels: tuple[str, str], **how: Any
) -> Panel:
    """Return means over runs by series and x, with their intervals."""
    return panel(curves, _over_runs, labels, **how)


def run_bars(
    values: Mapping[str, Mapping[str, Numbers]], labels: tuple[str, str], title: str = ""
) -> Panel:
    """Return means over runs by series and tick, as they are."""
    return run_panel(values, labels, title=title, kind="bar", scale=1)


def _over_runs(runs: Numbers) -> Interval:
    """Return the mean over runs with its interval; of fewer than three without one."""
    found = over_runs([*runs.values()])
    return found if found.low == found.low else Interval(*[found.estimate] * 3)


def accuracy_table(head: Head, rows: Iterable[tuple[Sequence[str], Counts]]) -> Table:
    """Return coverage and accuracy with both intervals next to each row's own cells."""
    cells = [(*own, *accuracy_cells(flat(counts), accuracy_of(counts))) for own, counts in rows]
    return replace(head, columns=(*head.columns, *ACCURACY_COLUMNS)).table(*cells)


def usable_ks(models: Mapping[str, Mapping[int, Counts]]) -> list[int]:
    """Return the powers of two that every problem's samples support."""
    every = (count for runs in models.values() for run in runs.values() for count in flat(run))
    return [2**i for i in range(min(count.num_samples for count in every).bit_length())]


def pass_table(
    title: str, models: Mapping[str, Mapping[int, Counts]], ks: Sequence[int], by_seed: int
) -> Table:
    """Return pass@k over runs, one row per model; at one k by seed too."""
    rows = []
    for name, runs in models.items():
        problems = "/".join(str(len(counts)) for counts in runs.values())
        cells = {k: run_cells(runs_passed(runs, k)) for k in ks}
        rows.append((name, problems, *(cell for cell, _ in cells.values()), cells[by_seed][1]))
    shown = (*(f"pass@{k} %" for k in ks), f"pass@{by_seed}, by seed")
    columns = ("model", "problems, by seed", *shown)
    return Table(title, columns, tuple(rows), "Unbiased estimates.")


def pass_panel(title: str, models: Mapping[str, Mapping[int, Counts]], ks: Sequence[int]) -> Panel:
    """Return pass@k over runs by model and k."""
    curves = {name: {k: runs_passed(runs, k) for k in ks} for name, runs in models.items()}
    return run_panel(curves, ("k", "pass@k, %"), title=title, log_x=True)


def mean_cell(values: Clusters[float]) -> str:
    """Return a mean of shares in per cent with its interval, Wilson's where all are equal."""
    return share(mean_share(values), 1)


def num_items(clusters: Clusters[T]) -> int:
    """Return how many items there are, of all problems together."""
    return len(flat(clusters))


def text_cells(values: Clusters[float], digits: int = 3) -> tuple[str, str]:
    """Return the number of texts, and their mean with its interval."""
    y = estimate(values, mean)
    low, high = f"{y.low:.{digits}f}", f"{y.high:.{digits}f}"
    return str(num_items(values)), f"{y.estimate:.{digits}f} [{low}, {high}]"
