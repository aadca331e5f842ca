"""Figures of a run as SVG text, drawn by matplotlib if it is there (extra ``report``)."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from midcourse.metrics import Count, accuracy, bootstrap, group_shares, mean_pass_at_k
from midcourse.report.collect import ReportData
from midcourse.report.tables import windows

__all__ = ["draw_figures"]

#: Okabe and Ito's palette: told apart by colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_figures(data: ReportData) -> dict[str, str]:
    """Return SVG by figure name; empty without matplotlib."""
    if find_spec("matplotlib") is None:
        return {}
    figures: dict[str, Callable[[Any], None]] = {"first_errors": lambda a: _first_errors(a, data)}
    if "held_out" in data.evaluations:
        figures["pass_at_k"] = lambda axes: _pass_at_k(axes, data)
    if any(data.arms.values()):
        figures["zero_advantage"] = lambda axes: _arms(
            axes, data, "groups with none correct, %", lambda c: group_shares(c).none_correct
        )
        figures["reward"] = lambda axes: _arms(axes, data, "mean reward, %", accuracy)
    return {name: _svg(draw) for name, draw in figures.items()}


def _svg(draw: Callable[[Any], None]) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]


def _first_errors(axes: Any, data: ReportData) -> None:
    steps = [step + 1 for step in data.error_steps]
    if steps:
        axes.hist(
            steps, bins=[x + 0.5 for x in range(max(steps) + 1)], color=_COLOURS[0], rwidth=0.9
        )
    axes.set(xlabel="substep of the first error, as proposed", ylabel="interventions")


def _pass_at_k(axes: Any, data: ReportData) -> None:
    for colour, (model, counts) in zip(
        _COLOURS, data.evaluations["held_out"].items(), strict=False
    ):
        estimates = [
            bootstrap(counts, lambda c, k=k: mean_pass_at_k(c, k), num_resamples=300)  # type: ignore[misc]
            for k in data.ks
        ]
        _line(axes, data.ks, estimates, model, colour)
    axes.set_xscale("log", base=2)
    axes.set_xticks(data.ks, [str(k) for k in data.ks])
    axes.set(xlabel="k", ylabel="pass@k on held-out problems, %", ylim=(0, None))
    axes.legend(frameon=False)


def _arms(
    axes: Any, data: ReportData, label: str, statistic: Callable[[Sequence[Count]], float]
) -> None:
    for colour, (arm, groups) in zip(_COLOURS, data.arms.items(), strict=False):
        found = windows(groups)
        middles = [first + 3 for first, _ in found]
        estimates = [bootstrap(counts, statistic, num_resamples=300) for _, counts in found]
        _line(axes, middles, estimates, arm, colour)
    axes.set(xlabel="RL iteration (windows of five)", ylabel=label, ylim=(0, None))
    axes.legend(frameon=False)


def _line(axes: Any, xs: Sequence[int], estimates: Sequence[Any], label: str, colour: str) -> None:
    axes.plot(xs, [100 * e.estimate for e in estimates], "o-", color=colour, label=label, ms=4)
    low, high = [100 * e.low for e in estimates], [100 * e.high for e in estimates]
    axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
