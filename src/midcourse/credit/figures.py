"""Drawings of a credit map: how often each signal is right, and a few attempts step by step."""

from __future__ import annotations

from collections.abc import Sequence

from midcourse.credit.scores import Score, drop_scores, first_error_scores
from midcourse.credit.signals import GAP, MARKS, MARKS_REFERENCE, Mapped
from midcourse.metrics import Interval
from midcourse.report.plots import Panel, Point, Series
from midcourse.steps import location_from_error_step


def summary_panels(found: Sequence[Mapped]) -> list[Panel]:
    """Return a panel per target: top-1 of every signal."""
    titles = ("Finding the first error", "Finding the largest value drop")
    both = (first_error_scores(found), drop_scores(found))
    return [_bars(title, scores) for title, scores in zip(titles, both, strict=True) if scores]


def _bars(title: str, scores: Sequence[Score]) -> Panel:
    points = tuple(Point(s.name, _percent(s.top_1), s.num_attempts) for s in scores)
    return Panel(
        title=title, x_label="", y_label="top-1, %", series=(Series("top-1", points),), kind="bar"
    )


def _percent(interval: Interval) -> Interval:
    return Interval(*(100 * x for x in (interval.estimate, interval.low, interval.high)))


def attempt_panels(found: Sequence[Mapped], number: int) -> list[Panel]:
    """Return a panel for each of the first attempts with value, or else of the first ones.

    Values are shares; other signals are scaled to 0 … 1 within the attempt.
    """
    seen = [one for one in found if one.drop_step is not None] or list(found)
    return [_curves(one) for one in seen[:number]]


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
