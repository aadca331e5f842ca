"""Figures of a run, from what the report counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from functools import partial
from typing import Literal, TypeVar

from midcourse.config import HELD_OUT_SET, PROBE_SETS
from midcourse.metrics import (
    Count,
    Interval,
    accuracy,
    bootstrap,
    mean,
    pass_at_k,
    wilson,
)
from midcourse.records import GroupCount
from midcourse.report.collect import ReportData
from midcourse.report.plots import Figure, Panel, Point, Series, can_draw, draw
from midcourse.report.rl import RlCourse
from midcourse.report.tables import WINDOW, none_correct, windows
from midcourse.steps import location_from_error_step

X = TypeVar("X", bound=float | str)
V = TypeVar("V", bound=Sized)


def draw_figures(data: ReportData) -> dict[str, str]:
    """Return SVG by figure name; empty without matplotlib."""
    if not can_draw():
        return {}
    places = [location_from_error_step(step) for step in data.error_steps]
    labels = ("substep of the first error, as proposed", "interventions, %")
    panels = {"first_errors": histogram_panel(places, labels)}
    for eval_set, models in data.evaluations.items():
        if len(ks := data.ks[eval_set]) > 1 and eval_set not in PROBE_SETS:
            name = "pass_at_k" if eval_set == HELD_OUT_SET else f"pass_at_k_{eval_set}"
            panels[name] = _pass_panel(eval_set, models, ks)
    if any(data.arms.values()):
        panels["zero_advantage"] = zero_advantage_panel(data.arms)
        panels["reward"] = arm_panel(data.arms, "mean reward, %", accuracy)
    if any(course.log for course in data.courses.values()):
        gap = "sampler and trainer apart, nats a token"
        panels["sampler_gap"] = log_panel(data.courses, "sampler/logprob_gap", gap)
        entropy = "entropy of what is sampled, nats"
        panels["sampler_entropy"] = log_panel(data.courses, "sampler/entropy", entropy)
    drawn = {name: draw(Figure(name, (panel,)), "svg").decode() for name, panel in panels.items()}
    return {name: "<svg" + svg.partition("<svg")[2] for name, svg in drawn.items()}


def panel(
    curves: Mapping[str, Mapping[X, V]],
    estimate: Callable[[V], Interval],
    labels: tuple[str, str],
    *,
    title: str = "",
    kind: Literal["line", "bar"] = "line",
    log_x: bool = False,
    scale: float = 100.0,
    units: Callable[[V], int] = len,
) -> Panel:
    """Return an estimate, by default in per cent, by series and x; `labels` are of x and y."""
    x_label, y_label = labels

    def point(x: X, found: V) -> Point:
        y = estimate(found)
        scaled = Interval(scale * y.estimate, scale * y.low, scale * y.high)
        return Point(x, scaled, units(found))

    series = tuple(
        Series(name, tuple(point(x, found) for x, found in curve.items()))
        for name, curve in curves.items()
    )
    return Panel(
        title=title, x_label=x_label, y_label=y_label, series=series, kind=kind, log_x=log_x
    )


def histogram_panel(values: Sequence[int], labels: tuple[str, str], title: str = "") -> Panel:
    """Return the shares of small whole numbers as bars, with Wilson intervals."""
    span = range(min(values, default=0), max(values, default=-1) + 1)
    shares = {"share": {x: [value == x for value in values] for x in span}}
    return panel(shares, lambda x: wilson(sum(x), len(x)), labels, title=title, kind="bar")


def _pass_panel(eval_set: str, models: Mapping[str, Sequence[Count]], ks: Sequence[int]) -> Panel:
    curves = {
        model: {k: [pass_at_k(c.num_samples, c.num_correct, k) for c in counts] for k in ks}
        for model, counts in models.items()
    }
    estimate = partial(bootstrap, statistic=mean, num_resamples=300)
    title = "held-out problems" if eval_set == HELD_OUT_SET else eval_set
    return panel(curves, estimate, ("k", "pass@k, %"), title=title, log_x=True)


def zero_advantage_panel(arms: Mapping[str, Sequence[GroupCount]], title: str = "") -> Panel:
    """Return the zero-advantage ratio during RL."""
    return arm_panel(arms, "groups with none correct, %", none_correct, title)


def arm_panel(
    arms: Mapping[str, Sequence[GroupCount]],
    y_label: str,
    statistic: Callable[[Sequence[Count]], float],
    title: str = "",
) -> Panel:
    """Return a statistic of the groups in windows of RL iterations, one series per arm."""
    curves = {
        arm: {first + (WINDOW + 1) / 2: counts for first, counts in windows(groups)}
        for arm, groups in arms.items()
    }
    estimate = partial(bootstrap, statistic=statistic, num_resamples=300)
    return panel(curves, estimate, (f"RL iteration (windows of {WINDOW})", y_label), title=title)


def log_panel(courses: Mapping[str, RlCourse], name: str, y_label: str) -> Panel:
    """Return a number that RL logs, iteration by iteration; one without an interval."""
    curves = {
        arm: {
            iteration + 1: [entry[name]]
            for iteration, entry in sorted(course.log.items())
            if name in entry
        }
        for arm, course in courses.items()
    }
    return panel(curves, lambda one: Interval(*one, *one, *one), ("RL iteration", y_label), scale=1)
