r"""Where the steps of a dialogue stand: in which of the model's turns, after what was answered.

A step is the model's own. What an environment said stands between two steps; it belongs to the
prefix of the step after it, and goes with the one before it when that is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from midcourse.records import EnvironmentTurn, Rollout, turns_of

NO_ANSWERS: Mapping[int, str] = MappingProxyType({})


class Place(NamedTuple):
    """Where a step begins."""

    turn: int
    """0-based, among the model's turns."""
    at: int
    """Characters of the rollout's text before it."""
    in_turn: int
    """Of those, the characters in its own turn."""


def place_of(rollout: Rollout, steps: Sequence[str], index: int) -> Place:
    """Return where the step of a 0-based `index` begins; that after the last is in the last turn.

    `steps` are those of the rollout: joined they are its text.
    """
    at = sum(map(len, steps[:index]))
    borders = [turn.at for turn in rollout.given if turn.at <= at]
    return Place(len(borders), at, at - (borders[-1] if borders else 0))


def whole_text(text: str, given: Sequence[EnvironmentTurn]) -> str:
    """Return a text with what an environment said in between, for reading."""
    turns = turns_of(text, given)
    answered = [f"{said}\n→ {turn.text}\n" for said, turn in zip(turns, given, strict=False)]
    return "".join([*answered, turns[-1]])


def answers_of(rollout: Rollout, steps: Sequence[str]) -> dict[int, str]:
    """Return what an environment said, by the 0-based step before it; −1 is before the first.

    Where it spoke twice without a step in between both are told.
    """
    told: dict[int, str] = {}
    end, ends = 0, []
    for step in steps:
        end += len(step)
        ends.append(end)
    for turn in rollout.given:
        index = sum(end <= turn.at for end in ends) - 1
        told[index] = f"{told[index]}\n{turn.text}" if index in told else turn.text
    return told
