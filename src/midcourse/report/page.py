"""What a page says, before it is HTML or Markdown: sections of text, tables and drawings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from midcourse.table import Table


class Topic(StrEnum):
    """The parts of a report, in order, by their headings."""

    RUN = "What was run"
    FINDINGS = "What came out"
    FUNNEL = "The funnel"
    INTERVENTIONS = "What an intervention is worth"
    PROPOSALS = "First errors and lengths"
    TUNING = "Fine-tuning"
    EVALUATION = "pass@k"
    RL = "RL"
    LIKELIHOOD = "Likelihood"
    COSTS = "Time and tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure with its caption; figures are numbered in the order of the page."""

    topic: Topic
    name: str
    """The file's name, without ``.svg``."""
    title: str
    caption: str
    """What one sees, over how many of what, and what kind of interval."""
    svg: str
    is_wide: bool = False
    """Whether it takes a row of its own."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, e.g. ``seed``: ``0``."""

    values: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Sentences:
    """A list of sentences, each with a mark: a verdict in a word or two."""

    title: str
    items: Sequence[tuple[str, str]]


Block = str | Facts | Sentences | Table | Drawing


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it; left out if there is nothing."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole page."""

    title: str
    summary: str
    sections: Sequence[Section]
    link: tuple[str, str] | None = None
    """A file next to the page, and what it is called."""

    @property
    def shown(self) -> list[Section]:
        """The sections that hold anything."""
        return [section for section in self.sections if section.blocks]

    @property
    def drawings(self) -> Iterator[Drawing]:
        """The figures, in order."""
        for section in self.shown:
            for block in section.blocks:
                if isinstance(block, Drawing):
                    yield block
