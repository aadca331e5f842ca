"""One finding of `midcourse doctor`: a fact, how bad it is, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from midcourse.errors import MidcourseError


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It runs, but perhaps not as meant."""
    PROBLEM = "problem"
    """It does not run."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line, e.g. ``Check("disk", OK, "412 GB are free")``."""

    name: str
    level: Level
    fact: str
    fix: str = ""

    def line(self, width: int) -> str:
        """Return it as text, names in `width` columns."""
        fix = f"\n{'':{width + 10}}→ {self.fix}" if self.fix else ""
        return f"{self.level.value:8} {self.name:{width}} {self.fact}{fix}"


def ok(name: str, fact: str) -> Check:
    """Return what is as it should be."""
    return Check(name, Level.OK, fact)


def warning(name: str, fact: str, fix: str = "") -> Check:
    """Return what may not be as meant."""
    return Check(name, Level.WARNING, fact, fix)


def problem(name: str, fact: str, fix: str = "") -> Check:
    """Return what does not work."""
    return Check(name, Level.PROBLEM, fact, fix)


def tried(name: str, attempt: Callable[[], str]) -> Check:
    """Return what an attempt says; its error, which says what to do, if it fails."""
    try:
        return ok(name, attempt())
    except MidcourseError as error:
        return problem(name, str(error))
