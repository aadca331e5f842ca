"""Drawings of a credit map: how often each signal is right, and a few attempts step by step."""

from __future__ import annotations

from collections.abc import Sequence

from midcourse.credit.scores import Score
from midcourse.credit.signals import GAP, MARKS, MARKS_REFERENCE, Mapped
from midcourse.metrics import Interval
from midcourse.report.plots import Panel, Point, Series
from midcourse.steps import location_from_error_step

_MOST = 3
"""Attempts that are drawn side by side."""


def summary_panel(title: str, scores: Sequence[Score]) -> Panel:
    """Return a bar per signal: how often it is right about one target."""
    points = tuple(Point(s.name, _percent(s.top_1), s.num_attempts) for s in scores)
    series = (Series("top-1", points),)
    return Panel(title=title, x_label="", y_label="top-1, %", series=series, kind="bar")


def _percent(interval: Interval) -> Interval:
    return Interval(*(100 * x for x in (interval.estimate, interval.low, interval.high)))


def attempt_panels(found: Sequence[Mapped]) -> list[Panel]:
    """Return a panel of the first attempt of each source, the first with any value if there is one.

    Values are shares; other signals are scaled to 0 … 1 within the attempt.
    """
    chosen: dict[str, Mapped] = {}
    for one in sorted(found, key=lambda one: not one.drop_steps):
        chosen.setdefault(one.attempt.problem.source, one)
    return [_curves(one) for one in list(chosen.values())[:_MOST]]


def _curves(one: Mapped) -> Panel:
    curves: dict[str, Sequence[float]] = {}
    if one.attempt.error_step is not None:
        steps = range(len(one.attempt.steps))
        curves["first error"] = [float(step == one.attempt.error_step) for step in steps]
    if one.values:
        curves["value before the step"] = one.values.before
    for name in (GAP, MARKS_REFERENCE if MARKS_REFERENCE in one.curves else MARKS):
        if name in one.curves:
            curves[f"{name} (scaled)"] = _scaled(one.curves[name])
    return Panel(
        title=one.attempt.problem.source,
        x_label="step",
        y_label="share, or scaled",
        series=tuple(Series(name, _points(curve)) for name, curve in curves.items()),
    )


def _scaled(curve: Sequence[float]) -> list[float]:
    low, high = min(curve), max(curve)
    return [(x - low) / (high - low) if high > low else 0.0 for x in curve]


def _points(curve: Sequence[float]) -> tuple[Point, ...]:
    return tuple(
        Point(float(location_from_error_step(step)), Interval(y, y, y), 1)
        for step, y in enumerate(curve)
    )
