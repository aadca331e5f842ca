"""Which column of an unknown file is which of our fields: by its name, then by what stands in it.

A guess is only ever shown, as a command or as a line of a recipe, never acted on.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from midcourse.data.cells import as_object, asked_in
from midcourse.data.rows import RawRow
from midcourse.data.sources import FIELDS, REQUIRED

#: What data sets call our fields, likeliest first.
_NAMES = {
    "problem": "problem question prompt query problem_text problem_statement statement input "
    "instruction task exercise messages conversations text",
    "answer": "answer final_answer final gold gold_answer ground_truth groundtruth correct_answer "
    "expected_answer short_answer target label result",
    "reference_solution": "reference_solution solution reference worked_solution worked "
    "explanation rationale reasoning cot derivation generated_solution response output completion",
    "id": "id uid uuid problem_id question_id unique_id problem_idx idx index key",
}
_LONGEST_ANSWER, _SHORTEST_PROBLEM = 30, 15
"""Characters, on average."""
_SAMPLE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a file: a dotted name, and the values of the rows that were looked at."""

    name: str
    values: tuple[Any, ...]

    @property
    def sample(self) -> str:
        """The first value, on one short line."""
        text = " ".join(str(self.values[0]).split()) if self.values else ""
        return text if len(text) <= _SAMPLE_CHARS else f"{text[:_SAMPLE_CHARS]}…"

    @property
    def length(self) -> float:
        """Characters of a value, on average."""
        return fmean(len(text) for text in self._texts) if self._texts else 0.0

    @property
    def is_worked(self) -> bool:
        """Whether most values are longer than an answer, and end in a box."""
        boxed = sum(r"\boxed" in text for text in self._texts)
        return self.length > _LONGEST_ANSWER and 2 * boxed > len(self._texts)

    @property
    def is_short(self) -> bool:
        """Whether values may be answers: short, and not all the same."""
        return 0 < self.length <= _LONGEST_ANSWER and len(set(self._texts)) > 1

    @property
    def _texts(self) -> list[str]:
        return [text for value in self.values if isinstance(text := asked_in(value), str)]


def columns_of(rows: Sequence[RawRow]) -> list[Column]:
    """Return the columns of some rows in order of appearance, nested ones by dotted names."""
    found: dict[str, list[Any]] = {name: [] for row in rows for name in row.columns}
    for row in rows:
        for name, value in _flat(row.fields):
            found.setdefault(name, []).append(value)
    return [Column(name, tuple(values)) for name, values in found.items()]


def _flat(fields: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        inner = value if isinstance(value, dict) else as_object(value)
        if inner:
            yield from _flat(inner, f"{above}{name}.")
        elif value is not None:
            yield f"{above}{name}", value


def suggest_columns(columns: Sequence[Column]) -> dict[str, str]:
    """Return the column of each of our fields, as far as one can tell; required ones first."""
    free = {column.name: column for column in columns}
    found: dict[str, str] = {}
    for field, names in _NAMES.items():
        named = (name for theirs in names.split() for name in free if _plain(name) == theirs)
        if (name := next(named, None)) is not None:
            found[field] = free.pop(name).name
    _trade_short_solution(found, columns)
    _add_by_content(found, free)
    return {field: found[field] for field in FIELDS if field in found}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.rpartition(".")[2].lower()).strip("_")


def _trade_short_solution(found: dict[str, str], columns: Sequence[Column]) -> None:
    """Take a "solution" of a few characters for the answer, where there is no other."""
    solution = next((c for c in columns if c.name == found.get("reference_solution")), None)
    if solution is not None and solution.is_short and "answer" not in found:
        found["answer"] = found.pop("reference_solution")


def _add_by_content(found: dict[str, str], free: Mapping[str, Column]) -> None:
    left = dict(free)
    worked = (name for name, column in left.items() if column.is_worked)
    if "reference_solution" not in found and (name := next(worked, None)):
        found["reference_solution"] = left.pop(name).name
    if "problem" not in found:
        longest = max(left.values(), key=lambda column: column.length, default=None)
        if longest is not None and longest.length >= _SHORTEST_PROBLEM:
            found["problem"] = left.pop(longest.name).name
    if "answer" not in found:
        answers = [column for column in left.values() if column.is_short]
        # Of two, the one with numbers or formulas.
        if answers:
            found["answer"] = max(answers, key=_mathematical).name


def _mathematical(column: Column) -> float:
    texts = [str(value) for value in column.values]
    return fmean(bool(re.search(r"\d|\\|[=^]", text)) for text in texts)


def as_options(found: Mapping[str, str]) -> str:
    """Return a column map as options of `validate` and `curate`."""
    pairs = (shlex.quote(f"{ours}={theirs}") for ours, theirs in changed(found).items())
    return " ".join(f"--column {pair}" for pair in pairs)


def as_toml(found: Mapping[str, str]) -> str:
    """Return a column map as an inline table."""
    pairs = [
        f"{ours} = {json.dumps(theirs, ensure_ascii=False)}"
        for ours, theirs in changed(found).items()
    ]
    return f"{{ {', '.join(pairs)} }}" if pairs else "{}"


def changed(found: Mapping[str, str]) -> dict[str, str]:
    """Return what of a map has to be said: a column that is called as our field needs no word."""
    return {ours: theirs for ours, theirs in found.items() if ours != theirs}


def missing_columns(
    place: str,
    rows: Sequence[RawRow],
    read: Sequence[Mapping[str, Any]],
    given: Mapping[str, str],
) -> str:
    """Return why no row of a file has a field that all need: its columns are called otherwise.

    `read` are our fields of those rows by the map that was `given`. Empty if that is not wrong.
    """
    columns = columns_of(rows)
    names = [column.name for column in columns]
    empty = [name for name in REQUIRED if all(fields.get(name) is None for fields in read)]
    lacking = [theirs for name in empty if (theirs := given.get(name, name)) not in names]
    if not lacking or (set(names) <= set(FIELDS) and not given):
        return ""
    said = f"{place}: has no {' and no '.join(map(repr, lacking))}, but {', '.join(names[:12])}"
    found = suggest_columns(columns)
    if set(REQUIRED) <= set(found):
        return f"{said}: {_map_advice(found)}"
    if {"problem", "solution"} <= set(names):
        return f"{said}: write math:{place} if the answer is the box of its solution"
    return f"{said}: say which is which, e.g. --column {empty[0]}=NAME"


def _map_advice(found: Mapping[str, str]) -> str:
    if not changed(found):
        return "its columns are our fields: leave out the column map (held_out_columns = {})"
    return f"give {as_options(found)} (in a recipe: columns = {as_toml(found)})"
