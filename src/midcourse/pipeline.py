"""The method, whole: which stage feeds which, and what each is asked for.

Read top to bottom, the methods of `Pipeline` are the flow of the paper's Figure 5 and Table 1. Each
returns what it left on disk and first makes whatever it needs, so any stage can be asked for by
itself. `midcourse.runner` decides what is already there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from midcourse.config import EngineConfig, ModelConfig, SamplingConfig, VerifyConfig
from midcourse.data import load_problems, require_references
from midcourse.engines import (
    check_model,
    model_fingerprint,
    open_engine,
    open_renderer,
    resolve_model,
)
from midcourse.engines.base import Engine, Scorer
from midcourse.errors import ConfigError, DataError, EngineError
from midcourse.grading import GRADER, Grader
from midcourse.prompts import PromptSet, load_prompt_set
from midcourse.records import (
    Condition,
    Grade,
    Likelihood,
    Problem,
    ProblemStatus,
    Proposal,
    Rollout,
    RowOutcome,
    SftRow,
    Solvability,
    Verdict,
    content_id,
)
from midcourse.rendering import Renderer
from midcourse.runner import Artifact, Run, Sitting
from midcourse.stages.build_sft import Verification, build_sft
from midcourse.stages.contexts import (
    Context,
    continuation_contexts,
    problem_context,
    problem_contexts,
)
from midcourse.stages.flow import Failures
from midcourse.stages.grade import grade
from midcourse.stages.likelihood import ScoredText, likelihood
from midcourse.stages.propose import (
    Case,
    Proposer,
    first_accepted,
    propose,
    review_prompt,
    shuffled_references,
)
from midcourse.stages.sample import SampleSpec, duplicate_share, sample
from midcourse.stages.search import context_key, search
from midcourse.stages.select import is_incorrect, select
from midcourse.store import Keys, StageStore
from midcourse.training.jobs import Job, run_jobs

__all__ = ["Drawn", "Graded", "Model", "Pipeline", "ProblemSets", "Searched"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Model:
    """A policy on disk, e.g. ``Model("patched", "sft:3f2a", "runs/lab/checkpoints/sft-3f2a")``."""

    label: str
    """What people call it: ``base``, ``patched``, ``base + RL``, ``patched + RL``."""
    name: str
    """Its identity in records: ``base``, ``sft:<key>``, ``rl:<key>@<step>``."""
    path: str
    made_by: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class ProblemSets:
    """The problems of a run: to train on, and to evaluate on by name of the set."""

    train: list[Problem]
    evaluation: dict[str, list[Problem]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rollouts and what the grader thought of them."""

    rollouts: Artifact
    grades: Artifact


@dataclass(frozen=True, slots=True)
class Graded(Drawn):
    """Every rollout that was asked for is there: accuracy and pass@k may be estimated."""


@dataclass(frozen=True, slots=True)
class Searched(Drawn):
    """Drawn until the first correct rollout: tells who is solved, never how often."""


class Pipeline:
    """One run of the method over one recipe. Close it, or use it as a context manager."""

    def __init__(self, run: Run) -> None:
        self.run, self.recipe = run, run.recipe
        self._engines: dict[str, Engine] = {}
        self._grader: Grader | None = None
        self.base = Model("base", "base", self.recipe.model.path)
        self._check()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exception: object) -> None:
        self._let_go()
        if self._grader is not None:
            self._grader.close()

    def _check(self) -> None:
        """Find what is wrong with the recipe before any work starts."""
        if self.recipe.engine.kind in ("transformers", "vllm"):
            check_model(self.recipe.model.path)
        if self.recipe.engine.chat:
            raise ConfigError(
                "engine.chat: a chat-only server may propose, never sample the policy; "
                "put it under [proposer_engine]"
            )
        _ = self.prompts["solve"], review_prompt(self.prompts, self.recipe.propose)
        if self.recipe.propose.reference != "none":
            require_references(self.problems.train)

    # What a run works with.

    @cached_property
    def prompts(self) -> PromptSet:
        """The recipe's prompt set."""
        return load_prompt_set(self.recipe.prompts)

    @cached_property
    def renderer(self) -> Renderer:
        """The policy's renderer: one for the base and everything trained from it."""
        return open_renderer(self.recipe.engine, self.recipe.model, self.recipe.model.path)

    @cached_property
    def problems(self) -> ProblemSets:
        """The recipe's problems. Raises DataError if a set is empty or broken."""
        config = self.recipe.problems
        if config.kind == "lab":
            from midcourse.lab.problems import lab_problems

            lab = lab_problems(config, self.recipe.seed)
            sets = {"held_out": lab.held_out, "known": lab.known, "control": lab.control}
            return ProblemSets(lab.train, sets)
        if not config.path:
            raise DataError("problems.path: give a .jsonl file, e.g. --set problems.path=p.jsonl")
        train = load_problems(config.path, limit=config.limit)
        held_out = config.held_out_path
        evaluation = {"held_out": load_problems(held_out, split="held_out")} if held_out else {}
        return ProblemSets(train, evaluation)

    @cached_property
    def problems_by_id(self) -> dict[str, Problem]:
        """Every problem of the run by its id."""
        sets = (self.problems.train, *self.problems.evaluation.values())
        return {problem.problem_id: problem for problems in sets for problem in problems}

    def _plain_context(self, problem_id: str) -> Context:
        return problem_context(self.problems_by_id[problem_id], self.renderer, self.prompts)

    @property
    def grader(self) -> Grader:
        """The grader's worker pool, started on first use."""
        if self._grader is None:
            config = self.recipe.grade
            self._grader = Grader(
                num_workers=config.num_workers,
                timeout_seconds=config.timeout_seconds,
                memory_mib=config.memory_mib,
            )
        return self._grader

    def engine(self, model: Model) -> Engine:
        """Return the engine of `model`; only the last one stays loaded.

        Raises ConfigError for a trained model behind a server that serves the base.
        """
        if self.recipe.engine.kind == "openai" and model.path != self.base.path:
            raise ConfigError(
                f"engine.kind 'openai' serves the base, not {model.label!r}: serve {model.path} "
                "and evaluate it with a recipe of its own, or use engine.kind = 'transformers'"
            )
        return self._hold(model.path, self.recipe.engine, self.recipe.model, model.path)

    def scorer(self, model: Model) -> Scorer:
        """Return what scores tokens under `model`: transformers, where servers sample.

        Raises ConfigError if the recipe's engine neither scores nor has the weights at hand.
        """
        config = self.recipe.engine
        if config.kind in ("vllm", "ray"):
            config = config.model_copy(update={"kind": "transformers"})
            engine = self._hold(f"scorer of {model.path}", config, self.recipe.model, model.path)
        else:
            engine = self.engine(model)
        if not isinstance(engine, Scorer):
            raise ConfigError("likelihood: this engine cannot score tokens; use transformers")
        return engine

    def _hold(self, name: str, config: EngineConfig, model: ModelConfig, path: str) -> Engine:
        """Return the engine held under `name`, opening it in place of any other."""
        if name not in self._engines:
            self._let_go()
            with self.run.loading():
                self._engines[name] = open_engine(config, model, path)
                _ = self._engines[name].capabilities  # loads the model, or starts the servers
        return self._engines[name]

    def _let_go(self) -> None:
        """Close what is loaded: one model at a time fits."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    @cached_property
    def _base_settings(self) -> dict[str, object]:
        """What every stage of the base depends on."""
        prompt = self.prompts["solve"]
        return {
            "model": model_fingerprint(self.recipe.model.path),
            "dtype": self.recipe.model.dtype,
            "prompt": [prompt.name, prompt.sha],
            "seed": self.recipe.seed,
        }

    # The stages.

    def sample(
        self,
        model: Model,
        problems: Sequence[Problem],
        label: str,
        num_rollouts: int,
        sampling: SamplingConfig,
        rounds: Sequence[int] = (),
    ) -> Artifact:
        """Sample `num_rollouts` plain rollouts of `model` per problem; with `rounds`, search."""
        return self._sample(
            model, label, len(problems), num_rollouts, sampling, "total",
            lambda: problem_contexts(problems, self.renderer, self.prompts),
            {"problems": _identity(problems)},
            list(model.made_by), rounds,
        )  # fmt: skip

    def _sample(
        self,
        model: Model,
        label: str,
        num_contexts: int,
        num_rollouts: int,
        sampling: SamplingConfig,
        budget: str,
        contexts: Callable[[], Iterable[Context]],
        extra: Mapping[str, object],
        inputs: list[Artifact],
        rounds: Sequence[int],
    ) -> Artifact:
        settings = {
            **self._base_settings, **extra, "policy": model.name, "budget": budget,
            "num_rollouts": num_rollouts, "sampling": sampling.model_dump(), "label": label,
        }  # fmt: skip
        if rounds:  # What a search draws depends on the grader.
            settings |= {"rounds": list(rounds), **self._grade_settings}
        artifact = self.run.artifact("sample", label, settings, inputs)
        spec = SampleSpec(
            num_rollouts=num_rollouts, sampling=sampling.record(), model=model.name,
            budget="new" if budget == "new" else "total", run_seed=self.recipe.seed, stage=label,
        )  # fmt: skip

        def produce(
            store: StageStore[Rollout], failures: Failures
        ) -> Iterator[tuple[str, list[Rollout]]]:
            engine = self.engine(model)
            if rounds:
                rollouts = search(
                    contexts(), spec, rounds, engine, self._is_correct,
                    {context_key(r) for r in store.read() if self._is_correct(r)},
                    store.done, failures,
                )  # fmt: skip
            else:
                rollouts = sample(contexts(), spec, engine, store.done, failures)
            for rollout in rollouts:
                yield rollout.rollout_id, [rollout]

        total = None if rounds else num_contexts * num_rollouts
        self.run.records(
            artifact, Rollout, settings, inputs, total, produce, lambda r: r.finish_reason
        )
        return artifact

    @property
    def _grade_settings(self) -> dict[str, object]:
        return {"grader": GRADER, **self.recipe.grade.model_dump()}

    def _is_correct(self, rollout: Rollout) -> bool:
        graded = grade([rollout], self.problems_by_id, self.grader, ())
        return next(graded).verdict is Verdict.CORRECT

    def grade(self, rollouts: Artifact) -> Artifact:
        """Grade every rollout of an artifact."""
        settings = self._grade_settings
        artifact = self.run.artifact("grade", rollouts.label, settings, [rollouts])
        problems = self.problems_by_id

        def produce(
            store: StageStore[Grade], failures: Failures
        ) -> Iterator[tuple[str, list[Grade]]]:
            texts = rollouts.read(Rollout, without=("token_ids",))
            for graded in grade(texts, problems, self.grader, store.done):
                yield graded.rollout_id, [graded]

        total = int(rollouts.manifest["num_records"])
        self.run.records(artifact, Grade, settings, [rollouts], total, produce, lambda g: g.verdict)
        return artifact

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
        graded, config = self.train_rollouts, self.recipe.select
        num_rollouts, problems = self.recipe.sample.num_rollouts, self.problems.train
        settings = {**config.model_dump(), "num_rollouts": num_rollouts}
        artifact = self.run.artifact("select", "train", settings, [graded.grades])

        def produce(
            store: StageStore[ProblemStatus], failures: Failures
        ) -> Iterator[tuple[str, list[ProblemStatus]]]:
            statuses = select(
                problems,
                graded.grades.read(Grade),
                num_rollouts=num_rollouts,
                truncated_is_incorrect=config.truncated_is_incorrect,
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
        statuses = {s.problem_id: s.status for s in self.statuses.read(ProblemStatus)}
        return [p for p in self.problems.train if statuses[p.problem_id] is Solvability.HARD]

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
        config = self.recipe.propose
        prompt = review_prompt(self.prompts, config)
        proposer_model = self.recipe.proposer_model or self.recipe.model
        settings = {
            **config.model_dump(), "num_rollouts": num_rollouts,
            "prompt": [prompt.name, prompt.sha],
            "proposer": model_fingerprint(proposer_model.path), "label": label,
            "proposer_engine": self._proposer_engine_settings,
            "problems": _identity(problems),
        }  # fmt: skip
        inputs = [graded.rollouts, graded.grades]
        artifact = self.run.artifact("propose", label, settings, inputs)
        chosen = {} if artifact.is_complete else self._chosen(graded, problems, num_rollouts)

        def produce(
            store: StageStore[Proposal], failures: Failures
        ) -> Iterator[tuple[str, list[Proposal]]]:
            cases = self._cases(graded, problems, chosen)
            yield from propose(cases, self._proposer(), store.done, failures)

        self.run.records(
            artifact, Proposal, settings, inputs, len(chosen), produce, lambda p: p.outcome
        )
        return artifact

    @property
    def _proposer_engine_settings(self) -> dict[str, object] | None:
        """What tells one proposer's server or script from another."""
        engine = self.recipe.proposer_engine
        if engine is None:
            return None
        script = Path(engine.script).read_text("utf-8") if engine.kind == "scripted" else ""
        return {**engine.model_dump(include={"kind", "served_model", "chat"}), "script": script}

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

    def _proposer(self) -> Proposer:
        recipe = self.recipe
        if recipe.proposer_engine is None and recipe.proposer_model is None:
            engine, renderer, name = self.engine(self.base), self.renderer, self.base.name
        else:
            model = recipe.proposer_model or recipe.model
            config = recipe.proposer_engine or recipe.engine
            engine = self._hold("proposer", config, model, model.path)
            # A server of messages needs no renderer; the policy's stands in and is not used.
            takes_ids = engine.capabilities.token_ids
            renderer = open_renderer(config, model, model.path) if takes_ids else self.renderer
            name = config.served_model or (config.script or Path(model.path).name)
        return Proposer(
            engine=engine, renderer=renderer, policy=self.renderer, prompts=self.prompts,
            grader=self.grader, config=recipe.propose, name=name, run_seed=recipe.seed,
        )  # fmt: skip

    @cached_property
    def candidates(self) -> list[Proposal]:
        """The first accepted proposal of each rollout: what is verified. Turns are left out."""
        after_error = self.recipe.build_sft.after_error
        return first_accepted(self.proposals.read(Proposal, without=("turns",)), after_error)

    def contexts(self, condition: Condition) -> Iterator[Context]:
        """Yield the context of each candidate under `condition`."""
        rollouts = self.train_rollouts.rollouts.read(Rollout)
        return continuation_contexts(
            condition, self.candidates, rollouts, self._plain_context, self.renderer
        )

    def verify(self, condition: Condition) -> Drawn:
        """Sample and grade the continuations of every candidate under one row of Table 1."""
        config: VerifyConfig = self.recipe.verify
        rollouts = self._sample(
            self.base, str(condition), len(self.candidates), config.num_continuations,
            config.sampling, config.budget, lambda: self.contexts(condition),
            {"condition": str(condition)}, [self.proposals], config.rounds,
        )  # fmt: skip
        return (Searched if config.rounds else Graded)(rollouts, self.grade(rollouts))

    @cached_property
    def verified(self) -> dict[Condition, Drawn]:
        """Every condition the recipe names; the intervention's own comes first."""
        conditions = dict.fromkeys((Condition.PREFIX_INTERVENTION, *self.recipe.verify.conditions))
        return {condition: self.verify(condition) for condition in conditions}

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
                self.candidates, self.contexts(condition), self._verifications(graded), config,
                self.recipe.seed,
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
        """Run what is missing side by side; each gets its manifest when all of them are done.

        Trainings that take every device run in turn.
        """
        owed = [t for t in trainings if not t[0].is_complete]
        if not owed:
            return
        if len(owed) > 1 and self.recipe.train_rl.takes_all_devices:
            for training in owed:
                self._train([training])
            return
        self._let_go()  # The memory of a loaded model is better spent on training.
        sitting = Sitting.begin()
        jobs = [
            Job(f"train {a.label}", a.path, content, total, content["config"]["accelerate"])
            for a, _, _, content, total in owed
        ]
        summaries = run_jobs(jobs, self.run.reporter)
        for (artifact, settings, inputs, _, _), summary in zip(owed, summaries, strict=True):
            self.run.complete(artifact, settings, inputs, sitting, summary)

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
            **config.model_dump(), **self._base_settings, "problems": _identity(problems),
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

    @cached_property
    def models(self) -> dict[str, Model]:
        """The models that are compared, by label; the others are not made."""
        wanted = self.recipe.evaluate.models
        made = {"base": self.base}
        if "patched" in wanted:
            made["patched"] = self.patched
        if {"base + RL", "patched + RL"} & set(wanted):
            made |= self.rl_models
        return {label: made[label] for label in wanted}

    def evaluate(self, model: Model, eval_set: str) -> Graded:
        """Sample and grade one evaluation set with one model."""
        config, problems = self.recipe.evaluate, self.problems.evaluation[eval_set]
        is_probe = eval_set != "held_out"
        num_rollouts = config.num_probe_rollouts if is_probe else config.num_rollouts
        label = f"{eval_set} {model.label}"
        rollouts = self.sample(model, problems, label, num_rollouts, config.sampling)
        return Graded(rollouts, self.grade(rollouts))

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
        return [self._likelihood(model) for model in compared]

    def _likelihood(self, model: Model) -> Artifact:
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
        ready = (r for r in self.rows.read(SftRow) if r.outcome is RowOutcome.READY)
        for row in islice(ready, limit):
            prefix = row.prompt_tokens + row.prefix_tokens
            for what, given in (("intervention", prefix), ("intervention_row", row.prompt_tokens)):
                yield ScoredText(
                    what=what, source_id=row.row_id, problem_id=row.problem_id,
                    token_ids=row.input_ids, num_context=given,
                )  # fmt: skip
        for problem in islice((p for p in self.problems.train if p.reference_solution), limit):
            prompt = self._plain_context(problem.problem_id).prompt_ids
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
            prompt = self._plain_context(rollout.problem_id).prompt_ids
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
            Condition.PREFIX_INTERVENTION, accepted, rollouts, self._plain_context, self.renderer
        )
        for context in made:
            yield ScoredText(
                what="intervention_held_out", source_id=str(context.parent_id),
                problem_id=context.problem_id, token_ids=context.token_ids,
                num_context=len(context.token_ids) - len(context.response.addition),
            )  # fmt: skip


def _identity(problems: Sequence[Problem]) -> dict[str, object]:
    """Return what tells one list of problems from another, in a few bytes."""
    content = [[p.problem_id, p.text, p.answer, p.reference_solution] for p in problems]
    return {"number": len(problems), "hash": content_id(content)}
