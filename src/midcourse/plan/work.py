"""What each step of a method asks for: requests, tokens, bytes. Every number is an expectation.

A step's settings say what it does, `Expected` how often. A context that several requests share (32
continuations of one prefix) is counted once as prefill: engines keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import singledispatch

from midcourse.config import EngineConfig, TrainRlConfig, TrainSftConfig
from midcourse.pipeline.contexts import Continuations, HintedQuestions, Population, Reflections
from midcourse.pipeline.evaluation import LikelihoodSettings
from midcourse.pipeline.models import RlSettings, TuneSettings
from midcourse.pipeline.stages import (
    CasesSettings,
    GradeSettings,
    ProposeSettings,
    ReferenceSettings,
    SampleSettings,
    SelectSettings,
    ShiftSettings,
    SolutionRowSettings,
    StepRowSettings,
)
from midcourse.pipeline.values import Model
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.compose import in_order
from midcourse.plan.expected import Expected
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


@singledispatch
def work_of(settings: object, expected: Expected) -> Work:
    """Return what a step with these settings asks for."""
    raise TypeError(f"no plan for {type(settings).__name__}")


@work_of.register
def _sample(settings: SampleSettings, expected: Expected) -> Work:
    given, contexts = expected.given, expected.contexts(settings.contexts)
    requests = contexts * expected.rollouts(settings)
    context, tokens = _opening(settings, given)
    return Work(
        kind=kind_of(settings), requests=requests, prefill_tokens=contexts * context,
        tokens=requests * tokens, context=context + tokens / 2,
        longest=given.prompt_tokens + settings.sampling.max_tokens,
        model=settings.model, engine=settings.model.engine,
        disk_bytes=requests * tokens * given.disk_bytes_per_token,
    )  # fmt: skip


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


@work_of.register
def _grade(settings: GradeSettings, expected: Expected) -> Work:
    return _records(Kind.GRADE, work_of(settings.rollouts.settings, expected).requests)


def _records(kind: Kind, number: float) -> Work:
    return Work(kind=kind, requests=number, disk_bytes=number * _RECORD_BYTES)


@work_of.register
def _select(settings: SelectSettings, expected: Expected) -> Work:
    among = settings.among
    number = expected.hard(among) if among else float(expected.counts.problems)
    return _records(Kind.RECORDS, number)


@work_of.register
def _reference(settings: ReferenceSettings, expected: Expected) -> Work:
    return _records(Kind.RECORDS, expected.hard(settings.hard))


@work_of.register
def _cases(settings: CasesSettings, expected: Expected) -> Work:
    number, given = expected.cases(settings), expected.given
    disk = number * given.rollout_tokens * given.disk_bytes_per_token
    return Work(kind=Kind.RECORDS, requests=number, disk_bytes=disk)


@work_of.register
def _shift(settings: ShiftSettings, expected: Expected) -> Work:
    return _records(Kind.RECORDS, expected.candidates(settings.candidates))


@work_of.register
def _step_rows(settings: StepRowSettings, expected: Expected) -> Work:
    number = expected.contexts(settings.continuations)
    return _rows(number, row_tokens(settings, expected.given), expected.given)


@work_of.register
def _solution_rows(settings: SolutionRowSettings, expected: Expected) -> Work:
    number = expected.ready(settings.step_rows)
    return _rows(number, row_tokens(settings, expected.given), expected.given)


def _rows(number: float, tokens: float, given: Assumptions) -> Work:
    disk = number * tokens * given.disk_bytes_per_token
    return Work(kind=Kind.RECORDS, requests=number, disk_bytes=disk)


def row_tokens(settings: StepRowSettings | SolutionRowSettings, given: Assumptions) -> float:
    """Return the mean length of a row: of a step, or of a whole solution."""
    if isinstance(settings, SolutionRowSettings):
        is_short = settings.solutions is None or settings.config.trace == "summary"
        solution = min(given.rollout_tokens, settings.config.sampling.max_tokens)
        return given.prompt_tokens + (given.reference_tokens if is_short else solution)
    design = settings.design
    prefix = 0.0 if design.prefix == "dropped" else given.prefix_tokens
    suffix = given.continuation_tokens if design.suffix else 0.0
    return given.prompt_tokens + prefix + given.intervention_tokens + suffix


@work_of.register
def _propose(settings: ProposeSettings, expected: Expected) -> Work:
    """Return the questions about the cases, each of one or two turns."""
    given, config = expected.given, settings.config
    cases = expected.cases(settings.cases.settings)
    if settings.world is not None:
        return _records(Kind.RECORDS, cases)
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
        kind=Kind.PROPOSE, requests=questions, prefill_tokens=questions * shown,
        tokens=questions * tokens, context=shown + tokens / 2,
        longest=longest + turns * config.sampling.max_tokens,
        model=settings.proposer, engine=settings.proposer.engine,
        disk_bytes=questions * (shown + tokens) * given.disk_bytes_per_token,
    )  # fmt: skip


def _questions(most: int, given: Assumptions) -> float:
    """Return the expected questions about a rollout that end with the first accepted answer.

    If k questions leave a share of 1 − c without one, each succeeds with 1 − (1 − c)^(1/k).
    """
    once = 1 - (1 - given.candidate_share) ** (1 / most)
    return given.candidate_share / once if once else float(most)


@work_of.register
def _tune(settings: TuneSettings, expected: Expected) -> Work:
    config, rows = settings.config, expected.ready(settings.rows) * settings.config.num_epochs
    if config.max_steps:
        rows = min(rows, config.max_steps * config.batch_size)
    length = row_tokens(settings.rows.settings, expected.given)
    sides = 1 if settings.rejected is None else 2
    made = settings.rows.settings
    config_of_rows = made.config if isinstance(made, SolutionRowSettings) else made.design
    return Work(
        kind=Kind.SFT, requests=rows, tokens=sides * rows * length, context=length / 2,
        longest=config_of_rows.max_tokens, model=settings.start, training=config,
        disk_bytes=expected.shape.parameters * _SAVED_BYTES,
    )  # fmt: skip


@work_of.register
def _rl(settings: RlSettings, expected: Expected) -> Work:
    given, shape, config = expected.given, expected.shape, settings.config
    rollouts = float(config.num_iterations * config.prompts_per_iteration * config.num_generations)
    prompt = given.prompt_tokens + (given.hint_tokens if settings.hints else 0.0)
    trained = shape.lora_parameters(config.lora_rank) if config.lora_rank else shape.parameters
    checkpoints = config.num_iterations // config.save_every
    return Work(
        kind=Kind.RL, requests=rollouts,
        prefill_tokens=rollouts / config.num_generations * prompt,
        tokens=rollouts * given.rl_tokens, context=prompt + given.rl_tokens / 2,
        longest=prompt + config.sampling.max_tokens, model=settings.start, training=config,
        disk_bytes=shape.parameters * _SAVED_BYTES,
        passing_bytes=checkpoints * 3 * trained * _SAVED_BYTES,
    )  # fmt: skip


@work_of.register
def _likelihood(settings: LikelihoodSettings, expected: Expected) -> Work:
    """Return the scoring of interventions, rows, references and own rollouts by one model."""
    given, most = expected.given, settings.max_items
    rows, references = min(most, expected.ready(settings.rows)), min(most, expected.counts.problems)
    own = unseen = 0.0
    if settings.own is not None:
        own = min(most, work_of(settings.own.rollouts.settings, expected).requests)
    if settings.unseen is not None:
        unseen = expected.contexts(settings.unseen)
    made, prompt = settings.rows.settings, given.prompt_tokens
    # Of a step, the row and the step given its prefix; else the row alone.
    has_steps = isinstance(made, StepRowSettings) and made.design.source == "intervention"
    steps = rows if has_steps else 0.0
    texts = rows + steps + references + own + unseen
    scored = (
        rows * (row_tokens(made, given) - prompt) + (steps + unseen) * given.intervention_tokens
        + references * given.reference_tokens + own * given.rollout_tokens
    )  # fmt: skip
    return Work(
        kind=Kind.LIKELIHOOD, requests=texts,
        prefill_tokens=texts * prompt + (steps + unseen) * given.prefix_tokens, tokens=scored,
        context=prompt + given.rollout_tokens / 2, model=settings.model,
        engine=settings.model.engine.scoring, disk_bytes=texts * _RECORD_BYTES,
    )  # fmt: skip
