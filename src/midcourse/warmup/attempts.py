r"""Makes attempts whose first error is known: a worked solution, gone wrong at a chosen step.

Five ways to go wrong, each the kind of slip that a careless solver makes: a wrong *operation*, a
*slip* in the result, a *miscopied* number, a *misread* condition (another number of the problem in
its place), a *skipped* step. Wrong values are near the right ones more often than not: a verifier
that only sees large differences is of no use. After the first error the attempt carries on from
its wrong values, sometimes with further errors; what stands before it is always right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

from midcourse.checkers import checker_named
from midcourse.warmup.solutions import Calculation, Line, Solution, number_text, replace_numbers

#: Chance of a further error at each step after the first one.
FURTHER = 0.25
#: Chance that two steps of the solution are one step of the attempt: no reference is cut alike.
MERGED = 0.25
_NEAR = tuple(Fraction(offset) for offset in (-2, -1, -1, 1, 1, 2, -10, 10))
_TRIES = 40


class Flaw(StrEnum):
    """How a step goes wrong."""

    OPERATION = "operation"
    SLIP = "slip"
    MISCOPIED = "miscopied"
    MISREAD = "misread"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt and its truth, e.g. four steps of which the second is the first wrong one."""

    lines: tuple[Line, ...]
    """Without the closing sentence that states the answer."""
    true_lines: tuple[Line, ...]
    """The solution cut as the attempt is: what should stand at each step."""
    answer: Fraction
    """What the attempt ends with."""
    true_answer: Fraction
    error_step: int | None
    """0-based; None if nothing is wrong."""
    flaw: Flaw | None

    @property
    def steps(self) -> list[str]:
        """Every step as text, the closing sentence included."""
        return [*(line.text for line in self.lines), answer_step(self.answer)]


def answer_step(answer: Fraction) -> str:
    """Return the closing sentence of a response, in the form that the grader reads."""
    return checker_named("math").state(number_text(answer))


def draw_attempt(
    rng: random.Random, solution: Solution, quantities: Sequence[Fraction], is_wrong: bool
) -> Attempt | None:
    """Return an attempt at `solution`, or None if none could be made.

    `quantities` are the numbers of the problem's text. A wrong attempt's first error stands at a
    step chosen evenly among those that calculate, and its answer is wrong too.
    """
    for _ in range(_TRIES):
        lines = _merge(rng, solution.lines) if rng.random() < MERGED else solution.lines
        if not is_wrong:
            return Attempt(lines, lines, solution.answer, solution.answer, None, None)
        step = rng.choice([index for index, line in enumerate(lines) if line.calculations])
        flaw = rng.choice(list(Flaw))
        attempt = _draw_wrong(rng, lines, quantities, step, flaw)
        if attempt is not None and attempt.answer != solution.answer:
            return attempt
    return None


def _merge(rng: random.Random, lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """Return `lines` with two neighbours as one, if at least two are left."""
    if len(lines) < 3:
        return lines
    at = rng.randrange(len(lines) - 1)
    merged = Line((*lines[at].parts, " ", *lines[at + 1].parts))
    return (*lines[:at], merged, *lines[at + 2 :])


def _draw_wrong(
    rng: random.Random,
    lines: tuple[Line, ...],
    quantities: Sequence[Fraction],
    error_step: int,
    flaw: Flaw,
) -> Attempt | None:
    """Return `lines` gone wrong at `error_step`, or None if that flaw is not possible there."""
    wrong: dict[Fraction, Fraction] = {}
    made: list[Line] = []
    for index, line in enumerate(lines):
        if index == error_step and flaw is Flaw.SKIPPED:
            if not _can_skip(lines, index):
                return None
            wrong[line.calculations[0].result] = line.calculations[0].numbers[0]
            continue
        followed = _follow(line, wrong)
        further = index > error_step and bool(line.calculations) and rng.random() < FURTHER
        if followed is not None and (index == error_step or further):
            how = flaw if index == error_step else rng.choice([Flaw.SLIP, Flaw.OPERATION])
            followed = _spoil(rng, followed, line, how, quantities, wrong)
        if followed is None:
            return None
        made.append(followed)
    if made[error_step].quote == lines[error_step].quote:
        return None
    answer, true_answer = (ls[-1].calculations[-1].result for ls in (made, lines))
    return Attempt(tuple(made), lines, answer, true_answer, error_step, flaw)


def _can_skip(lines: tuple[Line, ...], index: int) -> bool:
    """Whether the next step uses what this step works out, and nothing else is lost."""
    if index + 1 == len(lines) or len(lines[index].calculations) != 1:
        return False
    (skipped,) = lines[index].calculations
    following = lines[index + 1].calculations
    return bool(following) and skipped.result in following[0].numbers


def _follow(line: Line, wrong: dict[Fraction, Fraction]) -> Line | None:
    """Return `line` as it reads when earlier results are wrong; `wrong` grows by its own."""
    parts: list[str | Calculation] = []
    for part in line.parts:
        if isinstance(part, str):
            texts = {right: number_text(other) for right, other in wrong.items()}
            parts.append(replace_numbers(part, texts))
            continue
        numbers = tuple(wrong.get(number, number) for number in part.numbers)
        followed = _worked_out(replace(part, numbers=numbers))
        if followed is None:
            return None
        if followed.result != part.result:
            wrong[part.result] = followed.result
        parts.append(followed)
    return Line(tuple(parts))


def _worked_out(calculation: Calculation) -> Calculation | None:
    """Return the calculation with its true result, or None if no one would write it."""
    try:
        worked = replace(calculation, result=calculation.value)
    except ZeroDivisionError:
        return None
    return worked if worked.is_readable else None


def _spoil(
    rng: random.Random,
    line: Line,
    true_line: Line,
    flaw: Flaw,
    quantities: Sequence[Fraction],
    wrong: dict[Fraction, Fraction],
) -> Line | None:
    """Return `line` with its last calculation gone wrong; `wrong` learns the new result."""
    at = max(i for i, part in enumerate(line.parts) if isinstance(part, Calculation))
    right = line.calculations[-1]
    spoiled = _FLAWS[flaw](rng, right, quantities)
    if spoiled is None or not spoiled.is_readable or spoiled.result == right.result:
        return None
    wrong[true_line.calculations[-1].result] = spoiled.result
    said = {right.result: number_text(spoiled.result)}
    parts = (replace_numbers(part, said) if isinstance(part, str) else part for part in line.parts)
    return Line(tuple(spoiled if i == at else part for i, part in enumerate(parts)))


def _near(rng: random.Random, number: Fraction) -> Fraction:
    """Return another number close by: a unit or ten off, or with a digit too many."""
    return number * 10 if rng.random() < 0.1 else number + rng.choice(_NEAR)


def _slip(rng: random.Random, right: Calculation, _: Sequence[Fraction]) -> Calculation | None:
    return replace(right, result=_near(rng, right.result))


def _operation(rng: random.Random, right: Calculation, _: Sequence[Fraction]) -> Calculation | None:
    at = rng.randrange(len(right.operators))
    others = {"+": "-*", "-": "+", "*": "+/", "/": "*-"}[right.operators[at]]
    operators = right.operators[:at] + rng.choice(others) + right.operators[at + 1 :]
    return _worked_out(replace(right, operators=operators))


def _with_number(right: Calculation, at: int, number: Fraction) -> Calculation:
    return replace(right, numbers=(*right.numbers[:at], number, *right.numbers[at + 1 :]))


def _miscopied(rng: random.Random, right: Calculation, _: Sequence[Fraction]) -> Calculation | None:
    at = rng.randrange(len(right.numbers))
    return _worked_out(_with_number(right, at, _near(rng, right.numbers[at])))


def _misread(
    rng: random.Random, right: Calculation, quantities: Sequence[Fraction]
) -> Calculation | None:
    others = [number for number in quantities if number not in right.numbers]
    if not others:
        return None
    at = rng.randrange(len(right.numbers))
    return _worked_out(_with_number(right, at, rng.choice(others)))


_FLAWS: dict[
    Flaw, Callable[[random.Random, Calculation, Sequence[Fraction]], Calculation | None]
] = {
    Flaw.SLIP: _slip,
    Flaw.OPERATION: _operation,
    Flaw.MISCOPIED: _miscopied,
    Flaw.MISREAD: _misread,
}
