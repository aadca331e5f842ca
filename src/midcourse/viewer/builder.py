"""What a page is put together from: items as they are found, and their bodies in chunks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from midcourse.records import Grade, Rollout
from midcourse.steps import answers_of
from midcourse.viewer.chunks import Body, Chunks
from midcourse.viewer.data import Item, Kind
from midcourse.viewer.files import RunFiles
from midcourse.viewer.models import ModelNames
from midcourse.viewer.problems import ProblemList
from midcourse.viewer.room import Room

#: In the place of a verdict that there is not yet.
NOT_GRADED = "not_graded"
_TITLE = 120


@dataclass(eq=False)
class PageBuilder:
    """A page in the making."""

    files: RunFiles
    problems: ProblemList
    names: ModelNames
    room: Room
    items: list[Item] = field(default_factory=list)
    chunks: Chunks = field(default_factory=Chunks)
    _ids: set[str] = field(default_factory=set)

    def add(self, item: Item, body: Body, num_characters: int) -> None:
        """Add an item, whose place is not known yet, unless one of its id is there already.

        In a directory of several recipes the same rollout may have been drawn for two of them.
        """
        if item.id not in self._ids:
            self._ids.add(item.id)
            chunk, position = self.chunks.add(body, num_characters)
            self.items.append(replace(item, chunk=chunk, position=position))

    def steps_of(self, rollout: Rollout) -> list[str]:
        """Return the steps of a rollout as they are shown: without what ends a step.

        What an environment said to a step stands below it.
        """
        steps = self.files.rule.of(rollout)
        answers = answers_of(rollout, steps)
        return [
            self.shown(step) + (f"\n→ {answers[index]}" if index in answers else "")
            for index, step in enumerate(steps)
        ]

    def shown(self, step: str) -> str:
        """Return a step without what ends it."""
        rule = self.files.rule
        return step.rstrip("\r\n") if rule.of_program else step.removesuffix(rule.ending)

    def number(self, kind: Kind) -> int:
        """Return how many items of a kind there are."""
        return sum(item.kind is kind for item in self.items)


def title_of(*texts: str | None) -> str:
    """Return the first words of the first text that has any."""
    for text in texts:
        if words := " ".join((text or "")[: 4 * _TITLE].split()):
            return words[:_TITLE]
    return ""


def verdict_of(grade: Grade | None) -> str:
    """Return a verdict, or that there is none yet."""
    return str(grade.verdict) if grade else NOT_GRADED


def answer_of(grade: Grade | None) -> str:
    """Return the answer as it was extracted, empty if there is none."""
    return (grade.extracted_answer or "") if grade else ""
