"""What is in a problem file: its columns, what they are for us, how many rows can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from midcourse.data.columns import Column, changed, columns_of, suggest_columns
from midcourse.data.problems import is_generated, read_problems
from midcourse.data.rows import read_rows
from midcourse.data.sources import ALL_SOURCES, FIELDS, REQUIRED, find_source
from midcourse.errors import DataError
from midcourse.records import Problem

_PEEKED = 20


@dataclass(frozen=True, slots=True)
class Survey:
    """One place of problems, e.g. 20 rows of ``mine.csv`` with its column map."""

    place: str
    columns: tuple[Column, ...]
    """None of generated tasks, and of a known source."""
    column_map: Mapping[str, str]
    problems: tuple[Problem, ...]
    complaints: tuple[str, ...]
    """One of each row that cannot be used."""

    @property
    def num_rows(self) -> int:
        """Rows that were read."""
        return len(self.problems) + len(self.complaints)

    @property
    def num_without_reference(self) -> int:
        """Problems without a reference solution."""
        return sum(not problem.reference_solution for problem in self.problems)

    def lines(self) -> list[str]:
        """Return what a user should see of it."""
        field_of = {theirs: ours for ours, theirs in self.column_map.items()}
        field_of |= {name: name for name in FIELDS if name not in self.column_map}
        width = max((len(column.name) for column in self.columns), default=0)
        shown = []
        for column in self.columns:
            ours = f"= {field_of[column.name]}" if column.name in field_of else ""
            shown.append(f"  {column.name:{width}}  {ours:20}  {column.sample}".rstrip())
        rows = "1 row" if self.num_rows == 1 else f"{self.num_rows:,} rows"
        return [f"{self.place}: {rows}", *shown, f"  {self._references()}"]

    def _references(self) -> str:
        number, lacking = len(self.problems), self.num_without_reference
        problems = "1 problem" if number == 1 else f"{number:,} problems"
        which = f"{lacking:,} of them without" if lacking else "all with"
        return f"{problems}, {which} a reference solution"


def survey(place: str, columns: Mapping[str, str] | None = None) -> Survey:
    """Read a place of problems; without `columns` propose a map. Raises DataError."""
    source, _ = find_source(place)
    is_plain = source.name not in ALL_SOURCES and not is_generated(place)
    found = columns_of(list(islice(read_rows(place), _PEEKED))) if is_plain else []
    if columns is None:
        columns = proposed_map(found) if is_plain else {}
    rows = list(read_problems(place, columns=columns, limit=_PEEKED if not is_plain else None))
    if not rows:
        raise DataError(f"{place}: holds no problems")
    return Survey(
        place=place,
        columns=tuple(found),
        column_map=columns,
        problems=tuple(row.problem for row in rows if row.problem is not None),
        complaints=tuple(row.complaints[0] for row in rows if row.problem is None),
    )


def proposed_map(columns: Sequence[Column]) -> dict[str, str]:
    """Return the map that a recipe needs; none where columns are called as our fields.

    GSM8K's own fields are read without a map, the answer taken from behind its ``####``.
    """
    names = {column.name for column in columns}
    is_gsm8k = {"question", "answer"} <= names and any(
        "####" in str(value) for c in columns if c.name == "answer" for value in c.values
    )
    is_ours = names >= set(REQUIRED)
    found = {} if is_gsm8k else suggest_columns(columns)
    return {k: v for k, v in changed(found).items() if not (is_ours and k in REQUIRED)}
