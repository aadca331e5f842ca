"""build-sft: prefix + intervention as token ids and labels (§4.1, Table 2, Eq. 2).

Nothing closes the turn after an intervention, nothing is cut, and the ids are asserted to be those
that verification conditioned on. Equation 2's sum is read as t < t* (Algorithm 1, line 5): no
token of the original wrong step enters a row, except in the control that is named after it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from midcourse.config import BuildSftConfig
from midcourse.errors import ArtifactError
from midcourse.records import (
    Proposal,
    Rollout,
    RowOutcome,
    RowSource,
    SftRow,
    content_id,
    sampled_mask,
    token_ids_sha,
)
from midcourse.stages.contexts import Context

StepSource = Literal["intervention", "original_step"]

#: The label of a token that is not learned from.
IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDesign:
    """How rows of single steps are made (Table 2), e.g. prefix trained, no suffix, filtered."""

    source: StepSource = "intervention"
    filter: bool = True
    rows_per_problem: Literal["one", "all"] = "one"
    prefix: Literal["trained", "masked", "dropped"] = "trained"
    suffix: bool = False
    after_error: bool = False
    max_tokens: int

    @classmethod
    def of(cls, config: BuildSftConfig, source: StepSource | None = None) -> RowDesign:
        """Return the design of a recipe; for a baseline, of the InT rows that it stands in for."""
        is_plain = config.is_baseline
        own: StepSource = "original_step" if config.source == "original_step" else "intervention"
        return cls(
            source=source or own,
            filter=is_plain or config.filter,
            rows_per_problem=config.rows_per_problem,
            prefix="trained" if is_plain else config.prefix,
            suffix=config.suffix and not is_plain,
            after_error=config.after_error,
            max_tokens=config.max_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the continuations of one proposal came to."""

    prompt_sha: str
    """`token_ids_sha` of the context they were sampled from."""
    num_correct: int
    num_graded: int
    num_ungraded: int
    correct_rollout: Rollout | None = None
    """A correct continuation, for the suffix option."""

    @property
    def outcome(self) -> RowOutcome:
        """``ready`` with a correct continuation; ``undecided`` if ours failed to say."""
        if self.num_correct:
            return RowOutcome.READY
        return RowOutcome.UNDECIDED if self.num_ungraded else RowOutcome.NOT_VERIFIED


def build_sft(
    proposals: Sequence[Proposal],
    contexts: Iterable[Context],
    verifications: Mapping[str, Verification],
    design: RowDesign,
    seed: int,
) -> Iterator[SftRow]:
    """Yield one row per proposal, in the order of `contexts`; `verifications` are by proposal."""
    outcomes = {p.proposal_id: _outcome(p, verifications[p.proposal_id], design) for p in proposals}
    if design.rows_per_problem == "one":
        ready = [p for p in proposals if outcomes[p.proposal_id] is RowOutcome.READY]
        chosen = _one_per_problem(ready, seed)
        outcomes |= {
            p.proposal_id: RowOutcome.NOT_CHOSEN for p in ready if p.proposal_id not in chosen
        }
    by_id = {proposal.proposal_id: proposal for proposal in proposals}
    for context in contexts:
        proposal = by_id[str(context.parent_id)]
        verification = verifications[proposal.proposal_id]
        yield _row(proposal, context, verification, outcomes[proposal.proposal_id], design)


def _outcome(proposal: Proposal, verification: Verification, design: RowDesign) -> RowOutcome:
    if proposal.after_error and not design.after_error:
        return RowOutcome.AFTER_ERROR
    return verification.outcome if design.filter else RowOutcome.READY


def _one_per_problem(proposals: Iterable[Proposal], seed: int) -> set[str]:
    by_problem: defaultdict[str, list[str]] = defaultdict(list)
    for proposal in proposals:
        by_problem[proposal.problem_id].append(proposal.proposal_id)
    return {
        random.Random(f"{seed}/build-sft/{problem_id}").choice(sorted(ids))
        for problem_id, ids in by_problem.items()
    }


def _row(
    proposal: Proposal,
    context: Context,
    verification: Verification,
    outcome: RowOutcome,
    design: RowDesign,
) -> SftRow:
    sha = token_ids_sha(context.token_ids)
    if design.source == "intervention" and sha != verification.prompt_sha:
        raise ArtifactError(
            f"proposal {proposal.proposal_id}: the ids to train on are not those that were "
            "verified; the tokenizer or the prompt set changed: use another run directory"
        )
    ids, labels, closes_turn = _ids_and_labels(context, verification, design)
    if outcome is RowOutcome.READY and len(ids) > design.max_tokens:
        outcome = RowOutcome.TOO_LONG
    ready = outcome is RowOutcome.READY
    return SftRow(
        row_id=content_id(design.source, proposal.proposal_id, design.prefix, design.suffix),
        source=RowSource(design.source),
        outcome=outcome,
        problem_id=proposal.problem_id,
        proposal_id=proposal.proposal_id,
        input_ids=tuple(ids) if ready else (),
        labels=tuple(labels) if ready else (),
        closes_turn=closes_turn,
        prompt_tokens=len(context.prompt_ids),
        prefix_tokens=0 if design.prefix == "dropped" else len(context.response.prefix),
        intervention_tokens=len(context.response.addition),
        num_correct=verification.num_correct,
        num_continuations=verification.num_graded,
    )


def _ids_and_labels(
    context: Context, verification: Verification, design: RowDesign
) -> tuple[list[int], list[int], bool]:
    """Return input ids, labels, and whether a sampled end-of-turn is among the labels."""
    prompt, closes_turn = list(context.prompt_ids), False
    prefix = [] if design.prefix == "dropped" else context.response.prefix
    # What an environment said is context: nothing is learned from it.
    own = sampled_mask(len(prefix), context.given if prefix else ())
    learned = [
        token if is_own and design.prefix == "trained" else IGNORED
        for token, is_own in zip(prefix, own, strict=True)
    ]
    ids, labels = prompt + prefix, [IGNORED] * len(prompt) + learned
    addition = context.response.addition
    if design.suffix and (rollout := verification.correct_rollout):
        # The suffix keeps its sampled ids, end-of-turn included if the model wrote it.
        suffix = zip(rollout.token_ids, rollout.sampled, strict=True)
        learned = [token if is_own else IGNORED for token, is_own in suffix]
        closes_turn = rollout.finish_reason == "stop"
        return [*ids, *addition, *rollout.token_ids], labels + addition + learned, closes_turn
    return ids + addition, labels + addition, closes_turn
