"""The value of every step by continuation, as in VinePPO (Kazemnejad et al. 2024).

V(i) is the share of continuations of the first i steps that end correct, sampled as the rollouts
were; the last value of a wrong rollout is 0, without sampling. What a step is worth is V after it
minus V before it, as in ``midcourse export credit``; its *drop* is the same with the other sign.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from midcourse.checkers import checker_named
from midcourse.credit.attempts import Attempt, Attempts
from midcourse.pipeline.contexts import Population
from midcourse.pipeline.session import Tools
from midcourse.pipeline.values import Model
from midcourse.prompts import Prompt
from midcourse.records import Condition, Grade, Rollout, Verdict
from midcourse.rendering import Renderer
from midcourse.run import Reader
from midcourse.stages.contexts import Context
from midcourse.steps import join_steps

_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPrefixes:
    """Every attempt, taken up again before each of its steps."""

    attempts: Attempts
    prompt: Prompt
    """What the user says."""
    population: Population = Population.CANDIDATES

    def count(self, reader: Reader) -> int:
        """Return the number of prefixes."""
        return sum(len(attempt.steps) for attempt in self._graded(reader))

    def make(self, model: Model, reader: Reader, tools: Tools) -> Iterator[Context]:
        """Yield the context before each step; the whole attempt is no prefix."""
        renderer = tools.renderer(model)
        for attempt in self._graded(reader):
            for step in range(len(attempt.steps)):
                yield _context(attempt, step, self.prompt, renderer)

    def _graded(self, reader: Reader) -> list[Attempt]:
        """Return the attempts whose answer is known."""
        return [attempt for attempt in self.attempts.read(reader) if attempt.problem.answer]


def _context(attempt: Attempt, step: int, prompt: Prompt, renderer: Renderer) -> Context:
    prefix = join_steps(attempt.steps[:step])
    message = {"role": "user", "content": prompt.render(**attempt.shown())}
    return Context(
        problem_id=attempt.problem.problem_id,
        condition=Condition.PREFIX,
        parent_id=f"{attempt.attempt_id}:{step}",
        prompt_ids=tuple(renderer.prompt_ids([message])),
        response=renderer.cut(attempt.ids(renderer), prefix),
        open_box=checker_named(attempt.problem.checker).open_tail(prefix),
    )


@dataclass(frozen=True, slots=True)
class Values:
    """The graded continuations of one attempt, before each of its steps."""

    outcomes: tuple[tuple[bool, ...], ...]
    """Per step, whether each continuation is correct, in the order of their indices."""
    tokens: int = 0
    """Read and written for them, the context once per continuation."""
    num_unanswered: int = 0
    """Of these continuations, in how many the checker found no answer: they count as wrong."""

    @property
    def before(self) -> list[float]:
        """V before each step."""
        return [sum(found) / len(found) for found in self.outcomes]

    @property
    def after(self) -> list[float]:
        """V after each step; 0 after the last, as the attempt is wrong."""
        return [*self.before[1:], 0.0]

    @property
    def drops(self) -> list[float]:
        """V before each step minus V after it; rounded, so that equal drops are equal."""
        return [round(b - a, _DIGITS) for b, a in zip(self.before, self.after, strict=True)]

    @property
    def is_seen(self) -> bool:
        """Whether any continuation of any prefix is correct: else no step can drop."""
        return any(any(found) for found in self.outcomes)

    def half(self, parity: int) -> Values:
        """Return every other continuation, from the first or the second on."""
        return Values(tuple(found[parity::2] for found in self.outcomes))


def values_of(
    attempts: Iterable[Attempt], rollouts: Iterable[Rollout], grades: Iterable[Grade]
) -> dict[str, Values]:
    """Return the values by attempt id; a continuation that could not be graded is left out.

    So is an attempt with a prefix of which none could be: its value there is not known.
    """
    verdicts = {g.rollout_id: g.verdict for g in grades if g.verdict is not Verdict.UNGRADED}
    found, tokens = defaultdict[str, list[tuple[int, bool]]](list), Counter[str]()
    unanswered = Counter[str]()
    for r in rollouts:
        attempt_id = str(r.parent_id).rpartition(":")[0]
        tokens[attempt_id] += r.prompt_tokens + r.num_tokens
        if verdict := verdicts.get(r.rollout_id):
            found[str(r.parent_id)].append((r.index, verdict is Verdict.CORRECT))
            unanswered[attempt_id] += verdict is Verdict.NO_ANSWER

    def outcomes(attempt: Attempt) -> tuple[tuple[bool, ...], ...]:
        places = (f"{attempt.attempt_id}:{step}" for step in range(len(attempt.steps)))
        return tuple(tuple(right for _, right in sorted(found[place])) for place in places)

    made = {
        a.attempt_id: Values(outcomes(a), tokens[a.attempt_id], unanswered[a.attempt_id])
        for a in attempts
    }
    return {name: values for name, values in made.items() if all(values.outcomes)}
