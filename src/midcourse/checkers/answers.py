r"""A checker from one function: what a domain of one's own needs to say whether an answer is right.

    def is_sorted(answer: str, gold: str) -> bool:
        return answer.split() == sorted(gold.split())

    Sorted = AnswerChecker("sorted", "1", is_sorted)

The rest are defaults that may be replaced: the answer is what the last ``\boxed{…}`` holds, and an
intervention leaks if the problem's own answer stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from midcourse.checkers.base import Comparison, Pair, readable
from midcourse.checkers.math.extract import extract_answer, open_box_tail, state_answer


def stands_in(text: str, answer: str) -> bool:
    """Whether an answer of more than two characters stands in a text as a whole token."""
    answer = answer.strip()
    return len(answer) > 2 and bool(re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text))


@dataclass(frozen=True, slots=True)
class AnswerChecker:
    """Compares by one function of the answer and the gold; the methods are those of `Checker`."""

    name: str
    version: str
    """Another version may mean other verdicts; an own module's content is told by itself."""
    is_right: Callable[[str, str], bool]
    """Given an answer and a problem's gold: its answer or, where it has one, its entry as JSON.

    It runs in a worker that is killed at a deadline. What it raises is our failure: `ungraded`.
    """
    extract: Callable[[str], str | None] = extract_answer
    """Finds the answer in a response."""
    open_tail: Callable[[str], str] = open_box_tail
    """Finds the answer that a context leaves open."""
    state: Callable[[str], str] = state_answer
    """Writes the sentence in which `extract` finds an answer."""
    entry_complaint: Callable[[object], str] = lambda entry: ""
    """Says what is wrong with a problem's entry; "" if nothing."""
    gives_away: Callable[[str, str], bool] = stands_in
    """Whether an intervention tells the answer."""

    def same(self, answer: str) -> str:
        """Every character may matter."""
        return answer

    def complaint_about(self, entry: object) -> str:
        """Ask `entry_complaint`."""
        return self.entry_complaint(entry)

    def leaks(self, text: str, answer: str, equal: Callable[[Pair], bool]) -> bool:
        """Ask `gives_away`, and whether the text itself states the answer."""
        return self.extract(text) == answer or self.gives_away(text, answer)

    def compare_quickly(self, pair: Pair, by_text: bool) -> Comparison | None:
        """Leave every answer that is not too long or too deep to the function."""
        return None if readable(pair.answer) else Comparison.ERROR

    def prepare(self) -> None:
        """There is nothing to import that is not there."""

    def compare(self, pair: Pair) -> Comparison:
        """Ask `is_right`."""
        is_right = self.is_right(pair.answer, pair.gold.value)
        return Comparison.EQUAL if is_right else Comparison.DIFFERENT
