"""How many there will be of everything, in expectation: problems, contexts, candidates, rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from midcourse.pipeline.contexts import (
    Contexts,
    Continuations,
    HardOnes,
    HintedQuestions,
    Population,
    Questions,
    Reflections,
    RowProblems,
)
from midcourse.pipeline.stages import (
    CasesSettings,
    GradeSettings,
    ProposeSettings,
    ReferenceSettings,
    SampleSettings,
    SelectSettings,
    ShiftSettings,
    SolutionRowSettings,
    StepRowSettings,
)
from midcourse.pipeline.values import Candidates, Selection
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.compose import Counts
from midcourse.plan.shapes import ModelShape
from midcourse.records import SftRow
from midcourse.run import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Follows the problems through the funnel."""

    given: Assumptions
    """Filled in."""
    counts: Counts
    draws: float
    """Rollouts of a training problem, where a search draws them."""
    hard_share: float
    shape: ModelShape
    """The policy's."""

    def records(self, settings: object) -> float:
        """Return the records of a stage that asks no model."""
        match settings:
            case GradeSettings(rollouts=rollouts):
                return self.rollouts(rollouts.settings)
            case SelectSettings(among=None):
                return self.counts.problems
            case SelectSettings(among=chosen) | ReferenceSettings(hard=chosen):
                return self.hard(chosen)
            case CasesSettings():
                return self.cases(settings)
            case ProposeSettings(cases=cases):
                return self.cases(cases.settings)
            case ShiftSettings(candidates=candidates):
                return self.candidates(candidates)
            case StepRowSettings(continuations=continuations):
                return self.contexts(continuations)
            case SolutionRowSettings(step_rows=rows):
                return self.ready(rows)
        raise TypeError(f"no plan for {type(settings).__name__}")

    def hard(self, selection: Selection | None = None) -> float:
        """Return how many problems are hard, or are chosen among those."""
        share = self.given.hinted_share if selection and selection.hinted else 1.0
        return self.counts.problems * self.hard_share * share

    def contexts(self, contexts: Contexts) -> float:
        """Return how many contexts there are of a kind."""
        match contexts:
            case Continuations(candidates=candidates, limit=limit):
                found = self.candidates(candidates)
                return found if limit is None else min(found, limit)
            case Questions(among=HardOnes(selection, missing)):
                return self.hard(selection) * (self.given.missing_share if missing else 1.0)
            case HintedQuestions(hard=selection):
                return self.hard(selection)
            case Questions(among=RowProblems(rows)) | Reflections(rows=rows):
                return self.ready(rows)
        by_population = {
            Population.TRAIN: self.counts.problems,
            Population.HELD_OUT: self.counts.held_out,
            Population.PROBE: self.counts.probe,
        }
        return by_population[contexts.population]

    def rollouts(self, settings: SampleSettings) -> float:
        """Return how many rollouts are drawn; where continuations are searched, at most."""
        is_search = settings.rounds and settings.contexts.population is Population.TRAIN
        each = self.draws if is_search else settings.num_rollouts
        return self.contexts(settings.contexts) * each

    def cases(self, settings: CasesSettings) -> float:
        """Return how many incorrect rollouts the proposer is asked about."""
        drawn: SampleSettings = settings.drawn.rollouts.settings
        among = settings.among
        problems = (
            self.hard(among) if isinstance(among, Selection) else self.contexts(drawn.contexts)
        )
        return problems * min(settings.num_rollouts, drawn.num_rollouts)

    def candidates(self, candidates: Candidates) -> float:
        """Return how many rollouts have an accepted intervention."""
        settings = candidates.proposals.settings
        if isinstance(settings, ShiftSettings):
            return self.candidates(settings.candidates)
        still = self.given.hinted_share if candidates.hard and candidates.hard.hinted else 1.0
        return self.cases(settings.cases.settings) * self.given.candidate_share * still

    def ready(self, rows: Stage[SftRow, Any]) -> float:
        """Return how many rows can be trained on."""
        settings = rows.settings
        if isinstance(settings, SolutionRowSettings):
            return self.ready(settings.step_rows)
        candidates, design = settings.continuations.candidates, settings.design
        one = design.rows_per_problem == "one"
        number = self.hard(candidates.hard) if one else self.candidates(candidates)
        return number * (self.given.verified_share if design.filter else 1.0)

    def row_tokens(self, rows: Stage[SftRow, Any]) -> float:
        """Return the mean length of a row: of a step, or of a whole solution."""
        given, settings = self.given, rows.settings
        if isinstance(settings, SolutionRowSettings):
            is_short = settings.solutions is None or settings.config.trace == "summary"
            solution = min(given.rollout_tokens, settings.config.sampling.max_tokens)
            return given.prompt_tokens + (given.reference_tokens if is_short else solution)
        prefix = 0.0 if settings.design.prefix == "dropped" else given.prefix_tokens
        suffix = given.continuation_tokens if settings.design.suffix else 0.0
        return given.prompt_tokens + prefix + given.intervention_tokens + suffix


def longest_row(rows: Stage[SftRow, Any]) -> int:
    """Return the limit of a row."""
    settings = rows.settings
    whole = isinstance(settings, SolutionRowSettings)
    return int((settings.config if whole else settings.design).max_tokens)
