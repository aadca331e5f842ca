"""shift: the same interventions at another place, to see what a wrong t* costs (App. question 3).

A shifted proposal is a proposal of its own, with an id of its own: its continuations can never be
taken for those of the proposal it comes from. The step's content stays as it was written; where it
is what the attempt says there anyway, it is as `unchanged` as a proposal that says so itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from midcourse.records import Proposal, ProposalOutcome, content_id
from midcourse.steps import BLANK_LINES, StepRule


def shifted(
    proposals: Iterable[Proposal],
    attempts: Mapping[str, Sequence[str]],
    shift: int,
    terminator: str,
    rule: StepRule = BLANK_LINES,
) -> Iterator[Proposal]:
    """Yield each accepted proposal moved by `shift` steps; the steps of `attempts` by rollout.

    `terminator` is what interventions end in.
    """
    for proposal in proposals:
        if proposal.outcome is not ProposalOutcome.ACCEPTED or proposal.location is None:
            continue
        location, steps = proposal.location + shift, attempts[proposal.rollout_id]
        content = (proposal.intervention or "").removesuffix(terminator)
        yield replace(
            proposal,
            proposal_id=content_id(proposal.proposal_id, "shift", shift),
            location=location,
            outcome=_outcome(content, steps, location, rule),
            detail=f"moved by {shift:+d} steps",
        )


def _outcome(content: str, steps: Sequence[str], location: int, rule: StepRule) -> ProposalOutcome:
    """Return what becomes of a step's content at a 1-based location."""
    if not 1 <= location <= len(steps):
        return ProposalOutcome.LOCATION_OUT_OF_RANGE
    is_repeated = rule.repeats(content, steps, location)
    return ProposalOutcome.UNCHANGED if is_repeated else ProposalOutcome.ACCEPTED
