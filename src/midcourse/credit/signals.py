"""Signals: of each step of an attempt, how much it looks like the one where it goes wrong.

A signal is one number a step, the higher the more suspect. Only the order within an attempt counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import sub, truediv

from midcourse.credit.attempts import Attempt
from midcourse.credit.measures import Measure, StepScores
from midcourse.credit.values import Values

Curve = tuple[float, ...]
"""One number a step."""
Scores = Mapping[Measure, StepScores]

PROPOSER, DROP = "proposer", "largest value drop"
#: The signals that are drawn of a single attempt.
GAP, MARKS, MARKS_REFERENCE = "privileged gap", "marks", "marks, with reference"


@dataclass(frozen=True, slots=True)
class Signal:
    """A way to make a curve of measures."""

    name: str
    needs: tuple[Measure, ...]
    of: Callable[..., Curve]
    """Given the needed measures in their order."""


def _surprisal(policy: StepScores) -> Curve:
    return tuple(-score for score in policy.scores)


def _gap(policy: StepScores, privileged: StepScores) -> Curve:
    """How much likelier the policy finds a step than its teacher, who has seen the reference."""
    return tuple(map(sub, policy.scores, privileged.scores))


def _per_token(curve: Callable[..., Curve]) -> Callable[..., Curve]:
    def divided(policy: StepScores, *others: StepScores) -> Curve:
        lengths = (max(1, number) for number in policy.num_tokens)
        return tuple(map(truediv, curve(policy, *others), lengths))

    return divided


def _itself(scores: StepScores) -> Curve:
    return scores.scores


_TAUGHT = (Measure.POLICY, Measure.PRIVILEGED)
SIGNALS = (
    Signal(GAP, _TAUGHT, _gap),
    Signal("privileged gap per token", _TAUGHT, _per_token(_gap)),
    Signal("surprisal", (Measure.POLICY,), _surprisal),
    Signal("surprisal per token", (Measure.POLICY,), _per_token(_surprisal)),
    Signal("number", (Measure.NUMBERS,), _itself),
    Signal("number, with reference", (Measure.NUMBERS_REFERENCE,), _itself),
    Signal(MARKS, (Measure.MARKS,), _itself),
    Signal(MARKS_REFERENCE, (Measure.MARKS_REFERENCE,), _itself),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """One attempt with all that was measured of its steps."""

    attempt: Attempt
    values: Values | None
    """Null where none were measured."""
    curves: Mapping[str, Curve]
    """By signal."""
    costs: Mapping[str, int]
    """Tokens that were read and written for a signal."""

    @property
    def drop_steps(self) -> tuple[int, ...]:
        """The 0-based steps of the largest value drop: several if equal, none if no value."""
        if self.values is None or not self.values.is_seen:
            return ()
        return largest(self.values.drops)


def largest(curve: Sequence[float]) -> tuple[int, ...]:
    """Return every index at which the largest number stands."""
    return tuple(step for step, number in enumerate(curve) if number == max(curve))


def one_hot(step: int | None, num_steps: int) -> Curve:
    """Return a curve that names one step; flat, a guess, where none was named."""
    return tuple(float(index == step) for index in range(num_steps))


@dataclass(frozen=True, slots=True)
class Named:
    """What the proposer said, e.g. step 2, for 480 tokens."""

    step: int | None
    """0-based; null if it named none."""
    tokens: int


def mapped(
    attempts: Sequence[Attempt],
    scores: Iterable[StepScores],
    values: Mapping[str, Values],
    named: Mapping[str, Named],
) -> list[Mapped]:
    """Join what was measured by attempt id; `named` is empty where no proposer was asked."""
    by_attempt: dict[str, dict[Measure, StepScores]] = {}
    for score in scores:
        by_attempt.setdefault(score.attempt_id, {})[score.measure] = score
    return [
        _mapped(a, by_attempt.get(a.attempt_id, {}), values.get(a.attempt_id), named)
        for a in attempts
    ]


def _mapped(
    attempt: Attempt, scores: Scores, values: Values | None, named: Mapping[str, Named]
) -> Mapped:
    there = [s for s in SIGNALS if all(measure in scores for measure in s.needs)]
    curves = {s.name: s.of(*(scores[measure] for measure in s.needs)) for s in there}
    costs = {s.name: sum(scores[measure].cost_tokens for measure in s.needs) for s in there}
    if values is not None:
        costs[DROP] = values.tokens
    if said := named.get(attempt.attempt_id):
        curves[PROPOSER] = one_hot(said.step, len(attempt.steps))
        costs[PROPOSER] = said.tokens
    return Mapped(attempt=attempt, values=values, curves=curves, costs=costs)
