"""A recipe, whole, and what its sections may not say against each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from midcourse.config.base import Section, tunable
from midcourse.config.engines import EngineSection, ModelConfig, OpenAIConfig, TransformersConfig
from midcourse.config.prices import PricesConfig
from midcourse.config.stages import (
    HELD_OUT_SET,
    PROBE_SETS,
    TRAIN_SET,
    BuildSftConfig,
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
    VerifyConfig,
)
from midcourse.config.training import TrainRlConfig, TrainSftConfig, WarmupConfig
from midcourse.records import Condition, Role


class Recipe(Section):
    """One run, whole."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200, json_schema_extra={"tunable": True}
    )
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
    warmup: WarmupConfig = WarmupConfig()
    prices: PricesConfig = PricesConfig()
    """What tokens cost by who is asked, for `status` and the report."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        complaint = next(_contradictions(self), "")
        if complaint:
            raise ValueError(complaint)
        return self


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield what sections say against each other."""
    rows = recipe.build_sft
    if recipe.hints.length == "intervention":
        if recipe.select.condition == "hint":
            yield "select.condition 'hint' has no intervention yet: set hints.length = 'third'"
        if Condition.HINT in recipe.train_rl.conditions:
            yield "train_rl.contexts: a hint has no intervention: set hints.length = 'third'"
    if recipe.train_rl.order != "shuffled":
        if recipe.sample.rounds:
            yield "train_rl.order needs pass rates, and a search has none: leave out sample.rounds"
        if recipe.train_rl.problems != "all":
            yield "train_rl.order: hard problems have one pass rate: set train_rl.problems = 'all'"
    is_plain = rows.source == "intervention" and rows.prefix == "trained" and not rows.suffix
    if recipe.train_sft.method == "dpo" and not is_plain:
        yield (
            "train_sft.method 'dpo' compares an intervention with the original step: leave "
            "build_sft.source, prefix and suffix at their defaults"
        )
    if rows.source == "distillation" and not rows.teacher and recipe.teacher_engine is None:
        yield "build_sft.source 'distillation' needs build_sft.teacher or teacher_engine"
    yield from _engine_contradictions(recipe)
    yield from _set_contradictions(recipe)
    yield from _truth_contradictions(recipe)


def _truth_contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield where nobody knows the first error without asking a model."""
    if recipe.propose.truth and recipe.train_rl.online.share:
        yield "train_rl.online asks the policy: it cannot take propose.truth"
    if recipe.propose.truth and recipe.problems.kind != "lab":
        yield "propose.truth: only the lab (problems.kind = 'lab') knows the first error"


def _set_contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield what is said of sets to evaluate on that are not there."""
    is_lab, config = recipe.problems.kind == "lab", recipe.evaluate
    there = [HELD_OUT_SET] if recipe.problems.has_held_out else []
    there += PROBE_SETS if is_lab else ()
    for name, of in config.sets.items():
        if of.path and name in (TRAIN_SET, HELD_OUT_SET, *PROBE_SETS):
            source = "problems.held_out_path" if name == HELD_OUT_SET else "the run itself"
            yield f"evaluate.sets.{name}: takes no path: its problems come from {source}"
        if not of.path and name not in (TRAIN_SET, *there):
            known = _listed(TRAIN_SET, *there)
            yield f"evaluate.sets.{name}: give it a path; only {known} need none"
        if not of.path and (of.columns or of.limit):
            yield f"evaluate.sets.{name}: columns and limit are about a path: use subset"
    there += (name for name, of in config.sets.items() if of.path)
    for name in config.on:
        if name not in there:
            yield f"evaluate.on: there is no set {name!r}: known are {_listed(*there)}"


def _listed(*names: str) -> str:
    return ", ".join(names) or "none"


def _engine_contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield what a server that somebody else runs cannot do for this recipe."""
    engine = recipe.engine
    if isinstance(engine, OpenAIConfig) and engine.chat:
        yield (
            "engine.chat: a chat-only server may propose, never sample the policy; "
            "put it under [proposer_engine]"
        )
    if not engine.loads_models and any(role != Role() for role in recipe.evaluate.roles):
        yield (
            f"engine.kind {engine.kind!r} serves the base alone: set evaluate.models = ['base'], "
            "or use engine.kind = 'vllm' or 'transformers', which load what was trained"
        )


#: Ten times the rate that the paper, and our default, has for all weights.
LOWEST_ADAPTER_RATE = 1e-5


def slow_adapters(recipe: Recipe) -> Iterator[str]:
    """Yield a line about each training whose adapters would stay about where they begin."""
    for section, config in (("train_sft", recipe.train_sft), ("train_rl", recipe.train_rl)):
        if config.lora_rank and config.learning_rate < LOWEST_ADAPTER_RATE:
            yield (
                f"{section}.learning_rate = {config.learning_rate:g} hardly moves the adapters of "
                f"{section}.lora_rank = {config.lora_rank}: they begin at zero and take about ten "
                f"times the rate of all weights, {LOWEST_ADAPTER_RATE:g} or more"
            )
