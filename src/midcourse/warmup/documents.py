"""What a model learns to write: worked solutions and verification logs.

The reply to a verification is the paper's own structure, made short: a log that quotes each
substep's calculations and what they should be, up to the first error, then the ``<intervention>``
block. Log first: a small model that must name the error in one leap does not learn it (the lab's
lesson). With the reference shown, one document in four has a quantity of the problem blanked out,
so that only the reference can tell what is right; else a model learns to solve again, not to read.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from midcourse.data.worked import (
    Lines,
    answer_of,
    intervention_text,
    numbers_in,
    read_solution,
    replace_numbers,
    response_steps,
)
from midcourse.prompts import Prompt
from midcourse.records import Problem, RowSource
from midcourse.steps import BLANK_LINES, STEP_SEPARATOR, location_from_error_step
from midcourse.warmup.attempts import Attempt, draw_attempt

#: Stands for a quantity that only the reference tells.
BLANK = "___"
BLANKED = 0.25
#: Share of attempts in which nothing is wrong.
CORRECT = 0.125
_TRIES = 10

#: A problem whose reference solution was read whole.
Readable = tuple[Problem, Lines]


@dataclass(frozen=True, slots=True)
class Document:
    """What the user says and the reply to learn."""

    source: RowSource
    problem_id: str
    user: str
    reply: str


@dataclass(frozen=True, slots=True)
class Verification:
    """An attempt and what a right verification of it says."""

    attempt: Attempt
    reply: str
    rng: random.Random
    """Drew the attempt, and draws what the question still leaves open."""


def readable(problems: Sequence[Problem], limit: int | None = None) -> list[Readable]:
    """Return the first `limit` problems whose reference solution is exact and whole."""
    pairs = ((problem, read_solution(problem)) for problem in problems)
    return [(problem, solution) for problem, solution in pairs if solution is not None][:limit]


def worked(problems: Sequence[Readable], prompts: Mapping[str, Prompt]) -> Iterator[Document]:
    """Yield each worked solution: a step per line, the answer boxed at the end."""
    for problem, solution in problems:
        user = prompts["solve"].render(problem=problem.text)
        reply = STEP_SEPARATOR.join(response_steps(solution))
        yield Document(RowSource.WORKED_SOLUTION, problem.problem_id, user, reply)


def verifications(
    problems: Sequence[Readable], num_attempts: int, prompts: Mapping[str, Prompt], seed: int
) -> Iterator[Document]:
    """Yield up to `num_attempts` per problem, with and without the reference in turn."""
    for problem, solution in problems:
        for index in range(num_attempts):
            drawn = draw_verification(seed, problem, solution, index)
            if drawn is not None:
                user = question(prompts, problem, solution, drawn, shows_reference=index % 2 == 0)
                yield Document(RowSource.VERIFICATION, problem.problem_id, user, drawn.reply)


def draw_verification(
    seed: int, problem: Problem, solution: Lines, index: int
) -> Verification | None:
    """Return the seeded attempt number `index` with its reply, or None if there is none."""
    rng = random.Random(f"{seed}/verification/{problem.problem_id}/{index}")
    for _ in range(_TRIES):
        is_wrong = rng.random() >= CORRECT
        attempt = draw_attempt(rng, solution, numbers_in(problem.text), is_wrong)
        reply = _reply(attempt) if attempt else None
        if attempt is not None and reply is not None:
            return Verification(attempt, reply, rng)
    return None


def question(
    prompts: Mapping[str, Prompt],
    problem: Problem,
    solution: Lines,
    drawn: Verification,
    *,
    shows_reference: bool,
) -> str:
    """Return the user message that asks about an attempt."""
    attempt = BLANK_LINES.number(response_steps(drawn.attempt.lines))
    if not shows_reference:
        return prompts["no_reference"].render(problem=problem.text, attempt=attempt)
    used = {n for line in solution for c in line.calculations for n in c.numbers}
    text, found = problem.text, sorted(used & set(numbers_in(problem.text)))
    if drawn.rng.random() < BLANKED and found:
        text = replace_numbers(text, {drawn.rng.choice(found): BLANK})
    reference = problem.reference_solution or ""
    return prompts["single_turn"].render(problem=text, reference=reference, attempt=attempt)


def _reply(attempt: Attempt) -> str | None:
    """Return the log and the block; None where no intervention can keep the answer back."""
    error_step, block = attempt.error_step, ""
    if error_step is not None:
        content = intervention_text(attempt.true_lines[error_step], answer_of(attempt.true_lines))
        if content is None:
            return None
        location = location_from_error_step(error_step)
        block = json.dumps({"content": content, "location": location}, ensure_ascii=False)
    log = [
        f"Substep {location_from_error_step(index)}: {line.quote}, should be {true.quote}: "
        f"{'error' if index == error_step else 'ok'}.\n"
        for index, (line, true) in enumerate(zip(attempt.lines, attempt.true_lines, strict=False))
        if error_step is None or index <= error_step
    ]
    return f"{''.join(log)}<intervention>{block}</intervention>"
