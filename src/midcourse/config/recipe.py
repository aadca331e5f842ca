"""A recipe, whole, and what its sections may not say against each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from midcourse.config.base import Complaint, Section, refuse, tunable
from midcourse.config.engines import EngineSection, ModelConfig, OpenAIConfig, TransformersConfig
from midcourse.config.prices import PricesConfig
from midcourse.config.stages import (
    HELD_OUT_SET,
    LAB_ENVIRONMENTS,
    LAB_STEPS,
    PROBE_SETS,
    TRAIN_SET,
    UNSEEN_SET,
    BuildSftConfig,
    CreditConfig,
    EnvironmentConfig,
    EvaluateConfig,
    GradeConfig,
    HintsConfig,
    LikelihoodConfig,
    LocalizeConfig,
    ProblemsConfig,
    ProposeConfig,
    ReferenceConfig,
    SampleConfig,
    SelectConfig,
    StepsConfig,
    VerifyConfig,
)
from midcourse.config.training import (
    TrainProposerConfig,
    TrainRlConfig,
    TrainSftConfig,
    WarmupConfig,
)
from midcourse.records import Condition, Role


def _of_folders(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
        raise ValueError(
            f"{name[:80]!r} names no folder: use letters, digits, '.', '_' and '-', at most 200, "
            "a letter or digit first"
        )
    return name


_Name = Annotated[str, AfterValidator(_of_folders)]


class Recipe(Section):
    """One run, whole."""

    name: _Name = Field(json_schema_extra={"tunable": True})
    """The run directory is ``runs/<name>`` unless ``--run-dir`` says otherwise."""
    seed: int = Field(0, ge=0)
    """Every sample's seed, shuffle and choice derives from it."""
    max_failed_share: float = tunable(0.01, ge=0, le=1)
    """Requests of a stage that a server may fail for good, rounded up: they become outcomes
    (``request_failed``), never a model's mistakes. With more the stage stops."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = tunable(())
    """Trackers that are told what the run directory says: counts of stages, logs of trainings.
    Each has to be installed; W&B and Trackio may need a login of their own."""
    report_project: str = tunable("midcourse", min_length=1)
    """The project at W&B and Trackio."""
    prompts: str = tunable("default")
    """A packaged prompt set, or a folder of .md files; the texts that are used are in the keys."""
    problems: ProblemsConfig = ProblemsConfig()
    model: ModelConfig
    """The base model."""
    engine: EngineSection = TransformersConfig()
    """How the policy is sampled."""
    proposer_model: ModelConfig | None = None
    """Another model as the proposer; default: the base model itself."""
    proposer_engine: EngineSection | None = None
    """How the proposer is asked; default: as the base."""
    teacher_engine: EngineSection | None = None
    """How `build_sft.teacher` is asked; default: as the base."""
    reference_engine: EngineSection | None = None
    """How `reference.model` is asked; default: as the base."""
    steps: StepsConfig = StepsConfig()
    environment: EnvironmentConfig = EnvironmentConfig()
    sample: SampleConfig = SampleConfig()
    grade: GradeConfig = GradeConfig()
    select: SelectConfig = SelectConfig()
    hints: HintsConfig = HintsConfig()
    reference: ReferenceConfig = ReferenceConfig()
    propose: ProposeConfig = ProposeConfig()
    verify: VerifyConfig = VerifyConfig()
    build_sft: BuildSftConfig = BuildSftConfig()
    train_sft: TrainSftConfig = TrainSftConfig()
    train_rl: TrainRlConfig = TrainRlConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    likelihood: LikelihoodConfig = LikelihoodConfig()
    localize: LocalizeConfig = LocalizeConfig()
    credit: CreditConfig = CreditConfig()
    warmup: WarmupConfig = WarmupConfig()
    train_proposer: TrainProposerConfig = TrainProposerConfig()
    prices: PricesConfig = PricesConfig()
    """What tokens cost by who is asked, for `status` and the report."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        refuse(_contradictions(self))
        return self


def _contradictions(recipe: Recipe) -> Iterator[Complaint]:
    """Yield what sections say against each other."""
    if recipe.hints.length == "intervention":
        if recipe.select.condition == "hint":
            yield Complaint(
                "select.condition 'hint' has no intervention yet: set hints.length = 'third'",
                ("select.condition", "hints.length"),
            )
        if Condition.HINT in recipe.train_rl.conditions:
            yield Complaint(
                "train_rl.contexts: a hint has no intervention: set hints.length = 'third'",
                ("train_rl.contexts", "hints.length"),
            )
    if recipe.train_rl.order != "shuffled":
        if recipe.sample.rounds:
            yield Complaint(
                "train_rl.order needs pass rates, and a search has none: leave out sample.rounds",
                ("train_rl.order", "sample.rounds"),
            )
        if recipe.train_rl.problems != "all":
            yield Complaint(
                "train_rl.order: hard problems have one pass rate: set train_rl.problems = 'all'",
                ("train_rl.order", "train_rl.problems"),
            )
    yield from _row_contradictions(recipe)
    yield from _engine_contradictions(recipe)
    yield from _set_contradictions(recipe)
    yield from _truth_contradictions(recipe)
    yield from _dialogue_contradictions(recipe)


def _row_contradictions(recipe: Recipe) -> Iterator[Complaint]:
    """Yield what rows to train on cannot be made, or not be trained on."""
    rows = recipe.build_sft
    is_plain = rows.source == "intervention" and rows.prefix == "trained" and not rows.suffix
    if recipe.train_sft.method == "dpo" and not is_plain:
        yield Complaint(
            "train_sft.method 'dpo' compares an intervention with the original step: leave "
            "build_sft.source, prefix and suffix at their defaults",
            ("train_sft.method", "build_sft.source", "build_sft.prefix", "build_sft.suffix"),
        )
    if recipe.train_sft.method == "sdft" and rows.source != "intervention":
        yield Complaint(
            "train_sft.method 'sdft' trains on its own rollouts, not on rows: leave out "
            "build_sft.source",
            ("train_sft.method", "build_sft.source"),
        )
    if rows.source == "distillation" and not rows.teacher and recipe.teacher_engine is None:
        yield Complaint(
            "build_sft.source 'distillation' needs build_sft.teacher or teacher_engine",
            ("build_sft.source", "build_sft.teacher", "teacher_engine"),
        )


def _truth_contradictions(recipe: Recipe) -> Iterator[Complaint]:
    """Yield where the first error is known only by asking a model."""
    wanted = LAB_STEPS.get(recipe.problems.world, StepsConfig().rule)
    if recipe.problems.kind == "lab" and recipe.steps.rule != wanted:
        text = f"the lab's world {recipe.problems.world!r} tells its steps by steps.rule {wanted!r}"
        yield Complaint(text, ("steps.rule", "problems.kind"))
    if recipe.propose.truth and recipe.train_rl.online.share:
        text = "train_rl.online asks the policy: it cannot take propose.truth"
        yield Complaint(text, ("train_rl.online.share", "propose.truth"))
    reads_reference = recipe.propose.truth and recipe.problems.kind != "lab"
    if reads_reference and recipe.propose.reference != "given":
        text = "propose.truth reads the problem's own reference: leave out propose.reference"
        yield Complaint(text, ("propose.truth", "propose.reference"))


def _dialogue_contradictions(recipe: Recipe) -> Iterator[Complaint]:
    """Yield what dialogues cannot be."""
    name, world = recipe.environment.name, recipe.problems.world
    needed = LAB_ENVIRONMENTS.get(world, "")
    if recipe.problems.kind == "lab" and name != needed:
        told = f"set environment.name = {needed!r}" if needed else "leave out environment.name"
        text = f"problems.world {world!r} is {'a dialogue' if needed else 'no dialogue'}: {told}"
        yield Complaint(text, ("environment.name", "problems.world"))
    if not name:
        return
    if recipe.build_sft.source in ("distillation", "self_reflection"):
        text = "build_sft.source: a whole solution is one text, and with an environment there is "
        yield Complaint(f"{text}none: leave it out", ("build_sft.source", "environment.name"))
    if recipe.train_rl.sampler in ("generate", "vllm"):
        text = f"train_rl.sampler {recipe.train_rl.sampler!r} knows no environment: use 'engine'"
        yield Complaint(f"{text} or 'servers'", ("train_rl.sampler", "environment.name"))
    if recipe.train_rl.distill_weight or recipe.train_sft.method == "sdft":
        text = "self-distillation knows no environment: leave out train_rl.distill_weight and "
        yield Complaint(
            f"{text}train_sft.method 'sdft'",
            ("train_rl.distill_weight", "train_sft.method", "environment.name"),
        )


def _set_contradictions(recipe: Recipe) -> Iterator[Complaint]:
    """Yield what is said of sets to evaluate on that are not there."""
    is_lab, config = recipe.problems.kind == "lab", recipe.evaluate
    there = [HELD_OUT_SET] if recipe.problems.has_held_out else []
    own = (*PROBE_SETS, *([UNSEEN_SET] if recipe.problems.world == "rules" else []))
    there += own if is_lab else ()
    origin = ("problems.kind", "problems.held_out_path")
    for name, of in config.sets.items():
        place = f"evaluate.sets.{name}"
        if of.path and name in (TRAIN_SET, HELD_OUT_SET, *own):
            source = "problems.held_out_path" if name == HELD_OUT_SET else "the run itself"
            text = f"{place}: takes no path: its problems come from {source}"
            yield Complaint(text, (f"{place}.path",))
        if not of.path and name not in (TRAIN_SET, *there):
            text = f"{place}: give it a path; only {_listed(TRAIN_SET, *there)} need none"
            yield Complaint(text, (place, *origin))
        if not of.path and (of.columns or of.limit):
            text = f"{place}: columns and limit are about a path: use subset"
            yield Complaint(text, (f"{place}.limit", f"{place}.columns", f"{place}.path"))
    there += (name for name, of in config.sets.items() if of.path)
    for name in config.on:
        if name not in there:
            text = f"evaluate.on: there is no set {name!r}: known are {_listed(*there)}"
            yield Complaint(text, ("evaluate.on", "evaluate.sets", *origin))


def _listed(*names: str) -> str:
    return ", ".join(names) or "none"


def _engine_contradictions(recipe: Recipe) -> Iterator[Complaint]:
    """Yield what a server that somebody else runs cannot do for this recipe."""
    engine = recipe.engine
    if isinstance(engine, OpenAIConfig) and engine.chat:
        yield Complaint(
            "engine.chat: a chat-only server may propose, never sample the policy; "
            "put it under [proposer_engine]",
            ("engine.chat",),
        )
    if not engine.loads_models and any(role != Role() for role in recipe.evaluate.roles):
        yield Complaint(
            f"engine.kind {engine.kind!r} serves the base alone: set evaluate.models = ['base'], "
            "or use engine.kind = 'vllm' or 'transformers', which load what was trained",
            ("engine.kind", "evaluate.models"),
        )


#: Ten times the rate that the paper, and our default, has for all weights.
LOWEST_ADAPTER_RATE = 1e-5


def slow_adapters(recipe: Recipe) -> Iterator[str]:
    """Yield a line about each training whose adapters would stay about where they begin."""
    trainings: dict[str, TrainSftConfig | TrainRlConfig] = {
        "train_sft": recipe.train_sft,
        "train_rl": recipe.train_rl,
        "train_proposer.train": recipe.train_proposer.train,
    }
    for section, config in trainings.items():
        if config.lora_rank and config.learning_rate < LOWEST_ADAPTER_RATE:
            yield (
                f"{section}.learning_rate = {config.learning_rate:g} hardly moves the adapters of "
                f"{section}.lora_rank = {config.lora_rank}: they begin at zero and take about ten "
                f"times the rate of all weights, {LOWEST_ADAPTER_RATE:g} or more"
            )
