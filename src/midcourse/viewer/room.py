"""How much of an enormous run a page holds: proposals always, the rest as far as there is room.

A browser opens a page of some 100 MB. The paper's scale samples gigabytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import nsmallest

from midcourse.records import Rollout

#: Characters in a page besides the proposals' own texts: compressed some 60 to 80 MB.
MOST_CHARACTERS = 200_000_000
#: What an item takes that has no text at all.
_CHARACTERS_EACH = 300


class Shown(StrEnum):
    """Which rollouts a page holds."""

    AUTO = "auto"
    """As many as there is room for."""
    HARD = "hard"
    """Those of hard problems, as many as there is room for."""
    ALL = "all"
    NONE = "none"
    """Proposals and their continuations alone."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a stage or an arm of RL would take."""

    num_rollouts: int
    num_bytes: int
    """Of their texts, roughly."""

    @property
    def characters(self) -> int:
        """Of the page, roughly."""
        return self.num_bytes + self.num_rollouts * _CHARACTERS_EACH


@dataclass(eq=False)
class Room:
    """Divides the page among stages, and counts what there was no room for."""

    shown: Shown = Shown.AUTO
    characters: int = MOST_CHARACTERS
    _total: Counter[str] = field(default_factory=Counter)
    _kept: Counter[str] = field(default_factory=Counter)

    def divide(
        self, continued: Sequence[Size], others: Sequence[Size]
    ) -> tuple[list[int | None], list[int | None]]:
        """Return how many rollouts of each stage fit: continuations, others. None is all of them.

        Each side may fill half of the page, and what the other one leaves.
        """
        sides = [list(continued), [] if self.shown is Shown.NONE else list(others)]
        wanted = [sum(size.characters for size in side) for side in sides]
        rooms = [max(self.characters // 2, self.characters - other) for other in reversed(wanted)]
        first, second = (self._numbers(*one) for one in zip(sides, rooms, strict=True))
        return first, second or [0] * len(others)

    def count(self, what: str, total: int, kept: int) -> None:
        """Note how many of something are in the page."""
        self._total[what] += total
        self._kept[what] += kept

    def facts(self) -> list[tuple[str, str]]:
        """Say what is not in the page, and how to have it there."""
        reasons = {
            Shown.NONE: "--rollouts none leaves them out",
            Shown.HARD: "--rollouts hard leaves out other problems', and what has no room",
        }
        why = reasons.get(self.shown, "with all of them, --rollouts all, the page may not open")
        return [
            ("left out", f"{total - self._kept[what]:,} of {total:,} {what}: {why}")
            for what, total in self._total.items()
            if total > self._kept[what]
        ]

    def _numbers(self, sizes: Sequence[Size], room: int) -> list[int | None]:
        if self.shown is Shown.ALL:
            return [None] * len(sizes)
        rooms = _shares([size.characters for size in sizes], room)
        return [
            None if size.characters <= of else size.num_rollouts * of // size.characters
            for size, of in zip(sizes, rooms, strict=True)
        ]


def _shares(sizes: Sequence[int], room: int) -> list[int]:
    """Divide the room: what one does not need of an equal share is the others'."""
    found = [0] * len(sizes)
    by_size = sorted(range(len(sizes)), key=sizes.__getitem__)
    for rank, index in enumerate(by_size):
        found[index] = min(sizes[index], room // (len(sizes) - rank))
        room -= found[index]
    return found


def first_of_each(
    rollouts: Iterable[Rollout], number: int, rank: Callable[[str], tuple[bool, int]]
) -> set[str]:
    """Choose rollouts by id: the first ones of every problem, as many of each, give or take one.

    `rank` is a problem's: those that begin with False come first, with all of theirs.
    """
    keys = (
        (later, rollout.index, place, rollout.rollout_id)
        for rollout in rollouts
        for later, place in [rank(rollout.problem_id)]
    )
    return {key[-1] for key in nsmallest(number, keys)}


def telling(correct: Sequence[str], others: Sequence[str], number: int) -> set[str]:
    """Choose continuations by id: half of them correct, as far as there are enough of each."""
    num_correct = max(number - number // 2, number - len(others))
    chosen = correct[:num_correct]
    return {*chosen, *others[: number - len(chosen)]}
