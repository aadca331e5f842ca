"""From verified interventions to rows, and from rows to models: patching and RL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from midcourse.engines import resolve_model
from midcourse.errors import DataError
from midcourse.pipeline.interventions import Interventions
from midcourse.pipeline.workbench import Drawn, Model, identity
from midcourse.records import Condition, Grade, Problem, Rollout, RowOutcome, SftRow, Verdict
from midcourse.runner import Artifact
from midcourse.stages.build_sft import Verification, build_sft
from midcourse.stages.flow import Failures
from midcourse.store import StageStore
from midcourse.training.jobs import Job, run_jobs

__all__ = ["Training"]


class Training(Interventions):
    """build-sft, train sft, train rl."""

    @cached_property
    def rows(self) -> Artifact:
        """The rows to patch with."""
        config = self.recipe.build_sft
        is_control = config.source == "original_step"
        condition = Condition.PREFIX_ERROR if is_control else Condition.PREFIX_INTERVENTION
        graded = self.verified[Condition.PREFIX_INTERVENTION]
        settings = {**config.model_dump(), "seed": self.recipe.seed}
        inputs = [self.proposals, graded.rollouts, graded.grades]
        artifact = self.run.artifact("build-sft", "train", settings, inputs)

        def produce(
            store: StageStore[SftRow], failures: Failures
        ) -> Iterator[tuple[str, list[SftRow]]]:
            rows = build_sft(
                self.candidates, self.contexts(condition, self.candidates),
                self._verifications(graded), config, self.recipe.seed,
            )  # fmt: skip
            for row in rows:
                if row.row_id not in store.done:
                    yield row.row_id, [row]

        self.run.records(
            artifact, SftRow, settings, inputs, len(self.candidates), produce, lambda r: r.outcome
        )
        return artifact

    def _verifications(self, graded: Drawn) -> dict[str, Verification]:
        """Sum up the continuations of each proposal, by proposal id."""
        tallies: dict[str, Counter[Verdict]] = {}
        correct: dict[str, str] = {}
        for item in graded.grades.read(Grade):
            tallies.setdefault(str(item.parent_id), Counter())[item.verdict] += 1
            if item.verdict is Verdict.CORRECT:
                correct.setdefault(str(item.parent_id), item.rollout_id)
        shas: dict[str, str] = {}
        suffixes: dict[str, Rollout] = {}
        is_kept = self.recipe.build_sft.suffix
        unread = () if is_kept else ("token_ids",)
        for rollout in graded.rollouts.read(Rollout, without=unread):
            parent_id = str(rollout.parent_id)
            shas[parent_id] = rollout.prompt_sha
            if is_kept and correct.get(parent_id) == rollout.rollout_id:
                suffixes[parent_id] = rollout
        return {
            proposal_id: Verification(
                prompt_sha=shas[proposal_id],
                num_correct=tally[Verdict.CORRECT],
                num_graded=tally.total() - tally[Verdict.UNGRADED],
                num_ungraded=tally[Verdict.UNGRADED],
                correct_rollout=suffixes.get(proposal_id),
            )
            for proposal_id, tally in tallies.items()
        }

    @cached_property
    def patched(self) -> Model:
        """The base model fine-tuned on the rows."""
        config, rows = self.recipe.train_sft, self.rows
        settings = {**config.model_dump(), "seed": self.recipe.seed}
        artifact = self.run.artifact("checkpoints", "sft", settings, [rows])
        ready = [row for row in rows.read(SftRow) if row.outcome is RowOutcome.READY]
        if not ready:
            raise DataError(
                "train sft: no intervention was verified, so there is nothing to patch with; "
                "look at 'midcourse status' and ask for more rollouts or proposals"
            )

        content = {
            "kind": "sft", "config": config.model_dump(), "model": resolve_model(self.base.path),
            "seed": self.recipe.seed, "rows": str(rows.path), "row_ids": [r.row_id for r in ready],
        }  # fmt: skip
        steps_per_epoch = -(-len(ready) // config.batch_size)
        total = config.max_steps or round(steps_per_epoch * config.num_epochs)
        self._train([(artifact, settings, [rows], content, total)])
        return Model("patched", f"sft:{artifact.key}", str(artifact.path / "final"), (artifact,))

    def _train(
        self,
        trainings: Sequence[
            tuple[Artifact, Mapping[str, object], list[Artifact], dict[str, Any], int]
        ],
    ) -> None:
        """Run what is missing side by side; each gets its manifest when all of them are done."""
        owed = [t for t in trainings if not t[0].is_complete]
        if not owed:
            return
        self._let_go()  # The memory of a loaded model is better spent on training.
        started = datetime.now(UTC)
        jobs = [
            Job(f"train {a.label}", a.path, content, total, content["config"]["accelerate"])
            for a, _, _, content, total in owed
        ]
        summaries = run_jobs(jobs, self.run.reporter)
        for (artifact, settings, inputs, _, _), summary in zip(owed, summaries, strict=True):
            self.run.complete(artifact, settings, inputs, started, summary)

    @cached_property
    def rl_problems(self) -> list[Problem]:
        """The problems RL trains on, as the recipe chooses."""
        which = self.recipe.train_rl.problems
        if which == "all":
            return self.problems.train
        if which == "hard":
            return self.hard_problems
        kept = {row.problem_id for row in self.rows.read(SftRow) if row.num_correct}
        return [problem for problem in self.hard_problems if problem.problem_id in kept]

    @cached_property
    def rl_models(self) -> dict[str, Model]:
        """GRPO from the base and from the patched model, on the same problems."""
        config, problems = self.recipe.train_rl, self.rl_problems
        prompt = self.prompts["solve"]
        settings = {
            **config.model_dump(), **self.base_settings, "problems": identity(problems),
        }  # fmt: skip
        models, trainings = {}, []
        for start in (self.base, self.patched):
            label, inputs = f"{start.label} + RL", list(start.made_by)
            ours = {**settings, "start": start.name}
            artifact = self.run.artifact("checkpoints", label, ours, inputs)
            content = {
                "kind": "rl", "config": config.model_dump(), "model": resolve_model(start.path),
                "seed": self.recipe.seed, "grade": self.recipe.grade.model_dump(),
                "problems": [
                    [p.problem_id, prompt.render(problem=p.text), p.answer] for p in problems
                ],
            }  # fmt: skip
            trainings.append((artifact, ours, inputs, content, config.num_iterations))
            name = f"rl:{artifact.key}@{config.num_iterations}"
            models[label] = Model(label, name, str(artifact.path / "final"), (artifact,))
        self._train(trainings)
        return models
