"""Problems from wherever they are. Every complaint names the place, the field and what to do.

A row needs ``problem`` and ``answer``; ``id``, ``reference_solution``, ``source``, ``split`` and
``checker``, with the ``entry`` that a checker may need, are optional. Other names are mapped by a
known source (`midcourse.data.sources`) or by a column map. What is read is what is kept: an answer
given as the number ``0.10`` stays ``"0.10"``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from midcourse.checkers import Grader, Pair, checker_named, runs_programs
from midcourse.checkers.reasoning_gym import NAME as TASKS
from midcourse.data.cells import asked_in, is_no_answer, says_nothing, unwrapped
from midcourse.data.columns import columns_of, missing_columns
from midcourse.data.rows import Number, RawRow, find_data, is_hub, own_rows, read_rows
from midcourse.data.sources import (
    FIELDS,
    OPTIONAL,
    PLAIN,
    REQUIRED,
    Source,
    find_source,
    plain_fields,
)
from midcourse.data.tasks import generate_tasks
from midcourse.data.word_problems import NAME as WORD_PROBLEMS
from midcourse.data.word_problems import generate_word_problems
from midcourse.errors import DataError
from midcourse.plugins import is_path
from midcourse.records import DEFAULT_CHECKER, Problem, Verdict, content_id

_NO_COLUMNS: Mapping[str, str] = {}
_NO_OTHERS: Mapping[str, Mapping[str, Any]] = {}
_GENERATED = {TASKS: generate_tasks, WORD_PROBLEMS: generate_word_problems}
#: Rows that tell whether a file has our fields.
_PEEKED = 20
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_NO_PROBLEMS = "holds no problems: write one JSON object per line"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a place: a problem, or the complaints about it."""

    where: str
    problem: Problem | None
    complaints: tuple[str, ...] = ()
    lacks_answer: bool = False
    """Whether all that is wrong is that there is no answer."""
    is_repeated: bool = False
    """Whether all that is wrong is that an earlier row has the same id."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """The row as it stands in the file."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """What it says beyond our fields, e.g. tags."""


def load_problems(
    path: str | Path,
    *,
    limit: int | None = None,
    split: str = "train",
    columns: Mapping[str, str] = _NO_COLUMNS,
    checker: str = DEFAULT_CHECKER,
) -> list[Problem]:
    """Read the first `limit` problems of a place; `split` and `checker` are for rows without.

    `columns` maps our fields to the names of an unknown file. Raises DataError on the first
    complaint.
    """
    problems = []
    rows = read_problems(path, split=split, columns=columns, limit=limit, checker=checker)
    for row in islice(rows, limit):
        if row.problem is None:
            raise DataError(row.complaints[0])
        problems.append(row.problem)
    if not problems:
        raise DataError(f"{path}: {_NO_PROBLEMS}")
    return problems


def require_references(problems: Sequence[Problem]) -> None:
    """Raise DataError if a problem lacks the reference solution that its recipe needs."""
    lacking = [problem.problem_id for problem in problems if not problem.reference_solution]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(problems)} problems have no reference_solution (first: "
            f"{', '.join(lacking[:3])}): add them, set reference.write = 'missing' "
            "to have them written, or propose.reference = 'none'"
        )


def validate_problems(
    path: str | Path,
    grader: Grader,
    *,
    columns: Mapping[str, str] = _NO_COLUMNS,
    limit: int | None = None,
    checker: str = DEFAULT_CHECKER,
) -> list[str]:
    """Return every complaint about a place, one line each; an empty list means it is sound.

    Beyond `load_problems`, the grader must be able to read every gold answer, so that the same
    answer in another form is accepted too, and a reference program must pass its tests. `columns`,
    `limit` and `checker` are as for `load_problems`. Raises DataError only if there is no such
    place, or if its columns are called otherwise.
    """
    found = read_problems(path, columns=columns, limit=limit, checker=checker)
    rows = list(islice(found, limit))
    if not rows:
        return [f"{path}: {_NO_PROBLEMS}"]
    complaints = [list(row.complaints) for row in rows]
    read = {index: row.problem for index, row in enumerate(rows) if row.problem is not None}
    places = {problem.problem_id: index for index, problem in read.items()}
    for problem, why in unsound_golds(read.values(), grader):
        index = places[problem.problem_id]
        complaints[index].append(f"{rows[index].where}: id {problem.problem_id!r}: {why}")
    return [complaint for lines in complaints for complaint in lines]


def unsound_golds(problems: Iterable[Problem], grader: Grader) -> Iterator[tuple[Problem, str]]:
    """Yield the problems whose own answer is not found right, and why; without one, none can."""
    given = [problem for problem in problems if problem.answer]
    checked = grader.check_golds(Pair(problem.answer, problem.gold) for problem in given)
    for problem, result in zip(given, checked, strict=True):
        if result.verdict is Verdict.CORRECT:
            continue
        said = result.cause or result.verdict
        if runs_programs(problem.checker):
            yield problem, f"field 'entry': the reference program does not pass the tests ({said})"
        else:
            unread = f"field 'answer': the grader cannot read {problem.answer[:80]!r} ({said})"
            yield problem, f"{unread}: write it as one LaTeX expression"


def require_sound_programs(problems: Sequence[Problem], grader: Grader) -> None:
    """Raise DataError if a reference program does not pass the tests of its problem."""
    programs = [p for p in problems if p.answer and runs_programs(p.checker)]
    if unsound := [problem.problem_id for problem, _ in unsound_golds(programs, grader)]:
        raise DataError(
            f"{len(unsound)} of {len(programs)} reference programs do not pass their own tests "
            f"(first: {', '.join(unsound[:3])}): mend them, or take them out with midcourse curate"
        )


def write_problems(
    problems: Iterable[Problem], file: Path, others: Mapping[str, Mapping[str, Any]] = _NO_OTHERS
) -> None:
    """Write problems as JSONL in our own fields; `others` are further ones, by problem id."""
    with file.open("w", encoding="utf-8") as lines:
        for problem in problems:
            fields = {
                "id": problem.problem_id,
                "problem": problem.text,
                "answer": problem.answer,
                "reference_solution": problem.reference_solution,
                "source": problem.source,
                "split": problem.split,
                "checker": problem.checker,
            }
            if problem.entry:
                fields["entry"] = json.loads(problem.entry)
            lines.write(json_line({**fields, **others.get(problem.problem_id, {})}))


def json_line(fields: Mapping[str, Any]) -> str:
    """Return fields as a line of JSON; what JSON does not have, a date for instance, as text."""
    return json.dumps(_numbers_read(dict(fields)), ensure_ascii=False, default=str) + "\n"


def read_problems(
    path: str | Path,
    *,
    split: str = "train",
    columns: Mapping[str, str] = _NO_COLUMNS,
    limit: int | None = None,
    checker: str = DEFAULT_CHECKER,
) -> Iterator[Row]:
    """Yield one `Row` per row of a place, in order; generated problems stop at `limit`.

    Rows that name no checker get `checker`.

    Raises DataError if the place cannot be opened, if the column map names no field of ours, or if
    no column is what every problem needs.
    """
    unknown = sorted(set(columns) - set(FIELDS))
    if unknown:
        raise DataError(f"columns: no field {unknown[0]!r}: the fields are {', '.join(FIELDS)}")
    if is_generated(str(path)):
        generate = _GENERATED[str(path).partition(":")[0]]
        yield from (Row(p.problem_id, p) for p in generate(str(path), split, limit))
        return
    source, place = find_source(str(path))
    if source is PLAIN and is_path(place) and not Path(place).exists():
        rows, default = own_rows(place), place.partition(":")[0]
    else:
        rows, default = read_rows(place), place if is_hub(place) else find_data(place).stem
    peeked = list(islice(rows, _PEEKED))
    _check_columns(source, place, peeked, columns, checker)
    seen: dict[str, RawRow] = {}
    for raw in chain(peeked, rows):
        fields = {**_of_recipe(checker), **_fields_of(source, raw, columns)}
        read = _read_row(raw, fields, split, default, checker)
        others = source.others_of(raw.fields, columns)
        row = replace(read, given=raw.fields, others=others)
        if row.problem is None or (first := seen.setdefault(row.problem.problem_id, raw)) is raw:
            yield row
        elif not source.repeats:
            yield replace(_repeated(row.where, row.problem.problem_id, first), given=raw.fields)


def is_generated(place: str) -> bool:
    """Whether a place is a specification of problems to be generated, not one to read."""
    name, colon, _ = place.partition(":")
    return bool(colon) and name in _GENERATED


def _fields_of(source: Source, raw: RawRow, columns: Mapping[str, str]) -> dict[str, Any]:
    is_plain = source is PLAIN
    return plain_fields(raw.fields, columns) if is_plain else source.fields_of(raw.fields)


def _of_recipe(checker: str) -> dict[str, str]:
    """Return the fields of a row that names no checker: the default one is not written out."""
    return {} if checker == DEFAULT_CHECKER else {"checker": checker}


def _check_columns(
    source: Source,
    place: str,
    peeked: list[RawRow],
    columns: Mapping[str, str],
    checker: str,
) -> None:
    """Raise DataError if none of the first rows has a column that every problem needs."""
    rows = [raw for raw in peeked if raw.fields and not raw.complaint]
    read = [{**_of_recipe(checker), **_fields_of(source, raw, columns)} for raw in rows]
    # Of a program nobody has to give a right one.
    read = [f if _needs_answer(f.get("checker"), checker) else {"answer": "", **f} for f in read]
    if rows and source is PLAIN and (complaint := missing_columns(place, rows, read, columns)):
        raise DataError(complaint)
    there = {name for raw in rows for name in raw.fields}
    is_other = source is not PLAIN and there.isdisjoint(source.problem)
    if rows and is_other and all(fields.get("problem") is None for fields in read):
        names = ", ".join(column.name for column in columns_of(rows)[:12])
        raise DataError(
            f"{place}: is not as {source.name} is published, whose problems stand under "
            f"{source.problem[0]!r}: it has {names}; leave out '{source.name}:' if they are yours"
        )


def _repeated(where: str, name: str, first: RawRow) -> Row:
    place = first.where.rpartition(":")[2]
    earlier = f"line {place}" if place.isdigit() else place
    complaint = f"field 'id': {name!r} is that of {earlier}: make ids unique"
    return Row(where, None, (f"{where}: id {name!r}: {complaint}",), is_repeated=True)


def _read_row(raw: RawRow, fields: dict[str, Any], split: str, source: str, checker: str) -> Row:
    """Read a row. The checker of the recipe may be any; a file chooses among those installed."""
    if raw.complaint or not raw.fields:
        complaint = raw.complaint or "holds nothing: every problem needs 'problem' and 'answer'"
        return Row(raw.where, None, (f"{raw.where}: {complaint}",))
    fields = _unwrapped(fields)
    wrong = _wrong(fields, checker)
    if not wrong:
        return Row(raw.where, _problem(fields, split, source))
    name = f"id {str(fields['id'])!r}: " if fields.get("id") else ""
    answer = fields.get("answer")
    absent = answer is None or not str(answer).strip() or _is_no_answer(fields)
    lines = tuple(f"{raw.where}: {name}{complaint}" for complaint in wrong.values())
    return Row(raw.where, None, lines, lacks_answer=absent and set(wrong) == {"answer"})


def _wrong(fields: Mapping[str, Any], checker: str) -> dict[str, str]:
    """Return the complaints about a row by field."""
    named = fields.get("checker")
    if isinstance(named, str) and named != checker and is_path(named):
        return {"checker": f"field 'checker': {named!r} is code: name it in problems.checker"}
    required = REQUIRED if _needs_answer(named, checker) else ("problem",)
    names = (*required, *(name for name in OPTIONAL if fields.get(name) is not None))
    return {name: complaint for name in names if (complaint := _complaint(fields, name))}


def _needs_answer(named: object, checker: str) -> bool:
    """Whether a row needs an answer; what it names is looked up only if the recipe may name it."""
    if not isinstance(named, str) or (named != checker and is_path(named)):
        return True
    try:
        return not runs_programs(named)
    except DataError:  # an unknown one is a complaint of its own
        return True


def _unwrapped(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with their texts taken out of what data sets wrap them in.

    A list may be the answer itself where another checker than mathematics' reads it.
    """
    names = {*REQUIRED, "reference_solution"}
    if fields.get("checker") not in (None, DEFAULT_CHECKER):
        names.remove("answer")
    texts = {name: unwrapped(fields[name]) for name in names if fields.get(name) is not None}
    if "problem" in texts:
        texts["problem"] = asked_in(texts["problem"])
    return {**fields, **texts}


def _is_no_answer(fields: Mapping[str, Any]) -> bool:
    """Whether the answer says that there is none; other checkers know what theirs are."""
    answer = fields.get("answer")
    is_text = (
        isinstance(answer, str) and (fields.get("checker") or DEFAULT_CHECKER) == DEFAULT_CHECKER
    )
    return is_text and is_no_answer(str(answer), str(fields.get("problem", "")))


def _complaint(fields: Mapping[str, Any], name: str) -> str:
    """Return what is wrong with one field; an answer or an id may be a number."""
    value = fields.get(name)
    if value is None:
        return f"field {name!r} is missing: every problem needs one"
    if not isinstance(value, str) or (isinstance(value, Number) and name not in {"answer", "id"}):
        return f"field {name!r} is not text: write it in quotes"
    if name in REQUIRED and not value.strip():
        return f"field {name!r} is empty: every problem needs one"
    if name == "answer" and _is_no_answer(fields):
        return f"field 'answer' is {str(value)!r}, which is not an answer: leave the problem out"
    if name == "problem" and says_nothing(value) and value.strip().isalpha():
        return f"field 'problem' is {str(value)!r}, which is not a problem: leave the row out"
    if _HALF_CHARACTER.search(value):
        return f"field {name!r} holds half a character (a lone surrogate): write it again"
    return _checker_complaint(value, fields.get("entry")) if name == "checker" else ""


def _checker_complaint(name: str, entry: object) -> str:
    """Return what is wrong with the checker that a row names, or with its entry."""
    try:
        complaint = checker_named(name).complaint_about(_numbers_read(entry))
    except DataError as error:
        return f"field 'checker': {error}"
    except (ValueError, RecursionError) as error:
        return f"field 'entry' cannot be read ({error}): leave it as midcourse wrote it"
    return f"field 'entry': {complaint}" if complaint else ""


def _numbers_read(value: Any) -> Any:
    """Return JSON with numbers in place of the texts that they were written as."""
    if isinstance(value, Number):
        return str(value) if value in ("nan", "inf", "-inf") else json.loads(value)
    if isinstance(value, dict):
        return {name: _numbers_read(inner) for name, inner in value.items()}
    return [_numbers_read(inner) for inner in value] if isinstance(value, list) else value


def _problem(fields: Mapping[str, Any], split: str, source: str) -> Problem:
    source = fields.get("source") or source
    reference = fields.get("reference_solution") or ""
    # An entry belongs to a checker: alone it is a column of somebody else's, like any other.
    entry = fields.get("entry") if fields.get("checker") else None
    return Problem(
        problem_id=str(fields.get("id") or content_id(source, fields["problem"])),
        text=fields["problem"],
        answer=str(fields.get("answer") or ""),
        reference_solution=None if says_nothing(reference) else reference,
        source=source,
        split=fields.get("split") or split,
        checker=fields.get("checker") or DEFAULT_CHECKER,
        entry=json.dumps(_numbers_read(entry)) if entry is not None else "",
    )
