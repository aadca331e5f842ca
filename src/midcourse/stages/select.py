"""select: which problems are hard, pass@k = 0 at a stated k (§5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from midcourse.records import Grade, Problem, ProblemStatus, Solvability, Verdict

_NO_OTHERS: Mapping[str, int] = {}


def is_incorrect(grade: Grade, truncated_is_incorrect: bool) -> bool:
    """Whether a grade counts as a wrong answer; an ungraded one never does."""
    if grade.truncated and not truncated_is_incorrect and grade.verdict is not Verdict.CORRECT:
        return False
    return grade.verdict in (Verdict.INCORRECT, Verdict.NO_ANSWER)


def select(
    problems: Iterable[Problem],
    grades: Iterable[Grade],
    *,
    num_rollouts: int,
    truncated_is_incorrect: bool,
    by_problem: Mapping[str, int] = _NO_OTHERS,
) -> Iterator[ProblemStatus]:
    """Yield the status of every problem; `by_problem` are numbers of rollouts that differ, by id.

    One ungraded rollout leaves a problem undecided: an error of ours must never make it look hard.
    Of a solved problem, rollouts may be missing: a search stops there.
    """
    tallies: dict[str, list[int]] = {}
    for grade in grades:
        tally = tallies.setdefault(grade.problem_id, [0, 0, 0, 0, 0])
        tally[0] += grade.verdict is Verdict.CORRECT
        tally[1] += is_incorrect(grade, truncated_is_incorrect)
        tally[2] += grade.truncated
        tally[3] += 1
        tally[4] += grade.verdict is Verdict.NO_ANSWER and not grade.truncated
    for problem in problems:
        tally = tallies.get(problem.problem_id, [0, 0, 0, 0, 0])
        num_correct, num_incorrect, num_truncated, num_graded, num_without = tally
        number = by_problem.get(problem.problem_id, num_rollouts)
        if num_correct:
            status = Solvability.SOLVED
        elif num_incorrect == number:
            status = Solvability.HARD
        else:
            status = Solvability.UNDECIDED
        num_skipped = number - num_graded if num_correct else 0
        yield ProblemStatus(
            problem_id=problem.problem_id,
            status=status,
            num_rollouts=number,
            num_correct=num_correct,
            num_incorrect=num_incorrect,
            num_ungraded=number - num_skipped - num_correct - num_incorrect,
            num_truncated=num_truncated,
            num_skipped=num_skipped,
            num_no_answer=num_without,
        )


# --- what a hard set is made of ----------------------------------------------------------------

#: Above these shares a hard set says more about settings than about a model.
_MANY, _SOME = 0.5, 0.05


def summarize(statuses: Iterable[ProblemStatus]) -> dict[str, int]:
    """Count what makes problems look hard: of hard ones' rollouts, and of all that are ungraded."""
    found = list(statuses)
    hard = [status for status in found if status.status is Solvability.HARD]
    return {
        "hard_rollouts": sum(status.num_rollouts for status in hard),
        "truncated": sum(status.num_truncated for status in hard),
        "no_answer": sum(status.num_no_answer for status in hard),
        "rollouts": sum(status.num_rollouts - status.num_skipped for status in found),
        "ungraded": sum(status.num_ungraded for status in found),
        "undecided": sum(status.status is Solvability.UNDECIDED for status in found),
    }


def remarks(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `summarize` counted where it is much: each with what to change."""
    hard, rollouts = summary["hard_rollouts"], summary["rollouts"]
    if hard and summary["truncated"] >= _MANY * hard:
        yield (
            f"{summary['truncated']:,} of {hard:,} rollouts of hard problems were cut at "
            f"max_tokens = {summary['max_tokens']:,}: raise sample.sampling.max_tokens"
        )
    if hard and summary["no_answer"] >= _MANY * hard:
        yield (
            f"{summary['no_answer']:,} of {hard:,} rollouts of hard problems ended without an "
            "answer in a box: look at some with midcourse show, and at the prompt's solve.md"
        )
    if rollouts and summary["ungraded"] >= _SOME * rollouts:
        yield (
            f"{summary['ungraded']:,} of {rollouts:,} rollouts count as ungraded, which leaves "
            f"{summary['undecided']:,} problems undecided: raise grade.timeout_seconds, or "
            "sample.sampling.max_tokens where select.truncated_is_incorrect is false"
        )
