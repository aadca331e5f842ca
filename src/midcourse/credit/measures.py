"""What is measured of the steps of an attempt without sampling: three kinds of question.

* `StepLikelihood`: log p(step | prompt, steps before it). Under the problem alone it is the
  policy's; with the reference shown too, that of a privileged teacher, as in OPSD (arXiv
  2601.18734) and SDFT. Their difference per step is those methods' signal.
* `StepNumbers`: asked where the first error is, the log-probability of each step's number as the
  very next tokens, nothing written before it.
* `StepMarks`: the score of uPRM (arXiv 2605.10158) for one attempt. Steps and marks alternate, the
  marks of all earlier steps saying "right"; with p+ and p- renormalised over the two marks,
  S(j) = log p-(j) + sum over t < j of log p+(t). Left out of that paper's method: scoring several
  attempts in one context, and training a head on the scores. Its exact prompt was not at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import exp, log
from operator import attrgetter
from typing import Protocol

from midcourse.credit.attempts import Attempt, Attempts
from midcourse.engines.base import ScoreRequest, TokenScores
from midcourse.errors import ConfigError
from midcourse.pipeline.session import CANNOT_SCORE
from midcourse.pipeline.values import Model
from midcourse.prompts import Prompt
from midcourse.records import content_id
from midcourse.rendering import Renderer
from midcourse.run import Keyed, Reader, Work, stage
from midcourse.tokens import Asked


class Measure(StrEnum):
    """What a `StepScores` holds."""

    POLICY = "policy"
    """log p(step | problem, prefix)."""
    PRIVILEGED = "privileged"
    """The same with the reference shown in the question."""
    NUMBERS = "numbers"
    """log p(number of the step | problem, attempt, "where is the first error?")."""
    NUMBERS_REFERENCE = "numbers_reference"
    MARKS = "marks"
    """uPRM's S(j) of each step, for one attempt."""
    MARKS_REFERENCE = "marks_reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepScores:
    """One measure of every step of an attempt, in nats."""

    score_id: str
    attempt_id: str
    problem_id: str
    measure: Measure
    model: str
    scores: tuple[float, ...]
    """Per step."""
    num_tokens: tuple[int, ...]
    """Per step, the tokens that a likelihood sums over; empty for other measures."""
    cost_tokens: int
    """Tokens that the model read for it, context included."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a scorer about one attempt, and how the answers are read."""

    requests: tuple[ScoreRequest, ...]
    settle: Callable[[Mapping[str, TokenScores]], tuple[float, ...]]
    num_tokens: tuple[int, ...] = ()


class Question(Protocol):
    """A kind of question about the steps of an attempt."""

    @property
    def measure(self) -> Measure:
        """What it measures."""

    @property
    def prompt(self) -> Prompt:
        """What the user says."""

    def plan(self, attempt: Attempt, renderer: Renderer) -> Plan:
        """Return what to ask of `attempt`."""


def _asked(prompt: Prompt, attempt: Attempt, renderer: Renderer) -> tuple[int, ...]:
    message = {"role": "user", "content": prompt.render(**attempt.shown())}
    return tuple(renderer.prompt_ids([message]))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLikelihood:
    """log p(step | prompt, steps before it)."""

    measure: Measure
    prompt: Prompt

    def plan(self, attempt: Attempt, renderer: Renderer) -> Plan:
        """Score the whole attempt once and cut the sum at the steps."""
        context = _asked(self.prompt, attempt, renderer)
        borders = [0, *attempt.step_ends(renderer)]
        request = ScoreRequest(
            request_id=attempt.attempt_id,
            token_ids=(*context, *attempt.ids(renderer)),
            num_context=len(context),
        )

        def settle(scores: Mapping[str, TokenScores]) -> tuple[float, ...]:
            logprobs = scores[attempt.attempt_id].logprobs
            return tuple(sum(logprobs[start:end]) for start, end in pairwise(borders))

        lengths = tuple(end - start for start, end in pairwise(borders))
        return Plan((request,), settle, lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNumbers:
    """The log-probability of every step's number as the next tokens of the answer."""

    measure: Measure
    prompt: Prompt
    opening: str = "<first_error>"
    closing: str = "</first_error>"

    def plan(self, attempt: Attempt, renderer: Renderer) -> Plan:
        """Score each number as far as it takes to tell it from the others: mostly one pass."""
        context = (*_asked(self.prompt, attempt, renderer), *renderer.reply_ids(self.opening))
        closing = renderer.encode(self.closing)
        numbers = range(1, len(attempt.steps) + 1)
        paths = distinct([(*renderer.encode(str(number)), *closing) for number in numbers])
        following: dict[tuple[int, ...], list[int]] = {}
        for path in paths:
            for end, token in enumerate(path):
                known = following.setdefault(path[:end], [])
                known += [] if token in known else [token]
        requests = {
            node: ScoreRequest(
                request_id=f"{attempt.attempt_id}/{index}",
                token_ids=(*context, *node, tokens[0]),
                num_context=len(context) + len(node),
                alternatives=tuple(tokens),
            )
            for index, (node, tokens) in enumerate(following.items())
        }

        def logprob(path: tuple[int, ...], scores: Mapping[str, TokenScores]) -> float:
            return sum(
                scores[requests[path[:end]].request_id].alternatives[0][
                    following[path[:end]].index(token)
                ]
                for end, token in enumerate(path)
            )

        return Plan(
            tuple(requests.values()), lambda scores: tuple(logprob(p, scores) for p in paths)
        )


def distinct(sequences: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Cut each sequence after the first id that tells it from all others."""

    def is_shared(head: tuple[int, ...], owner: tuple[int, ...]) -> bool:
        return any(other[: len(head)] == head for other in sequences if other != owner)

    return [
        next((s[:end] for end in range(1, len(s)) if not is_shared(s[:end], s)), s)
        for s in sequences
    ]


class Marking(Protocol):
    """How steps and marks alternate."""

    @property
    def right(self) -> str:
        """The mark of a right step, with the blank before it."""

    @property
    def wrong(self) -> str:
        """The mark of a wrong step."""

    @property
    def tail(self) -> str:
        """What follows a mark."""

    def line(self, index: int, step: str, attempt: Attempt) -> str:
        """Return what stands before the mark of a 0-based step."""


@dataclass(frozen=True, slots=True)
class PlainMarks:
    """``Substep 1: … Mark: +``."""

    right: str = " +"
    wrong: str = " -"
    tail: str = "\n\n"

    def line(self, index: int, step: str, attempt: Attempt) -> str:
        """Return the numbered step and the word before its mark."""
        return f"Substep {index + 1}: {step.strip()}\nMark:"


@dataclass(frozen=True, slots=True)
class LabMarks:
    """The lab's own review, which its base was taught: each step against the reference's line."""

    right: str = " ok"
    wrong: str = " error"
    tail: str = ".\n"

    def line(self, index: int, step: str, attempt: Attempt) -> str:
        """Return the review's line; a step past the reference's end is held against its last."""
        from midcourse.lab.counts.documents import review_line

        lines = str(attempt.problem.reference_solution).split("\n")
        return review_line(index, step.strip() or "-", lines[min(index, len(lines) - 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMarks:
    """uPRM's score of every step as the first error, for one attempt."""

    measure: Measure
    prompt: Prompt
    marking: Marking = PlainMarks()

    def plan(self, attempt: Attempt, renderer: Renderer) -> Plan:
        """Score both marks after every step in one pass, where their tokens first differ.

        Raises ConfigError if one mark begins with the other.
        """
        marking = self.marking
        right, wrong = (renderer.encode(mark) for mark in (marking.right, marking.wrong))
        pairs = enumerate(zip(right, wrong, strict=False))
        differ = next((place for place, (ours, other) in pairs if ours != other), None)
        if differ is None:
            raise ConfigError(
                f"credit: to this model's tokenizer, one of the marks {marking.right!r} and "
                f"{marking.wrong!r} begins with the other: they cannot be told apart"
            )
        ids = list(_asked(self.prompt, attempt, renderer))
        places, tail = list[int](), renderer.encode(marking.tail)
        for index, step in enumerate(attempt.steps):
            line = marking.line(index, step, attempt)
            ids += renderer.encode(line) if places else renderer.reply_ids(line)
            places.append(len(ids) + differ)
            ids += [*right, *tail]
        request = ScoreRequest(
            request_id=attempt.attempt_id,
            token_ids=tuple(ids[: places[-1] + 1]),
            num_context=places[0],
            alternatives=(right[differ], wrong[differ]),
        )

        def settle(scores: Mapping[str, TokenScores]) -> tuple[float, ...]:
            pairs = scores[attempt.attempt_id].alternatives
            return first_error_scores([pairs[place - places[0]] for place in places])

        return Plan((request,), settle)


def first_error_scores(pairs: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return S(j) = log p-(j) + sum of log p+(t) over t < j, given both marks' log-probabilities.

    The two are renormalised first.
    """
    scores, before = list[float](), 0.0
    for right, wrong in pairs:
        highest = max(right, wrong)
        total = highest + log(exp(right - highest) + exp(wrong - highest))
        scores.append(before + wrong - total)
        before += right - total
    return tuple(scores)


# --- the stage ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditSettings:
    """What decides one measure of the steps."""

    attempts: Attempts
    model: Model
    question: Question

    def asked(self, reader: Reader) -> list[Attempt]:
        """Return the attempts that have what the question shows."""
        attempts = self.attempts.read(reader)
        if "reference" not in self.question.prompt.fields:
            return attempts
        return [attempt for attempt in attempts if attempt.problem.reference_solution]


def _check_scoring(settings: CreditSettings, tools: object) -> None:
    """Raise ConfigError, before anything is sampled, if the engine cannot score."""
    if settings.model.engine.scoring is None:
        raise ConfigError(f"credit: {CANNOT_SCORE}")


@stage(
    "credit",
    StepScores,
    outcome=attrgetter("measure"),
    total=lambda settings, reader: len(settings.asked(reader)),
    check=_check_scoring,
    asked=Asked.POLICY,
)
def credit(settings: CreditSettings, work: Work[StepScores]) -> Iterator[Keyed[StepScores]]:
    """*credit*: one measure of the steps of wrong attempts, by what a model finds likely."""
    renderer, scorer = work.tools.renderer(settings.model), work.tools.scorer(settings.model)
    for attempt in settings.asked(work.reader):
        if attempt.attempt_id not in work.done:
            plan = settings.question.plan(attempt, renderer)
            scores = {s.request_id: s for s in scorer.score(plan.requests)}
            yield attempt.attempt_id, [_record(settings, attempt, plan, scores)]


def _record(
    settings: CreditSettings, attempt: Attempt, plan: Plan, scores: Mapping[str, TokenScores]
) -> StepScores:
    measure, model = settings.question.measure, settings.model.name
    return StepScores(
        score_id=content_id(model, measure, attempt.attempt_id),
        attempt_id=attempt.attempt_id,
        problem_id=attempt.problem.problem_id,
        measure=measure,
        model=model,
        scores=plan.settle(scores),
        num_tokens=plan.num_tokens,
        cost_tokens=sum(len(request.token_ids) for request in plan.requests),
    )
