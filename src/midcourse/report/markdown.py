"""A page as Markdown, its figures linked as files next to it.

Text of models and data sets stays text: what Markdown or HTML would obey is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import count

from midcourse.printable import printable
from midcourse.report.page import Block, Drawing, Facts, Page, Sentences
from midcourse.table import Table

#: What Markdown or HTML obeys; brackets and underscores only where they make a link or emphasis.
_OBEYED = re.compile(r"([\\`*{}<>#|&~]|(?<!\w)_|_(?!\w)|(?<=\])[\[(:])")


def render_markdown(page: Page) -> str:
    """Return a page as Markdown; `Drawing.name` names the file of a figure."""
    lines = [f"# {text_of(page.title)}", "", text_of(page.summary)]
    if page.link:
        lines += ["", f"[{text_of(page.link[1])}]({page.link[0]})"]
    numbers = count(1)
    for section in page.shown:
        lines += ["", f"## {text_of(section.title)}"]
        for block in section.blocks:
            lines += ["", *_lines(block, numbers)]
    return "\n".join(lines) + "\n"


def text_of(text: str) -> str:
    """Return text in which nothing is markup, on one line."""
    return _OBEYED.sub(r"\\\1", printable(" ".join(text.split())))


def _lines(block: Block, numbers: Iterator[int]) -> list[str]:
    match block:
        case str():
            return [text_of(block)]
        case Facts():
            return [f"- {text_of(name)}: {text_of(value)}" for name, value in block.values]
        case Sentences():
            items = [f"- **{text_of(mark)}**: {text_of(said)}" for mark, said in block.items]
            return [f"### {text_of(block.title)}", "", *items]
        case Table():
            return _table(block)
        case Drawing():
            caption = f"Figure {next(numbers)}. {text_of(block.title)}. {text_of(block.caption)}"
            return [f"![{text_of(block.title)}]({block.name}.svg)", "", caption]


def _table(table: Table) -> list[str]:
    """Return a table; columns of numbers are aligned to the right."""
    head, *rows = (_row(map(text_of, cells)) for cells in (table.columns, *table.rows))
    rule = _row("---:" if is_number else "---" for is_number in table.numeric)
    lines = [f"### {text_of(table.title)}", "", head, rule, *rows]
    return [*lines, "", text_of(table.note)] if table.note else lines


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
