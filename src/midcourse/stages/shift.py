"""shift: the same interventions at another place, to see what a wrong t* costs (App. question 3).

A shifted proposal is a proposal of its own, with an id of its own: its continuations can never be
taken for those of the proposal it comes from. The step's content stays as it was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from midcourse.records import Proposal, ProposalOutcome, content_id


def shifted(
    proposals: Iterable[Proposal], num_steps: Mapping[str, int], shift: int
) -> Iterator[Proposal]:
    """Yield each accepted proposal moved by `shift` steps; `num_steps` are by rollout."""
    for proposal in proposals:
        if proposal.outcome is not ProposalOutcome.ACCEPTED or proposal.location is None:
            continue
        location = proposal.location + shift
        fits = 1 <= location <= num_steps[proposal.rollout_id]
        yield replace(
            proposal,
            proposal_id=content_id(proposal.proposal_id, "shift", shift),
            location=location,
            outcome=ProposalOutcome.ACCEPTED if fits else ProposalOutcome.LOCATION_OUT_OF_RANGE,
            detail=f"moved by {shift:+d} steps",
        )
