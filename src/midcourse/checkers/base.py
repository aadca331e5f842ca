"""What a domain must be able to do to be graded here: find an answer in a text, and compare it.

A `Checker` is one object without state. The parent process calls everything but `prepare` and
`compare`, which run in a worker that is killed at a deadline and is held to a limit of memory.
A checker reads text and executes none of it: what a model writes is not to be trusted. One whose
answers are programs has them run in a sandbox (`midcourse.sandbox`).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import accumulate
from typing import Protocol, runtime_checkable

from midcourse.records import Gold
from midcourse.sandbox import Sandbox

#: Longer or deeper answers are not read: no gold answer comes near, and parsers choke.
MAX_ANSWER_CHARS = 2_000
MAX_ANSWER_DEPTH = 60


@dataclass(frozen=True, slots=True)
class Pair:
    """An extracted answer and what it is compared with: ``Pair("42.0", Gold("math", "42"))``."""

    answer: str
    gold: Gold


class Comparison(StrEnum):
    """What comparing a pair came to."""

    EQUAL = "equal"
    DIFFERENT = "different"
    GOLD_UNPARSEABLE = "gold_unparseable"
    ERROR = "error"
    """We failed, not the model: the answer is over the limits, or comparing it broke."""
    TIMEOUT = "timeout"
    """It took too long, and whether that is the answer's fault cannot be told."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, and what it was in a few words: ``failed: test 2: AssertionError``."""

    comparison: Comparison
    detail: str = ""
    """One line of printable text; empty where there is nothing to tell."""


class Checker(Protocol):
    """Grades the answers of one domain."""

    @property
    def name(self) -> str:
        """The name under which problems ask for it, e.g. ``math``."""

    @property
    def version(self) -> str:
        """Name and version of what compares: another version may mean other verdicts."""

    def extract(self, text: str) -> str | None:
        """Return the final answer of a response; None if it gives none. Linear in its length."""

    def open_tail(self, context: str) -> str:
        """Return the end of a context from an answer left open there; "" if none is."""

    def state(self, answer: str) -> str:
        """Return the sentence with which a solution gives its answer: `extract` finds it there."""

    def same(self, answer: str) -> str:
        """Return a normal form: answers that share it get the same verdict under any gold."""

    def complaint_about(self, entry: object) -> str:
        """Return what is wrong with a problem file's entry (None: no entry); "" if nothing."""

    def leaks(self, text: str, answer: str, equal: Callable[[Pair], bool]) -> bool:
        """Whether a text gives a problem's answer away; `equal` compares a pair in full."""

    def compare_quickly(self, pair: Pair, by_text: bool) -> Comparison | None:
        """Compare where that is plain to see and cheap; None where it takes a worker.

        Without `by_text` the same text proves nothing: this asks whether a gold can be read.
        """

    def prepare(self) -> None:
        """Import what `compare` needs, in a worker. Raises MidcourseError if that fails."""

    def compare(self, pair: Pair) -> Comparison:
        """Compare in full. May hang, raise or die: called in a worker only."""


@runtime_checkable
class ProgramChecker(Protocol):
    """What a `Checker` of programs has beyond it; its problems have tests, perhaps no answer."""

    def show(self, entry: str) -> str:
        """Return the tests of a problem's entry as a prompt shows them."""

    def show_failure(self, entry: str, detail: str) -> str:
        """Return the detail of an attempt's grade, and the test that it failed, for a prompt."""

    def compare_in(self, pair: Pair, sandbox: Sandbox) -> Compared:
        """Compare in full, in a sandbox: called in a worker only, in place of `compare`."""


def readable(answer: str) -> bool:
    """Whether an answer is short and flat enough to be read at all."""
    if len(answer) > MAX_ANSWER_CHARS:
        return False
    steps = ((character in "{([") - (character in "})]") for character in answer)
    return max(accumulate(steps, initial=0)) <= MAX_ANSWER_DEPTH


@cache
def installed_version(package: str) -> str:
    """Return the version of a package. Raises PackageNotFoundError."""
    return importlib.metadata.version(package)
