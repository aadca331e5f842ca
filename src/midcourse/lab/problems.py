"""The lab as a source of problems: training, held-out and two probes, the same for a seed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from midcourse.config import ProblemsConfig
from midcourse.lab.world import Kind, Split, Story, generate_stories
from midcourse.records import Problem, content_id


@dataclass(frozen=True, slots=True)
class LabProblems:
    """What one run of the lab works on; `stories` holds the truth by problem id."""

    train: list[Problem]
    held_out: list[Problem]
    """Composed and single problems, half each."""
    known: list[Problem]
    """Probe: no unknown notion. What a patch costs shows here."""
    control: list[Problem]
    """Probe: a notion that no training problem uses. A patch must not help here."""
    stories: dict[str, Story]


def lab_problems(config: ProblemsConfig, seed: int) -> LabProblems:
    """Draw the problems of a run. Splits never overlap, whatever the seed."""
    stories: dict[str, Story] = {}

    def draw(kind: Kind, split: Split, count: int) -> list[Problem]:
        return draw_problems(kind, split, count, seed, stories)

    num_single = config.num_held_out // 2
    return LabProblems(
        train=draw(Kind.COMPOSED, Split.TRAIN, config.num_composed)
        + draw(Kind.SINGLE, Split.TRAIN, config.num_single)
        + draw(Kind.KNOWN, Split.TRAIN, config.num_known),
        held_out=draw(Kind.COMPOSED, Split.HELD_OUT, config.num_held_out - num_single)
        + draw(Kind.SINGLE, Split.HELD_OUT, num_single),
        known=draw(Kind.KNOWN, Split.HELD_OUT, config.num_probe),
        control=draw(Kind.CONTROL, Split.HELD_OUT, config.num_probe),
        stories=stories,
    )


def draw_problems(
    kind: Kind, split: Split, count: int, seed: int, stories: dict[str, Story]
) -> list[Problem]:
    """Draw problems as the pipeline sees them: no truth but the answer and the reference.

    The truth goes into `stories`, by problem id.
    """
    problems = []
    for story in islice(generate_stories(kind, split, seed), count):
        problem = Problem(
            problem_id=content_id("lab", story.text),
            text=story.text,
            answer=story.answer,
            reference_solution=story.reference,
            source=f"lab/{kind}",
            split=split,
        )
        stories[problem.problem_id] = story
        problems.append(problem)
    return problems
