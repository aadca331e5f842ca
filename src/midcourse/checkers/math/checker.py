r"""The checker of mathematics: the last ``\boxed{…}``, compared by form and by algebra."""

from __future__ import annotations

from collections.abc import Callable

from midcourse.checkers.base import Comparison, Pair, installed_version, readable
from midcourse.checkers.math.equivalence import compare_quickly, tidy
from midcourse.checkers.math.extract import extract_answer, open_box_tail
from midcourse.checkers.math.leak import leaks_answer
from midcourse.checkers.math.symbolic import compare_symbolically
from midcourse.errors import MidcourseError
from midcourse.records import Gold


class MathChecker:
    """Compares a boxed answer with a gold answer (`midcourse.checkers.base.Checker`)."""

    name = "math"

    @property
    def version(self) -> str:
        """Version of math-verify and of our rules."""
        return f"{installed_version('math-verify')}+midcourse/2"

    def extract(self, text: str) -> str | None:
        """Return the content of the last balanced box."""
        return extract_answer(text)

    def open_tail(self, context: str) -> str:
        """Return the end of a context from a box left open there."""
        return open_box_tail(context)

    def state(self, answer: str) -> str:
        """Return the sentence with the boxed answer."""
        return f"The answer is \\boxed{{{answer}}}."

    def same(self, answer: str) -> str:
        """Return the answer without what changes only how it looks."""
        return tidy(answer)

    def complaint_about(self, entry: object) -> str:
        """An answer is all it takes."""
        return "" if entry is None else f"checker {self.name!r} takes no entry: leave it out"

    def own_answer(self, gold: Gold) -> str:
        """The gold is an answer."""
        return gold.value

    def leaks(self, text: str, answer: str, equal: Callable[[Pair], bool]) -> bool:
        """Whether the text asserts the answer, or quotes a longer one as a whole token."""
        return leaks_answer(text, answer, lambda claim: equal(Pair(claim, Gold(self.name, answer))))

    def compare_quickly(self, pair: Pair, by_text: bool) -> Comparison | None:
        """Compare as text or as plain numbers."""
        if not readable(pair.gold.value):
            return Comparison.GOLD_UNPARSEABLE
        if not readable(pair.answer):
            return Comparison.ERROR
        return compare_quickly(gold=pair.gold.value, answer=pair.answer, by_text=by_text)

    def prepare(self) -> None:
        """Import sympy and math-verify."""
        try:
            compare_symbolically(gold="1", answer="x")
        except ImportError as error:
            raise MidcourseError(f"{error}: reinstall midcourse") from error

    def compare(self, pair: Pair) -> Comparison:
        """Compare by form, then by algebra."""
        return compare_symbolically(gold=pair.gold.value, answer=pair.answer)
