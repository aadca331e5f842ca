"""propose: the first error and a one-step intervention for each incorrect rollout (§3.1, Box 1).

Each rollout is asked about K times; its K answers are settled together, in order, so that
"duplicate" and "first accepted" do not depend on which reply came first. Every answer becomes a
`Proposal` with an outcome: nothing that failed to parse disappears.

In two turns, a question begins with a solution that is guided by the reference, which is graded: a
proposer that does not get there with the reference at hand has not understood it. The questions
about a rollout may share that solution (`ProposeConfig.guided`), as in the authors' release.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from midcourse.checkers import Grader, checker_named, shown_failure, shown_tests
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
    Verdict,
    content_id,
    derive_seed,
)
from midcourse.rendering import Message, Renderer
from midcourse.stages.flow import run_requests
from midcourse.stages.reference import without_thinking
from midcourse.steps import BLANK_LINES, StepRule

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
    detail: str = ""
    """As `Grade.detail` of the rollout, where the prompt shows the test that it failed."""


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
    steps: StepRule = BLANK_LINES
    """By which attempts are cut."""

    @property
    def num_at_once(self) -> int:
        """The questions about a rollout that do not wait for one another."""
        return 1 if self.config.stop_at_first_accepted else self.config.num_proposals


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
    # A shared solution is asked for once: the other questions follow it.
    opened = 1 if proposer.config.shares_solution else proposer.num_at_once
    questions = (_open(case, index, proposer) for case in cases for index in range(opened))
    requests = ((_request(question, proposer), question) for question in questions)

    def follow_up(
        question: _Question, completion: Completion
    ) -> Sequence[tuple[Request, _Question]]:
        following = _following(question, completion, proposer)
        return [(_request(question, proposer), question) for question in following]

    answers: dict[str, list[_Answer]] = {}
    for question, completion in run_requests(proposer.engine, requests, failures, follow_up):
        rollout_id = question.case.rollout.rollout_id
        answered = answers.setdefault(rollout_id, [])
        answered += [*question.earlier, *_answered(question, completion, proposer)]
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
    return prompts["guided_solve"] if config.num_turns == 2 else None


def begins_with_solution(proposal: Proposal, config: ProposeConfig) -> bool:
    """Whether a guided solution was written for this very proposal, not for one before it."""
    is_own = proposal.index == 0 or not config.shares_solution
    return proposal.guided_verdict is not None and is_own and proposal.item == 0


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
    text = question_text(proposer.guided or review, case, proposer.steps)
    message: Message = {"role": "user", "content": text}
    takes_ids = proposer.engine.capabilities.token_ids
    return _Question(
        case=case,
        index=index,
        question_id=_question_id(case, index, proposer),
        context_ids=tuple(proposer.renderer.prompt_ids([message])) if takes_ids else (),
        messages=(message,),
    )


def _question_id(case: Case, index: int, proposer: Proposer) -> str:
    # The first question is the same, whether others share its solution or not.
    shared = ["shared"] if proposer.config.shares_solution and index else []
    asked = (proposer.name, proposer.review.name, proposer.review.sha, case.reference, index)
    return content_id(case.rollout.rollout_id, *asked, *shared)


def question_text(prompt: Prompt, case: Case, steps: StepRule) -> str:
    """Return what the user says with a prompt about a case; `steps` number the attempt."""
    tested = (case.problem.checker, case.problem.entry)
    return prompt.render(
        problem=case.problem.text,
        reference=case.reference,
        answer=case.problem.answer,
        tests=shown_tests(*tested),
        failing_test=shown_failure(*tested, case.detail),
        attempt=steps.shown(case.rollout),
    )


def _request(question: _Question, proposer: Proposer) -> Request:
    turn = len(question.turns)
    request_id = group = f"{question.question_id}/{turn}"
    if proposer.guided and not turn:  # the first turns of one problem have the same context
        group = f"{question.case.problem.problem_id}/guided"
    elif proposer.config.shares_solution:
        group = f"{question.case.rollout.rollout_id}/review"
    return Request(
        request_id=request_id,
        prompt_token_ids=question.context_ids,
        sampling=proposer.config.sampling.record(),
        seed=derive_seed(proposer.run_seed, f"propose/{turn}", question.question_id),
        group=group,
        messages=question.messages,
    )


def _following(question: _Question, completion: Completion, proposer: Proposer) -> list[_Question]:
    """Return what is asked next, if this completion is no answer or not accepted."""
    review = _next_turn(question, completion, proposer)
    if review is not None and proposer.config.shares_solution:
        return [_sibling(review, index, proposer) for index in range(proposer.num_at_once)]
    if review is None and proposer.config.stop_at_first_accepted:
        review = _next_question(question, completion, proposer)
    return [] if review is None else [review]


def _sibling(question: _Question, index: int, proposer: Proposer) -> _Question:
    """Return the question of another index, as far as this one has got."""
    question_id = _question_id(question.case, index, proposer)
    return replace(question, index=index, question_id=question_id)


def _answered(question: _Question, completion: Completion, proposer: Proposer) -> list[_Answer]:
    """Return the answers that a completion is: a shared solution that broke off answers all."""
    if not proposer.config.shares_solution or question.turns:
        return [(question, completion)]
    indices = range(proposer.config.num_proposals)
    return [(_sibling(question, index, proposer), completion) for index in indices]


def _next_turn(question: _Question, completion: Completion, proposer: Proposer) -> _Question | None:
    """Return the question's next turn, or None if this completion answers it."""
    is_last = len(question.turns) + 1 == proposer.config.num_turns
    if is_last or completion.finish_reason is not FinishReason.STOP:
        return None
    text = question_text(proposer.review, question.case, proposer.steps)
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
    if not proposer.config.shares_solution:
        following = _open(question.case, index, proposer)
    elif question.turns:
        following = _sibling(question, index, proposer)
    else:  # the solution broke off: there is nothing to go on from
        return None
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
    answers = sorted(answers, key=lambda answer: answer[0].index)
    conversations = [(*question.turns, _turn(question, reply)) for question, reply in answers]
    solved = _guided_verdicts(answers[0][0].case.problem, conversations, proposer)
    for (question, completion), turns, verdict in zip(answers, conversations, solved, strict=True):
        for item, judged in enumerate(_judged(question, completion, proposer)):
            key = (judged.location, judged.intervention)
            if judged.outcome is ProposalOutcome.ACCEPTED and key in accepted:
                judged = replace(judged, outcome=ProposalOutcome.DUPLICATE, detail="said before")
            elif judged.outcome is ProposalOutcome.ACCEPTED:
                accepted.add(key)
            made = _record(judged, question, item, turns, proposer)
            proposals.append(replace(made, guided_verdict=verdict))
    return proposals


def _guided_verdicts(
    problem: Problem, conversations: Sequence[tuple[Turn, ...]], proposer: Proposer
) -> list[Verdict] | list[None]:
    """Grade the solution that each conversation begins with, if it begins with one."""
    if proposer.guided is None:
        return [None] * len(conversations)
    solutions = [turns[0] for turns in conversations]
    graded = proposer.grader.grade((solution.reply, problem.gold) for solution in solutions)
    return [
        result.verdict if solution.finish_reason.has_reply else Verdict.UNGRADED
        for solution, result in zip(solutions, graded, strict=True)
    ]


def _judged(
    question: _Question, completion: Completion, proposer: Proposer
) -> list[ParsedProposal]:
    """Read and judge the last reply; a reply that did not finish is never read."""
    outcome = OUTCOMES_OF_UNFINISHED.get(completion.finish_reason)
    if outcome is not None:
        detail = f"turn {len(question.turns) + 1} of {proposer.config.num_turns}"
        return [ParsedProposal(outcome=outcome, detail=detail)]
    steps = proposer.steps.of(question.case.rollout)
    reply = without_thinking(completion.text)  # what was drafted in a thought is not an answer
    if proposer.config.variant == "list":
        parsed = parse_proposals(reply, len(steps), is_code=proposer.steps.of_program)
    else:
        parsed = [parse_proposal(reply, len(steps), is_code=proposer.steps.of_program)]
    return [_judge(proposal, question.case, proposer) for proposal in parsed]


def _judge(parsed: ParsedProposal, case: Case, proposer: Proposer) -> ParsedProposal:
    """Apply what a parser cannot know: the attempt, the terminator, the length and the answer."""
    problem, rollout = case.problem, case.rollout
    is_accepted = parsed.outcome is ProposalOutcome.ACCEPTED
    if not is_accepted or parsed.intervention is None or parsed.location is None:
        return parsed
    if proposer.steps.repeats(parsed.intervention, proposer.steps.of(rollout), parsed.location):
        return replace(parsed, outcome=ProposalOutcome.UNCHANGED, detail="the step it replaces")
    config = proposer.config
    num_tokens = len(proposer.policy.encode(parsed.intervention))
    if num_tokens > config.max_intervention_tokens:
        detail = f"{num_tokens} tokens, limit {config.max_intervention_tokens}"
        return replace(parsed, outcome=ProposalOutcome.TOO_LONG, detail=detail)
    if config.leak_rule == "substring":
        leaks = _holds_answer(problem, parsed.intervention)
    else:
        checker = checker_named(problem.checker)
        leaks = checker.leaks(parsed.intervention, problem.answer, proposer.grader.equal)
    if leaks:
        return replace(parsed, outcome=ProposalOutcome.LEAKS_ANSWER, detail=config.leak_rule)
    # What ends a step is the step's own: the same in verification and in SFT.
    place = (rollout, parsed.location, config.terminator)
    return replace(parsed, intervention=proposer.steps.placed_in(parsed.intervention, *place))


def _holds_answer(problem: Problem, text: str) -> bool:
    """Apply the authors' rule: the answer is a substring."""
    return bool(problem.answer) and problem.answer in text


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
        leaks_substring=_holds_answer(problem, text) if text else None,
        turns=turns,
        prompt_name=proposer.review.name,
        prompt_sha=proposer.review.sha,
    )
