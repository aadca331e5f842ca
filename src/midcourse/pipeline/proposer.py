"""A proposer trained on what came of its own proposals; before and after on problems held out.

What it is trained on is what a run has: proposals about the hard training problems, and their
continuations. Nothing of the run is made again. On held-out problems the base's wrong rollouts are
asked about once each, by the proposer as it was and as it was trained, with the reference shown and
without it, and what is accepted is continued from by the base.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from midcourse.config import ProposeConfig, Recipe, TrainProposerConfig
from midcourse.errors import ConfigError
from midcourse.pipeline.contexts import Continuations
from midcourse.pipeline.interventions import INTERVENTION, asked_about
from midcourse.pipeline.method import Method
from midcourse.pipeline.models import TuneSettings, tune
from midcourse.pipeline.sources import GOLD, WHOLE, Sources
from midcourse.pipeline.stages import (
    TOKENS,
    ProposeSettings,
    SampleSettings,
    draw,
    failure_details,
    graders_of,
    keyed,
    propose,
    verifications,
)
from midcourse.pipeline.values import Candidates, Drawn, Model, Selection, view
from midcourse.records import Grade, Proposal, Rollout, SftRow
from midcourse.run import Keyed, Stage, Step, Work, stage
from midcourse.stages.propose import Case, guided_prompt, review_prompt
from midcourse.stages.proposer_rows import ProposerRowDesign, proposer_rows
from midcourse.steps import BLANK_LINES, StepRule

Shown = Literal["given", "none"]
#: How it is said whether a question shows the reference.
SHOWN: dict[Shown, str] = {"given": "shown", "none": "not shown"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposerRowSettings:
    """What decides the rows that a proposer is trained on."""

    design: ProposerRowDesign
    proposals: Stage[Proposal, Any]
    cases: Stage[Rollout, Any]
    hard: Selection
    """The problems whose proposals were verified, with their texts."""
    verified: Drawn
    proposer: Model
    """Rows are in its tokens."""
    seed: int
    steps: StepRule = BLANK_LINES
    grades: Stage[Grade, Any] | None = None
    """Of the cases, where the question shows the test that an attempt failed."""


@stage("rows", SftRow)
def rows_of_proposals(settings: ProposerRowSettings, work: Work[SftRow]) -> Iterator[Keyed[SftRow]]:
    """*rows*: every proposal about a hard problem, those to be learned with their ids."""
    reader = work.reader
    problems = {problem.problem_id: problem for problem in settings.hard.read(reader)}
    rollouts = (r for r in reader.read(settings.cases, TOKENS) if r.problem_id in problems)
    details = failure_details(settings.grades, reader)
    cases = (
        Case(problems[r.problem_id], r, reference="", detail=details.get(r.rollout_id, ""))
        for r in rollouts
    )
    rows = proposer_rows(
        (p for p in reader.read(settings.proposals) if p.problem_id in problems),
        {case.rollout.rollout_id: case for case in cases},
        verifications(reader, settings.verified, with_suffix=False),
        settings.design,
        work.tools.renderer(settings.proposer),
        settings.steps,
        settings.seed,
    )
    return keyed(rows, lambda row: row.row_id, work.done)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one proposer says of the base's wrong rollouts, and what that is worth."""

    cases: Stage[Rollout, Any]
    proposals: Stage[Proposal, Any]
    verified: Drawn

    @property
    def steps(self) -> list[Step]:
        """The stages, in order."""
        return [self.proposals, self.verified.rollouts, self.verified.grades]


@dataclass(frozen=True)
class Proposers:
    """The proposer of a recipe before and after; `proposers` makes it."""

    method: Method

    @property
    def _sources(self) -> Sources:
        return self.method.interventions.sources

    @property
    def config(self) -> TrainProposerConfig:
        """The recipe's section."""
        return self._sources.recipe.train_proposer

    @cached_property
    def before(self) -> Model:
        """The proposer as the recipe names it: the base, if it names none."""
        recipe = self._sources.recipe
        return self._sources.setup.helper("", recipe.proposer_model, recipe.proposer_engine)

    @cached_property
    def rows(self) -> Stage[SftRow, Any]:
        """What it is trained on."""
        s, config, made = self._sources, self.config, self.method
        blind = s.setup.prompts["no_reference"] if config.reference == "none" else None
        shows_failure = blind is not None and "failing_test" in blind.fields
        settings = ProposerRowSettings(
            design=ProposerRowDesign(
                blind=blind,
                rows_per_problem=config.rows_per_problem,
                min_correct_share=config.min_correct_share,
                max_tokens=config.max_tokens,
            ),
            proposals=made.proposals,
            cases=made.cases,
            hard=made.hard,
            verified=made.interventions.verified[INTERVENTION],
            proposer=self.before,
            seed=s.recipe.seed,
            steps=s.setup.steps,
            grades=made.train.grades if shows_failure else None,
        )
        return rows_of_proposals(settings, f"proposer, reference {SHOWN[config.reference]}")

    @cached_property
    def trained(self) -> Model:
        """The proposer after training."""
        settings = TuneSettings(
            config=self.config.train,
            start=self.before,
            rows=self.rows,
            rejected=None,
            seed=self._sources.recipe.seed,
        )
        label = f"proposer trained with the reference {SHOWN[self.config.reference]}"
        training = tune(settings, label=label)
        return replace(
            self.before, name=f"sft:{training.key}", label=label, role=None, trained=training,
            folder="final",
        )  # fmt: skip

    def answers(self, model: Model, reference: Shown, eval_set: str) -> Answers:
        """Return what `model` says of the base's wrong rollouts of an evaluation set.

        Only problems with a reference are asked about, so that all ways see the same. Raises
        ConfigError if there is no such set.
        """
        s = self._sources
        whole = [problem for problem in s.whole(eval_set) if problem.reference_solution]
        drawn = self.method.evaluation.evaluate(s.setup.base, eval_set)
        cases = asked_about(s, drawn, view(whole), self.config.check_rollouts, eval_set)
        changes = {
            "reference": reference,
            "num_proposals": 1,
            "num_rollouts": ProposeConfig().num_rollouts,  # `cases` says how many, whatever it is
        }
        config, prompts = s.recipe.propose.model_copy(update=changes), s.setup.prompts
        review = review_prompt(prompts, config)
        label = f"{eval_set}, {model.label}, reference {SHOWN[reference]}"
        asked = ProposeSettings(
            cases=cases,
            problems=view(whole, *WHOLE),
            config=config,
            review=review,
            guided=guided_prompt(prompts, config),
            proposer=model,
            policy=s.setup.base,
            graders=graders_of(view(whole, "checker")),
            seed=s.recipe.seed,
            steps=s.setup.steps,
            grades=drawn.grades if "failing_test" in review.fields else None,
        )
        proposals = propose(asked, label)
        return Answers(
            cases=cases, proposals=proposals, verified=self._verify(cases, proposals, eval_set)
        )

    def _verify(
        self, cases: Stage[Rollout, Any], proposals: Stage[Proposal, Any], eval_set: str
    ) -> Drawn:
        s, verify = self._sources, self._sources.recipe.verify
        contexts = Continuations(
            condition=INTERVENTION,
            candidates=Candidates(proposals=proposals),
            cases=cases,
            questions=s.questions(eval_set),
            problems=s.problems("checker", of=eval_set),
            steps=s.setup.steps,
        )
        settings = SampleSettings(
            model=s.setup.base,
            contexts=contexts,
            num_rollouts=verify.num_continuations,
            sampling=verify.sampling,
            stream=f"{INTERVENTION} of {proposals.label}",
            seed=s.recipe.seed,
            budget=verify.budget,
            dialogues=s.dialogues(eval_set),
        )
        return draw(settings, s.problems(*GOLD, of=eval_set))


def proposers(made: Method) -> Proposers:
    """Return the proposer of a recipe, to be trained.

    Raises ConfigError where the run's proposals cannot be learned from.
    """
    _check(made.setup.recipe)
    found = Proposers(made)
    if not found.before.engine.loads_models:
        raise ConfigError(
            "train proposer: the proposer is served by others: name proposer_model, or leave "
            "[proposer_engine] out"
        )
    return found


def _check(recipe: Recipe) -> None:
    propose = recipe.propose
    if propose.truth:
        raise ConfigError("train proposer: propose.truth asks no model: leave it out")
    if propose.variant == "list":
        raise ConfigError(
            "train proposer: one intervention of a list is verified, not the reply: set "
            "propose.variant = 'one'"
        )
    if recipe.train_proposer.reference == "given" and propose.reference != "given":
        raise ConfigError(
            "train_proposer.reference 'given': the proposals were made without their references: "
            "set propose.reference = 'given', or train_proposer.reference = 'none'"
        )
