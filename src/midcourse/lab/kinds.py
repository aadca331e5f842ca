"""Kinds of problems by what the base lacks, for the worlds whose base misreads single notions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Protocol, TypeVar

from midcourse.lab.splits import Split


class _Told(Protocol):
    @property
    def text(self) -> str: ...


N = TypeVar("N")
S = TypeVar("S", bound=_Told)


class Kind(StrEnum):
    """What a problem asks of the base model."""

    KNOWN = "known"
    """No unknown notion."""
    SINGLE = "single"
    """Exactly one unknown notion."""
    COMPOSED = "composed"
    """Two unknown notions."""
    CONTROL = "control"
    """One control notion, which is never patched."""


def place_notions(
    rng: random.Random,
    kind: Kind,
    index: int,
    num_places: int,
    unknown: Sequence[N],
    control: Sequence[N],
) -> list[N | None]:
    """Place the notions of problem `index` of its kind, never on the last place; None: any known.

    The place of the first unknown notion goes round, so that no error position dominates: always
    naming the most common place must stay a poor guess.
    """
    places: list[N | None] = [None] * num_places
    last = num_places - 1
    if kind is Kind.SINGLE:
        places[index % last] = rng.choice(unknown)
    elif kind is Kind.CONTROL:
        places[index % last] = rng.choice(control)
    elif kind is Kind.COMPOSED:
        first = index % (last - 1)
        second = rng.randrange(first + 1, last)
        places[first], places[second] = rng.sample(unknown, 2)
    return places


def distinct_stories(draw: Callable[[int], S | None], split: Split) -> Iterator[S]:
    """Yield distinct stories that belong to `split`, without end.

    `draw` tries once to draw the one of a 0-based index.
    """
    seen: set[str] = set()
    while True:
        story = draw(len(seen))
        if story and story.text not in seen and Split.of(story.text) is split:
            seen.add(story.text)
            yield story
