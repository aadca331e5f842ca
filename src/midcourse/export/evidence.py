"""What a run knows of its proposals and rollouts, for formats that hand over more than rows.

Every part that is complete is read; what is missing (a condition that was not verified, rows that
were not built) is absent, never zero.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from midcourse.engines import resolve_model
from midcourse.errors import ArtifactError
from midcourse.export.settings import snippet_values
from midcourse.metrics import Interval, wilson
from midcourse.pipeline import Drawn, FinishedRun, Searched
from midcourse.pipeline.interventions import INTERVENTION
from midcourse.records import (
    Condition,
    Grade,
    Problem,
    Proposal,
    Rollout,
    RowOutcome,
    Verdict,
)
from midcourse.run import Stage
from midcourse.stages.contexts import Context
from midcourse.steps import StepRule


@dataclass(frozen=True, slots=True)
class Tally:
    """Verdicts on a proposal's continuations under one condition, e.g. 3 correct, 29 incorrect."""

    verdicts: Mapping[Verdict, int]
    stopped: bool = False
    """Whether sampling stopped at the first correct one: no success rate follows from it."""

    @property
    def num_graded(self) -> int:
        """Continuations that the grader could judge."""
        return sum(self.verdicts.values()) - self.verdicts.get(Verdict.UNGRADED, 0)

    @property
    def num_correct(self) -> int:
        """The correct ones."""
        return self.verdicts.get(Verdict.CORRECT, 0)

    @property
    def success(self) -> Interval | None:
        """Correct per graded continuation with its Wilson interval; None where nothing says."""
        if self.stopped or not self.num_graded:
            return None
        return wilson(self.num_correct, self.num_graded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One proposal with what is known of it."""

    proposal: Proposal
    """Without its turns."""
    problem: Problem
    """With its reference solution, where it was written too."""
    rollout: Rollout
    """The failed attempt that it is about, without its ids."""
    tallies: Mapping[Condition, Tally]
    """By the conditions under which it was continued; empty if it was not verified."""
    row: RowOutcome | None
    """What became of it when rows were built; None if it was no candidate, or none were built."""

    @property
    def is_verified(self) -> bool:
        """Whether at least one continuation from its intervention is correct."""
        tally = self.tallies.get(INTERVENTION)
        return tally is not None and tally.num_correct > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSet:
    """Rollouts of one model under one condition, e.g. of ``patched`` on ``held_out``."""

    name: str
    """``evaluate held_out`` or ``verify prefix_intervention``."""
    model: str
    """What people call it, e.g. ``patched``."""
    drawn: Drawn
    problems: Mapping[str, Problem]
    users: Mapping[str, str]
    """The user message, by problem or, in verification, by proposal."""
    contexts: Mapping[str, Context]
    """In verification what was continued, by proposal; else empty."""

    @property
    def has_rates(self) -> bool:
        """Whether every rollout was drawn: a search, which stops at a correct one, has no rates."""
        return not isinstance(self.drawn, Searched)


@dataclass(frozen=True)
class Evidence:
    """A run opened for formats that go beyond its rows; it is read as they ask."""

    finished: FinishedRun

    @property
    def name(self) -> str:
        """Of the run."""
        return self.finished.run.recipe.name

    @property
    def steps(self) -> StepRule:
        """The rule that its attempts are cut by."""
        return self.finished.method.setup.steps

    @property
    def model(self) -> str:
        """The base model: a folder or a hub name."""
        return resolve_model(self.finished.run.recipe.model.path)

    def values(self) -> dict[str, str]:
        """Return what fills the placeholders of the snippets."""
        recipe = self.finished.run.recipe
        verified = sum(case.is_verified for case in self.cases) if self.has_proposals else 0
        return snippet_values(self.name, self.model, recipe, verified)

    @property
    def has_proposals(self) -> bool:
        """Whether the proposals are complete."""
        return self.finished.run.is_complete(self.finished.method.proposals)

    def problems(self) -> dict[str, Problem]:
        """Return the training problems by id, the hard ones with the references they have."""
        method = self.finished.method
        hard = {p.problem_id: p for p in method.hard.read(self.finished.run)}
        return {
            problem.problem_id: replace(
                problem,
                reference_solution=hard.get(problem.problem_id, problem).reference_solution,
            )
            for problem in method.setup.problems.train
        }

    @cached_property
    def cases(self) -> list[Case]:
        """Every proposal with its outcome and the verdicts on its continuations.

        Raises ArtifactError if proposals are not complete.
        """
        run, method = self.finished.run, self.finished.method
        made, continued = method.proposals, method.interventions.candidates().proposals
        # Where interventions are moved to other places, the moved ones are proposals of their own.
        stages = [made] if made.key == continued.key else [made, continued]
        run.require(method.proposals)
        asked = run.read(method.cases, ("token_ids",))
        problems, rollouts = self.problems(), {rollout.rollout_id: rollout for rollout in asked}
        tallies, rows = self._tallies(), self._row_outcomes()
        return [
            Case(
                proposal=proposal,
                problem=problems[proposal.problem_id],
                rollout=rollouts[proposal.rollout_id],
                tallies=tallies[proposal.proposal_id],
                row=rows.get(proposal.proposal_id),
            )
            for stage in stages
            if run.is_complete(stage)
            for proposal in run.read(stage, ("turns",))
        ]

    def contexts(self, condition: Condition) -> dict[str, Context]:
        """Return what stands before a continuation, by proposal: the ids that were verified."""
        continuations = self.finished.method.interventions.continuations(condition)
        made = continuations.contexts(self.finished.run, self.finished.renderer)
        return {str(context.parent_id): context for context in made}

    def rollout_sets(self) -> list[RolloutSet]:
        """Return every complete set of evaluation and of verification.

        Raises ArtifactError if there is none.
        """
        found = [*self._evaluations(), *self._verifications()]
        if not found:
            raise ArtifactError("export: no evaluation and no verification is complete")
        return found

    def graded(self, drawn: Drawn) -> Iterator[tuple[Rollout, Grade]]:
        """Stream rollouts with their grades."""
        run = self.finished.run
        grades = {grade.rollout_id: grade for grade in run.read(drawn.grades)}
        return ((rollout, grades[rollout.rollout_id]) for rollout in run.read(drawn.rollouts))

    def finished_at(self, stage: Stage[Any, Any]) -> str:
        """Return when a stage was finished, as ISO 8601."""
        return str(self.finished.run.artifact(stage).manifest["finished"])

    def _tallies(self) -> defaultdict[str, dict[Condition, Tally]]:
        found = defaultdict[str, dict[Condition, Tally]](dict)
        for condition, drawn in self._verified():
            counts = defaultdict[str, Counter[Verdict]](Counter)
            for grade in self.finished.run.read(drawn.grades):
                counts[str(grade.parent_id)][grade.verdict] += 1
            for proposal_id, verdicts in counts.items():
                found[proposal_id][condition] = Tally(verdicts, isinstance(drawn, Searched))
        return found

    def _row_outcomes(self) -> dict[str | None, RowOutcome]:
        run, rows = self.finished.run, self.finished.method.models.step_rows
        if not run.is_complete(rows):
            return {}
        return {row.proposal_id: row.outcome for row in run.read(rows, ("input_ids", "labels"))}

    def _verified(self) -> Iterator[tuple[Condition, Drawn]]:
        for condition, drawn in self.finished.method.interventions.verified.items():
            if self.finished.run.is_complete(drawn.grades):
                yield condition, drawn

    def _evaluations(self) -> Iterator[RolloutSet]:
        method, run = self.finished.method, self.finished.run
        for (role, eval_set), drawn in method.evaluation.all.items():
            if run.is_complete(drawn.grades):
                whole = method.setup.problems.evaluation.get(eval_set, ())
                yield RolloutSet(
                    name=f"evaluate {eval_set}",
                    model=method.models.in_role(role).label,
                    drawn=drawn,
                    problems={p.problem_id: p for p in whole} or self.problems(),
                    users=method.evaluation.sources.questions(eval_set).items,
                    contexts={},
                )

    def _verifications(self) -> Iterator[RolloutSet]:
        method, run = self.finished.method, self.finished.run
        problems = self.problems()
        for condition, drawn in self._verified():
            continuations = method.interventions.continuations(condition)
            message = continuations.messages(run, self.finished.renderer)
            yield RolloutSet(
                name=f"verify {condition}",
                model=method.setup.base.label,
                drawn=drawn,
                problems=problems,
                users={p.proposal_id: message(p) for p in continuations.proposals(run)},
                contexts=self.contexts(condition),
            )
