"""Pairs for Step-DPO: an intervention against the step it replaces, after the same prefix.

Both sides are rows that `build_sft` made, so their ids are those that verification conditioned
on; here they are only cut where they part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from midcourse.errors import DataError
from midcourse.records import RowOutcome, SftRow


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPair:
    """One preference, e.g. 61 ids of prompt and prefix, 12 of the intervention, 11 of the step."""

    row_id: str
    """Of the intervention's row."""
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]


def step_pairs(interventions: Iterable[SftRow], original_steps: Iterable[SftRow]) -> list[StepPair]:
    """Pair the ready rows of both kinds by their proposal.

    Raises DataError if a row has no partner or the two do not share prompt and prefix.
    """
    rejected = {r.proposal_id: r for r in original_steps if r.outcome is RowOutcome.READY}
    ready = (row for row in interventions if row.outcome is RowOutcome.READY)
    return [_pair(row, rejected.get(row.proposal_id)) for row in ready]


def _pair(chosen: SftRow, rejected: SftRow | None) -> StepPair:
    start = chosen.prompt_tokens + chosen.prefix_tokens
    if rejected is None:
        raise DataError(
            f"train dpo: the original step of row {chosen.row_id} makes no row; "
            "raise build_sft.max_tokens"
        )
    if rejected.input_ids[:start] != chosen.input_ids[:start]:
        raise DataError(
            f"train dpo: row {chosen.row_id} and its original step do not share their prefix"
        )
    return StepPair(
        row_id=chosen.row_id,
        prompt_ids=chosen.input_ids[:start],
        chosen_ids=chosen.input_ids[start:],
        rejected_ids=rejected.input_ids[start:],
    )
