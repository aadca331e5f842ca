"""Tables as plain data: built once, shown in a terminal, in HTML, as Markdown and as JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from midcourse.metrics import Interval
from midcourse.printable import printable

#: What a cell of numbers may hold: a number first, then anything but words, save a few units.
_NUMBER = re.compile(r"–|unknown|[-+−~]?\d(?:[^A-Za-z]|\b(?:e|s|min|h|drawn|USD)\b|e(?=[-+]?\d))*")


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of text cells, with a note on how to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers alone; the first one names the rows and never does."""
        cells = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        return tuple(
            bool(i and column) and all(map(_NUMBER.fullmatch, column))
            for i, column in enumerate(cells)
        )

    def rich(self) -> RichTable:
        """Return it for a terminal; cells are text, never markup or control sequences."""
        table = RichTable(
            title=Text(printable(self.title), "bold"),
            caption=Text(printable(self.note)) if self.note else None,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
        )
        for column, is_number in zip(self.columns, self.numeric, strict=True):
            table.add_column(Text(printable(column)), justify="right" if is_number else "left")
        for row in self.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        return table

    def markdown(self) -> list[str]:
        """Return it as the lines of a Markdown table, without title and note."""
        lines = [self.columns, *self.rows]
        cells = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
        head, *rest = (f"| {line} |" for line in cells)
        return [head, "|---" * len(self.columns) + "|", *rest]


def share(interval: Interval, digits: int = 2) -> str:
    """Return a share as per cent with its interval, ``4.27 [3.1, 5.6]``."""
    if interval.estimate != interval.estimate:
        return "–"
    low, high = 100 * interval.low, 100 * interval.high
    return f"{100 * interval.estimate:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
