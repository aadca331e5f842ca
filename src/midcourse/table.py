"""Tables as plain data: built once, shown in a terminal, in HTML, as Markdown and as JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from midcourse.metrics import Interval
from midcourse.printable import printable

#: What a cell of numbers may hold: a number first, then anything but words, save a few units.
_UNITS = "e|s|min|h|drawn|USD|k|M|kB|MB|GB|TB|KiB|MiB|GiB"
_NUMBER = re.compile(rf"|–|unknown|[-+−~<>≤≥]?\d(?:[^A-Za-z]|\b(?:{_UNITS})\b|e(?=[-+]?\d))*")


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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it; where it is too wide, intervals stand whole below their estimates."""
        wide, stacked = self.rich(), self.rich(stacked=True)
        unbounded = options.update(max_width=10_000)
        too_wide = Measurement.get(console, unbounded, wide).maximum > options.max_width
        room = Measurement.get(console, unbounded, stacked).minimum <= options.max_width
        has_intervals = any(" [" in cell for row in self.rows for cell in row)
        yield stacked if has_intervals and too_wide and room else wide

    def rich(self, *, stacked: bool = False) -> RichTable:
        """Return it for a terminal; cells are text, never markup or control sequences.

        `stacked` puts intervals below their estimates, and wraps prose alone.
        """
        table = RichTable(
            title=Text(printable(self.title), "bold"),
            caption=Text(printable(self.note)) if self.note else None,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 0 if stacked else 1),
        )
        rows = [[printable(cell) for cell in row] for row in self.rows]
        if stacked:
            rows = [[cell.replace(" [", "\n[") for cell in row] for row in rows]
        for index, title in enumerate(map(printable, self.columns)):
            cells = [row[index] for row in rows]
            if not self.numeric[index]:
                table.add_column(Text(title), overflow="fold")
                continue
            pieces = [*title.split(), *(line for cell in cells for line in cell.split("\n"))]
            width = max(map(cell_len, pieces), default=0) if stacked else None
            table.add_column(Text(title), justify="right", width=width, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
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
