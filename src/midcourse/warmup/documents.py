"""What a model is shown and what it should reply: worked solutions and verification logs.

The reply to a verification is the paper's own structure, made short: a log that quotes each
substep's calculations and what they should be, up to the first error, then the ``<intervention>``
block. Log first: a small model that must name the error in one leap does not learn it (the lab's
lesson). With the reference shown, one document in four has a quantity of the problem blanked out,
so that only the reference can tell what is right; else a model learns to solve again, not to read.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from fractions import Fraction

from midcourse.prompts import PromptSet
from midcourse.records import Problem
from midcourse.steps import STEP_SEPARATOR, location_from_error_step, number_steps
from midcourse.warmup.attempts import Attempt, answer_step, draw_attempt
from midcourse.warmup.solutions import (
    Calculation,
    Line,
    Solution,
    numbers_in,
    replace_numbers,
)

#: Stands for a quantity that only the reference tells.
BLANK = "___"
BLANKED = 0.25
#: Share of attempts in which nothing is wrong.
CORRECT = 0.125
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Document:
    """A user message, the reply to learn, and for a verification the attempt behind it."""

    user: str
    reply: str
    attempt: Attempt | None = None


def worked_document(problem: Problem, solution: Solution, prompts: PromptSet) -> Document:
    """Return the worked solution as a response: a step per line, the answer boxed at the end."""
    steps = [*(line.text for line in solution.lines), answer_step(solution.answer)]
    return Document(prompts["solve"].render(problem=problem.text), STEP_SEPARATOR.join(steps))


def draw_verification(
    rng: random.Random,
    problem: Problem,
    solution: Solution,
    prompts: PromptSet,
    with_reference: bool,
) -> Document | None:
    """Return an attempt to verify with the right reply, or None if the problem allows none."""
    for _ in range(_TRIES):
        is_wrong = rng.random() >= CORRECT
        attempt = draw_attempt(rng, solution, numbers_in(problem.text), is_wrong)
        reply = _reply(attempt) if attempt else None
        if attempt is None or reply is None:
            continue
        text, reference = problem.text, ""
        if with_reference:
            reference = problem.reference_solution or ""
            text = _blanked(rng, problem.text, solution) if rng.random() < BLANKED else text
        prompt = prompts["single_turn" if with_reference else "no_reference"]
        user = prompt.render(problem=text, reference=reference, attempt=number_steps(attempt.steps))
        return Document(user, reply, attempt)
    return None


def _blanked(rng: random.Random, text: str, solution: Solution) -> str:
    """Return `text` with one quantity that the solution uses left blank."""
    used = {number for line in solution.lines for c in line.calculations for number in c.numbers}
    found = sorted(used & set(numbers_in(text)))
    return replace_numbers(text, {rng.choice(found): BLANK}) if found else text


def _reply(attempt: Attempt) -> str | None:
    """Return the log and the block; None where no intervention can keep the answer back."""
    if attempt.error_step is None:
        return _log(attempt, len(attempt.lines)) + "<intervention></intervention>"
    content = intervention_text(attempt.true_lines[attempt.error_step], attempt.true_answer)
    if content is None:
        return None
    block = {"content": content, "location": location_from_error_step(attempt.error_step)}
    log = _log(attempt, attempt.error_step + 1)
    return f"{log}<intervention>{json.dumps(block, ensure_ascii=False)}</intervention>"


def _log(attempt: Attempt, num_lines: int) -> str:
    """Return one line for each of the first `num_lines` substeps."""
    pairs = zip(attempt.lines[:num_lines], attempt.true_lines, strict=False)
    return "".join(
        f"Substep {location_from_error_step(index)}: {line.quote}, should be {true.quote}: "
        f"{'error' if index == attempt.error_step else 'ok'}.\n"
        for index, (line, true) in enumerate(pairs)
    )


def intervention_text(line: Line, answer: Fraction) -> str | None:
    """Return the right step without the answer, or None if its prose gives the answer away.

    A calculation that comes to the answer is left for the student to work out.
    """
    text = Line(tuple(_without_result(part, answer) for part in line.parts)).text
    return None if answer in numbers_in(text) else text


def _without_result(part: str | Calculation, answer: Fraction) -> str | Calculation:
    is_answer = isinstance(part, Calculation) and part.result == answer
    return part.left if isinstance(part, Calculation) and is_answer else part
