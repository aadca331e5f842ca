"""The lab's worlds: generated problems whose every step has an exact truth, and their documents.

A world is data: how its stories are drawn, which kinds of them a run trains and evaluates on, and
what its models are taught. A recipe names one in `problems.world`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from midcourse.config import HELD_OUT_SET, UNSEEN_SET, ProblemsConfig
from midcourse.lab.counts import documents as counts_documents
from midcourse.lab.counts import world as counts_world
from midcourse.lab.curriculum import Curriculum
from midcourse.lab.kinds import Kind
from midcourse.lab.memory import documents as memory_documents
from midcourse.lab.memory import world as memory_world
from midcourse.lab.programs import documents as programs_documents
from midcourse.lab.programs import world as programs_world
from midcourse.lab.rules import documents as rules_documents
from midcourse.lab.rules import world as rules_world
from midcourse.lab.splits import Split
from midcourse.records import DEFAULT_CHECKER
from midcourse.steps import BLANK_LINES, StepRule, rule_named


class Story(Protocol):
    """One problem of a world with its exact solution."""

    @property
    def text(self) -> str:
        """The problem statement."""
        ...

    @property
    def answer(self) -> str:
        """The true answer."""
        ...

    @property
    def entry(self) -> str:
        """What its checker needs beyond the answer, as `Problem.entry`."""
        ...

    @property
    def steps(self) -> list[str]:
        """A correct rollout, step by step, without blank lines; the last states the answer."""
        ...

    @property
    def reference(self) -> str:
        """The reference solution, in its own style."""
        ...

    def is_step(self, place: int, text: str) -> bool:
        """Whether `text` says what is right at a 0-based place, in whatever words."""
        ...


Parts = Sequence[tuple[str, int]]
"""Kinds of problems, and how many of each."""


@dataclass(frozen=True, slots=True)
class World:
    """A source of stories, and what is taught about it."""

    source: str
    """What problem ids and sources begin with."""
    stories: Callable[[str, Split, int], Iterator[Story]]
    """Yields distinct stories of a kind and split, without end, the same for a seed."""
    training: Callable[[ProblemsConfig], Parts]
    """What a run trains on."""
    evaluation: Callable[[ProblemsConfig], Mapping[str, Parts]]
    """What it is evaluated on, by set."""
    curriculum: Curriculum
    checker: str = DEFAULT_CHECKER
    """What grades its problems."""
    steps: StepRule = BLANK_LINES
    """By which its rollouts are cut: its truth is of such steps."""
    environment: str = ""
    """What answers in its dialogues, by name."""


def _probes(config: ProblemsConfig) -> dict[str, Parts]:
    return {kind: [(kind, config.num_probe)] for kind in ("known", "control")}


def _training(config: ProblemsConfig) -> Parts:
    return [
        ("composed", config.num_composed),
        ("single", config.num_single),
        ("known", config.num_known),
    ]


def _half_composed(config: ProblemsConfig) -> dict[str, Parts]:
    num_single = config.num_held_out // 2
    half = [("composed", config.num_held_out - num_single), ("single", num_single)]
    return {HELD_OUT_SET: half, **_probes(config)}


def _rules_evaluation(config: ProblemsConfig) -> dict[str, Parts]:
    # One slip is within reach of a thousand samples, several are not.
    hard = {HELD_OUT_SET: "composed", UNSEEN_SET: "unseen"}
    sets = {name: [(kind, config.num_held_out)] for name, kind in hard.items()}
    return {**sets, **_probes(config)}


COUNTS = World(
    source="lab",
    stories=lambda kind, split, seed: counts_world.generate_stories(Kind(kind), split, seed),
    training=_training,
    evaluation=_half_composed,
    curriculum=counts_documents.CURRICULUM,
)
RULES = World(
    source="lab/rules",
    stories=lambda kind, split, seed: rules_world.generate_stories(
        rules_world.Kind(kind), split, seed
    ),
    training=lambda config: [*_training(config), ("soft", config.num_soft)],
    evaluation=_rules_evaluation,
    curriculum=rules_documents.CURRICULUM,
)
PROGRAMS = World(
    source="lab/programs",
    stories=lambda kind, split, seed: programs_world.generate_stories(Kind(kind), split, seed),
    training=_training,
    evaluation=_half_composed,
    curriculum=programs_documents.CURRICULUM,
    checker="unit-tests",
    steps=rule_named("statements"),
)
MEMORY = World(
    source="lab/memory",
    stories=lambda kind, split, seed: memory_world.generate_stories(Kind(kind), split, seed),
    training=_training,
    evaluation=_half_composed,
    curriculum=memory_documents.CURRICULUM,
    environment="memory",
)
WORLDS: Mapping[str, World] = {
    "counts": COUNTS,
    "rules": RULES,
    "programs": PROGRAMS,
    "memory": MEMORY,
}
