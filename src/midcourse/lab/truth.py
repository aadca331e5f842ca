"""What the lab knows of a rollout: its first error, and the step that should stand there.

An oracle proposer in a world where t* is known exactly: it measures what interventions are worth
when nothing about them is wrong, and what a known shift of their place costs.
"""

from __future__ import annotations

from collections.abc import Sequence

from midcourse.lab.worlds import Story
from midcourse.records import ProposalOutcome
from midcourse.stages.oracle import Told
from midcourse.stages.propose import Case
from midcourse.steps import BLANK_LINES, StepRule

NAME = "lab/truth"
_DETAIL = "the world's own step"


def first_error(text: str, story: Story, rule: StepRule = BLANK_LINES) -> int | None:
    """Return the 0-based first step of `text` that is not the world's, None if all are.

    `rule` cuts it as the world tells its steps.
    """
    return first_wrong(rule.split(text), story)


def first_wrong(steps: Sequence[str], story: Story) -> int | None:
    """Return the 0-based first of `steps` that is not the world's, None if all are."""
    wrong = (place for place, step in enumerate(steps) if not story.is_step(place, step))
    return next(wrong, len(steps) if len(steps) < len(story.steps) else None)


def world_step(case: Case, story: Story, rule: StepRule = BLANK_LINES) -> Told:
    """Return the first error of a rollout and the world's own step.

    Where the first error is the answer itself, the right step would give it away.
    """
    steps = rule.of(case.rollout)
    error_step = first_wrong(steps, story)
    if error_step is None:
        return Told(ProposalOutcome.NO_ERROR_FOUND, detail=_DETAIL)
    if error_step >= min(len(steps), len(story.steps)):
        return Told(ProposalOutcome.LOCATION_OUT_OF_RANGE, error_step, detail=_DETAIL)
    step = story.steps[error_step]
    if error_step == len(story.steps) - 1:
        return Told(ProposalOutcome.LEAKS_ANSWER, error_step, step, _DETAIL)
    return Told(ProposalOutcome.ACCEPTED, error_step, step)
