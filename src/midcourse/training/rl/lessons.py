"""What a model is shown to teach itself: a correct rollout of the same group, or the reference.

Where no rollout of a group is correct there is no sibling to show. That is the rule on problems of
pass@k = 0, and why such groups are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from midcourse.config import DistillFrom
from midcourse.records import Grade, Rollout, Verdict
from midcourse.rendering import Renderer
from midcourse.stages.contexts import Context, opening_context
from midcourse.stages.reference import without_thinking
from midcourse.training.jobs import Teaching
from midcourse.training.rl.groups import Lesson

#: As `RlSample.taught_by` where no rollout taught.
REFERENCE = "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """Makes the teacher's context of each rollout of a group."""

    teaching: Teaching
    shown: DistillFrom
    renderer: Renderer

    def of(
        self, context: Context, rollouts: Sequence[Rollout], grades: Sequence[Grade]
    ) -> tuple[Lesson | None, ...]:
        """Return a lesson for each rollout of `context`; none where there is nothing to show.

        A rollout never teaches itself, and one without a token has nothing to learn from.
        """
        correct = [
            rollout
            for rollout, grade in zip(rollouts, grades, strict=True)
            if grade.verdict is Verdict.CORRECT and self.shown != REFERENCE
        ]
        teachers = [
            next((one for one in correct if one is not rollout), None) for rollout in rollouts
        ]
        return tuple(
            self._lesson(context, teacher) if rollout.token_ids else None
            for rollout, teacher in zip(rollouts, teachers, strict=True)
        )

    def longest(self, context: Context, max_tokens: int) -> Iterator[tuple[int, ...]]:
        """Yield the teacher's contexts that may come of `context`, a sibling as long as can be."""
        reference = self._lesson(context, None)
        if reference is not None:
            yield reference.context_ids
        if self.shown != REFERENCE:
            padding = self.renderer.end_of_turn_ids[:1] * max_tokens
            yield (*self._ids(context, self._begun(context)), *padding)

    def _lesson(self, context: Context, sibling: Rollout | None) -> Lesson | None:
        if sibling is not None:
            solution = without_thinking(self._begun(context) + sibling.text)
            return Lesson(context_ids=self._ids(context, solution), taught_by=sibling.rollout_id)
        reference = self.teaching.reference(context.problem_id)
        if self.shown == "sibling" or not reference:
            return None
        return Lesson(context_ids=self._ids(context, reference), taught_by=REFERENCE)

    def _begun(self, context: Context) -> str:
        """Return what stood in the reply before anything was sampled."""
        return self.renderer.decode(context.response.all)

    def _ids(self, context: Context, solution: str) -> tuple[int, ...]:
        """Return the prompt that shows a solution, and what the student's reply begins with."""
        message = self.teaching.message(context.problem_id, solution)
        opening = opening_context(context.problem_id, context.condition, message, self.renderer)
        return (*opening.token_ids, *context.response.all)
