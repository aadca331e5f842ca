"""From hard problems to verified interventions: the paper's Figure 5 and Table 1.

Proposals are made for every unsolved problem, so that subsets (those that hints do not solve) and
shifted interventions stand on the same proposals; what is verified is `Interventions.candidates`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from midcourse.pipeline.contexts import Continuations
from midcourse.pipeline.sources import GOLD, Sources
from midcourse.pipeline.stages import (
    CasesSettings,
    ProposeSettings,
    SampleSettings,
    ShiftSettings,
    cases,
    draw,
    graders_of,
    propose,
    rounds_of,
    shift,
)
from midcourse.pipeline.values import Candidates, Drawn, Problems, Selection
from midcourse.records import Condition, Proposal, Rollout
from midcourse.run import Stage
from midcourse.stages.propose import guided_prompt, review_prompt

INTERVENTION = Condition.PREFIX_INTERVENTION


def asked_about(
    s: Sources, drawn: Drawn, among: Selection | Problems, num_rollouts: int, label: str
) -> Stage[Rollout, Any]:
    """Return the incorrect rollouts that the proposer is asked about, as a stage of their own."""
    settings = CasesSettings(
        drawn=drawn,
        among=among,
        num_rollouts=num_rollouts,
        truncated_is_incorrect=s.recipe.select.truncated_is_incorrect,
    )
    return cases(settings, label)


def proposals_for(
    s: Sources, asked: Stage[Rollout, Any], problems: Selection | Problems, label: str
) -> Stage[Proposal, Any]:
    """Return the proposer's interventions for the cases; `problems` are whole."""
    recipe, prompts = s.recipe, s.setup.prompts
    review = review_prompt(prompts, recipe.propose)
    settings = ProposeSettings(
        cases=asked,
        problems=problems,
        config=recipe.propose,
        review=review,
        guided=guided_prompt(prompts, recipe.propose),
        proposer=s.setup.helper("", recipe.proposer_model, recipe.proposer_engine),
        policy=s.setup.base,
        graders=graders_of(s.problems("checker")),
        seed=recipe.seed,
        world=recipe.problems if recipe.propose.truth else None,
        steps=s.setup.steps,
        grades=asked.settings.drawn.grades if "failing_test" in review.fields else None,
    )
    return propose(settings, label)


@dataclass(frozen=True)
class Interventions:
    """What is verified, and how: the rows of Table 1."""

    sources: Sources
    hard: Selection
    """The problems that interventions are for, whole."""
    cases: Stage[Rollout, Any]
    proposals: Stage[Proposal, Any]

    def candidates(self, shift_by: int | None = None) -> Candidates:
        """Return what is verified, so many steps after its place; default: ``verify.shift``."""
        recipe = self.sources.recipe
        shift_by = recipe.verify.shift if shift_by is None else shift_by
        after_error = recipe.build_sft.after_error
        placed = Candidates(proposals=self.proposals, hard=self.hard, after_error=after_error)
        if not shift_by:
            return placed
        settings = ShiftSettings(
            candidates=placed,
            cases=self.cases,
            shift=shift_by,
            terminator=recipe.propose.terminator,
            steps=self.sources.setup.steps,
        )
        moved = shift(settings, f"train {shift_by:+d}")
        return Candidates(proposals=moved, hard=self.hard, after_error=True)

    def continuations(self, condition: Condition, shift_by: int | None = None) -> Continuations:
        """Return the context of every candidate under one row of Table 1."""
        return Continuations(
            condition=condition,
            candidates=self.candidates(shift_by),
            cases=self.cases,
            questions=self.sources.questions(),
            problems=self.sources.problems("checker"),
            hints=self.sources.hints() if condition.has_hint else None,
            steps=self.sources.setup.steps,
        )

    def verify(self, condition: Condition, shift_by: int | None = None) -> Drawn:
        """Return the continuations of every candidate under one row of Table 1, graded."""
        config = self.sources.recipe.verify
        shift_by = config.shift if shift_by is None else shift_by
        stream = f"{condition} {shift_by:+d}" if shift_by else str(condition)
        return self._draw(self.continuations(condition, shift_by), stream, config.rounds)

    @cached_property
    def verified(self) -> dict[Condition, Drawn]:
        """Every condition that the recipe names; the intervention's own comes first."""
        conditions = dict.fromkeys((INTERVENTION, *self.sources.recipe.verify.conditions))
        return {condition: self.verify(condition) for condition in conditions}

    @cached_property
    def reestimated(self) -> Drawn:
        """Fresh continuations of the kept interventions.

        An intervention is kept *because* one of its continuations was correct, so that those
        overstate its accuracy (the winner's curse); fresh ones do not.
        """
        kept_by = self.verified[INTERVENTION].grades
        contexts = replace(self.continuations(INTERVENTION), kept_by=kept_by)
        first_index = self.sources.recipe.verify.num_continuations
        return self._draw(contexts, f"{INTERVENTION} again", first_index=first_index)

    def _draw(
        self,
        contexts: Continuations,
        stream: str,
        rounds: tuple[int, ...] = (),
        first_index: int = 0,
    ) -> Drawn:
        config, problems = self.sources.recipe.verify, self.sources.problems(*GOLD)
        settings = SampleSettings(
            model=self.sources.setup.base,
            contexts=contexts,
            num_rollouts=config.num_continuations,
            sampling=config.sampling,
            stream=stream,
            seed=self.sources.recipe.seed,
            budget=config.budget,
            first_index=first_index,
            rounds=rounds_of(rounds, problems),
            dialogues=self.sources.dialogues(),
        )
        return draw(settings, problems)
