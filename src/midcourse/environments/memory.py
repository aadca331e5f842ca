"""A memory of named values: what a model writes down in one turn it can read in a later one.

The last line of a turn is the command, ``set red 32`` or ``get red``; a turn without one ends the
dialogue. A wrong value is kept as willingly as a right one, and shows when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from midcourse.environments.base import Role
from midcourse.records import Problem

NAME = "memory"
KEPT = "kept"
_COMMAND = re.compile(r"(?:set (?P<put>\w{1,40}) (?P<value>\S.{0,199})|get (?P<name>\w{1,40}))")


class MemoryEnvironment:
    """Keeps values by name; the methods are those of `base.Environment`."""

    name = NAME
    version = "memory/1"
    role: Role = "user"

    def answer(self, problem: Problem, turns: Sequence[str]) -> str | None:
        """Return ``kept``, the value, or that there is none; None to a turn without a command."""
        values: dict[str, str] = {}
        said: str | None = None
        for turn in turns:
            said = _answer(turn, values)
        return said


def _answer(turn: str, values: dict[str, str]) -> str | None:
    """Obey the command of one turn, and return what is said to it."""
    lines = turn.strip().splitlines()
    command = _COMMAND.fullmatch(lines[-1].strip()) if lines else None
    if command is None:
        return None
    if command["put"]:
        values[command["put"]] = command["value"]
        return KEPT
    return values.get(command["name"], f"nothing is kept under {command['name']}")
