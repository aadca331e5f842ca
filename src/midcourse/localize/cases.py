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
from midcourse.steps import (
    BLANK_LINES,
    StepRule,
    error_step_from_location,
    split_steps,
    step_at,
)


@dataclass(frozen=True, slots=True)
class ErrorCase:
    """A solution in which people marked the first wrong step, e.g. error_step 2 of 5 steps."""

    case_id: str
    """Unique within its source."""
    source: str
    """Data set and part, e.g. ``ProcessBench/gsm8k``."""
    problem: str
    reference: str | None
    """A right solution, where the data set has one."""
    steps: tuple[str, ...]
    error_step: int | None
    """0-based first wrong step; null if people found none."""
    answer: str | None = None
    """The right answer, where the data set has one; no question of the benchmark shows it."""


def load_error_cases(path: str | Path, rule: StepRule = BLANK_LINES) -> list[ErrorCase]:
    """Read every case of a .json or .jsonl file; `path` may start with ``$MIDCOURSE_DATA``.

    `rule` cuts the solutions of our own format that come as one text. Raises DataError that names
    file, row and field.
    """
    file = find_data(path, hint="give the path of a .json or .jsonl file")
    cases: dict[tuple[str, str], ErrorCase] = {}
    for row in _rows(file, rule):
        for case in _reader(row)(row):
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
    rule: StepRule

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

    def texts(self, name: str) -> list[str]:
        """Return a field that is a list of texts."""
        value: list[str] = self.get(name, list)
        if not all(isinstance(item, str) for item in value):
            raise self.complaint(f"field {name!r} holds something that is not text")
        return value

    def nested(self, value: Any) -> _Row:
        """Return an object inside this one, for the same checks."""
        if not isinstance(value, dict):
            raise self.complaint(f"{value!r:.60} is not an object")
        return _Row(self.file, self.number, value, self.rule)

    def optional_text(self, name: str) -> str | None:
        """Return a text, null where it is absent or blank."""
        value = self.fields.get(name)
        return str(value) if value and str(value).strip() else None

    def step_at(self, steps: Sequence[str], name: str) -> int | None:
        """Return the step in which the span of characters begins that a field marks."""
        start = self.get(name, int, type(None))
        try:
            return None if start is None else step_at(steps, start)
        except ValueError as error:
            raise self.complaint(f"the marked span: {error}") from error

    def case(
        self,
        case_id: str,
        source: str,
        problem: str,
        steps: Sequence[str],
        error_step: int | None,
        reference: str | None = None,
        answer: str | None = None,
    ) -> ErrorCase:
        """Return the case if its mark is one of its steps."""
        if not steps:
            raise self.complaint("the solution has no steps")
        if error_step is not None and not 0 <= error_step < len(steps):
            raise self.complaint(f"the marked step is not one of the {len(steps)} steps")
        return ErrorCase(case_id, source, problem, reference, tuple(steps), error_step, answer)


def _rows(file: Path, rule: StepRule) -> Iterator[_Row]:
    """Yield the objects of a JSON list, of a single JSON object, or of JSON lines."""
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        lines = enumerate(text.split("\n"), start=1)
        values = [(number, _parsed(file, number, line)) for number, line in lines if line.strip()]
    else:
        values = list(enumerate(whole if isinstance(whole, list) else [whole], start=1))
    for number, value in values:
        if not isinstance(value, dict):
            raise DataError(f"{file}: row {number}: not an object")
        yield _Row(file, number, value, rule)


def _parsed(file: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: row {number}: not JSON ({error})") from error


def _reader(row: _Row) -> Callable[[_Row], Iterator[ErrorCase]]:
    """Return the reader of the row's format, told by a field that only that format has."""
    for field, reader in _READERS.items():
        if field in row.fields:
            return reader
    raise row.complaint(f"no format that is known: it has none of {', '.join(_READERS)}")


def _ours(row: _Row) -> Iterator[ErrorCase]:
    case_id = str(row.fields.get("id", row.number))
    source = row.optional_text("source") or row.file.stem
    if "first_error_step" in row.fields:
        steps, error_step = row.texts("steps"), _from_minus_one(row.get("first_error_step", int))
    else:
        steps = row.rule.split(row.get("rollout", str))
        error_step = row.step_at(steps, "error_start")
    reference = row.optional_text("reference_solution")
    answer, problem = row.optional_text("answer"), row.get("problem", str)
    yield row.case(case_id, source, problem, steps, error_step, reference, answer)


def _processbench(row: _Row) -> Iterator[ErrorCase]:
    """``label``: 0-based, −1 for none. The published files hold no references."""
    case_id = row.get("id", str)
    source = f"ProcessBench/{case_id.rpartition('-')[0] or row.file.stem}"
    error_step = _from_minus_one(row.get("label", int))
    yield row.case(case_id, source, row.get("problem", str), row.texts("steps"), error_step)


def _mr_gsm8k(row: _Row) -> Iterator[ErrorCase]:
    """``model_output_solution_first_error_step``: 1-based, "N/A" for none."""
    marked = str(row.fields.get("model_output_solution_first_error_step")).strip()
    is_wrong = row.get("model_output_solution_correctness", str).strip().lower() == "wrong"
    if marked.isdecimal() != is_wrong:
        raise row.complaint(f"the solution is marked wrong or right, but its step is {marked!r}")
    yield row.case(
        row.get("uuid", str),
        f"MR-GSM8K/{row.get('question_type', str)}",
        row.get("question", str),
        row.texts("model_output_steps"),
        error_step_from_location(int(marked)) if is_wrong else None,
        row.optional_text("ground_truth_solution"),
    )


def _big_bench_mistake(row: _Row) -> Iterator[ErrorCase]:
    """``mistake_index``: 0-based, null for none. A row's id is its place in the file."""
    case_id, source = f"{row.file.stem}-{row.number - 1}", f"BIG-Bench-Mistake/{row.file.stem}"
    error_step = row.get("mistake_index", int, type(None))
    yield row.case(case_id, source, row.get("input", str), row.texts("steps"), error_step)


def _champ(row: _Row) -> Iterator[ErrorCase]:
    """One object with all problems; each has solutions with ``start_idx``, null for none."""
    for identifier, value in row.get("problems", dict).items():
        problem = row.nested(value)
        lines = problem.nested(problem.get("solution", dict)).get("steps", list)
        reference = "\n".join(row.nested(line).get("_text", str) for line in lines) or None
        for author, annotation in problem.get("fws_annotations", dict).items():
            marked, case_id = row.nested(annotation), f"{identifier}|{author}"
            steps = split_steps(marked.get("text", str))
            error_step, text = marked.step_at(steps, "start_idx"), problem.get("_text", str)
            yield row.case(case_id, "CHAMP", text, steps, error_step, reference)


def _from_minus_one(marked: int) -> int | None:
    return None if marked == -1 else marked


_READERS: dict[str, Callable[[_Row], Iterator[ErrorCase]]] = {
    "first_error_step": _ours,
    "error_start": _ours,
    "model_output_steps": _mr_gsm8k,
    "mistake_index": _big_bench_mistake,
    "problems": _champ,
    "label": _processbench,
}
