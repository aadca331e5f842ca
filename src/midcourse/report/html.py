"""One HTML file that needs no network: tables, figures, and a viewer of traces.

Text of models and data sets is untrusted. In tables it is escaped; in the viewer it travels as
JSON in which nothing can end the element, and becomes text nodes. The page's policy allows the
one script whose hash it names and nothing from outside.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template

from midcourse.report.collect import ReportData
from midcourse.report.shape import ShapeLine
from midcourse.table import Table


def render_html(
    data: ReportData,
    tables: Sequence[Table],
    shape: Sequence[ShapeLine],
    figures: Mapping[str, str],
    facts: Mapping[str, str],
) -> str:
    """Return the report as one page; `figures` are SVG."""
    script, style = _asset("viewer.js"), _asset("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    said = " · ".join(f"{escape(name)} {escape(value)}" for name, value in facts.items())
    drawn = "".join(f"<figure>{svg}</figure>" for svg in figures.values())
    return Template(_asset("report.html")).substitute(
        policy=policy,
        name=escape(data.name),
        style=style,
        facts=said,
        tables=_shape(shape) + "".join(_table(table) for table in tables),
        figures=drawn or "<p>matplotlib is not installed.</p>",
        traces=json_island(data.traces),
        script=script,
    )


def json_island(data: object) -> str:
    """Return JSON that nothing inside can break out of: no ``<``, ``>``, ``&``, no separators."""
    text = json.dumps(data, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    return (resources.files("midcourse.report") / "templates" / name).read_text("utf-8")


def _shape(lines: Sequence[ShapeLine]) -> str:
    rows = "".join(
        f'<tr><td class="{"holds" if line.holds else "fails"}">{line.verdict}</td>'
        f"{_cells('td', (line.claim, line.figures))}</tr>"
        for line in lines
    )
    return f'<h2>The paper\'s shape</h2><div class="scroll"><table>{rows}</table></div>'


def _table(table: Table) -> str:
    rows = "".join(f"<tr>{_cells('td', row)}</tr>" for row in table.rows)
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table>'
        f"<thead><tr>{_cells('th', table.columns)}</tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="note">{escape(table.note)}</p>'
    )


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
