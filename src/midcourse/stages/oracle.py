r"""Proposals that no model is asked for: the first error and the right step are known.

Of a generated world they are known exactly (`midcourse.lab.truth`). Of a problem with a worked
reference they are read from it, by its numbers (`leaving`): a rollout follows its reference as long
as its equations are the reference's, whatever their order and wording.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from midcourse.data.worked import (
    Calculation,
    Lines,
    answer_of,
    intervention_text,
    numbers_in,
    read_equations,
    read_solution,
)
from midcourse.records import Problem, Proposal, ProposalOutcome, content_id
from midcourse.stages.propose import Case
from midcourse.steps import BLANK_LINES, StepRule, location_from_error_step

REFERENCE = "reference"
"""Name of the proposer that reads the reference."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a rollout, e.g. that its step 1 is wrong, and what should stand there."""

    outcome: ProposalOutcome
    error_step: int | None = None
    """0-based."""
    step: str | None = None
    """Without the terminator."""
    detail: str = ""
    """Why it is not accepted."""


def oracle_proposals(
    cases: Iterable[Case],
    tell: Callable[[Case], Told],
    name: str,
    terminator: str,
    done: Container[str],
    rule: StepRule = BLANK_LINES,
) -> Iterator[tuple[str, list[Proposal]]]:
    """Yield ``(rollout id, its one proposal)`` for each rollout not in `done`."""
    for case in cases:
        if case.rollout.rollout_id not in done:
            yield case.rollout.rollout_id, [_proposal(case, tell(case), name, terminator, rule)]


def from_reference(case: Case, rule: StepRule = BLANK_LINES) -> Told:
    """Return where a rollout leaves its problem's reference, and the reference's own next step.

    Where that step comes to the answer its result is left to be worked out; where all that is
    wrong is the answer as it is stated, the right step would give it away.
    """
    solution = read_solution(case.problem, least=1)
    if solution is None:
        return Told(ProposalOutcome.MALFORMED, detail="the reference cannot be read")
    steps = rule.of(case.rollout)
    error_step, left = leaving(steps, solution, case.problem)
    if error_step is None:
        return Told(ProposalOutcome.NO_ERROR_FOUND, detail="it follows the reference to its end")
    if not left:
        return Told(ProposalOutcome.LEAKS_ANSWER, error_step, detail="only the answer is wrong")
    line = next(line for line in solution if left[0] in line.calculations)
    step = intervention_text(line, answer_of(solution))
    if step is None:
        return Told(ProposalOutcome.LEAKS_ANSWER, error_step, detail="its prose tells the answer")
    return Told(ProposalOutcome.ACCEPTED, error_step, step)


def leaving(
    steps: Iterable[str], solution: Lines, problem: Problem
) -> tuple[int | None, list[Calculation]]:
    """Return the 0-based step that leaves the reference, and the equations still to come there.

    A step with equations follows if each is one of the reference's that has not been used: the same
    numbers in any order, and the same result. A step without follows if each of its numbers is the
    problem's or a result reached. If all steps follow but equations are left, the last one leaves:
    it stops too early. None if the steps follow to the end.
    """
    left = [calculation for line in solution for calculation in line.calculations]
    known, index = set(numbers_in(problem.text)), -1
    for index, step in enumerate(steps):
        after = _followed(step, left, known)
        if after is None:
            return index, left
        left = after
    return (index, left) if left and index >= 0 else (None, left)


def _followed(step: str, left: list[Calculation], known: set[Fraction]) -> list[Calculation] | None:
    """Return the equations left after a step, whose results are then known; None if it leaves."""
    equations = read_equations(step)
    if equations is None:
        return None
    if not equations:
        return left if known.issuperset(_stated_numbers(step)) else None
    after = list(left)
    for equation in equations:
        same = next((c for c in after if _numbers(c) == _numbers(equation)), None)
        if same is None:
            return None
        after.remove(same)
        known.add(same.result)
    return after


def _stated_numbers(step: str) -> list[Fraction]:
    """Return the numbers of a step's prose, a boxed one among them."""
    return numbers_in(step.replace("\\boxed{", " ").replace("}", " "))


def _numbers(calculation: Calculation) -> tuple[list[Fraction], Fraction]:
    return sorted(calculation.numbers), calculation.result


def _proposal(case: Case, told: Told, name: str, terminator: str, rule: StepRule) -> Proposal:
    location = None if told.error_step is None else location_from_error_step(told.error_step)
    step = told.step
    if step is not None and location is not None:
        step = rule.placed_in(step, case.rollout, location, terminator)
    return Proposal(
        proposal_id=content_id(case.rollout.rollout_id, name),
        problem_id=case.problem.problem_id,
        rollout_id=case.rollout.rollout_id,
        index=0,
        item=0,
        proposer=name,
        outcome=told.outcome,
        detail=told.detail,
        error_step=told.error_step,
        location=location,
        intervention=step,
        after_error=False,
        leaks_substring=case.problem.answer in step if step else None,
        turns=(),
        prompt_name=name,
        prompt_sha="",
    )
