"""What the viewer knows of a run: a small index of everything, and the texts in chunks.

The page holds the index as JSON and every chunk compressed, so that ten thousand traces open at
once and their texts are read when they are looked at. `midcourse.viewer.collect` fills these
records from a run directory, `midcourse.viewer.page` writes them into one file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What an item is."""

    PROPOSAL = "proposal"
    ROLLOUT = "rollout"
    """Sampled by a stage: of a training problem, or in evaluation."""
    RL = "rl"
    """Sampled during RL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewedProblem:
    """A problem and what is known of it, e.g. hard: 0 of 64 rollouts correct."""

    problem_id: str
    text: str
    answer: str
    reference: str
    """The reference solution; empty where there is none."""
    source: str
    split: str
    status: str
    """``hard``, ``solved``, ``undecided``, or empty if nothing selected it."""
    num_correct: int
    num_rollouts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What lists, filters and sorting need of one trace; its texts are in a chunk."""

    kind: Kind
    id: str
    """Unique within the page: the record's id."""
    problem: int
    """Its problem's place in `View.problems`."""
    outcome: str
    """Of a proposal its outcome; else the verdict."""
    title: str
    """The first words of the intervention or of the text; at most 120 characters."""
    chunk: int
    position: int
    """Where its `ProposalBody` or `RolloutBody` is: in which chunk, and where in it."""
    model: str = ""
    """Who wrote it, e.g. ``base``, ``patched + RL``, or the proposer's name."""
    eval_set: str = ""
    """Of a rollout in evaluation: the set; of training problems ``train``."""
    condition: str = ""
    """What a rollout was conditioned on."""
    verified: bool | None = None
    """Of a proposal: whether a continuation is correct; null if none was drawn."""
    trained: bool = False
    """Whether it became a row, or its RL group was trained on."""
    num_correct: int = 0
    """Of a proposal: correct continuations."""
    num_continuations: int = 0
    location: int | None = None
    """Of a proposal: the 1-based step that is replaced; the position of the first error."""
    num_tokens: int = 0
    truncated: bool = False
    arm: str = ""
    iteration: int | None = None
    """Of RL, 0-based."""
    group: int | None = None
    advantage: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """A continuation of a verified proposal."""

    rollout_id: str
    condition: str
    """``prefix_intervention``, or another row of Table 1 that was drawn for this proposal."""
    text: str
    verdict: str
    answer: str
    """As it was extracted; empty if there is none."""
    detail: str = ""
    """As `Grade.detail`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token of a training row."""

    text: str
    trained: bool
    base: float | None
    """Its probability under the base, 0 to 1; null where it was not scored."""
    patched: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalBody:
    """The texts of a proposal."""

    rollout_id: str
    """The failed rollout that it is about."""
    answer: str
    """That rollout's answer."""
    steps: Sequence[str]
    """That rollout, step by step."""
    intervention: str
    detail: str
    """Why, where it was not accepted."""
    turns: Sequence[tuple[str, str]]
    """What the proposer was told, and what it replied."""
    continuations: Sequence[Continuation]
    """All of them."""
    tokens: Sequence[Token]
    """The end of the training row; empty if it did not become one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBody:
    """The text of a rollout."""

    context: str
    """What stands before it in the assistant's turn, e.g. a prefix and an intervention."""
    steps: Sequence[str]
    answer: str
    detail: str = ""
    """As `Grade.detail`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that the page shows."""

    name: str
    """Of the run."""
    facts: Sequence[tuple[str, str]]
    """What was run, e.g. ``("seed", "0")``."""
    problems: Sequence[ViewedProblem]
    items: Sequence[Item]
    chunks: Iterable[Sequence[ProposalBody | RolloutBody]]
    """Read once, in order: a generator keeps one chunk in memory. About 50 bodies each."""
