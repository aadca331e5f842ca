r"""math-verify as it comes: what most trainers grade with, for a second opinion on our verdicts.

It reads the end of a response by itself and compares it with ``\boxed{gold}``. No problem is
graded by it (`midcourse.report.audit` asks it): its numbers are rounded to six decimals.
"""

from __future__ import annotations

from midcourse.checkers.base import Comparison, Pair, installed_version
from midcourse.checkers.math.extract import open_box_tail, state_answer
from midcourse.checkers.math.leak import leaks_answer

NAME = "math-verify"
#: What is read of a response: an answer stands at its end, and its patterns are not linear.
_TAIL_CHARS = 2_000


class MathVerifyChecker:
    """math-verify with its defaults; the methods are those of `base.Checker`."""

    name = NAME
    open_tail = staticmethod(open_box_tail)
    state = staticmethod(state_answer)
    leaks = staticmethod(leaks_answer)

    @property
    def version(self) -> str:
        """Version of math-verify."""
        return f"math-verify/{installed_version('math-verify')}"

    def extract(self, text: str) -> str | None:
        """Return the end of a response: math-verify finds the answer in it."""
        return text[-_TAIL_CHARS:]

    def same(self, answer: str) -> str:
        """Whatever stands around an answer may matter."""
        return answer

    def complaint_about(self, entry: object) -> str:
        """Refuse every problem: this one only gives a second opinion."""
        return f"checker {self.name!r} grades no problems: leave it out, or choose math"

    def compare_quickly(self, pair: Pair, by_text: bool) -> Comparison | None:
        """Leave everything to math-verify."""
        return None

    def prepare(self) -> None:
        """Import sympy and math-verify."""
        import math_verify  # noqa: F401

    def compare(self, pair: Pair) -> Comparison:
        """Compare as math-verify does by default; the worker keeps the time."""
        from math_verify import parse, verify

        gold = parse(rf"\boxed{{{pair.gold.value}}}", parsing_timeout=0)
        if not gold:
            return Comparison.GOLD_UNPARSEABLE
        answer = parse(pair.answer, parsing_timeout=0)
        same = verify(gold, answer, timeout_seconds=0)
        return Comparison.EQUAL if same else Comparison.DIFFERENT
