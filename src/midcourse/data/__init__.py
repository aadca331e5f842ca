"""Problems from files. Every complaint names the file, the line, the field and what to do.

A file is JSONL: ``problem``, ``answer`` and optionally ``id``, ``reference_solution``, ``source``
and ``split``; or GSM8K as published (``question``, and an ``answer`` that ends in ``#### 42``).
What is read is what is kept: an answer given as the number ``0.10`` stays ``"0.10"``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midcourse.errors import DataError
from midcourse.grading import Grader
from midcourse.records import Problem, Verdict, content_id

__all__ = ["find_data", "load_problems", "require_references", "validate_problems"]

#: GSM8K's calculator marks, ``<<48/2=24>>``: written for a tool, not for a reader.
_CALCULATION = re.compile(r"<<[^<>]*>>")


def load_problems(
    path: str | Path, *, limit: int | None = None, split: str = "train"
) -> list[Problem]:
    """Read the first `limit` problems of a file; `split` is for rows that name none.

    A path may start with ``$MIDCOURSE_DATA`` (default ``../shared/data``). Raises DataError on
    the first complaint.
    """
    file, problems = find_data(path), []
    for row in _read(file, split):
        if row.problem is None:
            raise DataError(row.complaints[0])
        problems.append(row.problem)
        if len(problems) == limit:
            break
    if not problems:
        raise DataError(_no_problems(file))
    return problems


def find_data(path: str | Path, hint: str = "give --set problems.path=FILE.jsonl") -> Path:
    """Return the file of `path`. Raises DataError that ends in `hint`."""
    root = os.environ.get("MIDCOURSE_DATA", "../shared/data")
    file = Path(str(path).replace("$MIDCOURSE_DATA", root)).expanduser()
    if not file.is_file():
        data = f" (MIDCOURSE_DATA is {root!r})" if "$MIDCOURSE_DATA" in str(path) else ""
        raise DataError(f"{file}: no such file{data}: {hint}")
    return file


def require_references(problems: list[Problem]) -> None:
    """Raise DataError if a problem lacks the reference solution that its recipe needs."""
    lacking = [problem.problem_id for problem in problems if not problem.reference_solution]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(problems)} problems have no reference_solution (first: "
            f"{', '.join(lacking[:3])}): add them, set reference.write = 'missing' "
            "to have them written, or propose.reference = 'none'"
        )


def validate_problems(path: str | Path, grader: Grader) -> list[str]:
    """Return every complaint about a file, one line each; an empty list means it is sound.

    Beyond `load_problems`, the grader must be able to read every gold answer, so that the same
    answer in another form is accepted too. Raises DataError only if there is no such file.
    """
    file = find_data(path)
    rows = list(_read(file, "train"))
    if not rows:
        return [_no_problems(file)]
    complaints = [(row.line, complaint) for row in rows for complaint in row.complaints]
    read = [(row.line, row.problem) for row in rows if row.problem is not None]
    checked = grader.check_golds(problem.answer for _, problem in read)
    for (line, problem), result in zip(read, checked, strict=True):
        if result.verdict is not Verdict.CORRECT:
            why = result.cause or result.verdict
            complaints.append(
                (
                    line,
                    f"{file}:{line}: id {problem.problem_id!r}: field 'answer': the grader cannot "
                    f"read {problem.answer[:80]!r} ({why}): write it as one LaTeX expression",
                )
            )
    return [complaint for _, complaint in sorted(complaints, key=lambda item: item[0])]


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a file: a problem, or the complaints about it."""

    line: int
    problem: Problem | None
    complaints: tuple[str, ...] = ()


class _Number(str):
    """A JSON number, as it was written."""


def _no_problems(file: Path) -> str:
    return f"{file}: holds no problems: write one JSON object per line"


def _read(file: Path, split: str) -> Iterator[_Row]:
    """Yield the rows of a file; blank lines are passed over."""
    seen: dict[str, int] = {}
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            fields, complaints = _fields(line)
            if fields and not complaints:
                problem = _problem(fields, split, file.stem)
                first = seen.setdefault(problem.problem_id, number)
                if first == number:
                    yield _Row(number, problem)
                    continue
                complaints = [
                    f"field 'id': {problem.problem_id!r} is that of line {first}: make ids unique"
                ]
            name = f"id {fields['id']!r}: " if fields.get("id") else ""
            yield _Row(number, None, tuple(f"{file}:{number}: {name}{c}" for c in complaints))


def _fields(line: bytes) -> tuple[dict[str, str], list[str]]:
    """Return the text fields of one line, and what is wrong with them."""
    try:
        # The byte-order mark that some editors write in front of a file is no fault.
        row = json.loads(
            line.decode("utf-8-sig"), parse_int=_Number, parse_float=_Number, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        return {}, [f"not JSON in UTF-8 ({error}): write one object per line"]
    if not isinstance(row, dict):
        return {}, ['not an object: write {"problem": "…", "answer": "…"}']
    if "question" in row and "problem" not in row:
        row = _from_gsm8k(row)
    required, optional = ("problem", "answer"), ("id", "reference_solution", "source", "split")
    complaints = [_complaint(row, name) for name in required]
    complaints += [_complaint(row, name) for name in optional if row.get(name) is not None]
    fields = {name: row[name] for name in (*required, *optional) if isinstance(row.get(name), str)}
    return fields, [complaint for complaint in complaints if complaint]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _complaint(row: dict[str, Any], name: str) -> str:
    """Return what is wrong with one field; an answer or an id may be a number."""
    value = row.get(name)
    if value is None:
        return f"field {name!r} is missing: every problem needs one"
    if not isinstance(value, str) or (isinstance(value, _Number) and name not in {"answer", "id"}):
        return f"field {name!r} is no text: write it in quotes"
    if name in {"problem", "answer"} and not value.strip():
        return f"field {name!r} is empty: every problem needs one"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return f"field {name!r} holds half a character (a lone surrogate): write it anew"
    return ""


def _problem(fields: dict[str, str], split: str, source: str) -> Problem:
    source = fields.get("source", source)
    reference = fields.get("reference_solution", "")
    return Problem(
        problem_id=str(fields.get("id") or content_id(source, fields["problem"])),
        text=fields["problem"],
        answer=str(fields["answer"]),
        reference_solution=reference if reference.strip() else None,
        source=source,
        split=fields.get("split", split),
    )


def _from_gsm8k(row: dict[str, Any]) -> dict[str, Any]:
    """GSM8K as published: the worked solution, then ``####`` and the final answer."""
    named = {"source": "gsm8k", **row, "problem": row["question"]}
    solution, mark, final = str(row.get("answer", "")).rpartition("####")
    if not mark:
        return named
    reference = _CALCULATION.sub("", solution).strip()
    return {**named, "answer": final.strip().replace(",", ""), "reference_solution": reference}
