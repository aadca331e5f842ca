"""What the method works with: a recipe's problems, models and prompts, engines and checkers.

A `Setup` is what the method is composed from; it loads problems and names models, and opens no
engine. `Tools` open engines and graders on demand and know nothing of the recipe. A `Session` has
both, and a run directory in which it completes stages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from midcourse.checkers import Grader, runs_programs
from midcourse.config import (
    EngineConfig,
    GradeConfig,
    ModelConfig,
    Recipe,
    TemplateArguments,
    served_by,
    single_engine,
)
from midcourse.data.parts import load_part, require_disjoint
from midcourse.data.problems import (
    load_problems,
    require_references,
    require_sound_programs,
)
from midcourse.data.sources import ALL_SOURCES
from midcourse.engines import (
    check_context,
    check_model,
    check_servers,
    engine_identity,
    model_fingerprint,
    open_engine,
    open_renderer,
    require_undamaged,
    told_templates,
)
from midcourse.engines.base import Engine, Scorer, Served
from midcourse.engines.metered import MeteredEngine, MeteredScorer
from midcourse.environments import environment_named
from midcourse.errors import ConfigError, DataError, MidcourseError
from midcourse.pipeline.funnel import dryness
from midcourse.pipeline.kept import check_problems, keep_problems
from midcourse.pipeline.values import Model, ProblemSets
from midcourse.progress import Reporter, SilentProgress
from midcourse.prompts import PromptSet, load_prompt_set
from midcourse.records import Condition, Problem, Role, content_id
from midcourse.rendering import Renderer
from midcourse.run import Run, Stage, Step, Training, WorkTimer
from midcourse.sandbox import Sandbox
from midcourse.steps import StepRule, rule_named
from midcourse.tracking import Trackers
from midcourse.training.jobs import Job, logged_steps, run_jobs
from midcourse.training.tokens import training_tokens

R = TypeVar("R")

CANNOT_SCORE = (
    "this engine cannot tell the log-probability of given tokens: set engine.kind to transformers "
    "or vllm"
)

Identify = Callable[[ModelConfig], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the method is composed from."""

    recipe: Recipe
    problems: ProblemSets
    prompts: PromptSet
    base: Model
    identify: Identify
    """Returns ten hex digits that name a model's content."""

    @classmethod
    def of(cls, recipe: Recipe) -> Setup:
        """Load the problems and name the base. Raises MidcourseError before any work starts."""
        check_model(recipe.engine, recipe.model.path)
        check_context(recipe.engine, recipe.model)
        problems = load_problem_sets(recipe)
        require_disjoint(problems.train, problems.evaluation)
        _check_sources(recipe.sample.num_rollouts_by_source, problems.train)
        _check_steps(recipe.steps.rule, problems.train)
        if recipe.environment.name:
            environment_named(recipe.environment.name)
        if _hints_at_once(recipe) and recipe.reference.write == "none":
            require_references(problems.train)
        return cls.with_problems(recipe, problems, identify_model)

    @classmethod
    def with_problems(cls, recipe: Recipe, problems: ProblemSets, identify: Identify) -> Setup:
        """Compose a setup from problems that are there already."""
        base = Model(
            name=f"base:{identify(recipe.model)}", label="base", source=recipe.model,
            engine=recipe.engine, role=Role(),
        )  # fmt: skip
        prompts = load_prompt_set(recipe.prompts)
        return cls(recipe=recipe, problems=problems, prompts=prompts, base=base, identify=identify)

    @property
    def steps(self) -> StepRule:
        """The rule that responses are cut by. Raises ConfigError if there is none of the name."""
        return rule_named(self.recipe.steps.rule)

    def helper(
        self,
        path: str,
        source: ModelConfig | None,
        engine: EngineConfig | None,
        arguments: TemplateArguments | None = None,
    ) -> Model:
        """Return who helps: the base itself unless the recipe names another model or engine.

        `arguments` are told to its chat template; default: those of its model. Raises ConfigError
        if there is no such model.
        """
        if not path and source is None and engine is None and arguments is None:
            return self.base
        model = self.recipe.model
        engine = engine or self.recipe.engine
        if path:
            source = ModelConfig(path=path, template_date=model.template_date)
        source = source or served_by(engine, model)
        if arguments is not None:
            source = source.model_copy(update={"template_arguments": arguments})
        told = told_templates(source).values()
        if engine.model_name and not engine.loads_models:
            name = ":".join([engine.model_name, *(content_id(given)[:10] for given in told)])
        else:
            known = content_id(self.identify(source), source.dtype, engine_identity(engine), *told)
            name = f"{Path(source.path).name}:{known[:10]}"
        return Model(name=name, label=name, source=source, engine=engine)


def _hints_at_once(recipe: Recipe) -> bool:
    """Whether hints are made of references before a proposal is: *propose* checks for its own."""
    return recipe.select.condition == "hint" or Condition.HINT in recipe.train_rl.conditions


def _check_sources(numbers: Mapping[str, int], problems: Sequence[Problem]) -> None:
    """Raise ConfigError if a source is neither known nor that of a problem: a slip of the pen."""
    there = {problem.source for problem in problems}
    for name in numbers:
        if name not in there and name not in ALL_SOURCES:
            raise ConfigError(
                f"sample.num_rollouts_by_source: no training problem has the source {name!r}; "
                f"theirs are {', '.join(sorted(there)[:5])}"
            )


def _check_steps(name: str, problems: Sequence[Problem]) -> None:
    """Try the rule on every reference. Raises ConfigError if it loses anything of one."""
    rule = rule_named(name)
    for problem in problems:
        rule.split(problem.reference_solution or "")


def identify_model(source: ModelConfig) -> str:
    """Return ten hex digits that name the content of a model folder, or a hub model's commit."""
    return content_id(model_fingerprint(source.path, source.revision), None)[:10]


def load_problem_sets(recipe: Recipe) -> ProblemSets:
    """Return the recipe's problems. Raises DataError if a set is empty or broken."""
    config = recipe.problems
    benchmarks = {
        name: load_problems(
            of.path, limit=of.limit, split=name, columns=of.columns, checker=config.checker
        )
        for name, of in recipe.evaluate.benchmarks.items()
    }
    if config.kind == "lab":
        from midcourse.lab.problems import lab_problems

        lab = lab_problems(config, recipe.seed)
        return ProblemSets(lab.train, {**lab.evaluation, **benchmarks})
    if not config.path:
        raise DataError("problems.path: give a .jsonl file, e.g. --set problems.path=p.jsonl")
    evaluation: dict[str, list[Problem]] = {}
    if config.held_out_path:
        evaluation["held_out"] = load_problems(
            config.held_out_path,
            limit=config.held_out_limit,
            split="held_out",
            columns=config.columns_of_held_out,
            checker=config.checker,
        )
    where = (config.path, config.part, config.limit, config.columns)
    train = load_part(*where, config.checker)
    return ProblemSets(train, evaluation | benchmarks)


class Tools:
    """Engines and a grader, opened on first use; one model is loaded at a time."""

    def __init__(self, run: Run, base: Model, limits: GradeConfig) -> None:
        self._run, self._base, self._limits = run, base, limits
        self._engines: dict[str, Engine] = {}
        self._renderers: dict[str, Renderer] = {}
        self._grader: Grader | None = None
        self._sound = set[str]()
        """Problems whose reference program is known to pass."""

    def engine(self, model: Model) -> Engine:
        """Return the engine that samples `model`; only the last one stays loaded.

        Raises EngineError if servers show that they serve another model than at first.
        """
        engine = self._hold(model.name, model, model.engine)
        if isinstance(engine, Served):
            self._run.answered_by(model.name, engine.served)
        meter = self._run.meter
        return MeteredEngine(engine, meter, self._estimate) if meter else engine

    def scorer(self, model: Model) -> Scorer:
        """Return what scores tokens under `model`: transformers, where servers sample.

        Raises ConfigError if the recipe's engine does not have the weights.
        """
        config = model.engine.scoring
        if config is None:
            raise ConfigError(CANNOT_SCORE)
        engine = self._hold(f"scorer of {model.name}", model, config)
        assert isinstance(engine, Scorer)
        return MeteredScorer(engine, self._run.meter) if self._run.meter else engine

    def renderer(self, model: Model) -> Renderer:
        """Return the renderer of a model; everything trained from the base has the base's."""
        source = self._base if model.trained else model
        if source.name not in self._renderers:
            opened = open_renderer(source.engine, source.source, source.source.path)
            self._renderers[source.name] = opened
        return self._renderers[source.name]

    def renderer_for(self, model: Model) -> Renderer | None:
        """Return the renderer of a model's engine; None if it takes messages only."""
        takes_ids = self.engine(model).capabilities.token_ids
        return self.renderer(model) if takes_ids else None

    @property
    def grader(self) -> Grader:
        """The grader's worker pool, started on first use."""
        if self._grader is None:
            self._grader = open_grader(self._limits)
        return self._grader

    def check_programs(self, problems: Sequence[Problem]) -> None:
        """Raise MidcourseError if answers are programs, and no sandbox or a reference is sound.

        What was looked at once is not looked at again.
        """
        asked = [p for p in problems if runs_programs(p.checker)]
        new = [p for p in asked if p.problem_id not in self._sound]
        if new:
            Sandbox(self._limits.sandbox).check()
            require_sound_programs(new, self.grader)
        self._sound |= {problem.problem_id for problem in new}

    def path(self, model: Model) -> str:
        """Return the folder or the name that a model is loaded from."""
        if model.trained is None:
            return model.source.path
        return str(self._run.path(model.trained) / model.folder)

    def _estimate(self, text: str) -> int:
        """Return the tokens of a text as the base's tokenizer cuts it, whoever wrote it.

        Where no tokenizer is there, as where all is asked of servers, four letters are one.
        """
        try:
            return len(self.renderer(self._base).encode(text))
        except MidcourseError:
            return -(-len(text) // 4)

    def _hold(self, name: str, model: Model, config: EngineConfig) -> Engine:
        """Return the engine held under `name`, opening it in place of any other."""
        if name not in self._engines:
            self.let_go()
            with self._run.loading(model.label):
                require_undamaged(Path(self.path(model)))
                self._engines[name] = open_engine(config, model.source, self.path(model))
                length = self._engines[name].capabilities.max_context_tokens  # loads or starts it
            asked = single_engine(config).max_context_tokens
            if asked and length < asked:
                self._run.reporter.say(
                    f"{model.label} takes {length:,} tokens, prompt and completion together, not "
                    f"the {asked:,} of engine.max_context_tokens"
                )
        return self._engines[name]

    def let_go(self) -> None:
        """Close the engine that is loaded."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def close(self) -> None:
        """Let go of engine and grader."""
        self.let_go()
        if self._grader is not None:
            self._grader.close()


def open_grader(config: GradeConfig) -> Grader:
    """Return a grader with the limits of a recipe."""
    return Grader(
        num_workers=config.num_workers,
        timeout_seconds=config.timeout_seconds,
        memory_mib=config.memory_mib,
        sandbox=config.sandbox,
    )


class Session:
    """Completes steps in one run directory. Close it, or use `open_session`.

    Raises ArtifactError if the directory was made with other problems of its recipe; whoever brings
    a setup says what may change.
    """

    def __init__(self, run: Run, setup: Setup | None = None) -> None:
        self.run, self.recipe = run, run.recipe
        self.setup = setup or Setup.of(run.recipe)
        self._keeps_problems = setup is None
        if self._keeps_problems:
            check_problems(run.problems_path, self.setup.problems)
        self.tools = Tools(run, self.setup.base, run.recipe.grade)
        self.trackers = Trackers(run.recipe, run.directory, run.reporter)

    def close(self) -> None:
        """Let go of engines, grader and trackers."""
        self.tools.close()
        self.trackers.close()

    def check(self, steps: Iterable[Step]) -> None:
        """Raise MidcourseError, before work starts, if a missing step cannot be made."""
        self.trackers.check()
        waiting, checked = list(steps), set[str]()
        while waiting:
            step = waiting.pop()
            if step.key in checked or self.run.is_complete(step):
                continue
            checked.add(step.key)
            waiting += step.inputs
            if not isinstance(step, Stage):
                continue
            for field in fields(step.settings):
                model = getattr(step.settings, field.name)
                if isinstance(model, Model):
                    check_servers(model.engine)
            if step.check:
                step.check(step.settings, self.tools)

    def complete(self, *steps: Step) -> None:
        """Complete steps, their inputs first; trainings that were asked for together run together.

        What is complete is not opened.
        """
        for step in steps:
            if not self.run.is_complete(step):
                self.complete(*step.inputs)
                if self._keeps_problems:
                    keep_problems(self.run.problems_path, self.setup.problems)
                self.run.announce([step])
        for step in steps:
            if isinstance(step, Stage):
                is_new = not self.run.is_complete(step)
                self.run.complete(step, self.tools)
                if is_new:
                    self.trackers.stage(self.run.artifact(step).manifest)
                    self.warn(step)
        self._train([step for step in steps if isinstance(step, Training)])

    def warn(self, step: Step) -> None:
        """Say so where a complete step leaves nothing for those after it."""
        logged = [] if isinstance(step, Stage) else logged_steps(self.run.path(step))
        if dry := dryness(step, self.run.artifact(step).manifest, logged):
            self.run.reporter.say(f"warning: {step.name} {step.label}: {dry}")

    # A session reads as a run does, and first completes what is missing.

    def read(self, stage: Stage[R, Any], without: Collection[str] = ()) -> Iterator[R]:
        """Stream the records of a stage, completed."""
        self.complete(stage)
        return self.run.read(stage, without)

    def path(self, step: Step) -> Path:
        """Return the folder of a stage or a training, completed."""
        self.complete(step)
        return self.run.path(step)

    def num_records(self, stage: Stage[Any, Any]) -> int:
        """Return how many records a stage holds, completed."""
        self.complete(stage)
        return self.run.num_records(stage)

    def _train(self, trainings: Sequence[Training[Any]]) -> None:
        """Train what is missing, in turn where one training takes every device."""
        missing = [training for training in trainings if not self.run.is_complete(training)]
        if len(missing) > 1 and any(training.alone for training in missing):
            for training in missing:
                self._train([training])
            return
        if not missing:
            return
        self.tools.let_go()  # The memory of a loaded model is better spent on training.
        run = self.run
        run.claim()
        timer = WorkTimer.begin()
        jobs = [
            Job(f"train {t.label}", run.path(t), t.job(t.settings, run, t.key)) for t in missing
        ]
        summaries = run_jobs(jobs, run.reporter, self.trackers.training)
        for training, job, summary in zip(missing, jobs, summaries, strict=True):
            run.finish(training, timer, summary, training_tokens(job, summary))
            self.warn(training)


@contextmanager
def open_session(
    recipe: Recipe,
    directory: str | Path,
    reporter: Reporter | None = None,
    *,
    shared: bool = False,
    setup: Setup | None = None,
) -> Iterator[Session]:
    """Open the run directory of a recipe for work, silently unless a reporter is given.

    Raises MidcourseError in one line.
    """
    with Run(Path(directory), recipe, reporter or SilentProgress(), shared=shared) as run:
        session = Session(run, setup)
        try:
            yield session
        finally:
            session.close()
