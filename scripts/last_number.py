r"""A checker for a model that was never taught to box its answers: the last number of a response.

    midcourse credit --sources FILE --model DIR \
        --set problems.checker=scripts.last_number:LAST_NUMBER

It is lenient: whatever number comes last is the answer, in a response that was cut off too, so it
finds some answers right by chance. A gold that is no number leaves its responses ungraded.
"""

from __future__ import annotations

import re
from decimal import Decimal

from midcourse.checkers import AnswerChecker

_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")


def last_number(text: str) -> str | None:
    """Return the last number of a text, without the commas that group its digits."""
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else None


def is_same_number(answer: str, gold: str) -> bool:
    """Compare two numbers by value. Raises ArithmeticError if one is none."""
    return Decimal(answer) == Decimal(gold.replace(",", ""))


LAST_NUMBER = AnswerChecker(
    "last-number",
    "1",
    is_same_number,
    extract=last_number,
    open_tail=lambda context: "",
    state=lambda answer: f"The answer is {answer}.",
)
