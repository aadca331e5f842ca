"""What a run works with: problems, prompts, engines, the grader, and the two stages under all.

`Workbench.draw` and `Workbench.grade` are *sample* and *grade*. Verification, evaluation, hinted
rollouts, rewrites and written references are these two under another `Condition` or model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from midcourse.checkers import Grader, checker_named
from midcourse.config import EngineConfig, ModelConfig, SamplingConfig
from midcourse.data import load_problems, require_references
from midcourse.data.parts import load_part
from midcourse.engines import check_model, model_fingerprint, open_engine, open_renderer
from midcourse.engines.base import Engine, Scorer
from midcourse.errors import ConfigError, DataError
from midcourse.progress import Failures
from midcourse.prompts import PromptSet, load_prompt_set
from midcourse.records import Grade, Problem, Rollout, Verdict, content_id
from midcourse.rendering import Renderer
from midcourse.run import Artifact, Run
from midcourse.stages.contexts import Context, problem_context, problem_contexts
from midcourse.stages.grade import grade
from midcourse.stages.propose import review_prompt
from midcourse.stages.sample import SampleSpec, sample
from midcourse.stages.search import context_key, search
from midcourse.store import StageStore


@dataclass(frozen=True, slots=True)
class Model:
    """A policy on disk, e.g. ``Model("patched", "sft:3f2a", "checkpoints/3f2a/final")``."""

    label: str
    """What people call it: ``base``, ``patched``, ``SFT on references``, ``patched + RL``."""
    name: str
    """Its identity in records: ``base:<hash>``, ``sft:<key>``, ``rl:<key>@<step>``."""
    path: str
    made_by: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class Helper:
    """A model beside the policy: the proposer, a teacher, a writer of references."""

    name: str
    """Its identity in records."""
    settings: dict[str, object]
    """What tells it from another one, for the keys of what it makes."""
    open: Callable[[], tuple[Engine, Renderer]]
    """Its engine and its renderer; an engine of messages gets the policy's, which it ignores."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One call of *sample*: from which contexts, by whom, how many rollouts each."""

    label: str
    """Names the artifact, and keeps its seeds apart from those of any other draw."""
    model_name: str
    engine: Callable[[], Engine]
    contexts: Callable[[], Iterable[Context]]
    num_contexts: int
    num_rollouts: int
    sampling: SamplingConfig
    settings: Mapping[str, object]
    """What the contexts depend on beyond the inputs."""
    inputs: Sequence[Artifact] = ()
    budget: str = "total"
    rounds: Sequence[int] = ()
    first_index: int = 0
    """Index of the first rollout: a later draw from the same contexts goes on counting."""


class Workbench:
    """Opens what a recipe names, on first use; holds one model at a time."""

    def __init__(self, run: Run) -> None:
        self.run, self.recipe = run, run.recipe
        self._engines: dict[str, Engine] = {}
        self._grader: Grader | None = None
        self.base = Model("base", self._base_name(), self.recipe.model.path)
        self._check()

    def _base_name(self) -> str:
        """Return the base's identity: another model, patched or not, has another one."""
        model = self.recipe.model
        identity = content_id(model_fingerprint(model.path), model.revision)
        return f"base:{identity[:10]}"

    def _check(self) -> None:
        """Find what is wrong with the recipe before any work starts."""
        if self.recipe.engine.kind in ("transformers", "vllm"):
            check_model(self.recipe.model.path)
        if self.recipe.engine.chat:
            raise ConfigError(
                "engine.chat: a chat-only server may propose, never sample the policy; "
                "put it under [proposer_engine]"
            )
        _ = review_prompt(self.prompts, self.recipe.propose)
        _ = [self.prompts[purpose] for purpose in self._purposes()]
        if self.recipe.propose.reference != "none" and self.recipe.reference.write == "none":
            require_references(self.problems.train)

    def _purposes(self) -> Iterator[str]:
        """Yield the prompts that the recipe needs beside the proposer's."""
        recipe = self.recipe
        yield "solve"
        hinted = any(condition.has_hint for condition in recipe.verify.conditions)
        if hinted or recipe.select.condition == "hint" or recipe.train_rl.hints:
            yield "hint"
        if recipe.build_sft.source == "self_reflection":
            yield "reflect"
        if recipe.reference.write != "none":
            yield "reference"

    def close(self) -> None:
        """Let go of engines and grader."""
        self._let_go()
        if self._grader is not None:
            self._grader.close()

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
        columns, most = config.columns, config.held_out_limit
        held_out = config.held_out_path
        evaluation = {}
        if held_out:
            evaluation["held_out"] = load_problems(
                held_out, limit=most, split="held_out", columns=columns
            )
        train = load_part(config.path, config.part, config.limit, columns)
        return ProblemSets(train, evaluation)

    @cached_property
    def problems_by_id(self) -> dict[str, Problem]:
        """Every problem of the run by its id."""
        sets = (self.problems.train, *self.problems.evaluation.values())
        return {problem.problem_id: problem for problems in sets for problem in problems}

    def plain_context(self, problem_id: str) -> Context:
        """Return the context of one problem alone."""
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

    def helper(self, role: str, model: ModelConfig | None, config: EngineConfig | None) -> Helper:
        """Return who helps in `role`: the base itself unless the recipe names somebody."""
        is_base = model is None and config is None
        model = model or self.recipe.model
        settings: dict[str, object] = {
            "model": model_fingerprint(model.path), "revision": model.revision,
            "engine": _engine_identity(config),
        }  # fmt: skip
        if is_base:
            return Helper(self.base.name, settings, lambda: (self.engine(self.base), self.renderer))
        config = config or self.recipe.engine

        def open_it() -> tuple[Engine, Renderer]:
            engine = self._hold(role, config, model, model.path)
            takes_ids = engine.capabilities.token_ids
            renderer = open_renderer(config, model, model.path) if takes_ids else self.renderer
            return engine, renderer

        named = f"{Path(model.path).name}:{content_id(settings)[:10]}"
        return Helper(config.served_model or config.script or named, settings, open_it)

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
    def base_settings(self) -> dict[str, object]:
        """What every stage of the base depends on."""
        prompt = self.prompts["solve"]
        return {
            "model": model_fingerprint(self.recipe.model.path),
            "revision": self.recipe.model.revision,
            "dtype": self.recipe.model.dtype,
            "prompt": [prompt.name, prompt.sha],
            "seed": self.recipe.seed,
        }

    # The two stages that everything is made of.

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
        return self.draw(
            Draw(
                label=label,
                model_name=model.name,
                engine=lambda: self.engine(model),
                contexts=lambda: problem_contexts(problems, self.renderer, self.prompts),
                num_contexts=len(problems),
                num_rollouts=num_rollouts,
                sampling=sampling,
                settings={"problems": identity(problems)},
                inputs=model.made_by,
                rounds=rounds,
            )
        )

    def draw(self, draw: Draw) -> Artifact:
        """Sample what `draw` asks for; with rounds, search."""
        settings = self._draw_settings(draw)
        artifact = self.run.artifact("sample", draw.label, settings, draw.inputs)
        spec = SampleSpec(
            num_rollouts=draw.num_rollouts, sampling=draw.sampling.record(), model=draw.model_name,
            budget="new" if draw.budget == "new" else "total", run_seed=self.recipe.seed,
            stage=draw.label, first_index=draw.first_index,
        )  # fmt: skip

        def produce(
            store: StageStore[Rollout], failures: Failures
        ) -> Iterator[tuple[str, list[Rollout]]]:
            engine = draw.engine()
            if draw.rounds:
                rollouts = search(
                    draw.contexts(), spec, draw.rounds, engine, self._is_correct,
                    {context_key(r) for r in store.read() if self._is_correct(r)},
                    store.done, failures,
                )  # fmt: skip
            else:
                rollouts = sample(draw.contexts(), spec, engine, store.done, failures)
            for rollout in rollouts:
                yield rollout.rollout_id, [rollout]

        total = None if draw.rounds else draw.num_contexts * draw.num_rollouts
        self.run.records(
            artifact, Rollout, settings, draw.inputs, total, produce, lambda r: r.finish_reason
        )
        return artifact

    def _draw_settings(self, draw: Draw) -> dict[str, object]:
        settings = {
            **self.base_settings, **draw.settings, "policy": draw.model_name,
            "budget": draw.budget, "num_rollouts": draw.num_rollouts,
            "first_index": draw.first_index, "sampling": draw.sampling.model_dump(),
            "label": draw.label,
        }  # fmt: skip
        if draw.rounds:  # What a search draws depends on the grader.
            settings |= {"rounds": list(draw.rounds), **self._grade_settings}
        return settings

    @property
    def _grade_settings(self) -> dict[str, object]:
        names = {problem.checker for problem in self.problems_by_id.values()}
        versions = sorted(checker_named(name).version for name in names)
        return {"grader": " ".join(versions), **self.recipe.grade.model_dump()}

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


def _engine_identity(engine: EngineConfig | None) -> dict[str, object] | None:
    """Return what tells one helper's server or script from another."""
    if engine is None:
        return None
    script = Path(engine.script).read_text("utf-8") if engine.kind == "scripted" else ""
    return {**engine.model_dump(include={"kind", "served_model", "chat"}), "script": script}


def identity(problems: Sequence[Problem]) -> dict[str, object]:
    """Return what tells one list of problems from another, in a few bytes."""
    content = [[p.problem_id, p.text, p.gold.value, p.reference_solution] for p in problems]
    return {"number": len(problems), "hash": content_id(content)}
