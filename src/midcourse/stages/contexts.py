"""What a rollout is conditioned on, as token ids: the rows of Table 1.

Verification and SFT rows are both built from `continuation_context`, so the ids verified are the
ids trained on. Cutting follows `midcourse.steps`; encoding follows `midcourse.rendering`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from midcourse.checkers import Checker, checker_named
from midcourse.prompts import PromptSet
from midcourse.records import (
    Condition,
    EnvironmentTurn,
    Problem,
    Proposal,
    Rollout,
    turns_of,
)
from midcourse.rendering import Message, Renderer, SplitIds
from midcourse.steps import BLANK_LINES, StepRule, insert_step, place_of


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
    said: tuple[str, ...] = ()
    """The model's own turns in the response, the open one last; empty for an empty response."""
    given: tuple[EnvironmentTurn, ...] = ()
    """What an environment said in the response's prefix."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The whole context."""
        return (*self.prompt_ids, *self.response.all)

    @property
    def response_tokens(self) -> int:
        """Tokens of the response so far that are the model's own: a ``total`` budget's share."""
        answered = sum(turn.num_tokens for turn in self.given)
        return len(self.response.prefix) + len(self.response.addition) - answered


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

    With a hint the user's turn, `opening`, is another one; the prefix is the same. Of a dialogue
    the turns before the step's own stand in the prefix whole, with what was answered to them.
    """
    given, prefix, addition = response_texts(condition, proposal, rollout, rule)
    said = turns_of(prefix, given)
    start = given[-1].start + given[-1].num_tokens if given else 0
    cut = renderer.cut(_turn_ids(rollout, len(given)), said[-1], addition)
    said[-1] += addition
    return Context(
        problem_id=proposal.problem_id,
        condition=condition,
        parent_id=proposal.proposal_id,
        prompt_ids=opening.prompt_ids,
        response=SplitIds([*rollout.token_ids[:start], *cut.prefix], cut.addition),
        open_box=checker.open_tail(said[-1]),
        said=tuple(said) if given or said[-1] else (),
        given=tuple(given),
    )


def _turn_ids(rollout: Rollout, turn: int) -> tuple[int, ...]:
    """Return what was sampled in one of a rollout's turns."""
    before = rollout.given[turn - 1] if turn else None
    start = before.start + before.num_tokens if before else 0
    end = rollout.given[turn].start if turn < len(rollout.given) else None
    return rollout.token_ids[start:end]


def response_texts(
    condition: Condition, proposal: Proposal, rollout: Rollout, rule: StepRule = BLANK_LINES
) -> tuple[Sequence[EnvironmentTurn], str, str]:
    """Return what stands in the assistant's turn: prefix of the attempt, and what is added.

    Before them, what an environment said within the prefix: where the prefix ends with a turn's
    last step, that turn is still open.
    """
    index, continues, steps = insert_step(proposal), condition.continues, rule.of(rollout)
    place = place_of(rollout, steps, index)
    given, prefix = rollout.given[: place.turn], rollout.text[: place.at]
    if continues is Condition.PREFIX_ERROR:
        return given, prefix + "".join(steps[index : index + 1]), ""
    if continues is Condition.PREFIX_INTERVENTION:
        return given, prefix, proposal.intervention or ""
    if continues is Condition.PROBLEM:
        # Rows without prefix get the budget of the others: one context per proposal.
        return (), "", ""
    if continues is Condition.PREFIX:
        return given, prefix, ""
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
