"""select: which problems are hard, pass@k = 0 at a stated k (§5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

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
        tally = tallies.setdefault(grade.problem_id, [0, 0, 0, 0])
        tally[0] += grade.verdict is Verdict.CORRECT
        tally[1] += is_incorrect(grade, truncated_is_incorrect)
        tally[2] += grade.truncated
        tally[3] += 1
    for problem in problems:
        tally = tallies.get(problem.problem_id, [0, 0, 0, 0])
        num_correct, num_incorrect, num_truncated, num_graded = tally
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
        )
