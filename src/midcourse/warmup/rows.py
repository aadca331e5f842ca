"""Warm-up rows: documents as token ids and labels, by the renderer that every stage uses.

Unlike an intervention, a whole reply ends: its end-of-turn is trained. The prompt never is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from midcourse.prompts import PromptSet
from midcourse.records import Problem, RowOutcome, RowSource, SftRow, content_id
from midcourse.rendering import Renderer
from midcourse.stages.build_sft import IGNORED
from midcourse.warmup.documents import Document, draw_verification, worked_document
from midcourse.warmup.solutions import Solution, read_solution

#: A problem whose reference solution was read whole.
Readable = tuple[Problem, Solution]


def readable(problems: Sequence[Problem], limit: int | None) -> list[Readable]:
    """Return the first `limit` problems whose reference solution is exact and whole."""
    pairs = ((problem, read_solution(problem)) for problem in problems)
    return [(problem, solution) for problem, solution in pairs if solution is not None][:limit]


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Everything a row depends on beside its problem."""

    renderer: Renderer
    prompts: PromptSet
    seed: int
    max_tokens: int
    """A longer row is refused, never cut."""

    def worked(self, problems: Sequence[Readable]) -> Iterator[SftRow]:
        """Yield one row per worked solution."""
        for problem, solution in problems:
            document = worked_document(problem, solution, self.prompts)
            yield self._row(RowSource.WORKED_SOLUTION, problem, document)

    def verifications(self, problems: Sequence[Readable], num_attempts: int) -> Iterator[SftRow]:
        """Yield up to `num_attempts` rows per problem, with and without the reference in turn."""
        for problem, solution in problems:
            for index in range(num_attempts):
                document = self.verification(problem, solution, index, index % 2 == 0)
                if document is not None:
                    yield self._row(RowSource.VERIFICATION, problem, document)

    def verification(
        self, problem: Problem, solution: Solution, index: int, with_reference: bool
    ) -> Document | None:
        """Return the seeded attempt number `index` at a problem, with the reply to learn."""
        rng = random.Random(f"{self.seed}/verification/{problem.problem_id}/{index}")
        return draw_verification(rng, problem, solution, self.prompts, with_reference)

    def _row(self, source: RowSource, problem: Problem, document: Document) -> SftRow:
        prompt = self.renderer.prompt_ids([{"role": "user", "content": document.user}])
        reply = [*self.renderer.encode(document.reply), *self.renderer.end_of_turn_ids]
        fits = len(prompt) + len(reply) <= self.max_tokens
        return SftRow(
            row_id=content_id(source, problem.problem_id, document.user, document.reply),
            source=source,
            outcome=RowOutcome.READY if fits else RowOutcome.TOO_LONG,
            problem_id=problem.problem_id,
            proposal_id=None,
            input_ids=(*prompt, *reply) if fits else (),
            labels=(*(IGNORED for _ in prompt), *reply) if fits else (),
            closes_turn=True,
            prompt_tokens=len(prompt),
            prefix_tokens=0,
            intervention_tokens=0,
            num_correct=0,
            num_continuations=0,
        )
