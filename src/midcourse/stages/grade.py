"""grade: one verdict per rollout, r(x, y) of the paper, with ungraded kept apart from wrong.

What is graded is the continuation alone; the context enters only as the tail of a box that was
left open there, so an old box in the prefix never scores.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import tee

from midcourse.checkers import Checker, Grader, GradeResult, checker_named
from midcourse.records import (
    EnvironmentTurn,
    FinishReason,
    Grade,
    Problem,
    Rollout,
    UngradedCause,
    Verdict,
    turns_of,
)
from midcourse.steps import STEP_SEPARATOR


def grade(
    rollouts: Iterable[Rollout],
    problems: Mapping[str, Problem],
    grader: Grader,
    done: Container[str],
) -> Iterator[Grade]:
    """Yield a grade for each rollout not in `done`, in order; `problems` by problem id."""
    missing = (rollout for rollout in rollouts if rollout.rollout_id not in done)
    ours, theirs = tee(missing)
    responses = (
        (response_of(r.open_box, r.text, r.given), problems[r.problem_id].gold) for r in theirs
    )
    for rollout, result in zip(ours, grader.grade(responses), strict=True):
        yield grade_of(rollout, result, checker_named(problems[rollout.problem_id].checker))


def response_of(open_box: str, text: str, given: Sequence[EnvironmentTurn] = ()) -> str:
    """Return what is graded: the model's own words, whatever an environment said between them."""
    return open_box + STEP_SEPARATOR.join(turns_of(text, given))


def grade_of(rollout: Rollout, result: GradeResult, checker: Checker) -> Grade:
    """Return the record of what `checker` said of a rollout."""
    if not rollout.finish_reason.has_reply:
        result = GradeResult(Verdict.UNGRADED, None, UngradedCause.NOT_SAMPLED)
    return Grade(
        rollout_id=rollout.rollout_id,
        problem_id=rollout.problem_id,
        parent_id=rollout.parent_id,
        condition=rollout.condition,
        verdict=result.verdict,
        extracted_answer=result.extracted_answer,
        cause=result.cause,
        truncated=rollout.finish_reason is FinishReason.LENGTH,
        grader=checker.version,
        detail=result.detail,
    )
