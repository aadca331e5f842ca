"""Tables on a terminal: text on the left, numbers on the right, intervals whole where they fit."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from midcourse.table import Table

WHO = ("script.json without the reference", "a guess")
INTERVAL = "100.0 [98.7, 100.0]"
WIDE = Table(
    "First errors",
    ("who", "cases", "exact %", "within one %", "not later %", "no error %", "F1 %", "state"),
    tuple((name, "300", *([INTERVAL] * 5), "all of them read") for name in WHO),
)


def drawn(table: Table, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def test_a_table_that_fits_keeps_a_row_on_a_line() -> None:
    assert drawn(WIDE, 200).count(INTERVAL) == 10


def test_intervals_stand_whole_below_their_estimates_where_a_table_is_too_wide() -> None:
    said = drawn(WIDE, 110)
    assert INTERVAL not in said
    assert said.count("[98.7, 100.0]") == 10
    assert max(map(len, said.splitlines())) <= 110


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_figure_is_lost_on_a_narrow_terminal(width: int) -> None:
    said = drawn(WIDE, width)
    assert (said.count("9"), said.count("8"), said.count("…")) == (10, 10, 0)
    assert max(map(len, said.splitlines())) <= width


def test_text_stands_on_the_left_and_numbers_on_the_right() -> None:
    rows = (("a", "1", "complete", "8.0 GB"), ("b", "–", "under way", "12 MB"), ("c", "12", "", ""))
    table = Table("t", ("name", "count", "state", "size"), rows)
    lines = [line for line in drawn(table, 80).splitlines() if line.strip()[:1] in ("a", "b", "c")]
    assert [line.index(word) for line, word in zip(lines, ("1", "–", "12"), strict=True)] == [
        13, 13, 12,
    ]  # fmt: skip
    assert lines[0].index("complete") == lines[1].index("under way")
    assert lines[0].index("GB") == lines[1].index("MB")
