r"""Reads worked solutions such as GSM8K's: lines of prose with calculations, exact and checked.

A calculation is read from the text itself, ``$12 x 3 = $36``, and always written in one form,
``12 * 3 = 36``. A solution is used only if every equation in it could be read and is true, and the
last one gives the gold answer: what is taught as right must be right. The others are passed over
and counted, no attempt is made to guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from midcourse.records import Problem

_NUMBER = r"\$?\d[\d,]*(?:\.\d+)?"
#: No number, sign or decimal point may stand right before or after: a part is no calculation.
_CALCULATION = re.compile(
    rf"(?<![\w.,)/%*+-])(?<![-+*/x] )({_NUMBER}(?: ?[-+*/x] ?{_NUMBER})+) ?= ?({_NUMBER})"
    r"(?![\d%,.]*\d|%| ?[-+*/x=])"
)
_WHOLE_NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?![\d%]|[.,]\d)")
_SIGNS = str.maketrans({"×": "x", "−": "-", "–": "-", "÷": "/"})


@dataclass(frozen=True, slots=True)
class Calculation:
    """One equation, e.g. numbers (48, 2), operators "/", result 24: ``48 / 2 = 24``."""

    numbers: tuple[Fraction, ...]
    operators: str
    result: Fraction

    @property
    def left(self) -> str:
        """The side that is worked out, ``48 / 2``."""
        first, *others = (number_text(number) for number in self.numbers)
        pairs = zip(self.operators, others, strict=True)
        return first + "".join(f" {operator} {other}" for operator, other in pairs)

    @property
    def text(self) -> str:
        """The whole equation, as it is always written."""
        return f"{self.left} = {number_text(self.result)}"

    @property
    def value(self) -> Fraction:
        """What the left side comes to. Raises ZeroDivisionError."""
        terms = [self.numbers[0]]
        for operator, number in zip(self.operators, self.numbers[1:], strict=True):
            if operator == "*":
                terms[-1] *= number
            elif operator == "/":
                terms[-1] /= number
            else:
                terms.append(number if operator == "+" else -number)
        return sum(terms, Fraction(0))

    @property
    def is_readable(self) -> bool:
        """Whether every number is one that a person would write: not negative, two decimals."""
        return all(n >= 0 and (100 * n).denominator == 1 for n in (*self.numbers, self.result))


@dataclass(frozen=True, slots=True)
class Line:
    """One step of a solution: prose and calculations in turn."""

    parts: tuple[str | Calculation, ...]

    @property
    def calculations(self) -> tuple[Calculation, ...]:
        """The calculations alone."""
        return tuple(part for part in self.parts if isinstance(part, Calculation))

    @property
    def text(self) -> str:
        """The line as a model reads or writes it."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def quote(self) -> str:
        """Its calculations alone, as a log quotes them."""
        return "; ".join(calculation.text for calculation in self.calculations) or "no calculation"


@dataclass(frozen=True, slots=True)
class Solution:
    """A worked solution that was read whole, and the answer it ends with."""

    lines: tuple[Line, ...]
    answer: Fraction


def read_solution(problem: Problem) -> Solution | None:
    """Return the problem's reference solution in lines, or None if it is not exact and whole."""
    texts = [text for text in (problem.reference_solution or "").splitlines() if text.strip()]
    lines = [line for text in texts if (line := _read_line(text)) is not None]
    answer = read_number(problem.answer)
    if len(lines) < max(2, len(texts)) or answer is None or not lines[-1].calculations:
        return None
    if lines[-1].calculations[-1].result != answer:
        return None
    return Solution(tuple(lines), answer)


def _read_line(text: str) -> Line | None:
    """Return one line in parts, or None if an equation in it is unread or untrue."""
    parts: list[str | Calculation] = []
    text, end = " ".join(text.translate(_SIGNS).split()), 0
    for match in _CALCULATION.finditer(text):
        calculation = _read_calculation(match[1], match[2])
        if calculation is None:
            return None
        parts += [text[end : match.start()], calculation]
        end = match.end()
    parts.append(text[end:])
    unread = any(isinstance(part, str) and "=" in part for part in parts)
    return None if unread else Line(tuple(part for part in parts if part))


def _read_calculation(left: str, right: str) -> Calculation | None:
    numbers = tuple(_number(text) for text in re.findall(_NUMBER, left))
    operators = re.sub(r"[^-+*/x]", "", left).replace("x", "*")
    calculation = Calculation(numbers, operators, _number(right))
    try:
        true = calculation.value == calculation.result
    except ZeroDivisionError:
        return None
    return calculation if true and calculation.is_readable else None


def _number(text: str) -> Fraction:
    return Fraction(text.replace("$", "").replace(",", ""))


def read_number(text: str) -> Fraction | None:
    """Return the number that `text` is, or None."""
    return _number(text) if re.fullmatch(_NUMBER, text.strip()) else None


def number_text(number: Fraction) -> str:
    """Return a readable number without separators, ``1200`` or ``0.5``."""
    if number.denominator == 1:
        return str(number.numerator)
    return f"{float(number):.2f}".rstrip("0")


def numbers_in(text: str) -> list[Fraction]:
    """Return the numbers that stand in a text, in order."""
    return [_number(match[0]) for match in _WHOLE_NUMBER.finditer(text)]


def replace_numbers(text: str, values: dict[Fraction, str]) -> str:
    """Return `text` with every whole number that is in `values` replaced."""

    def other(match: re.Match[str]) -> str:
        return values.get(_number(match[0]), match[0])

    return _WHOLE_NUMBER.sub(other, text)
