"""propose: the first error and a one-step intervention for each incorrect rollout (§3.1, Box 1).

Each rollout is asked about K times; its K answers are settled together, in order, so that
"duplicate" and "first accepted" do not depend on which reply came first. Every answer becomes a
`Proposal` with an outcome: nothing that failed to parse disappears.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from midcourse.checkers import Grader, checker_named
from midcourse.config import ProposeConfig
from midcourse.engines.base import Completion, Engine, Request
from midcourse.errors import ConfigError
from midcourse.progress import Failures
from midcourse.prompts import Prompt, PromptSet
from midcourse.prompts.parse import ParsedProposal, parse_proposal, parse_proposals
from midcourse.records import (
    FinishReason,
    Problem,
    Proposal,
    ProposalOutcome,
    Rollout,
    Turn,
    content_id,
    derive_seed,
)
from midcourse.rendering import Message, Renderer
from midcourse.stages.flow import run_requests
from midcourse.steps import number_steps, split_steps

#: What became of a reply that did not finish: it is never read.
OUTCOMES_OF_UNFINISHED = {
    FinishReason.LENGTH: ProposalOutcome.TRUNCATED,
    FinishReason.PROMPT_TOO_LONG: ProposalOutcome.PROMPT_TOO_LONG,
    FinishReason.REQUEST_FAILED: ProposalOutcome.REQUEST_FAILED,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One incorrect rollout to be looked at, with the reference that is shown."""

    problem: Problem
    rollout: Rollout
    reference: str
    """Empty where the proposer works without one."""


@dataclass(frozen=True, slots=True)
class Proposer:
    """Who proposes, and everything needed to ask and to judge the answer."""

    engine: Engine
    renderer: Renderer
    """Of the proposer's own tokenizer; unused by engines that take messages."""
    policy: Renderer
    """Of the policy: interventions are measured, and later trained, in its tokens."""
    review: Prompt
    """Shows the numbered attempt."""
    guided: Prompt | None
    """Asks for a solution first, guided by the reference; none where all is asked at once."""
    grader: Grader
    config: ProposeConfig
    name: str
    run_seed: int

    @property
    def num_turns(self) -> int:
        """The turns of one question."""
        return 2 if self.guided else 1


@dataclass(frozen=True, slots=True)
class _Question:
    """One question under way: its turns so far and the context of the next one."""

    case: Case
    index: int
    question_id: str
    context_ids: tuple[int, ...]
    messages: tuple[Message, ...]
    turns: tuple[Turn, ...] = ()
    earlier: tuple[_Answer, ...] = ()
    """Answers about the same rollout, where questions come one after the other."""


_Answer = tuple[_Question, Completion]


def propose(
    cases: Iterable[Case], proposer: Proposer, done: Container[str], failures: Failures
) -> Iterator[tuple[str, list[Proposal]]]:
    """Yield ``(rollout id, its proposals)`` for each rollout not in `done`, as they finish."""
    config = proposer.config
    cases = (case for case in cases if case.rollout.rollout_id not in done)
    at_once = 1 if config.stop_at_first_accepted else config.num_proposals
    questions = (_open(case, index, proposer) for case in cases for index in range(at_once))
    requests = ((_request(question, proposer), question) for question in questions)

    def follow_up(question: _Question, completion: Completion) -> tuple[Request, _Question] | None:
        following = _next_turn(question, completion, proposer)
        if following is None and config.stop_at_first_accepted:
            following = _next_question(question, completion, proposer)
        return (_request(following, proposer), following) if following else None

    answers: dict[str, list[_Answer]] = {}
    for question, completion in run_requests(proposer.engine, requests, failures, follow_up):
        rollout_id = question.case.rollout.rollout_id
        answered = answers.setdefault(rollout_id, [])
        answered += [*question.earlier, (question, completion)]
        if config.stop_at_first_accepted or len(answered) == config.num_proposals:
            yield rollout_id, _settle(answers.pop(rollout_id), proposer)


def review_prompt(prompts: PromptSet, config: ProposeConfig) -> Prompt:
    """Return the prompt that shows the numbered attempt. Raises ConfigError if there is none."""
    if config.reference == "none":
        return prompts["no_reference"]
    if config.turns == "single":
        if config.variant == "list":
            raise ConfigError("propose: variant 'list' needs turns = 'two'")
        return prompts["single_turn"]
    return prompts["review_list" if config.variant == "list" else "review"]


def guided_prompt(prompts: PromptSet, config: ProposeConfig) -> Prompt | None:
    """Return the prompt of the first of two turns; none where all is asked at once."""
    two_turns = config.turns == "two" and config.reference != "none"
    return prompts["guided_solve"] if two_turns else None


def shuffled_references(problems: Sequence[Problem]) -> dict[str, str]:
    """Return another problem's reference for each problem id: a control that must gain nothing."""
    references = [problem.reference_solution or "" for problem in problems]
    turned = references[1:] + references[:1]
    return {problem.problem_id: text for problem, text in zip(problems, turned, strict=True)}


def first_accepted(proposals: Iterable[Proposal], after_error: bool = False) -> list[Proposal]:
    """Return the first accepted proposal of each rollout; after its error only if asked for."""
    chosen: dict[str, Proposal] = {}
    for proposal in sorted(proposals, key=lambda p: (p.rollout_id, p.index, p.item)):
        usable = proposal.outcome is ProposalOutcome.ACCEPTED
        if usable and (after_error or not proposal.after_error):
            chosen.setdefault(proposal.rollout_id, proposal)
    return list(chosen.values())


def _open(case: Case, index: int, proposer: Proposer) -> _Question:
    """Start a question: with the guided solution (two turns), or with the review itself."""
    review = proposer.review
    message: Message = {"role": "user", "content": _fill(proposer.guided or review, case)}
    takes_ids = proposer.engine.capabilities.token_ids
    question_id = content_id(
        case.rollout.rollout_id, proposer.name, review.name, review.sha, case.reference, index
    )
    return _Question(
        case=case,
        index=index,
        question_id=question_id,
        context_ids=tuple(proposer.renderer.prompt_ids([message])) if takes_ids else (),
        messages=(message,),
    )


def _fill(prompt: Prompt, case: Case) -> str:
    return prompt.render(
        problem=case.problem.text,
        reference=case.reference,
        answer=case.problem.answer,
        attempt=number_steps(split_steps(case.rollout.text)),
    )


def _request(question: _Question, proposer: Proposer) -> Request:
    turn = len(question.turns)
    request_id = f"{question.question_id}/{turn}"
    # First turns of one problem share their context; second turns share nothing.
    is_shared = proposer.guided and not turn
    return Request(
        request_id=request_id,
        prompt_token_ids=question.context_ids,
        sampling=proposer.config.sampling.record(),
        seed=derive_seed(proposer.run_seed, f"propose/{turn}", question.question_id),
        group=f"{question.case.problem.problem_id}/guided" if is_shared else request_id,
        messages=question.messages,
    )


def _next_turn(question: _Question, completion: Completion, proposer: Proposer) -> _Question | None:
    """Return the question's next turn, or None if this completion answers it."""
    is_last = len(question.turns) + 1 == proposer.num_turns
    if is_last or completion.finish_reason is not FinishReason.STOP:
        return None
    text = _fill(proposer.review, question.case)
    context: tuple[int, ...] = ()
    if question.context_ids:
        first, renderer = question.messages[0], proposer.renderer
        context = tuple(renderer.second_turn_ids(first, completion.token_ids, text))
    reply: Message = {"role": "assistant", "content": completion.text}
    return replace(
        question,
        context_ids=context,
        messages=(*question.messages, reply, {"role": "user", "content": text}),
        turns=(*question.turns, _turn(question, completion)),
    )


def _next_question(
    question: _Question, completion: Completion, proposer: Proposer
) -> _Question | None:
    """Return the next question about the same rollout, or None if this answer is accepted."""
    index = question.index + 1
    judged = _judged(question, completion, proposer)
    accepted = any(answer.outcome is ProposalOutcome.ACCEPTED for answer in judged)
    if accepted or index == proposer.config.num_proposals:
        return None
    following = _open(question.case, index, proposer)
    return replace(following, earlier=(*question.earlier, (question, completion)))


def _turn(question: _Question, completion: Completion) -> Turn:
    return Turn(
        prompt=question.messages[-1]["content"],
        reply=completion.text,
        finish_reason=completion.finish_reason,
    )


def _settle(answers: list[_Answer], proposer: Proposer) -> list[Proposal]:
    """Judge the answers about one rollout in the order they were asked."""
    proposals: list[Proposal] = []
    accepted: set[tuple[int | None, str | None]] = set()
    for question, completion in sorted(answers, key=lambda answer: answer[0].index):
        turns = (*question.turns, _turn(question, completion))
        for item, judged in enumerate(_judged(question, completion, proposer)):
            key = (judged.location, judged.intervention)
            if judged.outcome is ProposalOutcome.ACCEPTED and key in accepted:
                judged = replace(judged, outcome=ProposalOutcome.DUPLICATE, detail="said before")
            elif judged.outcome is ProposalOutcome.ACCEPTED:
                accepted.add(key)
            proposals.append(_record(judged, question, item, turns, proposer))
    return proposals


def _judged(
    question: _Question, completion: Completion, proposer: Proposer
) -> list[ParsedProposal]:
    """Read and judge the last reply; a reply that did not finish is never read."""
    outcome = OUTCOMES_OF_UNFINISHED.get(completion.finish_reason)
    if outcome is not None:
        detail = f"turn {len(question.turns) + 1} of {proposer.num_turns}"
        return [ParsedProposal(outcome=outcome, detail=detail)]
    num_steps = len(split_steps(question.case.rollout.text))
    if proposer.config.variant == "list":
        parsed = parse_proposals(completion.text, num_steps)
    else:
        parsed = [parse_proposal(completion.text, num_steps)]
    return [_judge(proposal, question.case.problem, proposer) for proposal in parsed]


def _judge(parsed: ParsedProposal, problem: Problem, proposer: Proposer) -> ParsedProposal:
    """Apply what a parser cannot know: the terminator, the length and the answer."""
    if parsed.outcome is not ProposalOutcome.ACCEPTED or parsed.intervention is None:
        return parsed
    config = proposer.config
    num_tokens = len(proposer.policy.encode(parsed.intervention))
    if num_tokens > config.max_intervention_tokens:
        detail = f"{num_tokens} tokens, limit {config.max_intervention_tokens}"
        return replace(parsed, outcome=ProposalOutcome.TOO_LONG, detail=detail)
    if config.leak_rule == "substring":
        leaks = problem.answer in parsed.intervention
    else:
        checker = checker_named(problem.checker)
        leaks = checker.leaks(parsed.intervention, problem.answer, proposer.grader.equal)
    if leaks:
        return replace(parsed, outcome=ProposalOutcome.LEAKS_ANSWER, detail=config.leak_rule)
    # The blank line that ends a step is the step's own: the same in verification and in SFT.
    return replace(parsed, intervention=parsed.intervention.rstrip() + config.terminator)


def _record(
    parsed: ParsedProposal,
    question: _Question,
    item: int,
    turns: tuple[Turn, ...],
    proposer: Proposer,
) -> Proposal:
    problem, text = question.case.problem, parsed.intervention
    return Proposal(
        proposal_id=content_id(question.question_id, item),
        problem_id=problem.problem_id,
        rollout_id=question.case.rollout.rollout_id,
        index=question.index,
        item=item,
        proposer=proposer.name,
        outcome=parsed.outcome,
        detail=parsed.detail,
        error_step=parsed.error_step,
        location=parsed.location,
        intervention=text,
        after_error=parsed.after_error,
        leaks_substring=problem.answer in text if text else None,
        turns=turns,
        prompt_name=proposer.review.name,
        prompt_sha=proposer.review.sha,
    )
