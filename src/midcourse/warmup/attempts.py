r"""Makes attempts whose first error is known: a worked solution, gone wrong at a chosen step.

Wrong values are near the right ones more often than not: a verifier that only sees large
differences is of no use. After the first error the attempt carries on from its wrong values,
sometimes with further errors; what stands before it is always right.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from fractions import Fraction

from midcourse.data.worked import (
    Calculation,
    Line,
    Lines,
    answer_of,
    number_text,
    replace_numbers,
    work_out,
)

#: Chance of a further error at each step after the first one.
FURTHER = 0.25
#: Chance that two steps of the solution are one step of the attempt: no reference is cut alike.
MERGED = 0.25
_NEAR = (-2, -1, -1, 1, 1, 2, -10, 10)
_TRIES = 40


class Flaw(Enum):
    """How a step goes wrong: each the kind of slip that a careless solver makes."""

    OPERATION = auto()
    SLIP = auto()
    """A wrong result."""
    MISCOPIED = auto()
    MISREAD = auto()
    """Another number of the problem stands in the place of the right one."""
    SKIPPED = auto()


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt and its truth, e.g. four steps of which the second is the first wrong one."""

    lines: Lines
    true_lines: Lines
    """The solution cut as the attempt is: what should stand at each step."""
    error_step: int | None
    """0-based; None if nothing is wrong."""


def draw_attempt(
    rng: random.Random, solution: Lines, quantities: Sequence[Fraction], is_wrong: bool
) -> Attempt | None:
    """Return an attempt at `solution`, or None if none could be made.

    `quantities` are the numbers of the problem's text. A wrong attempt's first error stands at a
    step chosen evenly among those that calculate, and its answer is wrong too.
    """
    for _ in range(_TRIES):
        lines = _merge(rng, solution) if rng.random() < MERGED else solution
        if not is_wrong:
            return Attempt(lines, lines, None)
        step = rng.choice([index for index, line in enumerate(lines) if line.calculations])
        made = spoil(rng, lines, step, rng.choice(list(Flaw)), quantities)
        if made is not None and answer_of(made) != answer_of(solution):
            return Attempt(made, lines, step)
    return None


def _merge(rng: random.Random, lines: Lines) -> Lines:
    """Return `lines` with two neighbours as one, if at least two are left."""
    if len(lines) < 3:
        return lines
    at = rng.randrange(len(lines) - 1)
    merged = Line((*lines[at].parts, " ", *lines[at + 1].parts))
    return (*lines[:at], merged, *lines[at + 2 :])


def spoil(
    rng: random.Random, lines: Lines, step: int, flaw: Flaw, quantities: Sequence[Fraction]
) -> Lines | None:
    """Return right `lines` gone wrong from `step` on, or None where that flaw is impossible."""
    solver, made, (here, *later) = _Solver(rng, quantities), list(lines[:step]), lines[step:]
    first = None if flaw is Flaw.SKIPPED else solver.go_wrong(here, here, flaw)
    if first is not None:
        made.append(first)
    elif flaw is not Flaw.SKIPPED or not solver.skip(here, later):
        return None
    for line in later:
        is_further = bool(line.calculations) and rng.random() < FURTHER
        written = solver.follow(line)
        if written is not None and is_further:
            another = rng.choice([Flaw.SLIP, Flaw.OPERATION])
            written = solver.go_wrong(line, written, another)
        if written is None:
            return None
        made.append(written)
    return tuple(made) if made[step].quote != here.quote else None


class _Solver:
    """Writes a solution on from where it went wrong."""

    def __init__(self, rng: random.Random, quantities: Sequence[Fraction]) -> None:
        self._rng, self._quantities = rng, quantities
        self._wrong: dict[Fraction, Fraction] = {}
        """By its right value, each result that the attempt has otherwise."""

    def skip(self, line: Line, later: Sequence[Line]) -> bool:
        """Leave `line` out, if the next one uses what it works out, and nothing else is lost."""
        following = later[0].calculations if later else ()
        if len(line.calculations) != 1 or not following:
            return False
        (skipped,) = line.calculations
        self._wrong[skipped.result] = skipped.numbers[0]
        return skipped.result in following[0].numbers

    def follow(self, line: Line) -> Line | None:
        """Return `line` as it reads when earlier results are wrong, or None if no one writes so."""
        parts: list[str | Calculation] = []
        for part in line.parts:
            if isinstance(part, str):
                parts.append(_told(part, self._wrong))
                continue
            numbers = tuple(self._wrong.get(number, number) for number in part.numbers)
            followed = work_out(numbers, part.operators)
            if followed is None:
                return None
            if followed.result != part.result:
                self._wrong[part.result] = followed.result
            parts.append(followed)
        return Line(tuple(parts))

    def go_wrong(self, line: Line, written: Line, flaw: Flaw) -> Line | None:
        """Return `line`, as it is `written` here, with its last calculation gone wrong."""
        right = written.calculations[-1]
        spoiled = self._miscalculated(right, flaw)
        if spoiled is None or not spoiled.is_readable or spoiled.result == right.result:
            return None
        self._wrong[line.calculations[-1].result] = spoiled.result
        at = max(i for i, part in enumerate(written.parts) if isinstance(part, Calculation))
        said = {right.result: spoiled.result}
        parts = [_told(part, said) if isinstance(part, str) else part for part in written.parts]
        return Line((*parts[:at], spoiled, *parts[at + 1 :]))

    def _miscalculated(self, right: Calculation, flaw: Flaw) -> Calculation | None:
        numbers, operators, rng = list(right.numbers), right.operators, self._rng
        if flaw is Flaw.SLIP:
            return replace(right, result=_near(rng, right.result))
        if flaw is Flaw.OPERATION:
            at = rng.randrange(len(operators))
            other = rng.choice({"+": "-*", "-": "+", "*": "+/", "/": "*-"}[operators[at]])
            return work_out(right.numbers, operators[:at] + other + operators[at + 1 :])
        others = [number for number in self._quantities if number not in numbers]
        if flaw is Flaw.MISREAD and not others:
            return None
        at = rng.randrange(len(numbers))
        numbers[at] = rng.choice(others) if flaw is Flaw.MISREAD else _near(rng, numbers[at])
        return work_out(tuple(numbers), operators)


def _told(prose: str, wrong: dict[Fraction, Fraction]) -> str:
    return replace_numbers(prose, {right: number_text(value) for right, value in wrong.items()})


def _near(rng: random.Random, number: Fraction) -> Fraction:
    """Return another number close by: a unit or ten off, or with a digit too many."""
    return number * 10 if rng.random() < 0.1 else number + rng.choice(_NEAR)
