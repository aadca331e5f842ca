"""From problems to verified interventions: the paper's Figure 5 and Table 1.

Read top to bottom, the properties of `Interventions` are the flow. Each first makes whatever it
needs, so any stage can be asked for by itself; `midcourse.runner` decides what is already there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from midcourse.errors import EngineError
from midcourse.pipeline.workbench import Draw, Drawn, Graded, Searched, Workbench, identity
from midcourse.records import (
    Condition,
    Grade,
    Problem,
    ProblemStatus,
    Proposal,
    Rollout,
    Solvability,
)
from midcourse.runner import Artifact
from midcourse.stages.contexts import Context, continuation_contexts
from midcourse.stages.flow import Failures
from midcourse.stages.propose import (
    Case,
    Proposer,
    first_accepted,
    propose,
    review_prompt,
    shuffled_references,
)
from midcourse.stages.sample import duplicate_share
from midcourse.stages.select import is_incorrect, select
from midcourse.store import Keys, StageStore

__all__ = ["Interventions"]


class Interventions(Workbench):
    """sample, grade, select, propose, verify."""

    @cached_property
    def train_rollouts(self) -> Drawn:
        """The base model's rollouts of the training problems, graded."""
        config = self.recipe.sample
        rollouts = self.sample(
            self.base, self.problems.train, "train", config.num_rollouts, config.sampling,
            config.rounds,
        )  # fmt: skip
        self._alarm_on_duplicates(rollouts)
        kind = Searched if config.rounds else Graded
        return kind(rollouts, self.grade(rollouts))

    def _alarm_on_duplicates(self, rollouts: Artifact) -> None:
        limit = self.recipe.sample.max_duplicate_share
        found = duplicate_share(rollouts.read(Rollout, without=("token_ids",)))
        if found.share > limit:
            raise EngineError(
                f"{found.num_identical} of {found.num_contexts} problems got one and the same text "
                f"for every sample (limit {limit:.0%}): the engine ignores seeds, and pass@k = 0 "
                "would be an illusion; raise sample.max_duplicate_share if this is meant"
            )

    @cached_property
    def statuses(self) -> Artifact:
        """Which training problems are hard."""
        graded, num_rollouts = self.train_rollouts, self.recipe.sample.num_rollouts
        return self.select(graded, self.problems.train, "train", num_rollouts)

    def select(
        self, graded: Drawn, problems: Sequence[Problem], label: str, num_rollouts: int
    ) -> Artifact:
        """Decide which of `problems` are hard, from `num_rollouts` rollouts each."""
        truncated_is_incorrect = self.recipe.select.truncated_is_incorrect
        settings = {
            "truncated_is_incorrect": truncated_is_incorrect, "num_rollouts": num_rollouts,
        }  # fmt: skip
        artifact = self.run.artifact("select", label, settings, [graded.grades])

        def produce(
            store: StageStore[ProblemStatus], failures: Failures
        ) -> Iterator[tuple[str, list[ProblemStatus]]]:
            statuses = select(
                problems,
                graded.grades.read(Grade),
                num_rollouts=num_rollouts,
                truncated_is_incorrect=truncated_is_incorrect,
            )
            for status in statuses:
                if status.problem_id not in store.done:
                    yield status.problem_id, [status]

        self.run.records(
            artifact, ProblemStatus, settings, [graded.grades], len(problems), produce,
            lambda s: s.status,
        )  # fmt: skip
        return artifact

    @cached_property
    def hard_problems(self) -> list[Problem]:
        """The training problems with pass@k = 0, in the order of the recipe's problems."""
        return hard_of(self.problems.train, self.statuses)

    @cached_property
    def proposals(self) -> Artifact:
        """Interventions for incorrect rollouts of hard problems."""
        return self.propose(
            self.train_rollouts, self.hard_problems, "train", self.recipe.propose.num_rollouts
        )

    def propose(
        self, graded: Drawn, problems: Sequence[Problem], label: str, num_rollouts: int
    ) -> Artifact:
        """Ask the proposer about up to `num_rollouts` incorrect rollouts of each problem."""
        recipe, config = self.recipe, self.recipe.propose
        prompt = review_prompt(self.prompts, config)
        helper = self.helper("proposer", recipe.proposer_model, recipe.proposer_engine)
        settings = {
            **config.model_dump(), "num_rollouts": num_rollouts,
            "prompt": [prompt.name, prompt.sha], "proposer": helper.settings, "label": label,
            "problems": identity(problems),
        }  # fmt: skip
        inputs = [graded.rollouts, graded.grades]
        artifact = self.run.artifact("propose", label, settings, inputs)
        chosen = {} if artifact.is_complete else self._chosen(graded, problems, num_rollouts)

        def produce(
            store: StageStore[Proposal], failures: Failures
        ) -> Iterator[tuple[str, list[Proposal]]]:
            cases = self._cases(graded, problems, chosen)
            engine, renderer = helper.open()
            proposer = Proposer(
                engine=engine, renderer=renderer, policy=self.renderer, prompts=self.prompts,
                grader=self.grader, config=config, name=helper.name, run_seed=recipe.seed,
            )  # fmt: skip
            yield from propose(cases, proposer, store.done, failures)

        self.run.records(
            artifact, Proposal, settings, inputs, len(chosen), produce, lambda p: p.outcome
        )
        return artifact

    def _chosen(
        self, graded: Drawn, problems: Sequence[Problem], num_rollouts: int
    ) -> dict[str, str]:
        """Return the incorrect rollouts to ask about, with their problems' ids.

        Of each problem these are the first ones by index.
        """
        wanted = {problem.problem_id for problem in problems}
        truncated_is_incorrect = self.recipe.select.truncated_is_incorrect
        incorrect = Keys(
            g.rollout_id
            for g in graded.grades.read(Grade)
            if g.problem_id in wanted and is_incorrect(g, truncated_is_incorrect)
        )
        found: dict[str, list[tuple[int, str]]] = {}
        for rollout in graded.rollouts.read(Rollout, without=("token_ids",)):
            if rollout.problem_id in wanted and rollout.rollout_id in incorrect:
                found.setdefault(rollout.problem_id, []).append((rollout.index, rollout.rollout_id))
        return {
            rollout_id: problem_id
            for problem_id, rollouts in found.items()
            for _, rollout_id in sorted(rollouts)[:num_rollouts]
        }

    def _cases(
        self, graded: Drawn, problems: Sequence[Problem], chosen: Mapping[str, str]
    ) -> Iterator[Case]:
        """Yield the chosen rollouts with their problem and the reference that is shown."""
        shown = self._references(problems)
        for rollout in graded.rollouts.read(Rollout):
            problem_id = chosen.get(rollout.rollout_id)
            if problem_id is not None:
                yield Case(self.problems_by_id[problem_id], rollout, shown[problem_id])

    def _references(self, problems: Sequence[Problem]) -> dict[str, str]:
        if self.recipe.propose.reference == "shuffled":
            return shuffled_references(problems)
        given = self.recipe.propose.reference == "given"
        return {p.problem_id: (p.reference_solution or "") if given else "" for p in problems}

    @cached_property
    def candidates(self) -> list[Proposal]:
        """The first accepted proposal of each rollout: what is verified. Turns are left out."""
        after_error = self.recipe.build_sft.after_error
        return first_accepted(self.proposals.read(Proposal, without=("turns",)), after_error)

    def contexts(self, condition: Condition, proposals: Sequence[Proposal]) -> Iterator[Context]:
        """Yield the context of each proposal under `condition`."""
        rollouts = self.train_rollouts.rollouts.read(Rollout)
        return continuation_contexts(
            condition, proposals, rollouts, self.plain_context, self.renderer
        )

    def verify(self, condition: Condition) -> Drawn:
        """Sample and grade the continuations of every candidate under one row of Table 1."""
        config = self.recipe.verify
        draw = self._verification(condition, str(condition), self.candidates, rounds=config.rounds)
        rollouts = self.draw(draw)
        return (Searched if config.rounds else Graded)(rollouts, self.grade(rollouts))

    def _verification(
        self,
        condition: Condition,
        label: str,
        proposals: Sequence[Proposal],
        rounds: Sequence[int] = (),
        first_index: int = 0,
    ) -> Draw:
        config = self.recipe.verify
        return Draw(
            label=label,
            model_name=self.base.name,
            engine=lambda: self.engine(self.base),
            contexts=lambda: self.contexts(condition, proposals),
            num_contexts=len(proposals),
            num_rollouts=config.num_continuations,
            sampling=config.sampling,
            settings={"condition": str(condition)},
            inputs=[self.proposals],
            budget=config.budget,
            rounds=rounds,
            first_index=first_index,
        )

    @cached_property
    def verified(self) -> dict[Condition, Drawn]:
        """Every condition the recipe names; the intervention's own comes first."""
        conditions = dict.fromkeys((Condition.PREFIX_INTERVENTION, *self.recipe.verify.conditions))
        return {condition: self.verify(condition) for condition in conditions}


def hard_of(problems: Sequence[Problem], statuses: Artifact) -> list[Problem]:
    """Return those of `problems` that `statuses` calls hard, in their order."""
    found = {s.problem_id: s.status for s in statuses.read(ProblemStatus)}
    return [p for p in problems if found.get(p.problem_id) is Solvability.HARD]
