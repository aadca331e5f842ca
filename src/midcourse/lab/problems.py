"""The lab as a source of problems: training, held-out and probes, the same for a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from midcourse.config import ProblemsConfig
from midcourse.lab.splits import Split
from midcourse.lab.worlds import COUNTS, WORLDS, Parts, Story, World
from midcourse.records import Problem, content_id


@dataclass(frozen=True, slots=True)
class LabProblems:
    """What one run of the lab works on; `stories` holds the truth by problem id."""

    train: list[Problem]
    evaluation: Mapping[str, list[Problem]]
    """By set: ``held_out``, and the probes. ``known``: nothing the base lacks; what a patch costs
    shows here. ``control``: what no training problem uses; a patch must not help here."""
    stories: Mapping[str, Story]


def lab_problems(config: ProblemsConfig, seed: int) -> LabProblems:
    """Draw the problems of a run. Splits never overlap, whatever the seed."""
    world, stories = WORLDS[config.world], dict[str, Story]()

    def draw(parts: Parts, split: Split) -> list[Problem]:
        return [
            problem
            for kind, count in parts
            for problem in draw_problems(kind, split, count, seed, stories, world)
        ]

    return LabProblems(
        train=draw(world.training(config), Split.TRAIN),
        evaluation={
            name: draw(parts, Split.HELD_OUT) for name, parts in world.evaluation(config).items()
        },
        stories=stories,
    )


def draw_problems(
    kind: str, split: Split, count: int, seed: int, stories: dict[str, Story], world: World = COUNTS
) -> list[Problem]:
    """Draw problems as the pipeline sees them: no truth but the answer and the reference.

    The truth goes into `stories`, by problem id.
    """
    problems = []
    for story in islice(world.stories(kind, split, seed), count):
        problem = Problem(
            problem_id=content_id(world.source, story.text),
            text=story.text,
            answer=story.answer,
            reference_solution=story.reference,
            source=f"{world.source}/{kind}",
            split=split,
            checker=world.checker,
            entry=story.entry,
        )
        stories[problem.problem_id] = story
        problems.append(problem)
    return problems
