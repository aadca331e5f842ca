"""Parts of a problem set that share no problem, whatever the order or the file; subsets.

A problem's place in 0 … 1 is a hash of its text, case and blank space aside, so the same text is in
the same part wherever it stands, and twice in a file is twice in one part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from midcourse.data.problems import load_problems
from midcourse.errors import DataError
from midcourse.records import DEFAULT_CHECKER, Problem, content_id


def place(text: str) -> float:
    """Return the place of a problem's text in 0 … 1, 1 excluded."""
    return int(hashlib.sha256(_plain(text).encode()).hexdigest()[:12], 16) / 16**12


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def load_part(
    path: str,
    part: tuple[float, float],
    limit: int | None,
    columns: Mapping[str, str],
    checker: str = DEFAULT_CHECKER,
) -> list[Problem]:
    """Return the first `limit` problems of a part of a source. Raises DataError."""
    if part == (0.0, 1.0):  # a source may be without end: ask for no more than is wanted
        return load_problems(path, limit=limit, columns=columns, checker=checker)
    return problems_in(load_problems(path, columns=columns, checker=checker), part)[:limit]


def problems_in(problems: Sequence[Problem], part: tuple[float, float]) -> list[Problem]:
    """Return the problems from ``part[0]``, included, to ``part[1]``, excluded; all for 0 … 1.

    Raises DataError if there are none.
    """
    found = [problem for problem in problems if part[0] <= place(problem.text) < part[1]]
    if not found:
        raise DataError(f"none of {len(problems)} problems is in part {list(part)}: widen it")
    return found


def subset_ids(problem_ids: Iterable[str], size: int, seed: int) -> set[str]:
    """Return `size` of the ids, those whose hash with the seed comes first; all if there are fewer.

    The choice knows no order, and a larger one holds a smaller one.
    """
    return set(sorted(problem_ids, key=lambda name: content_id("subset", seed, name))[:size])


def require_disjoint(train: Sequence[Problem], others: Mapping[str, Sequence[Problem]]) -> None:
    """Raise DataError if a set to evaluate on shares a problem, or an id, with the training set.

    Nor may two such sets share an id: what is sampled for a problem is known by it.
    """
    texts = {_plain(problem.text) for problem in train}
    ids = {problem.problem_id for problem in train}
    for name, problems in others.items():
        shared = [p.problem_id for p in problems if _plain(p.text) in texts]
        if shared:
            raise DataError(
                f"{len(shared)} of {len(problems)} {name} problems are training problems too "
                f"({_first(shared)}): take them out, e.g. with midcourse curate TRAINING --against "
                "EVALUATED --out FILE"
            )
        same = [p.problem_id for p in problems if p.problem_id in ids]
        if same:
            raise DataError(
                f"{len(same)} of {len(problems)} {name} problems have the id of a training problem "
                f"with another text ({_first(same)}): make ids unique over both files"
            )
    owners: dict[str, str] = {}
    for name, problems in others.items():
        same = [p.problem_id for p in problems if owners.setdefault(p.problem_id, name) != name]
        if same:
            raise DataError(
                f"{len(same)} of {len(problems)} {name} problems have the id of a problem of "
                f"{owners[same[0]]} ({_first(same)}): make ids unique over all sets to evaluate on"
            )


def _first(names: Sequence[str]) -> str:
    return f"first: {', '.join(names[:3])}"
