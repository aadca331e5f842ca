"""A page as one HTML file that needs no network and runs no script.

Text of models and data sets is untrusted: it is escaped wherever it stands. The page's policy
allows nothing but its own style.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from itertools import count
from string import Template

from midcourse.printable import printable
from midcourse.report.page import Block, Drawing, Facts, Page, Section, Sentences
from midcourse.report.svg import style
from midcourse.table import Table


def render_html(page: Page) -> str:
    """Return a page as one file; its figures stand in it as SVG."""
    numbers = count(1)
    sections = [
        _section(place, section, numbers) for place, section in enumerate(page.shown, start=1)
    ]
    entries = (
        f'<li><a href="#s{place}">{_text(section.title)}</a></li>'
        for place, section in enumerate(page.shown, start=1)
    )
    link = page.link
    return Template(_asset("report.html")).substitute(
        title=_text(page.title),
        style=_asset("report.css") + style(),
        summary=_text(page.summary),
        entries="".join(entries),
        link=f'<p class="go"><a href="{escape(link[0])}">{_text(link[1])}</a></p>' if link else "",
        sections="".join(sections),
    )


def _asset(name: str) -> str:
    return (resources.files("midcourse.report") / "templates" / name).read_text("utf-8")


def _text(text: str) -> str:
    return escape(printable(text))


def _section(place: int, section: Section, numbers: Iterator[int]) -> str:
    """Return a section; drawings that follow one another share a grid."""
    made, drawings = [f'<section id="s{place}"><h2>{_text(section.title)}</h2>'], list[str]()
    for block in section.blocks:
        if isinstance(block, Drawing):
            drawings.append(_figure(block, next(numbers)))
            continue
        made += [_grid(drawings), _html(block)]
        drawings = []
    return "".join([*made, _grid(drawings), "</section>"])


def _grid(drawings: Sequence[str]) -> str:
    return f'<div class="figures">{"".join(drawings)}</div>' if drawings else ""


def _figure(drawing: Drawing, number: int) -> str:
    svg = drawing.svg.replace(f"<style>{style()}</style>", "")
    title = f"<b>Figure {number}. {_text(drawing.title)}.</b>"
    caption = f"<figcaption>{title} {_text(drawing.caption)}</figcaption>"
    return f"<figure{' class=wide' if drawing.is_wide else ''}>{svg}{caption}</figure>"


def _html(block: Block) -> str:
    match block:
        case str():
            return f"<p>{_text(block)}</p>"
        case Facts():
            rows = (
                f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in block.values
            )
            return f"<dl>{''.join(rows)}</dl>"
        case Sentences():
            items = (f"<li><b>{_text(mark)}</b> {_text(said)}</li>" for mark, said in block.items)
            return f'<h3>{_text(block.title)}</h3><ul class="said">{"".join(items)}</ul>'
        case Table():
            return _table(block)
        case Drawing():
            raise TypeError("drawings stand in a grid")


def _table(table: Table) -> str:
    head = _row("th", table.columns, table.numeric)
    rows = "".join(_row("td", row, table.numeric) for row in table.rows)
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    return (
        f"<h3>{_text(table.title)}</h3>"
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>{note}'
    )


def _row(tag: str, cells: Sequence[str], numeric: Sequence[bool]) -> str:
    made = (
        f"<{tag}{' class=n' if is_number else ''}>{_text(cell)}</{tag}>"
        for cell, is_number in zip(cells, numeric, strict=True)
    )
    return f"<tr>{''.join(made)}</tr>"
