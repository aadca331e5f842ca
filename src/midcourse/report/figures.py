"""Figures of a run, from what the report counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from midcourse.metrics import (
    Count,
    Interval,
    accuracy,
    bootstrap,
    group_shares,
    mean_pass_at_k,
    wilson,
)
from midcourse.records import GroupCount
from midcourse.report.collect import ReportData
from midcourse.report.plots import Figure, Panel, Point, Series, can_draw, draw
from midcourse.report.tables import WINDOW, windows
from midcourse.steps import location_from_error_step


def draw_figures(data: ReportData) -> dict[str, str]:
    """Return SVG by figure name; empty without matplotlib."""
    if not can_draw():
        return {}
    panels = {
        "first_errors": histogram_panel(
            [location_from_error_step(step) for step in data.error_steps],
            "substep of the first error, as proposed", "interventions, %",
        )
    }  # fmt: skip
    if "held_out" in data.evaluations:
        panels["pass_at_k"] = _pass_panel(data)
    if any(data.arms.values()):
        panels["zero_advantage"] = arm_panel(
            data.arms, "groups with none correct, %", lambda c: group_shares(c).none_correct
        )
        panels["reward"] = arm_panel(data.arms, "mean reward, %", accuracy)
    drawn = {name: draw(Figure(name, (panel,)), "svg").decode() for name, panel in panels.items()}
    return {name: "<svg" + svg.partition("<svg")[2] for name, svg in drawn.items()}


def percent(interval: Interval) -> Interval:
    """Return a share and its bounds in per cent."""
    return Interval(100 * interval.estimate, 100 * interval.low, 100 * interval.high)


def histogram_panel(values: Sequence[int], x_label: str, y_label: str, title: str = "") -> Panel:
    """Return the shares of small whole numbers as bars, with Wilson intervals."""
    found, total = Counter(values), len(values)
    span = range(min(found, default=0), max(found, default=-1) + 1)
    points = tuple(Point(value, percent(wilson(found[value], total)), total) for value in span)
    return Panel(
        title=title, x_label=x_label, y_label=y_label, series=(Series("share", points),), kind="bar"
    )


def _pass_panel(data: ReportData) -> Panel:
    series = tuple(
        Series(
            model,
            tuple(_point(k, counts, partial(mean_pass_at_k, k=k)) for k in data.ks),
        )
        for model, counts in data.evaluations["held_out"].items()
    )
    return Panel(
        title="held-out problems", x_label="k", y_label="pass@k, %", series=series, log_x=True
    )


def arm_panel(
    arms: dict[str, list[GroupCount]], y_label: str, statistic: Callable[[Sequence[Count]], float]
) -> Panel:
    """Return a statistic of the groups in windows of RL iterations, one series per arm."""
    middle = (WINDOW + 1) / 2
    series = tuple(
        Series(
            arm,
            tuple(_point(first + middle, counts, statistic) for first, counts in windows(groups)),
        )
        for arm, groups in arms.items()
    )
    x_label = f"RL iteration (windows of {WINDOW})"
    return Panel(title="", x_label=x_label, y_label=y_label, series=series)


def _point(
    x: float, counts: Sequence[Count], statistic: Callable[[Sequence[Count]], float]
) -> Point:
    return Point(x, percent(bootstrap(counts, statistic, num_resamples=300)), len(counts))
