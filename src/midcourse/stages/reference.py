"""reference: where each hard problem's reference solution comes from; missing ones are written.

A written solution is a rollout of its writer like any other, sampled and graded; the first attempt
whose answer is correct is kept. A problem that its writer does not solve is a record with an
outcome, and is left out of what follows (§5.1; App. G keeps what its oracle solves).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from midcourse.records import (
    FinishReason,
    Grade,
    Problem,
    Reference,
    ReferenceOutcome,
    Rollout,
    Verdict,
)

THINKING_END = "</think>"


def references(
    problems: Sequence[Problem],
    asked: Sequence[Problem],
    rollouts: Iterable[Rollout],
    grades: Iterable[Grade],
) -> Iterator[Reference]:
    """Yield where each reference comes from; `rollouts` are the attempts at those `asked` for."""
    attempts: dict[str, list[Rollout]] = {problem.problem_id: [] for problem in asked}
    for rollout in rollouts:
        attempts[rollout.problem_id].append(rollout)
    verdicts = {grade.rollout_id: grade.verdict for grade in grades}
    for problem in problems:
        if problem.problem_id in attempts:
            yield _written(problem, attempts[problem.problem_id], verdicts)
        else:
            yield _given(problem)


def without_thinking(text: str) -> str:
    """Return what follows a reasoning model's thinking, or all of a text that has none."""
    return text.rpartition(THINKING_END)[2].strip()


def _given(problem: Problem) -> Reference:
    given = bool(problem.reference_solution)
    return Reference(
        problem_id=problem.problem_id,
        outcome=ReferenceOutcome.GIVEN if given else ReferenceOutcome.MISSING,
        text=problem.reference_solution,
        source=problem.source,
        rollout_id=None,
        num_attempts=0,
        num_correct=0,
    )


def _written(
    problem: Problem, attempts: Sequence[Rollout], verdicts: dict[str, Verdict]
) -> Reference:
    ordered = sorted(attempts, key=lambda attempt: attempt.index)
    # A solution that ran out of tokens is not whole, whatever it has boxed on the way.
    whole = [a for a in ordered if a.finish_reason is FinishReason.STOP]
    correct = [a for a in whole if verdicts[a.rollout_id] is Verdict.CORRECT]
    ungraded = any(verdicts[a.rollout_id] is Verdict.UNGRADED for a in attempts)
    if correct:
        outcome = ReferenceOutcome.WRITTEN
    else:
        outcome = ReferenceOutcome.UNDECIDED if ungraded else ReferenceOutcome.NOT_SOLVED
    return Reference(
        problem_id=problem.problem_id,
        outcome=outcome,
        text=without_thinking(correct[0].text) if correct else None,
        source=attempts[0].model if attempts else "",
        rollout_id=correct[0].rollout_id if correct else None,
        num_attempts=len(attempts),
        num_correct=len(correct),
    )
