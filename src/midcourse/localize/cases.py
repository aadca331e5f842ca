"""Solutions whose first wrong step was marked by people, from the files as they were published.

The format is told by a file's fields, so one command takes the originals of ProcessBench, MR-GSM8K,
BIG-Bench-Mistake and CHAMP, and rows of our own form. Each set counts steps its own way (0-based
with −1, 1-based with "N/A", 0-based with null, a span of characters); all of it ends here.

Our own rows: ``problem``, ``steps`` and ``first_error_step`` (0-based, −1 for none), or
``problem``, ``rollout`` and ``error_start`` (the character at which the error begins, null for
none); optionally ``id``, ``source`` and ``reference_solution``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midcourse.data import find_data
from midcourse.errors import DataError
from midcourse.localize.records import ErrorCase
from midcourse.steps import error_step_from_location, split_steps, step_at


def load_error_cases(path: str | Path) -> list[ErrorCase]:
    """Read every case of a .json or .jsonl file; `path` may start with ``$MIDCOURSE_DATA``.

    Raises DataError that names file, row and field.
    """
    file = find_data(path, hint="give the path of a .json or .jsonl file")
    cases: dict[tuple[str, str], ErrorCase] = {}
    for row in _rows(file):
        for case in _reader(row)(row):
            _check(case, row)
            if cases.setdefault((case.source, case.case_id), case) is not case:
                raise row.complaint(f"id {case.case_id!r} was there before: make ids unique")
    if not cases:
        raise DataError(f"{file}: holds no solutions: write one JSON object per line")
    return list(cases.values())


@dataclass(frozen=True, slots=True)
class _Row:
    """One JSON object of a file, and where it stands."""

    file: Path
    number: int
    """1-based: the line, or the place in the list."""
    fields: dict[str, Any]

    def complaint(self, text: str) -> DataError:
        """Return the error that says `text` of this row."""
        return DataError(f"{self.file}: row {self.number}: {text}")

    def get(self, name: str, *kinds: type) -> Any:
        """Return a field of one of `kinds`."""
        value = self.fields.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise self.complaint(f"field {name!r} is {value!r:.60}, wanted {wanted}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a field that is a list of texts."""
        value = self.get(name, list)
        if not all(isinstance(item, str) for item in value):
            raise self.complaint(f"field {name!r} holds something that is no text")
        return tuple(value)

    def nested(self, value: Any) -> _Row:
        """Return an object inside this one, for the same checks."""
        if not isinstance(value, dict):
            raise self.complaint(f"{value!r:.60} is not an object")
        return _Row(self.file, self.number, value)

    def optional_text(self, name: str) -> str | None:
        """Return a text, null where it is absent or blank."""
        value = self.fields.get(name)
        return str(value) if value and str(value).strip() else None


def _rows(file: Path) -> Iterator[_Row]:
    """Yield the objects of a JSON list, of a single JSON object, or of JSON lines."""
    text = file.read_text("utf-8-sig")
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        values = [
            (number, _object(file, number, line))
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        ]
    else:
        values = list(enumerate(whole if isinstance(whole, list) else [whole], start=1))
    for number, value in values:
        if not isinstance(value, dict):
            raise DataError(f"{file}: row {number}: not an object")
        yield _Row(file, number, value)


def _object(file: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: row {number}: not JSON ({error})") from error


def _check(case: ErrorCase, row: _Row) -> None:
    if not case.steps:
        raise row.complaint("the solution has no steps")
    if case.error_step is not None and not 0 <= case.error_step < len(case.steps):
        raise row.complaint(f"the marked step is not one of the {len(case.steps)} steps")


def _reader(row: _Row) -> Callable[[_Row], Iterator[ErrorCase]]:
    """Return the reader of the row's format, told by a field that only that format has."""
    for field, reader in _READERS.items():
        if field in row.fields:
            return reader
    raise row.complaint(f"no format that is known: it has none of {', '.join(_READERS)}")


def _ours_in_steps(row: _Row) -> Iterator[ErrorCase]:
    yield _ours(row, row.texts("steps"), _from_minus_one(row.get("first_error_step", int)))


def _ours_as_span(row: _Row) -> Iterator[ErrorCase]:
    steps = split_steps(row.get("rollout", str))
    yield _ours(row, steps, _from_span(row, steps, row.get("error_start", int, type(None))))


def _ours(row: _Row, steps: Sequence[str], error_step: int | None) -> ErrorCase:
    return ErrorCase(
        case_id=str(row.fields.get("id", row.number)),
        source=row.optional_text("source") or row.file.stem,
        problem=row.get("problem", str),
        reference=row.optional_text("reference_solution"),
        steps=tuple(steps),
        error_step=error_step,
    )


def _processbench(row: _Row) -> Iterator[ErrorCase]:
    """``label``: 0-based, −1 for none. The published files hold no references."""
    case_id = row.get("id", str)
    yield ErrorCase(
        case_id=case_id,
        source=f"ProcessBench/{case_id.rpartition('-')[0] or row.file.stem}",
        problem=row.get("problem", str),
        reference=None,
        steps=row.texts("steps"),
        error_step=_from_minus_one(row.get("label", int)),
    )


def _mr_gsm8k(row: _Row) -> Iterator[ErrorCase]:
    """``model_output_solution_first_error_step``: 1-based, "N/A" for none."""
    marked = str(row.fields.get("model_output_solution_first_error_step")).strip()
    is_wrong = row.get("model_output_solution_correctness", str).strip().lower() == "wrong"
    if marked.isdecimal() != is_wrong:
        raise row.complaint(f"the solution is marked wrong or right, but its step is {marked!r}")
    yield ErrorCase(
        case_id=row.get("uuid", str),
        source=f"MR-GSM8K/{row.get('question_type', str)}",
        problem=row.get("question", str),
        reference=row.optional_text("ground_truth_solution"),
        steps=row.texts("model_output_steps"),
        error_step=error_step_from_location(int(marked)) if is_wrong else None,
    )


def _big_bench_mistake(row: _Row) -> Iterator[ErrorCase]:
    """``mistake_index``: 0-based, null for none. A row's id is its place in the file."""
    yield ErrorCase(
        case_id=f"{row.file.stem}-{row.number - 1}",
        source=f"BIG-Bench-Mistake/{row.file.stem}",
        problem=row.get("input", str),
        reference=None,
        steps=row.texts("steps"),
        error_step=row.get("mistake_index", int, type(None)),
    )


def _champ(row: _Row) -> Iterator[ErrorCase]:
    """One object with all problems; each has solutions with ``start_idx``, null for none."""
    for identifier, value in row.get("problems", dict).items():
        problem = row.nested(value)
        solution = problem.nested(problem.get("solution", dict)).get("steps", list)
        reference = "\n".join(row.nested(step).get("_text", str) for step in solution)
        for author, annotation in problem.get("fws_annotations", dict).items():
            marked = row.nested(annotation)
            steps = split_steps(marked.get("text", str))
            yield ErrorCase(
                case_id=f"{identifier}|{author}",
                source="CHAMP",
                problem=problem.get("_text", str),
                reference=reference or None,
                steps=tuple(steps),
                error_step=_from_span(row, steps, marked.get("start_idx", int, type(None))),
            )


def _from_minus_one(marked: int) -> int | None:
    return None if marked == -1 else marked


def _from_span(row: _Row, steps: Sequence[str], start: int | None) -> int | None:
    """Return the step in which a marked span of characters begins."""
    if start is None:
        return None
    try:
        return step_at(steps, start)
    except ValueError as error:
        raise row.complaint(f"the marked span: {error}") from error


_READERS: dict[str, Callable[[_Row], Iterator[ErrorCase]]] = {
    "first_error_step": _ours_in_steps,
    "error_start": _ours_as_span,
    "model_output_steps": _mr_gsm8k,
    "mistake_index": _big_bench_mistake,
    "problems": _champ,
    "label": _processbench,
}
