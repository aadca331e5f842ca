"""From verified interventions, or a baseline's solutions, to rows; from rows to models.

A recipe makes one fine-tuned model, `patched`, and RL from it and from the base. What it is
fine-tuned on is ``build_sft.source``; its label says so, because a baseline is not InT.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from midcourse.config import BuildSftConfig, ModelConfig
from midcourse.engines import resolve_model
from midcourse.errors import DataError
from midcourse.pipeline.interventions import Interventions
from midcourse.pipeline.workbench import Draw, Drawn, Graded, Model, identity
from midcourse.progress import Failures
from midcourse.records import Condition, Grade, Problem, Rollout, RowOutcome, SftRow, Verdict
from midcourse.run import Artifact, Sitting
from midcourse.stages.build_sft import Verification, build_sft
from midcourse.stages.contexts import Context, user_text
from midcourse.stages.solution_rows import solution_rows
from midcourse.stages.solutions import (
    Solution,
    reference_solution,
    reflection_contexts,
    solutions_by,
    teacher_contexts,
)
from midcourse.store import StageStore
from midcourse.training.jobs import Job, run_jobs, sft_content

#: What the fine-tuned model is called, by what it was fine-tuned on.
_LABELS = {
    "intervention": "patched",
    "original_step": "SFT on original steps",
    "reference": "SFT on references",
    "self_reflection": "SFT on self-reflections",
    "distillation": "SFT on a teacher's traces",
}
#: Keys of build_sft that say nothing about rows of single steps.
_OF_BASELINES = {"num_solutions", "teacher", "trace", "sampling"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """A training that is to be there: where, made of what, and the worker's job."""

    artifact: Artifact
    settings: Mapping[str, object]
    inputs: Sequence[Artifact]
    content: Mapping[str, Any]
    num_steps: int
    """Log entries to expect."""


class Training(Interventions):
    """build-sft, train sft, train rl."""

    @cached_property
    def rows(self) -> Artifact:
        """The rows to fine-tune on."""
        return self._solution_rows() if self.recipe.build_sft.is_baseline else self.step_rows

    @cached_property
    def step_rows(self) -> Artifact:
        """Rows of single steps: what InT trains on, also where a baseline is trained instead."""
        config = self.recipe.build_sft
        if config.is_baseline:
            plain = {"source": "intervention", "filter": True, "prefix": "trained", "suffix": False}
            config = config.model_copy(update=plain)
        return self._step_rows(config)

    def _step_rows(self, config: BuildSftConfig) -> Artifact:
        is_control = config.source == "original_step"
        condition = Condition.PREFIX_ERROR if is_control else Condition.PREFIX_INTERVENTION
        graded = self.verified[Condition.PREFIX_INTERVENTION]
        settings = {**config.model_dump(exclude=_OF_BASELINES), "seed": self.recipe.seed}
        proposals = self.proposals_at(self.recipe.verify.shift)
        inputs = [proposals, graded.rollouts, graded.grades]
        artifact = self.run.artifact("build-sft", config.source, settings, inputs)

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

    # Baselines: rows of whole solutions.

    def _solution_rows(self) -> Artifact:
        config, drawn = self.recipe.build_sft, self.drawn_solutions
        wanted = ready_rows(self.step_rows)
        settings = {
            **config.model_dump(),
            "seed": self.recipe.seed,
            "problems": identity(self.hard_problems),
        }
        inputs = [self.step_rows, *([drawn.rollouts, drawn.grades] if drawn else [])]
        artifact = self.run.artifact("build-sft", config.source, settings, inputs)

        def produce(
            store: StageStore[SftRow], failures: Failures
        ) -> Iterator[tuple[str, list[SftRow]]]:
            solutions = self._solutions(drawn)
            for row in solution_rows(wanted, solutions, config, self.renderer, self.recipe.seed):
                if row.row_id not in store.done:
                    yield row.row_id, [row]

        self.run.records(
            artifact, SftRow, settings, inputs, len(wanted), produce, lambda r: r.outcome
        )
        return artifact

    def _solutions(self, drawn: Drawn | None) -> dict[str, list[Solution]]:
        """Return what there is to train on, by proposal id for rewrites, else by problem id."""
        if drawn is None:
            found = {p.problem_id: reference_solution(p) for p in self.hard_problems}
            return {name: [solution] for name, solution in found.items() if solution}
        rewrites = self.recipe.build_sft.source == "self_reflection"
        return solutions_by(
            lambda rollout: str(rollout.parent_id) if rewrites else rollout.problem_id,
            drawn.rollouts.read(Rollout, without=("token_ids",)),
            drawn.grades.read(Grade),
            self.recipe.build_sft.trace,
        )

    @cached_property
    def drawn_solutions(self) -> Graded | None:
        """Rewrites of the base's own attempts, or a teacher's rollouts; references need none."""
        source = self.recipe.build_sft.source
        if source not in ("self_reflection", "distillation"):
            return None
        draw = self._reflections() if source == "self_reflection" else self._teacher_rollouts()
        rollouts = self.draw(draw)
        return Graded(rollouts, self.grade(rollouts))

    def _reflections(self) -> Draw:
        """The base rewrites the very rollouts that InT's rows intervene in (App. E)."""
        config, prompt = self.recipe.build_sft, self.prompts["reflect"]
        chosen = {row.proposal_id for row in ready_rows(self.step_rows)}
        proposals = {p.rollout_id: p for p in self.candidates if p.proposal_id in chosen}
        problems = {problem.problem_id: problem for problem in self.hard_problems}
        return Draw(
            label="reflection",
            model_name=self.base.name,
            engine=lambda: self.engine(self.base),
            contexts=lambda: reflection_contexts(
                proposals, self.train_rollouts.rollouts.read(Rollout), problems, self.prompts,
                self.renderer,
            ),
            num_contexts=len(proposals),
            num_rollouts=config.num_solutions,
            sampling=config.sampling,
            settings={
                "asks": [prompt.name, prompt.sha], "problems": identity(self.hard_problems),
            },
            inputs=[self.step_rows],
        )  # fmt: skip

    def _teacher_rollouts(self) -> Draw:
        """The teacher solves the problems of InT's rows, without a reference."""
        config = self.recipe.build_sft
        model = ModelConfig(path=config.teacher) if config.teacher else None
        teacher = self.helper("teacher", model, self.recipe.teacher_engine)
        chosen = {row.problem_id for row in ready_rows(self.step_rows)}
        problems = [problem for problem in self.hard_problems if problem.problem_id in chosen]

        def contexts() -> Iterator[Context]:
            engine, renderer = teacher.open()
            takes_ids = engine.capabilities.token_ids
            return teacher_contexts(problems, self.prompts, renderer, takes_ids)

        return Draw(
            label="teacher",
            model_name=teacher.name,
            engine=lambda: teacher.open()[0],
            contexts=contexts,
            num_contexts=len(problems),
            num_rollouts=config.num_solutions,
            sampling=config.sampling,
            settings={"helper": teacher.settings, "problems": identity(problems)},
        )

    # Models.

    @cached_property
    def patched(self) -> Model:
        """The base model fine-tuned on the rows, by SFT or Step-DPO."""
        config, rows = self.recipe.train_sft, ready_rows(self.rows)
        if not rows:
            raise DataError(
                f"train {config.method}: no row of source {self.recipe.build_sft.source!r} is "
                "ready, so there is nothing to train on; look at 'midcourse status' and ask for "
                "more rollouts or proposals"
            )
        settings = {**config.model_dump(), "seed": self.recipe.seed, "start": self.base.name}
        content, num_steps = sft_content(
            config, self.recipe.model, self.recipe.seed, self.rows.path, rows
        )
        inputs, label = [self.rows], _LABELS[self.recipe.build_sft.source]
        if config.method == "dpo":
            rejected = self._step_rows(
                self.recipe.build_sft.model_copy(update={"source": "original_step"})
            )
            inputs, label = [self.rows, rejected], "Step-DPO"
            content["rejected_rows"] = str(rejected.path)
        artifact = self.run.artifact("checkpoints", label, settings, inputs)
        plan = _Planned(
            artifact=artifact, settings=settings, inputs=inputs, content=content,
            num_steps=num_steps,
        )  # fmt: skip
        self._train([plan])
        name = f"{config.method}:{artifact.key}"
        return Model(label, name, str(artifact.path / "final"), (artifact,))

    def _train(self, plans: Sequence[_Planned]) -> None:
        """Run what is missing side by side; each gets its manifest when all of them are done.

        Trainings that take every device run in turn.
        """
        owed = [plan for plan in plans if not plan.artifact.is_complete]
        if not owed:
            return
        if len(owed) > 1 and self.recipe.train_rl.takes_all_devices:
            for plan in owed:
                self._train([plan])
            return
        self._let_go()  # The memory of a loaded model is better spent on training.
        sitting = Sitting.begin()
        jobs = [
            Job(
                f"train {plan.artifact.label}", plan.artifact.path, plan.content, plan.num_steps,
                plan.content["config"]["accelerate"],
            )
            for plan in owed
        ]  # fmt: skip
        summaries = run_jobs(jobs, self.run.reporter)
        for plan, summary in zip(owed, summaries, strict=True):
            self.run.complete(plan.artifact, plan.settings, plan.inputs, sitting, summary)

    @cached_property
    def rl_problems(self) -> list[Problem]:
        """The problems RL trains on, as the recipe chooses."""
        which = self.recipe.train_rl.problems
        if which == "all":
            hard = {problem.problem_id: problem for problem in self._with_references}
            return [hard.get(problem.problem_id, problem) for problem in self.problems.train]
        if which == "hard":
            return self.hard_problems
        kept = {row.problem_id for row in self.step_rows.read(SftRow) if row.num_correct}
        return [problem for problem in self.hard_problems if problem.problem_id in kept]

    @property
    def _with_references(self) -> list[Problem]:
        """Problems whose references were written, if a hint is to be made of them."""
        is_written = self.recipe.reference.write != "none"
        return self.referenced if is_written and self.recipe.train_rl.hints else []

    @cached_property
    def rl_models(self) -> dict[str, Model]:
        """GRPO from the base and from the patched model, on the same problems, by label.

        Where the recipe compares one of the two alone, only that one is made.
        """
        plans = [self._plan_rl(start) for start in self._rl_starts()]
        self._train(plans)
        return {plan.artifact.label: self._rl_model(plan.artifact) for plan in plans}

    def _rl_starts(self) -> Iterator[Model]:
        wanted = {role for role in self.recipe.evaluate.models if role.endswith("+ RL")}
        if not wanted or "base + RL" in wanted:
            yield self.base
        if not wanted or "patched + RL" in wanted:
            yield self.patched

    def _plan_rl(self, start: Model) -> _Planned:
        config, problems = self.recipe.train_rl, self.rl_problems
        settings = {
            **config.model_dump(), **self.base_settings, "problems": identity(problems),
            "start": start.name, **({"hint": self.hint_settings} if config.hints else {}),
        }  # fmt: skip
        label = f"{start.label} + {'hint-guided RL' if config.hints else 'RL'}"
        content = {
            "kind": "rl", "config": config.model_dump(), "model": resolve_model(start.path),
            "revision": self.recipe.model.revision,
            "seed": self.recipe.seed, "grade": self.recipe.grade.model_dump(),
            "problems": [
                {"problem_id": p.problem_id, "prompt": self._rl_prompt(p), "gold": asdict(p.gold)}
                for p in problems
            ],
        }  # fmt: skip
        return _Planned(
            artifact=self.run.artifact("checkpoints", label, settings, start.made_by),
            settings=settings, inputs=start.made_by, content=content,
            num_steps=config.num_iterations,
        )  # fmt: skip

    def _rl_prompt(self, problem: Problem) -> str:
        if not self.recipe.train_rl.hints:
            return user_text(problem, self.prompts)
        if not problem.reference_solution:
            raise DataError(
                f"train_rl.hints: problem {problem.problem_id} has no reference_solution to hint "
                "from: add it, or set train_rl.problems = 'hard' and reference.write = 'missing'"
            )
        return user_text(problem, self.prompts, self.hint(problem))

    def _rl_model(self, artifact: Artifact, iteration: int | None = None) -> Model:
        """Return the model at the end of RL, or at a checkpoint that was kept."""
        last, label, folder = self.recipe.train_rl.num_iterations, artifact.label, "final"
        if iteration not in (None, last):
            label, folder = f"{label} @ {iteration}", f"step-{iteration:06d}"
        name = f"rl:{artifact.key}@{iteration or last}"
        return Model(label, name, str(artifact.path / folder), (artifact,))

    def rl_course(self, label: str) -> dict[int, Model]:
        """Return the models of one RL run by iteration: the start is 0, then what was kept."""
        config, artifact = self.recipe.train_rl, self.rl_models[label].made_by[0]
        start = self.base if label.startswith(f"{self.base.label} +") else self.patched
        every = config.save_every if config.keep_checkpoints else config.num_iterations
        kept = [*range(every, config.num_iterations, every), config.num_iterations]
        return {0: start, **{iteration: self._rl_model(artifact, iteration) for iteration in kept}}


def ready_rows(rows: Artifact) -> list[SftRow]:
    """Return the rows of an artifact that can be trained on."""
    return [row for row in rows.read(SftRow) if row.outcome is RowOutcome.READY]
