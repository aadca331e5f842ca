"""Every proposal with its outcome, its place and what its continuations came to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from midcourse.export.evidence import Case, Evidence
from midcourse.export.files import write_jsonl, write_parquet
from midcourse.export.handover import Part
from midcourse.pipeline.interventions import INTERVENTION
from midcourse.records import Condition, Verdict
from midcourse.steps import StepRule, insert_step, whole_text

_COLUMNS = {
    "proposal_id": "names the proposal",
    "problem_id": "names its problem",
    "rollout_id": "names the failed attempt that it is about",
    "source": "data set or kind of the problem",
    "problem": "the problem",
    "answer": "its gold answer",
    "reference_solution": "what the proposer could be shown; null if there is none",
    "attempt": "the failed attempt, whose steps the run's `steps.rule` cuts",
    "proposer": "who proposed",
    "outcome": "`accepted`, or why it was not",
    "detail": "why, in a few words",
    "location": "the step that the intervention replaces, counted from 1; null if none was named",
    "error_step": "the step of the first error as the proposer named it, counted from 0",
    "prefix": "the attempt before that step; null without a location",
    "original_step": "the step that is replaced; empty where it lies beyond the attempt",
    "intervention": "what stands in its place; null if there is none",
    "after_error": "whether it lies after the error (Box 2's list)",
    "leaks_answer_substring": "whether the gold answer is a substring of it (the authors' rule)",
    "row": "what became of it when rows were built; null if it was no candidate",
    "is_verified": "whether a continuation from it is correct; null if none was drawn",
    "num_correct": "correct continuations from the intervention; null if none was drawn",
    "num_graded": "how many of them could be judged",
    "success_rate": "`num_correct / num_graded`; null where sampling stopped at a correct one",
    "success_low": "lower end of its 95 % Wilson interval",
    "success_high": "upper end",
    "conditions": "the same for every condition that was continued from, with counts by verdict",
}


def write(evidence: Evidence, out: Path) -> list[Part]:
    """Write ``proposals.jsonl`` and the same as ``proposals.parquet``."""
    rows = [_row(case, evidence.steps) for case in evidence.cases]
    write_jsonl(out / "proposals.jsonl", rows)
    write_parquet(out / "proposals.parquet", rows)
    what = f"{len(rows)} proposals, accepted or not"
    return [
        Part(path="proposals.parquet", what=what, columns=_COLUMNS),
        Part(path="proposals.jsonl", what="the same as JSON lines"),
    ]


def _row(case: Case, rule: StepRule) -> dict[str, object]:
    proposal, problem = case.proposal, case.problem
    verified = next(_conditions(case, (INTERVENTION,)), None)
    rate = ("num_correct", "num_graded", "success_rate", "success_low", "success_high")
    prefix, step = _place(case, rule)
    return {
        "proposal_id": proposal.proposal_id,
        "problem_id": problem.problem_id,
        "rollout_id": case.rollout.rollout_id,
        "source": problem.source,
        "problem": problem.text,
        "answer": problem.answer,
        "reference_solution": problem.reference_solution,
        "attempt": whole_text(case.rollout.text, case.rollout.given),
        "proposer": proposal.proposer,
        "outcome": str(proposal.outcome),
        "detail": proposal.detail,
        "location": proposal.location,
        "error_step": proposal.error_step,
        "prefix": prefix,
        "original_step": step,
        "intervention": proposal.intervention,
        "after_error": proposal.after_error,
        "leaks_answer_substring": proposal.leaks_substring,
        "row": str(case.row) if case.row else None,
        "is_verified": case.is_verified if verified else None,
        **{name: verified[name] if verified else None for name in rate},
        "conditions": list(_conditions(case, case.tallies)),
    }


def _place(case: Case, rule: StepRule) -> tuple[str | None, str | None]:
    """Return what stands before the step that is replaced, and that step."""
    if case.proposal.location is None:
        return None, None
    steps, place = rule.of(case.rollout), insert_step(case.proposal)
    return "".join(steps[: max(place, 0)]), "".join(steps[place : place + 1])


def _conditions(case: Case, conditions: Iterable[Condition]) -> Iterator[dict[str, object]]:
    for condition in conditions:
        tally = case.tallies.get(condition)
        if tally is None:
            continue
        success = tally.success
        yield {
            "condition": str(condition),
            "num_correct": tally.num_correct,
            "num_graded": tally.num_graded,
            "stopped_at_first_correct": tally.stopped,
            "success_rate": success.estimate if success else None,
            "success_low": success.low if success else None,
            "success_high": success.high if success else None,
            "verdicts": {str(verdict): tally.verdicts.get(verdict, 0) for verdict in Verdict},
        }
