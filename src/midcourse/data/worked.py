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

from midcourse.checkers import checker_named
from midcourse.records import Problem

_NUMBER = r"\$?\d[\d,]*(?:\.\d+)?"
#: No number, sign or decimal point may stand right before or after: a part is not a calculation.
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
        pairs = zip(self.operators, map(number_text, self.numbers[1:]), strict=True)
        return " ".join([number_text(self.numbers[0]), *(part for pair in pairs for part in pair)])

    @property
    def text(self) -> str:
        """The whole equation, as it is always written."""
        return f"{self.left} = {number_text(self.result)}"

    @property
    def is_readable(self) -> bool:
        """Whether every number is one that a person would write: not negative, two decimals."""
        return all(n >= 0 and (100 * n).denominator == 1 for n in (*self.numbers, self.result))


def work_out(numbers: tuple[Fraction, ...], operators: str) -> Calculation | None:
    """Return the calculation with its true result, or None if no one would write it."""
    terms = [numbers[0]]
    for operator, number in zip(operators, numbers[1:], strict=True):
        if operator == "/" and number == 0:
            return None
        if operator in "*/":
            terms[-1] = terms[-1] * number if operator == "*" else terms[-1] / number
        else:
            terms.append(number if operator == "+" else -number)
    calculation = Calculation(numbers, operators, sum(terms, Fraction(0)))
    return calculation if calculation.is_readable else None


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


#: A worked solution, right or wrong; its last line calculates the answer.
Lines = tuple[Line, ...]


def answer_of(lines: Lines) -> Fraction:
    """Return the answer that a solution comes to."""
    return lines[-1].calculations[-1].result


def response_steps(lines: Lines) -> list[str]:
    """Return a solution in our answer form, the closing sentence included."""
    closing = checker_named("math").state(number_text(answer_of(lines)))
    return [*(line.text for line in lines), closing]


def intervention_text(line: Line, answer: Fraction) -> str | None:
    """Return a right step without the answer, or None if its prose gives the answer away.

    A calculation that comes to the answer is left for the student to work out.
    """
    text = "".join(
        part if isinstance(part, str) else part.left if part.result == answer else part.text
        for part in line.parts
    )
    return None if answer in numbers_in(text) else text


def read_solution(problem: Problem, least: int = 2) -> Lines | None:
    """Return the problem's reference solution in lines, or None if it is not exact and whole.

    One of fewer than `least` lines is none either: there is no step to go wrong before the last.
    """
    texts = [text for text in (problem.reference_solution or "").splitlines() if text.strip()]
    lines = tuple(line for text in texts if (line := _read_line(text)) is not None)
    if len(lines) < max(least, len(texts)) or not lines[-1].calculations:
        return None
    is_answer = re.fullmatch(_NUMBER, problem.answer.strip()) is not None
    return lines if is_answer and _number(problem.answer.strip()) == answer_of(lines) else None


def read_equations(text: str) -> tuple[Calculation, ...] | None:
    """Return the equations of a line as they stand there, true or not; None if one is unread."""
    text = _plain(text)
    equations = tuple(_stated(match) for match in _CALCULATION.finditer(text))
    return None if "=" in _CALCULATION.sub("", text) else equations


def _read_line(text: str) -> Line | None:
    """Return one line in parts, or None if an equation in it is unread or untrue."""
    parts: list[str | Calculation] = []
    text, end = _plain(text), 0
    for match in _CALCULATION.finditer(text):
        stated = _stated(match)
        if work_out(stated.numbers, stated.operators) != stated:
            return None
        parts += [text[end : match.start()], stated]
        end = match.end()
    parts.append(text[end:])
    unread = any(isinstance(part, str) and "=" in part for part in parts)
    return None if unread else Line(tuple(part for part in parts if part))


def _plain(text: str) -> str:
    return " ".join(text.translate(_SIGNS).split())


def _stated(match: re.Match[str]) -> Calculation:
    operators = re.sub(r"[^-+*/x]", "", match[1]).replace("x", "*")
    numbers = tuple(map(_number, re.findall(_NUMBER, match[1])))
    return Calculation(numbers, operators, _number(match[2]))


def _number(text: str) -> Fraction:
    return Fraction(text.replace("$", "").replace(",", ""))


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
    return _WHOLE_NUMBER.sub(lambda match: values.get(_number(match[0]), match[0]), text)
