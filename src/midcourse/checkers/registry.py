"""The checkers there are, by name: our own, those that packages bring, and those of a recipe.

A package brings checkers by entry points of the group ``midcourse.checkers``. A recipe names one of
its user's own as ``package.module:Name``, a class or an object.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from midcourse.checkers.base import Checker, ProgramChecker
from midcourse.checkers.math.checker import MathChecker
from midcourse.checkers.math.second_opinion import MathVerifyChecker
from midcourse.checkers.reasoning_gym import ReasoningGymChecker
from midcourse.checkers.unit_tests import UnitTestChecker
from midcourse.errors import ConfigError, DataError
from midcourse.plugins import Plugin, find, installed

GROUP = "midcourse.checkers"
_CHECKERS: dict[str, Checker] = {
    checker.name: checker
    for checker in (MathChecker(), ReasoningGymChecker(), UnitTestChecker(), MathVerifyChecker())
}
#: What a checker of one's own has to have.
_MEMBERS = tuple(name for name in vars(Checker) if not name.startswith("_"))


def checker_names() -> list[str]:
    """Return the names that a data file may choose among: nothing is imported for it."""
    return [*_CHECKERS, *(name for name in installed(GROUP) if name not in _CHECKERS)]


def checker_named(name: str) -> Checker:
    """Return a checker. Raises DataError for an unknown name, ConfigError for a bad plugin."""
    if name in _CHECKERS:
        return _CHECKERS[name]
    if plugin := find(name, installed(GROUP), "checker"):
        return _made(plugin, name)
    known = ", ".join(checker_names())
    raise DataError(f"no checker is called {name[:30]!r}: choose one of {known}")


def runs_programs(name: str) -> bool:
    """Whether a checker's answers are programs. Raises what `checker_named` raises."""
    return isinstance(checker_named(name), ProgramChecker)


def shown_tests(name: str, entry: str) -> str:
    """Return a problem's tests as a prompt shows them; "" where its checker has none."""
    checker = checker_named(name)
    return checker.show(entry) if isinstance(checker, ProgramChecker) else ""


def shown_failure(name: str, entry: str, detail: str) -> str:
    """Return what became of an attempt, and the test that it failed; "" where nothing is known."""
    checker = checker_named(name)
    if not detail or not isinstance(checker, ProgramChecker):
        return ""
    return checker.show_failure(entry, detail)


@cache
def _made(plugin: Plugin, name: str) -> Checker:
    value: Any = plugin.value
    missing = [member for member in _MEMBERS if not hasattr(value, member)]
    if missing:
        raise ConfigError(
            f"checker {name!r} is no checker: it has no {', '.join(missing[:4])} (see "
            "midcourse.checkers.Checker; AnswerChecker makes one of a function)"
        )
    try:
        made: Checker = value() if isinstance(value, type) else value
        return cast(Checker, _Own(made, f"{made.version}+{plugin.version}"))
    except Exception as error:  # whatever a user's class does
        raise ConfigError(f"checker {name!r} cannot be made: {error}") from error


class _Own:
    """A user's checker, whose version tells its module's content too."""

    def __init__(self, checker: Checker, version: str) -> None:
        self._checker, self.version = checker, version

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checker, name)
