"""Whole solutions to fine-tune on: references, rewrites of one's own attempts, a teacher's traces.

Rewrites and a teacher's traces are rollouts, sampled and graded like any other; here they become
`Solution`s, and the questions for them are asked. Box 4 of the paper is two turns; our
``reflect.md`` shows the reference and the attempt in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from midcourse.checkers import checker_named
from midcourse.records import FinishReason, Grade, Problem, Rollout, Verdict
from midcourse.stages.reference import THINKING_END, without_thinking

Trace = Literal["whole", "thinking", "summary"]
_THINKING_START = "<think>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """One whole solution, e.g. a rewrite that was graded correct."""

    text: str
    verdict: Verdict
    rollout_id: str | None = None
    """Null for a reference that came with the problem."""
    is_whole: bool = True
    """False where the token budget ended it: such a text cannot close its turn."""


def reference_solution(problem: Problem) -> Solution | None:
    """Return the problem's reference as a solution to train on; None if there is none.

    A reference that states no answer as the checker reads it gets the answer as a last step:
    else fine-tuning on it would teach never to answer, and compare no better than that.
    """
    text = (problem.reference_solution or "").strip()
    if not text:
        return None
    checker = checker_named(problem.checker)
    if checker.extract(text) is None:
        text += f"\n\n{checker.state(problem.answer)}"
    return Solution(text=text, verdict=Verdict.CORRECT)


def solutions_by(
    key: Callable[[Rollout], str],
    rollouts: Iterable[Rollout],
    grades: Iterable[Grade],
    trace: Trace = "whole",
) -> dict[str, list[Solution]]:
    """Return the solutions that `rollouts` hold, by `key`, in the order of their indices."""
    verdicts = {grade.rollout_id: grade.verdict for grade in grades}
    found: dict[str, list[tuple[int, Solution]]] = {}
    for rollout in rollouts:
        text = trace_of(rollout.text, trace)
        solution = Solution(
            text=text,
            verdict=verdicts[rollout.rollout_id],
            rollout_id=rollout.rollout_id,
            is_whole=rollout.finish_reason is FinishReason.STOP and bool(text),
        )
        found.setdefault(key(rollout), []).append((rollout.index, solution))
    return {
        name: [solution for _, solution in sorted(pairs, key=lambda pair: pair[0])]
        for name, pairs in found.items()
    }


def trace_of(text: str, trace: Trace) -> str:
    """Return the part of a reasoning model's reply to train on (Fig. 9: R1 think, R1 summary)."""
    if trace == "summary":
        return without_thinking(text)
    if trace == "thinking":
        # Chat templates often open the thinking themselves: then only its end is in the reply.
        before, end, _ = text.partition(THINKING_END)
        return before.rpartition(_THINKING_START)[2].strip() if end else ""
    return text
