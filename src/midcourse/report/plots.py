"""Figures as plain data first: series of points with intervals. Drawing and CSV come from the same.

A figure is one or more panels side by side. matplotlib is loaded only to draw (extra ``report``);
the data can be written without it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from midcourse.metrics import Interval

#: Okabe and Ito's palette: told apart by colour-blind readers.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442",
)  # fmt: skip
#: Markers tell series apart where colour does not.
MARKERS = "osD^vPX*"


Format = Literal["svg", "png"]
FORMATS: tuple[Format, ...] = ("svg", "png")


@dataclass(frozen=True, slots=True)
class Point:
    """One value with its 95 % interval, e.g. pass@8 of 31.2 % over 32 problems."""

    x: float | str
    y: Interval
    num_units: int
    """Problems, or texts, behind it."""


@dataclass(frozen=True, slots=True)
class Series:
    """The points of one model, condition or kind of text."""

    label: str
    points: tuple[Point, ...]
    dots: tuple[Point, ...] = ()
    """What the points are means of, e.g. single runs: drawn without a line, their y alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes. Labels carry the unit, e.g. ``pass@k, %``."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    kind: Literal["line", "bar"] = "line"
    """``bar``: one bar per point, its x as the tick."""
    log_x: bool = False
    """Powers of two."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels side by side under one file name."""

    name: str
    panels: tuple[Panel, ...]


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(figure: Figure, file_format: Format) -> bytes:
    """Return the drawing; the same data give the same SVG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({"svg.hashsalt": figure.name, "svg.fonttype": "none"}):
        canvas = Canvas(figsize=(4.6 * len(figure.panels), 3.4), layout="constrained")
        FigureCanvasAgg(canvas)
        for place, panel in enumerate(figure.panels, start=1):
            _draw_panel(canvas.add_subplot(1, len(figure.panels), place), panel)
        _draw_legend(canvas, figure)
        buffer = io.BytesIO()
        metadata = {"Date": None} if file_format == "svg" else None
        canvas.savefig(buffer, format=file_format, dpi=200, metadata=metadata)
    return buffer.getvalue()


def _draw_panel(axes: Any, panel: Panel) -> None:
    if panel.kind == "bar":
        _draw_bars(axes, panel.series)
    else:
        for index, series in enumerate(panel.series):
            _draw_line(axes, series, index)
    if panel.log_x:
        ticks = sorted({point.x for series in panel.series for point in series.points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
    axes.set(xlabel=panel.x_label, ylabel=panel.y_label, title=panel.title)
    ys = [point.y for series in panel.series for point in (*series.points, *series.dots)]
    ends = (end for y in ys for end in (y.estimate, y.low) if end < 0)
    axes.set_ylim(bottom=1.05 * min(ends, default=0))
    axes.spines[["top", "right"]].set_visible(False)


def _draw_legend(canvas: Any, figure: Figure) -> None:
    """Put one legend for all panels below them, where it hides no data."""
    named = {
        label: handle
        for axes, panel in zip(canvas.axes, figure.panels, strict=True)
        if len(panel.series) > 1
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if named:
        columns = min(len(named), 2 * len(figure.panels))
        style = {"ncols": columns, "frameon": False, "fontsize": "small"}
        canvas.legend(named.values(), named.keys(), loc="outside lower center", **style)


def _draw_line(axes: Any, series: Series, index: int) -> None:
    """Draw the series of a number; where colours come again, the line is dashed."""
    xs, ys = [point.x for point in series.points], [point.y for point in series.points]
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    style = "--" if index >= len(COLOURS) else "-"
    drawn = {"marker": marker, "color": colour, "label": series.label, "markersize": 4}
    axes.plot(xs, [y.estimate for y in ys], style, **drawn)
    if series.dots:
        places = [dot.x for dot in series.dots], [dot.y.estimate for dot in series.dots]
        axes.scatter(*places, s=6, color=colour, alpha=0.4, linewidths=0)
    lows, highs = [y.low for y in ys], [y.high for y in ys]
    axes.fill_between(xs, lows, highs, color=colour, alpha=0.15, linewidth=0)


def _draw_bars(axes: Any, series: Sequence[Series]) -> None:
    ticks = list(dict.fromkeys(point.x for one in series for point in one.points))
    width, caps = 0.8 / max(1, len(series)), {"elinewidth": 1, "capsize": 2}
    for index, one in enumerate(series):
        places = [ticks.index(p.x) + (index - (len(series) - 1) / 2) * width for p in one.points]
        ys = [point.y for point in one.points]
        below = [max(0.0, y.estimate - y.low) for y in ys]
        above = [max(0.0, y.high - y.estimate) for y in ys]
        drawn = {"color": COLOURS[index % 8], "label": one.label, "error_kw": caps}
        axes.bar(places, [y.estimate for y in ys], 0.9 * width, yerr=[below, above], **drawn)
    is_text = any(isinstance(tick, str) for tick in ticks)
    names = [str(tick) if isinstance(tick, str) else f"{tick:g}" for tick in ticks]
    slanted = {"rotation": 20, "ha": "right"} if is_text and len(ticks) > 2 else {}
    axes.set_xticks(range(len(ticks)), names, **slanted)


def figure_csv(figure: Figure) -> str:
    """Return every point of a figure as CSV."""
    columns = ("panel", "series", "x_label", "x", "y_label", "y", "low_95", "high_95", "units")
    rows = [
        (panel.title, series.label, panel.x_label, point.x, panel.y_label, point.y.estimate,
         point.y.low, point.y.high, point.num_units)
        for panel in figure.panels
        for series in panel.series
        for point in (*series.points, *series.dots)
    ]  # fmt: skip
    return csv_text(columns, rows)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[float | str]]) -> str:
    """Return CSV in which no text cell can start a spreadsheet formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_guarded(cell) for cell in columns])
    writer.writerows([_guarded(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def _guarded(cell: float | str) -> float | str:
    """Prefix text that a spreadsheet would run; numbers stay numbers."""
    if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{cell}"
    return cell
