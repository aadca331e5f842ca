"""The problems that a run directory was made with, kept in it: other ones are refused by name.

Stages are named by what made them, so other problems under the same recipe would quietly begin
everything again next to what is there, and a finished run would not say that it is of another file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from midcourse.errors import ArtifactError
from midcourse.pipeline.values import ProblemSets
from midcourse.printable import printable
from midcourse.records import Problem
from midcourse.store.stage import read_records, write_records

#: Differences that a refusal names.
_SHOWN = 3


def keep_problems(folder: Path, problems: ProblemSets) -> None:
    """Write what is not there yet."""
    for name, items in _sets(problems).items():
        path = _file(folder, name)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_records(path, items, Problem)


def check_problems(folder: Path, problems: ProblemSets) -> None:
    """Raise ArtifactError if what is there are other problems."""
    for name, items in _sets(problems).items():
        path = _file(folder, name)
        if not path.is_file():
            continue
        found = list(_differences(_read(path), items))
        if found:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise ArtifactError(
                f"{path} holds other {name} problems than the recipe names now: "
                f"{', '.join(found[:_SHOWN])}{more}; use another --run-dir, or put back the "
                "problems that this one was made with"
            )


def _read(path: Path) -> list[Problem]:
    try:
        return list(read_records([path], Problem))
    except (ArtifactError, OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read: delete it if the problems are those that the run was made with"
        ) from error


def _sets(problems: ProblemSets) -> Mapping[str, Sequence[Problem]]:
    return {"train": problems.train, **problems.evaluation}


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.parquet"


def _differences(theirs: Sequence[Problem], ours: Sequence[Problem]) -> Iterator[str]:
    """Say what became of each problem."""
    if list(theirs) == list(ours):
        return
    before, now = ({p.problem_id: p for p in problems} for problems in (theirs, ours))
    for problem_id in before | now:
        shown = printable(problem_id[:40], keep="")
        if problem_id not in now:
            yield f"{shown} is gone"
        elif problem_id not in before:
            yield f"{shown} is new"
        else:
            old, new = before[problem_id], now[problem_id]
            names = (field.name for field in fields(Problem))
            if changed := [name for name in names if getattr(old, name) != getattr(new, name)]:
                yield f"{shown} has another {' and '.join(changed)}"
    if before == now and list(before) != list(now):
        yield "they stand in another order"
