r"""The checker of mathematics: the last ``\boxed{…}``, compared by form and by algebra."""

from __future__ import annotations

from midcourse.checkers.base import Comparison, Pair, installed_version, readable
from midcourse.checkers.math.equivalence import compare_quickly, plain
from midcourse.checkers.math.extract import extract_answer, open_box_tail, state_answer
from midcourse.checkers.math.leak import leaks_answer
from midcourse.errors import MidcourseError
from midcourse.records import DEFAULT_CHECKER


class MathChecker:
    """A boxed answer against a gold answer; the methods are those of `base.Checker`."""

    name = DEFAULT_CHECKER
    extract = staticmethod(extract_answer)
    open_tail = staticmethod(open_box_tail)
    state = staticmethod(state_answer)
    same = staticmethod(plain)
    leaks = staticmethod(leaks_answer)

    @property
    def version(self) -> str:
        """Version of math-verify and of our rules."""
        return f"math-verify/{installed_version('math-verify')}+midcourse/3"

    def complaint_about(self, entry: object) -> str:
        """An answer is all it takes."""
        return "" if entry is None else f"checker {self.name!r} takes no entry: leave it out"

    def compare_quickly(self, pair: Pair, by_text: bool) -> Comparison | None:
        """Compare as text or as plain numbers, within the limits."""
        if not readable(pair.gold.value):
            return Comparison.GOLD_UNPARSEABLE
        if not readable(pair.answer):
            return Comparison.ERROR
        return compare_quickly(gold=pair.gold.value, answer=pair.answer, by_text=by_text)

    def prepare(self) -> None:
        """Import sympy and math-verify."""
        try:
            _compare(gold="1", answer="x")
        except ImportError as error:
            raise MidcourseError(f"{error}: reinstall midcourse") from error

    def compare(self, pair: Pair) -> Comparison:
        """Compare by form, then by algebra."""
        return _compare(gold=pair.gold.value, answer=pair.answer)


def _compare(*, gold: str, answer: str) -> Comparison:
    # Imported in workers only: every command would wait for rules that it does not use.
    from midcourse.checkers.math.symbolic import compare_symbolically

    return compare_symbolically(gold=gold, answer=answer)
