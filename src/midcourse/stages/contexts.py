"""What a rollout is conditioned on, as token ids: the rows of Table 1.

Verification and SFT rows are both built from `continuation_context`, so the ids verified are the
ids trained on. Cutting follows `midcourse.steps`; encoding follows `midcourse.rendering`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from midcourse.grading import open_box_tail
from midcourse.prompts import PromptSet
from midcourse.records import Condition, Problem, Proposal, Rollout
from midcourse.rendering import Renderer, SplitIds
from midcourse.steps import join_steps, prefix_before, split_steps

__all__ = [
    "Context",
    "continuation_context",
    "continuation_contexts",
    "problem_context",
    "problem_contexts",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A context to sample from, e.g. 41 prompt ids, 20 prefix ids, 12 intervention ids."""

    problem_id: str
    condition: Condition
    parent_id: str | None
    """The proposal it was built from; null for plain problems."""
    prompt_ids: tuple[int, ...]
    response: SplitIds
    """What already stands in the assistant's turn: sampled ids kept, then ids encoded anew."""
    open_box: str
    r"""The tail of the response from a ``\boxed{`` left open there; else empty."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The whole context."""
        return (*self.prompt_ids, *self.response.all)

    @property
    def response_tokens(self) -> int:
        """Tokens of the response so far; they count against a ``total`` budget."""
        return len(self.response.prefix) + len(self.response.addition)


def problem_contexts(
    problems: Iterable[Problem], renderer: Renderer, prompts: PromptSet
) -> Iterator[Context]:
    """Yield one context per problem."""
    for problem in problems:
        yield problem_context(problem, renderer, prompts)


def problem_context(problem: Problem, renderer: Renderer, prompts: PromptSet) -> Context:
    """Return the context of one plain problem: the solve prompt and an empty response."""
    message = {"role": "user", "content": prompts["solve"].render(problem=problem.text)}
    return Context(
        problem_id=problem.problem_id,
        condition=Condition.PROBLEM,
        parent_id=None,
        prompt_ids=tuple(renderer.prompt_ids([message])),
        response=SplitIds([], []),
        open_box="",
    )


def continuation_context(
    condition: Condition,
    proposal: Proposal,
    rollout: Rollout,
    plain: Context,
    renderer: Renderer,
) -> Context:
    """Return the context in which `rollout` is taken up again at the proposal's place.

    `problem` starts afresh, `prefix` ends before step t*, `prefix_error` after the original step,
    `prefix_intervention` after the intervention that replaces it.
    """
    prefix = prefix_before(rollout.text, proposal.insert_step)
    addition = ""
    if condition is Condition.PREFIX_ERROR:
        prefix = join_steps(split_steps(rollout.text)[: proposal.insert_step + 1])
    elif condition is Condition.PREFIX_INTERVENTION:
        addition = proposal.intervention or ""
    elif condition is Condition.PROBLEM:
        prefix = ""  # Row 1 gets the same budget as the others: one context per proposal.
    elif condition is not Condition.PREFIX:
        raise ValueError(f"no continuation under condition {condition}")
    return Context(
        problem_id=proposal.problem_id,
        condition=condition,
        parent_id=proposal.proposal_id,
        prompt_ids=plain.prompt_ids,
        response=renderer.cut(rollout.token_ids, prefix, addition),
        open_box=open_box_tail(prefix + addition),
    )


def continuation_contexts(
    condition: Condition,
    proposals: Iterable[Proposal],
    rollouts: Iterable[Rollout],
    plain: Callable[[str], Context],
    renderer: Renderer,
) -> Iterator[Context]:
    """Yield the context of each proposal, in the order of `rollouts`, which are streamed.

    `proposals` name different rollouts; `plain` returns the context of a problem id.
    """
    by_rollout = {proposal.rollout_id: proposal for proposal in proposals}
    for rollout in rollouts:
        proposal = by_rollout.get(rollout.rollout_id)
        if proposal is not None:
            context = plain(proposal.problem_id)
            yield continuation_context(condition, proposal, rollout, context, renderer)
