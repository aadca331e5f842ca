"""What a model learns to write, as rows: worked solutions and verification logs.

The reply to a verification is the paper's own structure, made short: a log that quotes each
substep's calculations and what they should be, up to the first error, then the ``<intervention>``
block. Log first: a small model that must name the error in one leap does not learn it (the lab's
lesson). With the reference shown, one document in four has a quantity of the problem blanked out,
so that only the reference can tell what is right; else a model learns to solve again, not to read.

Unlike an intervention, a whole reply ends: its end-of-turn is trained. The prompt never is.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from midcourse.prompts import Prompt
from midcourse.records import Problem, RowOutcome, RowSource, SftRow, content_id
from midcourse.rendering import Renderer
from midcourse.stages.build_sft import IGNORED
from midcourse.steps import STEP_SEPARATOR, location_from_error_step, number_steps
from midcourse.warmup.attempts import Attempt, draw_attempt
from midcourse.warmup.solutions import (
    Line,
    Lines,
    answer_of,
    numbers_in,
    read_solution,
    replace_numbers,
    response_steps,
)

#: Stands for a quantity that only the reference tells.
BLANK = "___"
BLANKED = 0.25
#: Share of attempts in which nothing is wrong.
CORRECT = 0.125
_TRIES = 10

#: A problem whose reference solution was read whole.
Readable = tuple[Problem, Lines]


def readable(problems: Sequence[Problem], limit: int | None) -> list[Readable]:
    """Return the first `limit` problems whose reference solution is exact and whole."""
    pairs = ((problem, read_solution(problem)) for problem in problems)
    return [(problem, solution) for problem, solution in pairs if solution is not None][:limit]


@dataclass(frozen=True, slots=True)
class Verification:
    """An attempt, the user message that asks about it, and the reply to learn."""

    attempt: Attempt
    user: str
    reply: str


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Everything a row depends on besides its problem."""

    renderer: Renderer
    prompts: Mapping[str, Prompt]
    seed: int
    max_tokens: int
    """A longer row is refused, never cut."""

    def worked(self, problems: Sequence[Readable]) -> Iterator[SftRow]:
        """Yield one row per worked solution: a step per line, the answer boxed at the end."""
        for problem, solution in problems:
            user = self.prompts["solve"].render(problem=problem.text)
            reply = STEP_SEPARATOR.join(response_steps(solution))
            yield self._row(RowSource.WORKED_SOLUTION, problem, user, reply)

    def verifications(self, problems: Sequence[Readable], num_attempts: int) -> Iterator[SftRow]:
        """Yield up to `num_attempts` rows per problem, with and without the reference in turn."""
        for problem, solution in problems:
            for index in range(num_attempts):
                drawn = self.verification(problem, solution, index, index % 2 == 0)
                if drawn is not None:
                    yield self._row(RowSource.VERIFICATION, problem, drawn.user, drawn.reply)

    def verification(
        self, problem: Problem, solution: Lines, index: int, with_reference: bool
    ) -> Verification | None:
        """Return the seeded attempt number `index`, or None if the problem allows none."""
        drawn = draw_verification(self.seed, problem, solution, index)
        if drawn is None:
            return None
        rng, attempt, reply = drawn
        user = self._question(rng, problem, solution, attempt, with_reference)
        return Verification(attempt, user, reply)

    def _question(
        self,
        rng: random.Random,
        problem: Problem,
        solution: Lines,
        attempt: Attempt,
        with_reference: bool,
    ) -> str:
        numbered = number_steps(response_steps(attempt.lines))
        if not with_reference:
            return self.prompts["no_reference"].render(problem=problem.text, attempt=numbered)
        used = {n for line in solution for c in line.calculations for n in c.numbers}
        text, found = problem.text, sorted(used & set(numbers_in(problem.text)))
        if rng.random() < BLANKED and found:
            text = replace_numbers(text, {rng.choice(found): BLANK})
        reference = problem.reference_solution or ""
        prompt = self.prompts["single_turn"]
        return prompt.render(problem=text, reference=reference, attempt=numbered)

    def _row(self, source: RowSource, problem: Problem, user: str, reply: str) -> SftRow:
        prompt_ids = self.renderer.prompt_ids([{"role": "user", "content": user}])
        reply_ids = [*self.renderer.encode(reply), *self.renderer.end_of_turn_ids]
        fits = len(prompt_ids) + len(reply_ids) <= self.max_tokens
        return SftRow(
            row_id=content_id(source, problem.problem_id, user, reply),
            source=source,
            outcome=RowOutcome.READY if fits else RowOutcome.TOO_LONG,
            problem_id=problem.problem_id,
            proposal_id=None,
            input_ids=(*prompt_ids, *reply_ids) if fits else (),
            labels=(*(IGNORED for _ in prompt_ids), *reply_ids) if fits else (),
            closes_turn=True,
            prompt_tokens=len(prompt_ids),
            prefix_tokens=0,
            intervention_tokens=0,
            num_correct=0,
            num_continuations=0,
        )


def draw_verification(
    seed: int, problem: Problem, solution: Lines, index: int
) -> tuple[random.Random, Attempt, str] | None:
    """Return the seeded attempt number `index` and the reply to learn, or None if there is none.

    The generator that drew them comes first, for what is still to be drawn.
    """
    rng = random.Random(f"{seed}/verification/{problem.problem_id}/{index}")
    for _ in range(_TRIES):
        is_wrong = rng.random() >= CORRECT
        attempt = draw_attempt(rng, solution, numbers_in(problem.text), is_wrong)
        reply = _reply(attempt) if attempt else None
        if attempt is not None and reply is not None:
            return rng, attempt, reply
    return None


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


def intervention_text(line: Line, answer: Fraction) -> str | None:
    """Return the right step without the answer, or None if its prose gives the answer away.

    A calculation that comes to the answer is left for the student to work out.
    """
    text = "".join(
        part if isinstance(part, str) else part.left if part.result == answer else part.text
        for part in line.parts
    )
    return None if answer in numbers_in(text) else text
