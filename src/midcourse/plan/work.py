"""What each step of a method asks for: requests, tokens, bytes. Every number is an expectation.

A step's settings say what it does, `Expected` how often. A context that several requests share (32
continuations of one prefix) is counted once as prefill: engines keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from midcourse.config import EngineConfig, TrainRlConfig, TrainSftConfig
from midcourse.pipeline.contexts import Continuations, HintedQuestions, Population, Reflections
from midcourse.pipeline.evaluation import LikelihoodSettings
from midcourse.pipeline.models import RlSettings, TuneSettings
from midcourse.pipeline.stages import (
    GradeSettings,
    ProposeSettings,
    SampleSettings,
    StepRowSettings,
)
from midcourse.pipeline.values import Model
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.compose import in_order
from midcourse.plan.expected import Expected, longest_row
from midcourse.records import Condition
from midcourse.run import Step, Training

#: A verdict, a status or a row without its ids, compressed.
_RECORD_BYTES = 60
#: Weights are saved as they were trained, in float32.
_SAVED_BYTES = 4


class Kind(StrEnum):
    """What takes the time; names the rate in `Assumptions` where there is one."""

    SAMPLE = "sample"
    VERIFY = "verify"
    EVALUATE = "evaluate"
    HELP = "help"
    """A teacher or a writer of references samples."""
    PROPOSE = "propose"
    SFT = "sft"
    RL = "rl"
    LIKELIHOOD = "likelihood"
    GRADE = "grade"
    RECORDS = "records"
    """Records are read and others written: no time worth counting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step asks for, e.g. 4,500 contexts × 32 continuations of 3,500 tokens."""

    kind: Kind
    requests: float
    """The records of a stage; rows or rollouts trained on."""
    prefill_tokens: float = 0.0
    """Tokens of distinct contexts."""
    tokens: float = 0.0
    """Tokens sampled, trained on or scored."""
    context: float = 0.0
    """Mean number of tokens that one of them looks back on."""
    longest: float = 0.0
    """The longest context with its completion, or row, that may occur."""
    model: Model | None = None
    """Whose engine is open meanwhile; of a training, where it starts."""
    engine: EngineConfig | None = None
    training: TrainSftConfig | TrainRlConfig | None = None
    opens: int = 0
    """Engines opened, or training processes started, for it."""
    disk_bytes: float = 0.0
    passing_bytes: float = 0.0
    """Disk that is free again afterwards: checkpoints to resume from."""


def kind_of(settings: SampleSettings) -> Kind:
    """Return what a sampling counts as."""
    if settings.model.role is None:
        return Kind.HELP
    if isinstance(settings.contexts, Continuations):
        return Kind.VERIFY
    evaluated = settings.contexts.population in (Population.HELD_OUT, Population.PROBE)
    return Kind.EVALUATE if evaluated else Kind.SAMPLE


def schedule(asked: Sequence[tuple[Step, ...]], expected: Expected) -> list[tuple[Step, Work]]:
    """Return the work of every step that a run completes, in order, and what is opened for it.

    One engine is open at a time. Trainings that run together start together.
    """
    planned: list[tuple[Step, Work]] = []
    held: object = None
    for steps in in_order(asked):
        starts = 1
        for step in steps:
            work = work_of(step.settings, expected)
            if isinstance(step, Training):
                opens, held = int(starts or step.alone), None
                starts = 0
            else:
                needed = (work.model.name, work.kind is Kind.LIKELIHOOD) if work.model else held
                opens = int(needed != held and work.engine is not None and work.engine.loads_models)
                held = needed
            planned.append((step, replace(work, opens=opens)))
    return planned


def work_of(settings: object, expected: Expected) -> Work:
    """Return what a step with these settings asks for."""
    match settings:
        case SampleSettings():
            return _sample(settings, expected)
        case ProposeSettings(world=None):
            return _propose(settings, expected)
        case TuneSettings():
            return _tune(settings, expected)
        case RlSettings():
            return _rl(settings, expected)
        case LikelihoodSettings():
            return _likelihood(settings, expected)
    kind = Kind.GRADE if isinstance(settings, GradeSettings) else Kind.RECORDS
    number = expected.records(settings)
    return Work(kind=kind, requests=number, disk_bytes=number * _RECORD_BYTES)


def _sample(settings: SampleSettings, expected: Expected) -> Work:
    given, contexts = expected.given, expected.contexts(settings.contexts)
    requests = expected.rollouts(settings)
    context, tokens = _opening(settings, given)
    return Work(
        kind=kind_of(settings),
        requests=requests,
        prefill_tokens=contexts * context,
        tokens=requests * tokens,
        context=context + tokens / 2,
        longest=given.prompt_tokens + settings.sampling.max_tokens,
        model=settings.model,
        engine=settings.model.engine,
        disk_bytes=requests * tokens * given.disk_bytes_per_token,
    )


def _opening(settings: SampleSettings, given: Assumptions) -> tuple[float, float]:
    """Return the mean tokens of a context, and of what is sampled from it."""
    contexts, opening = settings.contexts, given.prompt_tokens
    tokens = min(given.rollout_tokens, settings.sampling.max_tokens)
    if isinstance(contexts, HintedQuestions):
        opening += given.hint_tokens
    elif isinstance(contexts, Reflections):
        opening += given.reference_tokens + given.rollout_tokens
    elif isinstance(contexts, Continuations):
        continues = contexts.condition.continues
        if continues is not Condition.PROBLEM:
            opening += given.prefix_tokens
            tokens = given.continuation_tokens
        if continues is Condition.PREFIX_INTERVENTION:
            opening += given.intervention_tokens
    return opening, tokens


def _propose(settings: ProposeSettings, expected: Expected) -> Work:
    """Return the questions about the cases, each of one or two turns."""
    given, config = expected.given, settings.config
    cases = expected.cases(settings.cases.settings)
    questions = cases * _questions(config.num_proposals, given)
    if not config.stop_at_first_accepted:
        questions = cases * config.num_proposals
    drawn = settings.cases.settings.drawn.rollouts.settings
    shown, tokens = given.prompt_tokens + given.rollout_tokens, given.review_tokens
    longest = given.prompt_tokens + drawn.sampling.max_tokens
    turns = 2 if settings.guided else 1
    if config.reference != "none":
        shown, longest = shown + given.reference_tokens, longest + given.reference_tokens
    if turns == 2:
        tokens += given.guided_tokens
    return Work(
        kind=Kind.PROPOSE,
        requests=questions,
        prefill_tokens=questions * shown,
        tokens=questions * tokens,
        context=shown + tokens / 2,
        longest=longest + turns * config.sampling.max_tokens,
        model=settings.proposer,
        engine=settings.proposer.engine,
        disk_bytes=questions * (shown + tokens) * given.disk_bytes_per_token,
    )


def _questions(most: int, given: Assumptions) -> float:
    """Return the expected questions about a rollout that end with the first accepted answer.

    If k questions leave a share of 1 − c without one, each succeeds with 1 − (1 − c)^(1/k).
    """
    once = 1 - (1 - given.candidate_share) ** (1 / most)
    return given.candidate_share / once if once else float(most)


def _tune(settings: TuneSettings, expected: Expected) -> Work:
    config, rows = settings.config, expected.ready(settings.rows) * settings.config.num_epochs
    if config.max_steps:
        rows = min(rows, config.max_steps * config.batch_size)
    length, sides = expected.row_tokens(settings.rows), 1 if settings.rejected is None else 2
    return Work(
        kind=Kind.SFT,
        requests=rows,
        tokens=sides * rows * length,
        context=length / 2,
        longest=longest_row(settings.rows),
        model=settings.start,
        training=config,
        disk_bytes=expected.shape.parameters * _SAVED_BYTES,
    )


def _rl(settings: RlSettings, expected: Expected) -> Work:
    given, shape, config = expected.given, expected.shape, settings.config
    rollouts = float(config.num_iterations * config.prompts_per_iteration * config.num_generations)
    prompt = given.prompt_tokens + (given.hint_tokens if settings.hints else 0.0)
    trained = shape.lora_parameters(config.lora_rank) if config.lora_rank else shape.parameters
    checkpoints = config.num_iterations // config.save_every
    return Work(
        kind=Kind.RL,
        requests=rollouts,
        prefill_tokens=rollouts / config.num_generations * prompt,
        tokens=rollouts * given.rl_tokens,
        context=prompt + given.rl_tokens / 2,
        longest=prompt + config.sampling.max_tokens,
        model=settings.start,
        training=config,
        disk_bytes=shape.parameters * _SAVED_BYTES,
        passing_bytes=checkpoints * 3 * trained * _SAVED_BYTES,
    )


def _likelihood(settings: LikelihoodSettings, expected: Expected) -> Work:
    """Return the scoring of interventions, rows, references and own rollouts by one model."""
    given, most = expected.given, settings.max_items
    rows, references = min(most, expected.ready(settings.rows)), min(most, expected.counts.problems)
    own = unseen = 0.0
    if settings.own is not None:
        own = min(most, expected.rollouts(settings.own.rollouts.settings))
    if settings.unseen is not None:
        unseen = expected.contexts(settings.unseen)
    made, prompt = settings.rows.settings, given.prompt_tokens
    # Of a step, the row and the step given its prefix; else the row alone.
    has_steps = isinstance(made, StepRowSettings) and made.design.source == "intervention"
    steps = rows if has_steps else 0.0
    texts = rows + steps + references + own + unseen
    in_rows = rows * (expected.row_tokens(settings.rows) - prompt)
    in_steps = (steps + unseen) * given.intervention_tokens
    others = references * given.reference_tokens + own * given.rollout_tokens
    return Work(
        kind=Kind.LIKELIHOOD,
        requests=texts,
        prefill_tokens=texts * prompt + (steps + unseen) * given.prefix_tokens,
        tokens=in_rows + in_steps + others,
        context=prompt + given.rollout_tokens / 2,
        model=settings.model,
        engine=settings.model.engine.scoring,
        disk_bytes=texts * _RECORD_BYTES,
    )
