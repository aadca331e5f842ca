"""Credit per token: the kept prefix, the wrong step and the intervention, with what each is worth.

Worth is measured as in VinePPO (Kazemnejad et al. 2024): the share of continuations that end
correct after a step, minus the share before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from midcourse.errors import ArtifactError
from midcourse.export.dpo import pair_of
from midcourse.export.evidence import Case, Evidence
from midcourse.export.files import write_jsonl
from midcourse.export.handover import Part
from midcourse.pipeline.interventions import INTERVENTION
from midcourse.records import Condition

_COLUMNS = {
    "id": "`PROPOSAL:intervention` or `PROPOSAL:original_step`",
    "proposal_id": "names the proposal; both sequences of one share it",
    "problem_id": "names the problem",
    "kind": "`intervention`: what it wrote in place of the step; `original_step`: the step itself",
    "input_ids": "prompt, prefix and the step of that kind, as ids that were sampled from",
    "segments": "`[name, start, end]`, end excluded: `prompt`, `prefix`, then the kind",
    "weights": "per token: 1 in a verified intervention, -1 in an original step, else 0",
    "advantages": "per token: `value_after - value_before` in the step, else 0; null if unmeasured",
    "value_before": "share of correct continuations of the prefix alone; null if not measured",
    "value_after": "the same after the step of that kind",
    "num_before": "how many continuations that is of",
    "num_after": "how many continuations that is of",
    "is_verified": "whether a continuation from the intervention is correct",
}


def write(evidence: Evidence, out: Path) -> list[Part]:
    """Write ``credit.jsonl``. Raises ArtifactError if nothing was verified."""
    rows = list(_rows(evidence))
    if not rows:
        raise ArtifactError("export credit: no intervention was continued: run verify first")
    write_jsonl(out / "credit.jsonl", rows)
    unmeasured = sum(row["advantages"] is None for row in rows)
    what = f"{len(rows)} sequences of {len(rows) // 2} proposals; {unmeasured} without advantages"
    fidelity = "the ids that were continued from, nothing after them"
    return [Part(path="credit.jsonl", what=what, fidelity=fidelity, columns=_COLUMNS)]


@dataclass(frozen=True, slots=True)
class _Step:
    """One of the two steps at a proposal's place."""

    kind: str
    condition: Condition
    """Under which it was continued from."""
    ids: tuple[int, ...]
    weight: int


def _rows(evidence: Evidence) -> Iterator[dict[str, object]]:
    chosen = evidence.contexts(INTERVENTION)
    rejected = evidence.contexts(Condition.PREFIX_ERROR)
    for case in evidence.cases:
        name = case.proposal.proposal_id
        if INTERVENTION not in case.tallies:
            continue
        pair = pair_of(name, chosen[name], rejected[name])
        for step in (
            _Step("intervention", INTERVENTION, pair.chosen_ids, int(case.is_verified)),
            _Step("original_step", Condition.PREFIX_ERROR, pair.rejected_ids, -1),
        ):
            yield _row(case, step, pair.prompt_ids, len(chosen[name].prompt_ids))


def _row(case: Case, step: _Step, before: tuple[int, ...], num_prompt: int) -> dict[str, object]:
    start, length = len(before), len(step.ids)
    value_before, num_before = _value(case, Condition.PREFIX)
    value_after, num_after = _value(case, step.condition)
    worth = None
    if value_before is not None and value_after is not None:
        worth = value_after - value_before
    return {
        "id": f"{case.proposal.proposal_id}:{step.kind}",
        "proposal_id": case.proposal.proposal_id,
        "problem_id": case.problem.problem_id,
        "kind": step.kind,
        "input_ids": [*before, *step.ids],
        "segments": [
            ["prompt", 0, num_prompt],
            ["prefix", num_prompt, start],
            [step.kind, start, start + length],
        ],
        "weights": [0] * start + [step.weight] * length,
        "advantages": None if worth is None else [0.0] * start + [worth] * length,
        "value_before": value_before,
        "value_after": value_after,
        "num_before": num_before,
        "num_after": num_after,
        "is_verified": case.is_verified,
    }


def _value(case: Case, condition: Condition) -> tuple[float | None, int]:
    """Return the success rate under a condition, and of how many continuations."""
    tally = case.tallies.get(condition)
    success = tally.success if tally else None
    return (success.estimate, tally.num_graded) if tally and success else (None, 0)
