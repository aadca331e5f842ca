r"""Answers laid out in rows: matrices, systems of equations, functions given case by case.

A function given by cases is its values and, for each, when it holds: the cases may stand in any
order. A system is the list of its equations.

    >>> read_layout(r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}")
    Layout(kind=<Kind.MATRIX: 'matrix'>, rows=(('1',), ('2',)))
    >>> read_layout(r"\begin{cases} x & \text{if } x > 0, \\ 0 & \text{otherwise} \end{cases}")
    Layout(kind=<Kind.CASES: 'cases'>, rows=(('x', 'x > 0'), ('0', 'otherwise')))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from midcourse.checkers.math.brackets import outside, split


class Kind(StrEnum):
    """What the rows are."""

    MATRIX = "matrix"
    SYSTEM = "system"
    CASES = "cases"


@dataclass(frozen=True, slots=True)
class Layout:
    """An answer in rows, e.g. ``Layout(Kind.MATRIX, (("1", "0"), ("0", "1")))``."""

    kind: Kind
    rows: tuple[tuple[str, ...], ...]
    """The cells of each row; of CASES, the value and when it holds; of a SYSTEM, one."""


_ENVIRONMENT = re.compile(
    r"(?P<opening>\\\{|[(\[])?\s?\\begin\s?\{(?P<name>[dr]?cases|array|[pbB]?(?:small)?matrix)\}"
    r"(?P<columns>\s?\{[clr| ]*\}|\s?\[[clr]\])?(?P<body>.*)\\end\s?\{(?P=name)\}\s?"
    r"(?P<closing>\\\}|[)\]])?[.,;]?",
    re.DOTALL,
)
_SPACE_AFTER = re.compile(r"\A\s?\[[0-9.]+\s?(?:pt|em|ex|mm|cm)\]")
_TEXT = re.compile(r"\\(?:text|mathrm)\s?\{([^{}]*)\}")
_SAID_BEFORE = r"(?:if|for|when|whenever|where|on|in case|provided)(?: that)?"
_OTHERWISE = r"(?:otherwise|else|elsewhere|in all other cases)"
#: Where the condition begins in a row that does not set it apart.
_CONDITION = re.compile(
    rf"\\(?:text|mathrm)\s?\{{[\s,;]*(?:{_SAID_BEFORE}|{_OTHERWISE})\b"
    rf"|(?<=[\s,;])(?:{_SAID_BEFORE}|{_OTHERWISE})\b"
)
_WHEN = re.compile(rf"[\s,;]*\b{_SAID_BEFORE}\b\s*")
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|in)(?![A-Za-z])")


def read_layout(text: str) -> Layout | None:
    """Read an answer that is one environment of rows; None for anything else."""
    found = _ENVIRONMENT.fullmatch(text)
    if found is None or "\\begin" in found["body"]:
        return None
    rows = [_cells(row) for row in _lines(found["body"])]
    rows = [row for row in rows if any(row)]
    if not rows:
        return None
    if found["name"].endswith("cases"):
        return _read_cases(rows)
    bare = found["name"] in ("array", "matrix", "smallmatrix")
    if bare and (found["opening"] is None or found["closing"] is None):
        listed = max(map(len, rows)) == 1
        return Layout(Kind.SYSTEM, tuple(map(tuple, rows))) if listed else None
    rectangular = len({len(row) for row in rows}) == 1
    return Layout(Kind.MATRIX, tuple(map(tuple, rows))) if rectangular else None


def _lines(body: str) -> list[str]:
    return [_SPACE_AFTER.sub("", line) for line in split(body, frozenset({r"\\"}))]


def _cells(row: str) -> list[str]:
    """Split a row at its ampersands; an empty cell is a cell."""
    places = [token for token in outside(row) if token[0] == "&"]
    starts = [0, *(place.end() for place in places)]
    ends = [*(place.start() for place in places), len(row)]
    return [row[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def _read_cases(rows: list[list[str]]) -> Layout | None:
    cases = [_case(row) for row in rows]
    if all(case is not None for case in cases):
        return Layout(Kind.CASES, tuple(case for case in cases if case is not None))
    if any(case is not None for case in cases):
        return None
    return Layout(Kind.SYSTEM, tuple((" ".join(row).strip(" ,;"),) for row in rows))


def _case(row: list[str]) -> tuple[str, str] | None:
    """Return a value and when it holds; None for a row that is an equation."""
    value, condition = row[0], " ".join(row[1:]).strip(" ,;.")
    if condition and (_RELATION.match(condition) or _RELATION.search(value)):
        return None  # an equation, aligned at its sign
    if not condition:
        parts = split(value, frozenset({","}))
        if begins := _CONDITION.search(value):
            value, condition = value[: begins.start()], value[begins.start() :]
        elif len(parts) == 2 and not _RELATION.search(parts[0]):
            value, condition = parts
    condition = _as_condition(condition)
    value = value.strip(" ,;")
    return (value, condition) if value and condition else None


def _as_condition(text: str) -> str:
    """Return a condition without the words that announce it."""

    def without(macro: re.Match[str]) -> str:
        words = _WHEN.sub(" ", macro[1]).strip(" ,;.")
        return rf"\text{{{words}}}" if words else " "

    said = " ".join(_WHEN.sub(" ", _TEXT.sub(without, text)).split()).strip(" ,;.")
    prose = _TEXT.sub(r"\1", said)
    return "otherwise" if re.fullmatch(_OTHERWISE, prose) else said


# --- comparing ---------------------------------------------------------------------------------

_PARITY = {"even": "odd", "odd": "even"}
_WORD = re.compile(r"[A-Za-z]+")


def same_cases(
    ours: Sequence[tuple[str, str]],
    theirs: Sequence[tuple[str, str]],
    same: Callable[[str, str], bool],
    all_but: Callable[[Sequence[str], str], bool],
) -> bool:
    """Whether two functions have the same value in each case, in whatever order they come.

    `all_but` tells whether a condition holds just where none of the others does: that is what
    "otherwise" means.
    """

    def same_condition(condition: str, others: list[str], there: str, rest: list[str]) -> bool:
        if (condition == "otherwise") == (there == "otherwise"):
            return condition == there or same(condition, there)
        stated, excluded = (there, others) if condition == "otherwise" else (condition, rest)
        return _is_opposite(excluded, stated, same) or all_but(excluded, stated)

    left = list(theirs)
    for value, condition in ours:
        others = [when for _, when in ours if when != condition]
        match = next(
            (
                case
                for case in left
                if same(value, case[0])
                and same_condition(
                    condition, others, case[1], [when for _, when in theirs if when != case[1]]
                )
            ),
            None,
        )
        if match is None:
            return False
        left.remove(match)
    return not left


def _is_opposite(excluded: Sequence[str], stated: str, same: Callable[[str, str], bool]) -> bool:
    """Whether "n is odd" is all that "n is even" leaves."""
    flipped = _WORD.sub(lambda word: _PARITY.get(word[0], word[0]), stated)
    return flipped != stated and len(excluded) == 1 and same(flipped, excluded[0])
