"""Which models are compared, on what, and how likely texts are under them (§5)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice

from midcourse.pipeline.training import Training, ready_rows
from midcourse.pipeline.workbench import Graded, Model
from midcourse.progress import Failures
from midcourse.records import Condition, Likelihood, Proposal, Rollout, RowSource, SftRow
from midcourse.run import Artifact
from midcourse.stages.contexts import continuation_contexts
from midcourse.stages.likelihood import ScoredText, likelihood
from midcourse.stages.propose import first_accepted
from midcourse.store import StageStore


class Evaluation(Training):
    """evaluate, likelihood."""

    @cached_property
    def models(self) -> dict[str, Model]:
        """The models that are compared, by label; the others are not made.

        A label says what a model is: with ``build_sft.source = "reference"`` the role ``patched``
        of the recipe is filled by ``SFT on references``.
        """
        made = [self.in_role(role) for role in self.recipe.evaluate.models]
        return {model.label: model for model in made}

    def in_role(self, role: str) -> Model:
        """Return the model that fills a role of ``evaluate.models``, made if it is missing."""
        start, _, rl = role.partition(" + ")
        model = self.base if start == "base" else self.patched
        if not rl:
            return model
        trained = self.rl_models.items()
        return next(made for label, made in trained if label.startswith(f"{model.label} + "))

    def evaluate(self, model: Model, eval_set: str) -> Graded:
        """Sample and grade one evaluation set with one model.

        ``train`` stands for the hard training problems (Table 2, Fig. 6).
        """
        config, is_train = self.recipe.evaluate, eval_set == "train"
        problems = self.hard_problems if is_train else self.problems.evaluation[eval_set]
        is_probe = not is_train and eval_set != "held_out"
        num_rollouts = config.num_probe_rollouts if is_probe else config.num_rollouts
        label = f"{eval_set} {model.label}"
        rollouts = self.sample(model, problems, label, num_rollouts, config.sampling)
        return Graded(rollouts, self.grade(rollouts))

    @cached_property
    def course_evaluations(self) -> dict[tuple[str, int], Graded]:
        """Held-out problems along RL (Fig. 12), by (RL model's label, iteration).

        Iteration 0 is the model that RL started from; in between stand the checkpoints that
        ``train_rl.keep_checkpoints`` kept.
        """
        trained = [label for label in self.models if label.endswith("RL")]
        return {
            (label, iteration): self.evaluate(model, "held_out")
            for label in trained
            if "held_out" in self.problems.evaluation
            for iteration, model in self.rl_course(label).items()
        }

    @cached_property
    def evaluations(self) -> dict[tuple[str, str], Graded]:
        """Every model on every evaluation set, by (model label, set)."""
        return {
            (label, eval_set): self.evaluate(model, eval_set)
            for label, model in self.models.items()
            for eval_set in self.problems.evaluation
        }

    @cached_property
    def held_out_proposals(self) -> Artifact | None:
        """Interventions on the base's held-out rollouts: never trained on, only scored (Fig. 7)."""
        if "held_out" not in self.problems.evaluation:
            return None
        graded = self.evaluate(self.base, "held_out")
        problems = [p for p in self.problems.evaluation["held_out"] if p.reference_solution]
        return self.propose(graded, problems, "held_out", 1)

    @cached_property
    def likelihoods(self) -> list[Artifact]:
        """Token likelihoods under the base and the patched model, of those that are compared."""
        _ = self.held_out_proposals  # a stage of its own: not within the first one's time
        compared = [model for label, model in self.models.items() if "RL" not in label]
        return [self.likelihood(model) for model in compared]

    def likelihood(self, model: Model) -> Artifact:
        """Score the texts of Figs 7-9 under one model."""
        settings = {**self.recipe.likelihood.model_dump(), "policy": model.name}
        own = self.evaluate(model, "held_out") if self.problems.evaluation else None
        inputs = [*model.made_by, self.rows, *([own.rollouts] if own else [])]
        artifact = self.run.artifact("likelihood", model.label, settings, inputs)

        def produce(
            store: StageStore[Likelihood], failures: Failures
        ) -> Iterator[tuple[str, list[Likelihood]]]:
            for item in likelihood(self._texts(own), self.scorer(model), model.name, store.done):
                yield item.item_id, [item]

        self.run.records(artifact, Likelihood, settings, inputs, None, produce, lambda x: x.what)
        return artifact

    def _texts(self, own: Graded | None) -> Iterator[ScoredText]:
        """Yield what is scored: interventions, their rows, references, the model's own rollouts."""
        limit = self.recipe.likelihood.max_items
        for row in ready_rows(self.rows)[:limit]:
            yield from _row_texts(row)
        for problem in islice((p for p in self.problems.train if p.reference_solution), limit):
            prompt = self.plain_context(problem.problem_id).prompt_ids
            ids = self.renderer.encode(str(problem.reference_solution))
            yield ScoredText(
                what="reference", source_id=problem.problem_id, problem_id=problem.problem_id,
                token_ids=(*prompt, *ids, *self.renderer.end_of_turn_ids), num_context=len(prompt),
            )  # fmt: skip
        if own is not None:
            yield from self._own_rollouts(own, limit)
        yield from self._held_out_interventions(limit)

    def _own_rollouts(self, own: Graded, limit: int) -> Iterator[ScoredText]:
        for rollout in islice((r for r in own.rollouts.read(Rollout) if r.token_ids), limit):
            prompt = self.plain_context(rollout.problem_id).prompt_ids
            yield ScoredText(
                what="own_rollout", source_id=rollout.rollout_id, problem_id=rollout.problem_id,
                token_ids=(*prompt, *rollout.token_ids), num_context=len(prompt),
            )  # fmt: skip

    def _held_out_interventions(self, limit: int) -> Iterator[ScoredText]:
        if self.held_out_proposals is None:
            return
        accepted = first_accepted(self.held_out_proposals.read(Proposal))[:limit]
        rollouts = self.evaluate(self.base, "held_out").rollouts.read(Rollout)
        made = continuation_contexts(
            Condition.PREFIX_INTERVENTION, accepted, rollouts,
            lambda proposal: self.plain_context(proposal.problem_id), self.renderer,
        )  # fmt: skip
        for context in made:
            yield ScoredText(
                what="intervention_held_out", source_id=str(context.parent_id),
                problem_id=context.problem_id, token_ids=context.token_ids,
                num_context=len(context.token_ids) - len(context.response.addition),
            )  # fmt: skip


def _row_texts(row: SftRow) -> Iterator[ScoredText]:
    """Yield a row's trained tokens given the problem; of a step also the step given its prefix."""
    contexts = {f"{row.source}_row": row.prompt_tokens}
    if row.source is RowSource.INTERVENTION:  # An original step is the end of its prefix.
        contexts[str(row.source)] = row.prompt_tokens + row.prefix_tokens
    for what, num_context in contexts.items():
        yield ScoredText(
            what=what, source_id=row.row_id, problem_id=row.problem_id,
            token_ids=row.input_ids, num_context=num_context,
        )  # fmt: skip
