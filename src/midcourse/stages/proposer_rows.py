"""Rows that teach a proposer: what it was asked, and its own reply where verification confirms it.

The labels are the model's own: a proposal succeeded if continuations from it are correct. Failures
are left out, not trained against: of a rollout one proposal is verified, so that no success has a
failure about the same question to be preferred to. With `ProposerRowDesign.blind`, a reply that
was made with the reference at hand is to be learned from a question that does not show it.
A reply is whole, so its row closes the turn; nothing is cut.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from midcourse.prompts import Prompt
from midcourse.records import (
    Proposal,
    ProposalOutcome,
    RowOutcome,
    RowSource,
    SftRow,
    content_id,
)
from midcourse.rendering import Renderer
from midcourse.stages.build_sft import IGNORED, Verification
from midcourse.stages.propose import Case, question_text
from midcourse.steps import StepRule


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposerRowDesign:
    """Which proposals become rows, and what their question shows."""

    blind: Prompt | None
    """Asks without the reference; none: the question is the one that the proposer was asked."""
    rows_per_problem: int
    min_correct_share: float
    max_tokens: int


def proposer_rows(
    proposals: Iterable[Proposal],
    cases: Mapping[str, Case],
    verifications: Mapping[str, Verification],
    design: ProposerRowDesign,
    renderer: Renderer,
    steps: StepRule,
    seed: int,
) -> Iterator[SftRow]:
    """Yield one row per proposal, with its outcome, in the order given.

    `cases` are by rollout id, `verifications` by proposal id, `renderer` is of the proposer.
    """
    made = list(proposals)
    outcomes = {p.proposal_id: _outcome(p, verifications, design) for p in made}
    ready = [p for p in made if outcomes[p.proposal_id] is RowOutcome.READY]
    chosen = _chosen(ready, design.rows_per_problem, seed)
    for proposal in made:
        outcome = outcomes[proposal.proposal_id]
        if outcome is RowOutcome.READY and proposal.proposal_id not in chosen:
            outcome = RowOutcome.NOT_CHOSEN
        known = verifications.get(proposal.proposal_id)
        yield _row(proposal, cases[proposal.rollout_id], known, outcome, design, renderer, steps)


def _outcome(
    proposal: Proposal, verifications: Mapping[str, Verification], design: ProposerRowDesign
) -> RowOutcome:
    if proposal.outcome is not ProposalOutcome.ACCEPTED:
        return RowOutcome.NOT_ACCEPTED
    known = verifications.get(proposal.proposal_id)
    if known is None:  # an earlier one about the same rollout was verified
        return RowOutcome.NOT_CHOSEN
    is_short = known.num_correct < design.min_correct_share * known.num_graded
    return RowOutcome.NOT_VERIFIED if known.num_correct and is_short else known.outcome


def _chosen(ready: Iterable[Proposal], number: int, seed: int) -> set[str]:
    """Return the ids of at most `number` proposals of each problem: a seeded choice."""
    by_problem: defaultdict[str, list[str]] = defaultdict(list)
    for proposal in ready:
        by_problem[proposal.problem_id].append(proposal.proposal_id)
    chosen: set[str] = set()
    for problem_id, ids in by_problem.items():
        rng = random.Random(f"{seed}/proposer-rows/{problem_id}")
        chosen.update(rng.sample(sorted(ids), min(number, len(ids))))
    return chosen


def _row(
    proposal: Proposal,
    case: Case,
    known: Verification | None,
    outcome: RowOutcome,
    design: ProposerRowDesign,
    renderer: Renderer,
    steps: StepRule,
) -> SftRow:
    prompt, reply = list[int](), list[int]()
    if outcome is RowOutcome.READY:
        prompt = _prompt_ids(proposal, case, design.blind, renderer, steps)
        reply = [*renderer.reply_ids(proposal.turns[-1].reply), *renderer.end_of_turn_ids]
        if len(prompt) + len(reply) > design.max_tokens:
            outcome = RowOutcome.TOO_LONG
    ready = outcome is RowOutcome.READY
    return SftRow(
        row_id=content_id(RowSource.PROPOSAL, proposal.proposal_id, design.blind is None),
        source=RowSource.PROPOSAL,
        outcome=outcome,
        problem_id=proposal.problem_id,
        proposal_id=proposal.proposal_id,
        input_ids=(*prompt, *reply) if ready else (),
        labels=(*(IGNORED for _ in prompt), *reply) if ready else (),
        closes_turn=True,
        prompt_tokens=len(prompt),
        prefix_tokens=0,
        intervention_tokens=len(reply),
        num_correct=known.num_correct if known else 0,
        num_continuations=known.num_graded if known else 0,
        rollout_id=proposal.rollout_id,
    )


def _prompt_ids(
    proposal: Proposal, case: Case, blind: Prompt | None, renderer: Renderer, steps: StepRule
) -> list[int]:
    """Return what stands before the reply: of two turns the whole first one, as it was."""
    if blind is not None:
        text = question_text(blind, case, steps)
        return renderer.prompt_ids([{"role": "user", "content": text}])
    first, *later = proposal.turns
    message = {"role": "user", "content": first.prompt}
    if not later:
        return renderer.prompt_ids([message])
    said = [*renderer.reply_ids(first.reply), *renderer.end_of_turn_ids]
    return renderer.second_turn_ids(message, said, later[0].prompt)
