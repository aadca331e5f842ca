"""From hard problems to verified interventions: the paper's Figure 5 and Table 1.

Proposals are made for every unsolved problem, so that subsets (those that hints do not solve) and
shifted interventions stand on the same proposals; what is verified is `candidates`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from midcourse.pipeline.selection import Selection
from midcourse.pipeline.workbench import Draw, Drawn, Graded, Searched, identity
from midcourse.progress import Failures
from midcourse.records import Condition, Grade, Problem, Proposal, Rollout, Verdict
from midcourse.run import Artifact
from midcourse.stages.contexts import Context, continuation_contexts
from midcourse.stages.propose import (
    Case,
    Proposer,
    first_accepted,
    propose,
    review_prompt,
    shuffled_references,
)
from midcourse.stages.select import is_incorrect
from midcourse.stages.shift import shifted
from midcourse.steps import split_steps
from midcourse.store import Keys, StageStore


class Interventions(Selection):
    """propose, verify."""

    @cached_property
    def proposals(self) -> Artifact:
        """Interventions for incorrect rollouts of the unsolved problems."""
        num_rollouts = self.recipe.propose.num_rollouts
        return self.propose(self.train_rollouts, self.referenced, "train", num_rollouts)

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
            if config.truth:
                yield from self._true_proposals(cases, store.done)
                return
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

    def _true_proposals(
        self, cases: Iterable[Case], done: Container[str]
    ) -> Iterator[tuple[str, list[Proposal]]]:
        from midcourse.lab.problems import lab_problems
        from midcourse.lab.truth import true_proposals

        stories = lab_problems(self.recipe.problems, self.recipe.seed).stories
        return true_proposals(cases, stories, self.recipe.propose.terminator, done)

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
        """What is verified, at the shift that the recipe names."""
        return self.candidates_at(self.recipe.verify.shift)

    def candidates_at(self, shift: int) -> list[Proposal]:
        """Return the first accepted proposal of each rollout, `shift` steps later.

        Turns are left out. Where the rollout has no such step there is no candidate.
        """
        if shift:
            moved = self.proposals_at(shift).read(Proposal, without=("turns",))
            return first_accepted(moved, after_error=True)
        after_error = self.recipe.build_sft.after_error
        made = first_accepted(self.proposals.read(Proposal, without=("turns",)), after_error)
        hard = {problem.problem_id for problem in self.hard_problems}
        return [proposal for proposal in made if proposal.problem_id in hard]

    def proposals_at(self, shift: int) -> Artifact:
        """Return the proposals; with a shift, the candidates put so many steps later."""
        if not shift:
            return self.proposals
        inputs = [self.proposals, self.train_rollouts.rollouts]
        settings = {"shift": shift, **self._candidate_settings}
        artifact = self.run.artifact("shift", f"train {shift:+d}", settings, inputs)
        candidates = self.candidates_at(0)

        def produce(
            store: StageStore[Proposal], failures: Failures
        ) -> Iterator[tuple[str, list[Proposal]]]:
            rollouts = self.train_rollouts.rollouts.read(Rollout, without=("token_ids",))
            num_steps = {r.rollout_id: len(split_steps(r.text)) for r in rollouts}
            for proposal in shifted(candidates, num_steps, shift):
                if proposal.proposal_id not in store.done:
                    yield proposal.proposal_id, [proposal]

        self.run.records(
            artifact, Proposal, settings, inputs, len(candidates), produce, lambda p: p.outcome
        )
        return artifact

    @property
    def _candidate_settings(self) -> dict[str, object]:
        """What decides who is a candidate, beyond the proposals."""
        settings: dict[str, object] = {"after_error": self.recipe.build_sft.after_error}
        if self.recipe.select.condition == "hint":
            settings["problems"] = identity(self.hard_problems)
        return settings

    def contexts(self, condition: Condition, proposals: Sequence[Proposal]) -> Iterator[Context]:
        """Yield the context of each proposal under `condition`."""
        rollouts = self.train_rollouts.rollouts.read(Rollout)
        hard = {problem.problem_id: problem for problem in self.hard_problems}

        def opening(proposal: Proposal) -> Context:
            if condition.has_hint:
                return self.hinted_context(hard[proposal.problem_id], proposal)
            return self.plain_context(proposal.problem_id)

        return continuation_contexts(condition, proposals, rollouts, opening, self.renderer)

    def verify(self, condition: Condition, shift: int | None = None) -> Drawn:
        """Sample and grade the continuations of every candidate under one row of Table 1.

        `shift` moves the interventions by so many steps; default: ``verify.shift``.
        """
        config = self.recipe.verify
        shift = config.shift if shift is None else shift
        label = f"{condition} {shift:+d}" if shift else str(condition)
        inputs = [self.proposals_at(shift)]
        draw = self._verification(condition, label, self.candidates_at(shift), inputs)
        rollouts = self.draw(replace(draw, rounds=config.rounds))
        return (Searched if config.rounds else Graded)(rollouts, self.grade(rollouts))

    def _verification(
        self,
        condition: Condition,
        label: str,
        proposals: Sequence[Proposal],
        inputs: Sequence[Artifact],
    ) -> Draw:
        config = self.recipe.verify
        hints = {"hints": self.hint_settings} if condition.has_hint else {}
        return Draw(
            label=label,
            model_name=self.base.name,
            engine=lambda: self.engine(self.base),
            contexts=lambda: self.contexts(condition, proposals),
            num_contexts=len(proposals),
            num_rollouts=config.num_continuations,
            sampling=config.sampling,
            settings={"condition": str(condition), **self._candidate_settings, **hints},
            inputs=inputs,
            budget=config.budget,
        )

    @cached_property
    def verified(self) -> dict[Condition, Drawn]:
        """Every condition the recipe names; the intervention's own comes first."""
        conditions = dict.fromkeys((Condition.PREFIX_INTERVENTION, *self.recipe.verify.conditions))
        return {condition: self.verify(condition) for condition in conditions}

    @cached_property
    def kept(self) -> list[Proposal]:
        """The candidates with at least one correct continuation."""
        grades = self.verified[Condition.PREFIX_INTERVENTION].grades.read(Grade)
        correct = {g.parent_id for g in grades if g.verdict is Verdict.CORRECT}
        return [proposal for proposal in self.candidates if proposal.proposal_id in correct]

    @cached_property
    def reestimated(self) -> Graded:
        """Fresh continuations of the kept interventions.

        An intervention is kept *because* one of its continuations was correct, so that those
        overstate its accuracy (the winner's curse); fresh ones do not.
        """
        condition = Condition.PREFIX_INTERVENTION
        inputs = [self.proposals_at(self.recipe.verify.shift), self.verified[condition].grades]
        draw = self._verification(condition, f"{condition} again", self.kept, inputs)
        first_index = self.recipe.verify.num_continuations
        rollouts = self.draw(replace(draw, first_index=first_index))
        return Graded(rollouts, self.grade(rollouts))
