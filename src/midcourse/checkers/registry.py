"""The checkers there are, by name: the only place that knows them all."""

from __future__ import annotations

from midcourse.checkers.base import Checker
from midcourse.checkers.math.checker import MathChecker
from midcourse.checkers.math.second_opinion import MathVerifyChecker
from midcourse.checkers.reasoning_gym import ReasoningGymChecker
from midcourse.errors import DataError

_ALL: tuple[Checker, ...] = (MathChecker(), ReasoningGymChecker(), MathVerifyChecker())
_CHECKERS = {checker.name: checker for checker in _ALL}


def checker_named(name: str) -> Checker:
    """Return a checker. Raises DataError for a name that is not known."""
    if name not in _CHECKERS:
        raise DataError(f"no checker is called {name[:40]!r}: choose one of {', '.join(_CHECKERS)}")
    return _CHECKERS[name]
