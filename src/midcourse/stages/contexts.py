"""What a rollout is conditioned on, as token ids: the rows of Table 1.

Verification and SFT rows are both built from `continuation_context`, so the ids verified are the
ids trained on. Cutting follows `midcourse.steps`; encoding follows `midcourse.rendering`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from midcourse.checkers import Checker, checker_named
from midcourse.prompts import PromptSet
from midcourse.records import Condition, Problem, Proposal, Rollout
from midcourse.rendering import Message, Renderer, SplitIds
from midcourse.steps import BLANK_LINES, StepRule, insert_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A context to sample from, e.g. 41 prompt ids, 20 prefix ids, 12 intervention ids."""

    problem_id: str
    condition: Condition
    parent_id: str | None
    """The proposal it was built from; null for plain problems."""
    prompt_ids: tuple[int, ...]
    response: SplitIds
    """What already stands in the assistant's turn: sampled ids kept, then ids encoded again."""
    open_box: str
    r"""The tail of the response from an answer left open there, as ``\boxed{4``; else empty."""
    messages: tuple[Message, ...] = ()
    """The same context as messages, where a helper's engine takes nothing else."""

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
    """Yield one context per problem, with an empty response."""
    for problem in problems:
        text = prompts["solve"].render(problem=problem.text)
        yield opening_context(problem.problem_id, Condition.PROBLEM, text, renderer)


def opening_context(
    problem_id: str,
    condition: Condition,
    text: str,
    renderer: Renderer | None,
    *,
    parent_id: str | None = None,
) -> Context:
    """Return the context of one user message; without a renderer, for engines of messages."""
    message: Message = {"role": "user", "content": text}
    return Context(
        problem_id=problem_id,
        condition=condition,
        parent_id=parent_id,
        prompt_ids=tuple(renderer.prompt_ids([message])) if renderer else (),
        response=SplitIds([], []),
        open_box="",
        messages=() if renderer else (message,),
    )


def continuation_context(
    condition: Condition,
    proposal: Proposal,
    rollout: Rollout,
    opening: Context,
    renderer: Renderer,
    checker: Checker,
    rule: StepRule = BLANK_LINES,
) -> Context:
    """Return the context in which `rollout` is taken up again at the proposal's place.

    With a hint the user's turn, `opening`, is another one; the prefix is the same.
    """
    prefix, addition = response_texts(condition, proposal, rollout.text, rule)
    return Context(
        problem_id=proposal.problem_id,
        condition=condition,
        parent_id=proposal.proposal_id,
        prompt_ids=opening.prompt_ids,
        response=renderer.cut(rollout.token_ids, prefix, addition),
        open_box=checker.open_tail(prefix + addition),
    )


def response_texts(
    condition: Condition, proposal: Proposal, attempt: str, rule: StepRule = BLANK_LINES
) -> tuple[str, str]:
    """Return what stands in the assistant's turn: the prefix of the attempt, and what is added."""
    step, continues = insert_step(proposal), condition.continues
    if continues is Condition.PREFIX_ERROR:
        return rule.prefix_before(attempt, step + 1), ""
    if continues is Condition.PREFIX_INTERVENTION:
        return rule.prefix_before(attempt, step), proposal.intervention or ""
    if continues is Condition.PROBLEM:
        return "", ""  # Rows without prefix get the budget of the others: one context per proposal.
    if continues is Condition.PREFIX:
        return rule.prefix_before(attempt, step), ""
    raise ValueError(f"no continuation under condition {condition}")


def continuation_contexts(
    condition: Condition,
    proposals: Iterable[Proposal],
    rollouts: Iterable[Rollout],
    opening: Callable[[Proposal], Context],
    renderer: Renderer,
    problems: Mapping[str, Problem],
    rule: StepRule = BLANK_LINES,
) -> Iterator[Context]:
    """Yield the context of each proposal, in the order of `rollouts`; one proposal per rollout."""
    by_rollout = {proposal.rollout_id: proposal for proposal in proposals}
    for rollout in rollouts:
        proposal = by_rollout.get(rollout.rollout_id)
        if proposal is not None:
            checker = checker_named(problems[rollout.problem_id].checker)
            yield continuation_context(
                condition, proposal, rollout, opening(proposal), renderer, checker, rule
            )
