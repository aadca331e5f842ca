"""Draws panels and the funnel as SVG: small, without a library, readable on light and on dark.

Text and axes are drawn in the page's colour on nothing. A drawing that stands in a file of its own
brings its colours along and follows the reader's scheme too. A number under the pointer is shown by
the browser itself, from a ``<title>``: there is no script.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from midcourse.report.plots import Panel, Point, Series

_WIDTH, _HEIGHT = 460, 280
_LEFT, _RIGHT, _BOTTOM = 58, 12, 44
#: Room for a title, and room without one.
_TOP, _BARE = 26, 10
#: A bar is no wider than this, however few there are.
_WIDEST = 44.0
#: Okabe and Ito's palette, light enough for dark pages: the one for light, then the one for dark.
_COLOURS = (
    ("#0072b2", "#5eb4ef"),
    ("#d55e00", "#ff8a3d"),
    ("#009e73", "#35c99c"),
    ("#a8558a", "#dd9cc5"),
    ("#b27d00", "#f0b93a"),
    ("#3f8fc0", "#9ad4f7"),
    ("#444444", "#cccccc"),
    ("#8a8000", "#e6dc52"),
)
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "", "6 3", "2 3", "8 3 2 3")


def style() -> str:
    """Return the colours of every drawing for both schemes, as CSS."""
    light, dark = (
        "".join(f"--c{i}:{pair[side]};" for i, pair in enumerate(_COLOURS)) for side in (0, 1)
    )
    return (
        f"svg.plot{{color:#22211f;{light}font:11px system-ui,sans-serif;}}"
        f"@media(prefers-color-scheme:dark){{svg.plot{{color:#e8e4dd;{dark}}}}}"
        f"@media print{{svg.plot{{color:#000;{light}}}}}"
    )


def draw_panels(panels: Sequence[Panel], label: str) -> str:
    """Return panels side by side; `label` is read out to those who do not see them."""
    legend = _legend(list(dict.fromkeys(s.label for p in panels for s in p.series)))
    if _has_names(panels[0]):
        return _svg(*_beams(panels[0], legend), label)
    height = _HEIGHT + (18 if legend else 0)
    drawn = (
        f'<g transform="translate({place * _WIDTH} 0)">{"".join(_panel(panel))}</g>'
        for place, panel in enumerate(panels)
    )
    under = f'<g transform="translate({_LEFT} {_HEIGHT + 6})">{legend}</g>' if legend else ""
    return _svg(_WIDTH * len(panels), height, "".join(drawn) + under, label)


def _svg(width: float, height: float, inner: str, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" aria-label="{escape(label)}">'
        f"<style>{style()}</style>{inner}</svg>"
    )


def _colour(index: int) -> str:
    return f"var(--c{index % len(_COLOURS)})"


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="currentColor" {more}>{escape(text)}</text>'


def _line(start: tuple[float, float], end: tuple[float, float], more: str) -> str:
    (x1, y1), (x2, y2) = start, end
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="currentColor" {more}/>'


def _legend(labels: Sequence[str]) -> str:
    """Return one entry per series, in a row; nothing for a single one."""
    if len(labels) < 2:
        return ""
    drawn, x = [], 0.0
    for index, name in enumerate(labels):
        dash = f'stroke-width="2.5" stroke-dasharray="{_DASHES[index % len(_DASHES)]}"'
        drawn.append(_line((x, 0), (x + 20, 0), f'{dash} style="stroke:{_colour(index)}"'))
        drawn.append(_text(x + 25, 4, name, "start"))
        x += 40 + 6.2 * len(name)
    return "".join(drawn)


# --- axes --------------------------------------------------------------------------------------


def ticks(low: float, high: float, *, whole: bool = False, most: int = 6) -> list[float]:
    """Return round numbers within low … high, whole ones where the axis counts something."""
    span = high - low
    if span <= 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(by for by in (1, 2, 5, 10) if span / (step * by) <= most)
    step = max(1.0, math.ceil(step)) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _limits(panel: Panel) -> tuple[float, float]:
    """Return both ends of the y axis: 0 and a little above the data; 0 … 1 if all is zero."""
    points = [point.y for series in panel.series for point in series.points]
    every = [x for y in points for x in (y.estimate, y.low, y.high) if math.isfinite(x)]
    low, high = min(0.0, *every, 0.0), max(0.0, *every, 0.0)
    if low == high:
        return 0.0, 1.0
    is_share = panel.y_label.endswith("%") and low >= 0
    return low, 100.0 if is_share and high > 80 else high + 0.06 * (high - low)


def _panel(panel: Panel) -> Iterator[str]:
    low, high = _limits(panel)
    top = _TOP if panel.title else _BARE
    tall, wide = _HEIGHT - top - _BOTTOM, _WIDTH - _LEFT - _RIGHT

    def y_of(value: float) -> float:
        return top + tall * (1 - (min(max(value, low), high) - low) / (high - low))

    for tick in ticks(low, high, most=5):
        weight = 0.5 if tick == 0 else 0.14
        yield _line(
            (_LEFT, y_of(tick)), (_WIDTH - _RIGHT, y_of(tick)), f'stroke-opacity="{weight}"'
        )
        yield _text(_LEFT - 6, y_of(tick) + 4, f"{tick:.4g}", "end")
    if panel.title:
        yield _text(_LEFT, 13, panel.title, "start", 'font-weight="600"')
    yield _text(_LEFT + wide / 2, _HEIGHT - 8, panel.x_label)
    middle = top + tall / 2
    yield _text(12, middle, panel.y_label, more=f'transform="rotate(-90 12 {middle:.1f})"')
    yield from (_bars if panel.kind == "bar" else _curves)(panel, y_of)


# --- marks -------------------------------------------------------------------------------------


def _said(series: Series, point: Point) -> str:
    """Return what the browser shows when the pointer rests on a point."""
    x = point.x if isinstance(point.x, str) else f"{point.x:g}"
    y = point.y
    interval = "" if y.low == y.high else f" [{y.low:.4g}, {y.high:.4g}]"
    return escape(f"{series.label}, {x}: {y.estimate:.4g}{interval}, n = {point.num_units:,}")


def _curves(panel: Panel, y_of: Callable[[float], float]) -> Iterator[str]:
    """Yield lines with bands, and the ticks of x: powers of two, or whole numbers."""
    xs = sorted({float(point.x) for series in panel.series for point in series.points})
    if not xs:
        return
    scale = math.log2 if panel.log_x else float
    first, span = scale(xs[0]), (scale(xs[-1]) - scale(xs[0])) or 1.0
    wide = _WIDTH - _LEFT - _RIGHT - 16

    def x_of(x: float) -> float:
        return _LEFT + 8 + wide * ((scale(x) - first) / span if len(xs) > 1 else 0.5)

    for tick in xs if panel.log_x else ticks(xs[0], xs[-1], whole=True):
        yield _text(x_of(tick), _HEIGHT - _BOTTOM + 16, f"{tick:g}")
    for index, series in enumerate(panel.series):
        yield from _curve(index, series, x_of, y_of)


def _curve(
    index: int, series: Series, x_of: Callable[[float], float], y_of: Callable[[float], float]
) -> Iterator[str]:
    points = [point for point in series.points if math.isfinite(point.y.estimate)]
    at = [(x_of(float(point.x)), point) for point in points]
    upper = [f"{x:.1f},{y_of(point.y.high):.1f}" for x, point in at]
    lower = [f"{x:.1f},{y_of(point.y.low):.1f}" for x, point in reversed(at)]
    middle = [f"{x:.1f},{y_of(point.y.estimate):.1f}" for x, point in at]
    fill, dash = f'style="fill:{_colour(index)}"', _DASHES[index % len(_DASHES)]
    if any(point.y.low < point.y.high for point in points):
        yield f'<polygon points="{" ".join(upper + lower)}" fill-opacity="0.15" {fill}/>'
    yield (
        f'<polyline points="{" ".join(middle)}" fill="none" stroke-width="2" '
        f'stroke-dasharray="{dash}" style="stroke:{_colour(index)}"/>'
    )
    radius = 2.6 if len(at) < 40 else 1.6
    for x, point in at:
        place = f'cx="{x:.1f}" cy="{y_of(point.y.estimate):.1f}" r="{radius}"'
        yield f"<circle {place} {fill}><title>{_said(series, point)}</title></circle>"


def _bars(panel: Panel, y_of: Callable[[float], float]) -> Iterator[str]:
    """Yield bars with whiskers, grouped by x; of many ticks only some are named."""
    names = list(dict.fromkeys(point.x for series in panel.series for point in series.points))
    if not names:
        return
    each = (_WIDTH - _LEFT - _RIGHT) / len(names)
    width = min(_WIDEST, 0.76 * each / len(panel.series))
    longest = max(len(_name(name)) for name in names)
    every = max(1, math.ceil(len(names) * 6.4 * (longest + 1) / (_WIDTH - _LEFT - _RIGHT)))
    for place, name in enumerate(names):
        if place % every == 0:
            yield _text(_LEFT + (place + 0.5) * each, _HEIGHT - _BOTTOM + 16, _name(name))
    for index, series in enumerate(panel.series):
        for point in series.points:
            middle = _LEFT + (names.index(point.x) + 0.5) * each
            left = middle + (index - len(panel.series) / 2) * width
            yield _bar(index, series, point, (left, 0.92 * width), y_of)


def _name(x: float | str) -> str:
    return x if isinstance(x, str) else f"{x:g}"


def _bar(
    index: int,
    series: Series,
    point: Point,
    place: tuple[float, float],
    y_of: Callable[[float], float],
) -> str:
    left, width = place
    top, zero, middle = y_of(point.y.estimate), y_of(0), left + width / 2
    bar = (
        f'<rect x="{left:.1f}" y="{min(top, zero):.1f}" width="{width:.1f}" '
        f'height="{abs(zero - top):.1f}" style="fill:{_colour(index)}">'
        f"<title>{_said(series, point)}</title></rect>"
    )
    if point.y.low == point.y.high:
        return bar
    ends = (middle, y_of(point.y.low)), (middle, y_of(point.y.high))
    return bar + _line(*ends, 'stroke-opacity="0.75"')


# --- bars with names ---------------------------------------------------------------------------

_NAME, _BEAM, _THICK = 190, 500, 16


def _has_names(panel: Panel) -> bool:
    """Whether x is words: then bars lie, so that they can be read."""
    return panel.kind == "bar" and any(
        isinstance(point.x, str) for series in panel.series for point in series.points
    )


def _beams(panel: Panel, legend: str) -> tuple[float, float, str]:
    """Return width, height and content of lying bars, each with its number."""
    _, most = _limits(panel)
    names = list(dict.fromkeys(_name(p.x) for series in panel.series for p in series.points))
    each = _THICK * len(panel.series) + 12
    drawn = [
        _text(_NAME - 10, (place + 0.5) * each + 4, name, "end") for place, name in enumerate(names)
    ]
    for index, series in enumerate(panel.series):
        for point in series.points:
            y = names.index(_name(point.x)) * each + 6 + index * _THICK
            drawn += _beam(index, series, point, y, _BEAM / most)
    height = each * len(names) + 22
    drawn.append(_line((_NAME, 0), (_NAME, each * len(names)), 'stroke-opacity="0.5"'))
    drawn.append(_text(_NAME, height - 4, panel.y_label, "start"))
    drawn.append(f'<g transform="translate({_NAME} {height + 12})">{legend}</g>' if legend else "")
    return _NAME + _BEAM + 150, height + (20 if legend else 0), "".join(drawn)


def _beam(index: int, series: Series, point: Point, y: float, scale: float) -> Iterator[str]:
    middle, low, high = (_NAME + scale * x for x in (point.y.estimate, point.y.low, point.y.high))
    yield (
        f'<rect x="{_NAME}" y="{y}" width="{max(0.0, middle - _NAME):.1f}" height="{_THICK - 2}" '
        f'style="fill:{_colour(index)}"><title>{_said(series, point)}</title></rect>'
    )
    yield _line((low, y + 7), (high, y + 7), 'stroke-opacity="0.75"')
    said = f"{point.y.estimate:.3g} [{point.y.low:.3g}, {point.y.high:.3g}]"
    yield _text(max(middle, high) + 6, y + 11, said, "start")


# --- the funnel --------------------------------------------------------------------------------

_ROW, _FUNNEL = 42, 660
#: Outcomes that go on to the next stage are coloured, the others grey.
_GOOD = {"accepted", "correct", "hard", "ready", "mixed", "stop", "do not"}


def draw_funnel(stages: Mapping[str, Mapping[str, int]], label: str) -> str:
    """Return a bar per stage, divided by outcome, with each one's count and share below it."""
    rows = [
        _funnel_row(place * _ROW, name, {k: v for k, v in counts.items() if k != "total" and v})
        for place, (name, counts) in enumerate(stages.items())
    ]
    return _svg(_NAME + _FUNNEL + 10, _ROW * len(rows), "".join(rows), label)


def _funnel_row(y: int, name: str, counts: Mapping[str, int]) -> str:
    total, x = sum(counts.values()), float(_NAME)
    shares = {o: f"{o} {n:,} ({100 * n / total:.1f} %)" for o, n in counts.items()}
    drawn = [
        _text(_NAME - 10, y + 13, name, "end", 'font-weight="600"'),
        _text(_NAME - 10, y + 28, f"{total:,}", "end"),
        _text(_NAME, y + 31, _cut(" · ".join(shares.values()), 112), "start"),
    ]
    greys = iter((0.42, 0.3, 0.22))
    for outcome, count in counts.items():
        width, is_good = _FUNNEL * count / total, outcome in _GOOD
        weight = 0.9 if is_good else next(greys, 0.15)
        drawn.append(
            f'<rect x="{x:.1f}" y="{y + 2}" width="{max(1.0, width - 1.5):.1f}" height="16" rx="2" '
            f'style="fill:{_colour(0 if is_good else 6)}" fill-opacity="{weight}">'
            f"<title>{escape(shares[outcome])}</title></rect>"
        )
        x += width
    return "".join(drawn)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
