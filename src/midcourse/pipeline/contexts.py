"""What is sampled from: every kind of context, as a value that can stand in a stage's settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from midcourse.checkers import shown_tests
from midcourse.config import HintsConfig
from midcourse.pipeline.session import Tools
from midcourse.pipeline.values import Candidates, Model, Problems, Selection, Subset, Texts
from midcourse.prompts import Prompt
from midcourse.records import (
    Condition,
    Problem,
    Proposal,
    Rollout,
    RowOutcome,
    SftRow,
    Verdict,
)
from midcourse.rendering import Renderer
from midcourse.run import Reader, Stage
from midcourse.stages.contexts import Context, continuation_contexts, opening_context
from midcourse.stages.hints import hint_of, hint_of_share, hint_of_tokens
from midcourse.steps import BLANK_LINES, StepRule


class Population(StrEnum):
    """How many contexts there will be, for a plan that cannot count them yet."""

    TRAIN = "train"
    HELD_OUT = "held_out"
    """Or a benchmark, which has a name."""
    PROBE = "probe"
    HARD = "hard"
    CANDIDATES = "candidates"
    ROWS = "rows"


class Contexts(Protocol):
    """A kind of context."""

    @property
    def population(self) -> Population:
        """What there is one context of."""

    def count(self, reader: Reader) -> int:
        """Return the number of contexts; the inputs are complete."""

    def make(self, model: Model, reader: Reader, tools: Tools) -> Iterator[Context]:
        """Yield the contexts for the engine of `model`."""


class Among(Protocol):
    """A choice among problems that is known once its inputs are complete."""

    def ids(self, reader: Reader) -> set[str]:
        """Return the ids of the chosen problems."""


@dataclass(frozen=True, slots=True)
class HardOnes:
    """The hard problems; with `missing`, only those that lack a reference solution."""

    selection: Selection
    missing: bool = False
    subset: Subset | None = None
    """Of them, only these."""

    def read(self, reader: Reader) -> list[Problem]:
        """Return the problems."""
        hard = self.selection.read(reader)
        found = [p for p in hard if not (self.missing and p.reference_solution)]
        return self.subset.choose(found) if self.subset else found

    def ids(self, reader: Reader) -> set[str]:
        """Return their ids."""
        return {problem.problem_id for problem in self.read(reader)}


@dataclass(frozen=True, slots=True)
class RowProblems:
    """The problems of the rows that are ready."""

    rows: Stage[SftRow, Any]

    def ids(self, reader: Reader) -> set[str]:
        """Return their ids."""
        return {row.problem_id for row in ready_rows(reader, self.rows)}


def ready_rows(reader: Reader, rows: Stage[SftRow, Any]) -> list[SftRow]:
    """Return the rows that can be trained on."""
    return [row for row in reader.read(rows) if row.outcome is RowOutcome.READY]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """One user message per problem, and an empty response."""

    texts: Texts
    """By problem id."""
    population: Population
    among: Among | None = None
    """Which of them; all by default."""
    condition: Condition = Condition.PROBLEM
    of: str = ""
    """Of a benchmark, its name in ``evaluate.sets``."""

    def count(self, reader: Reader) -> int:
        """Return the number of problems."""
        return len(self._chosen(reader))

    def make(self, model: Model, reader: Reader, tools: Tools) -> Iterator[Context]:
        """Yield one context per problem."""
        renderer = tools.renderer_for(model)
        for problem_id, text in self._chosen(reader).items():
            yield opening_context(problem_id, self.condition, text, renderer)

    def _chosen(self, reader: Reader) -> dict[str, str]:
        if self.among is None:
            return dict(self.texts.items)
        ids = self.among.ids(reader)
        return {name: text for name, text in self.texts.items.items() if name in ids}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """How a hint is made and shown (Table 1, rows 8-10)."""

    prompt: Prompt
    config: HintsConfig
    seed: int

    def of_share(self, problem: Problem, share: float) -> str:
        """Return the user message of a problem with a share of its reference, e.g. half of it."""
        return self.prompt.render(problem=problem.text, hint=hint_of_share(problem, share))

    def text(
        self, problem: Problem, proposal: Proposal | None = None, renderer: Renderer | None = None
    ) -> str:
        """Return the user message of a problem with its hint.

        A hint of an intervention's length needs the proposal that it is compared with.
        """
        if proposal is None or renderer is None or self.config.length == "third":
            hint = hint_of(problem, self.seed)
        else:
            num_tokens = len(renderer.encode((proposal.intervention or "").rstrip()))
            hint = hint_of_tokens(problem, num_tokens, renderer)
        return self.prompt.render(problem=problem.text, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class HintedQuestions:
    """Every hard problem with a hint from its reference."""

    hard: Selection
    """With texts and references."""
    hints: Hints
    population: Population = Population.HARD

    def count(self, reader: Reader) -> int:
        """Return the number of problems."""
        return len(self.hard.read(reader))

    def make(self, model: Model, reader: Reader, tools: Tools) -> Iterator[Context]:
        """Yield one context per problem."""
        renderer = tools.renderer(model)
        for problem in self.hard.read(reader):
            text = self.hints.text(problem)
            yield opening_context(problem.problem_id, Condition.HINT, text, renderer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuations:
    """Every candidate's rollout, taken up again at its place: one row of Table 1."""

    condition: Condition
    candidates: Candidates
    cases: Stage[Rollout, Any]
    questions: Texts
    problems: Problems
    """With their checkers."""
    hints: Hints | None = None
    """Where the user's turn carries a hint; the candidates' problems then hold references."""
    kept_by: Stage[Any, Any] | None = None
    """Grades: only candidates with a correct continuation among them."""
    limit: int | None = None
    """Only the first so many, by rollout id."""
    population: Population = Population.CANDIDATES
    steps: StepRule = BLANK_LINES

    def count(self, reader: Reader) -> int:
        """Return the number of candidates."""
        return len(self.proposals(reader))

    def proposals(self, reader: Reader) -> list[Proposal]:
        """Return the candidates, or those of them that are kept."""
        candidates = self.candidates.read(reader)[: self.limit]
        if self.kept_by is None:
            return candidates
        kept = verified_ids(reader, self.kept_by)
        return [proposal for proposal in candidates if proposal.proposal_id in kept]

    def make(self, model: Model, reader: Reader, tools: Tools) -> Iterator[Context]:
        """Yield the context of each candidate, in the order of the rollouts."""
        renderer = tools.renderer(model)
        return self.contexts(reader, renderer)

    def contexts(self, reader: Reader, renderer: Renderer) -> Iterator[Context]:
        """Yield the contexts, encoded by `renderer`."""
        message = self.messages(reader, renderer)
        condition = Condition.HINT if self.hints else Condition.PROBLEM

        def opening(proposal: Proposal) -> Context:
            text = message(proposal)
            return opening_context(proposal.problem_id, condition, text, renderer)

        return continuation_contexts(
            self.condition, self.proposals(reader), reader.read(self.cases), opening, renderer,
            self.problems.by_id, self.steps,
        )  # fmt: skip

    def messages(self, reader: Reader, renderer: Renderer) -> Callable[[Proposal], str]:
        """Return what gives the user's turn of each candidate."""
        hard, hints = self.candidates.hard, self.hints
        if hints is None:
            return lambda proposal: self.questions.items[proposal.problem_id]
        problems = {p.problem_id: p for p in hard.read(reader)} if hard else {}
        return lambda proposal: hints.text(problems[proposal.problem_id], proposal, renderer)


def verified_ids(reader: Reader, grades: Stage[Any, Any]) -> set[str]:
    """Return the ids of the proposals with a correct continuation."""
    return {str(g.parent_id) for g in reader.read(grades) if g.verdict is Verdict.CORRECT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflections:
    """The very rollouts that InT's rows intervene in, to be written again (App. E).

    The model sees what the proposer saw: problem, reference and numbered attempt.
    """

    rows: Stage[SftRow, Any]
    candidates: Candidates
    """With texts, answers and references."""
    cases: Stage[Rollout, Any]
    prompt: Prompt
    population: Population = Population.ROWS
    steps: StepRule = BLANK_LINES

    def count(self, reader: Reader) -> int:
        """Return the number of rollouts."""
        return len(self._proposals(reader))

    def make(self, model: Model, reader: Reader, tools: Tools) -> Iterator[Context]:
        """Yield the question to rewrite each rollout."""
        renderer, proposals = tools.renderer(model), self._proposals(reader)
        hard = self.candidates.hard
        problems = {p.problem_id: p for p in hard.read(reader)} if hard else {}
        for rollout in reader.read(self.cases, ("token_ids",)):
            proposal = proposals.get(rollout.rollout_id)
            if proposal is None:
                continue
            problem = problems[rollout.problem_id]
            text = self.prompt.render(
                problem=problem.text,
                reference=problem.reference_solution or "",
                attempt=self.steps.shown(rollout),
                answer=problem.answer,
                tests=shown_tests(problem.checker, problem.entry),
            )
            yield opening_context(
                problem.problem_id,
                Condition.REFLECTION,
                text,
                renderer,
                parent_id=proposal.proposal_id,
            )

    def _proposals(self, reader: Reader) -> dict[str, Proposal]:
        """Return the proposals that rows were made of, by rollout id."""
        chosen = {row.proposal_id for row in ready_rows(reader, self.rows)}
        candidates = self.candidates.read(reader)
        return {p.rollout_id: p for p in candidates if p.proposal_id in chosen}
