"""What the lab knows of a rollout: its first error, and the step that should stand there.

An oracle proposer in a world where t* is known exactly: it measures what interventions are worth
when nothing about them is wrong, and what a known shift of their place costs.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

from midcourse.lab.worlds import Story
from midcourse.records import Proposal, ProposalOutcome, content_id
from midcourse.stages.propose import Case
from midcourse.steps import location_from_error_step, split_steps

NAME = "lab/truth"


def first_error(text: str, story: Story) -> int | None:
    """Return the 0-based first step of `text` that is not the world's, None if all are."""
    steps = split_steps(text)
    wrong = (place for place, step in enumerate(steps) if not story.is_step(place, step))
    return next(wrong, len(steps) if len(steps) < len(story.steps) else None)


def true_proposals(
    cases: Iterable[Case], stories: Mapping[str, Story], terminator: str, done: Container[str]
) -> Iterator[tuple[str, list[Proposal]]]:
    """Yield ``(rollout id, its one proposal)`` for each rollout not in `done`.

    Where the first error is the answer itself, the right step would give it away.
    """
    for case in cases:
        if case.rollout.rollout_id not in done:
            proposal = _true_proposal(case, stories[case.problem.problem_id], terminator)
            yield case.rollout.rollout_id, [proposal]


def _true_proposal(case: Case, story: Story, terminator: str) -> Proposal:
    error_step = first_error(case.rollout.text, story)
    num_steps, outcome = len(split_steps(case.rollout.text)), ProposalOutcome.ACCEPTED
    step = None
    if error_step is None:
        outcome = ProposalOutcome.NO_ERROR_FOUND
    elif error_step >= min(num_steps, len(story.steps)):
        outcome = ProposalOutcome.LOCATION_OUT_OF_RANGE
    else:
        step = story.steps[error_step] + terminator
        if error_step == len(story.steps) - 1:
            outcome = ProposalOutcome.LEAKS_ANSWER
    return Proposal(
        proposal_id=content_id(case.rollout.rollout_id, NAME),
        problem_id=case.problem.problem_id,
        rollout_id=case.rollout.rollout_id,
        index=0,
        item=0,
        proposer=NAME,
        outcome=outcome,
        detail="" if outcome is ProposalOutcome.ACCEPTED else "the world's own step",
        error_step=error_step,
        location=None if error_step is None else location_from_error_step(error_step),
        intervention=step,
        after_error=False,
        leaks_substring=case.problem.answer in step if step else None,
        turns=(),
        prompt_name=NAME,
        prompt_sha="",
    )
