"""How long the work takes: by rates that are given or measured, else by the device's data sheet.

Decoding is bound by memory: each step reads the weights and the cache of every row once. Prefill
and training are bound by arithmetic. Both reach only a share of the data sheet's figure, which is
an assumption. A rate counts sampled tokens (trained, scored) per second and device; what prefill
costs is part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from midcourse.config import EngineConfig, Recipe, TrainRlConfig, TrainSftConfig
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.devices import Device, TrainingProcesses, sampling_devices
from midcourse.plan.memory import element_bytes, memory_of
from midcourse.plan.shapes import ModelShape
from midcourse.plan.work import Work, rl_arms


@dataclass(frozen=True, slots=True)
class Timed:
    """Work with its time."""

    work: Work
    seconds: float
    """By the clock, engines and processes started."""
    devices: int
    """Devices that are held meanwhile."""
    rate: float
    """Tokens (answers, for grading) per second, all devices together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What decides how fast a recipe runs."""

    recipe: Recipe
    given: Assumptions
    """Filled in."""
    shape: ModelShape
    proposer: ModelShape
    device: Device


def timed(work: Work, pace: Pace) -> Timed:
    """Return the work with its time."""
    given, devices = pace.given, _devices(work, pace.recipe)
    if work.kind == "grade":
        rate = given.grades_per_second * pace.recipe.grade.num_workers
        return Timed(work, work.requests / rate, 0, rate)
    known = getattr(given, f"{work.kind}_tokens_per_second")
    rate = devices * known if known else work.tokens / max(_by_formula(work, pace), 1e-9)
    start = given.train_start_seconds if work.kind in ("sft", "rl") else given.load_seconds
    seconds = work.tokens / rate if work.tokens else 0.0
    return Timed(work, seconds + work.opens * start, devices, rate)


def _devices(work: Work, recipe: Recipe) -> int:
    if work.kind == "sft":
        return TrainingProcesses.of(recipe.train_sft.accelerate).number
    if work.kind == "rl":
        return TrainingProcesses.of(recipe.train_rl.accelerate).number
    if work.kind == "propose":
        return sampling_devices(recipe.proposer_engine or recipe.engine)
    if work.kind == "likelihood":  # transformers, in our own process
        return 1
    return sampling_devices(recipe.engine)


def _by_formula(work: Work, pace: Pace) -> float:
    """Return the seconds of a stage by the data sheet."""
    devices = _devices(work, pace.recipe)
    if work.kind == "sft":
        return _training(work, pace, pace.recipe.train_sft) / devices
    if work.kind == "rl":
        return _training(work, pace, pace.recipe.train_rl) / devices + _rl_sampling(work, pace)
    shape = pace.proposer if work.kind == "propose" else pace.shape
    prefill = _arithmetic(work.prefill_tokens, work.context / 2, shape, pace)
    if work.kind == "likelihood":
        return prefill + _arithmetic(work.tokens, work.context, shape, pace)
    engine = pace.recipe.engine
    if work.kind == "propose":
        engine = pace.recipe.proposer_engine or engine
    rows = _rows(engine, work, shape, pace)
    steps = work.tokens / devices / rows
    return prefill / devices + steps * _step_seconds(rows, work.context, shape, pace)


def _arithmetic(tokens: float, context: float, shape: ModelShape, pace: Pace) -> float:
    """Return the device-seconds of running `tokens` forward."""
    speed = pace.device.operations * pace.given.compute_efficiency
    return tokens * shape.forward_operations(context) / speed


def _rows(engine: EngineConfig, work: Work, shape: ModelShape, pace: Pace) -> float:
    """Return how many rows an engine decodes at once: by its settings, the cache, the work."""
    cache = memory_of(pace.recipe, pace.given, pace.shape, pace.device)[0].kv_cache
    row = work.context * shape.kv_bytes(element_bytes(pace.recipe.model, pace.device))
    return max(1.0, min(float(engine.rows_at_once), cache / row, work.requests))


def _step_seconds(rows: float, context: float, shape: ModelShape, pace: Pace) -> float:
    """Return the time of decoding one token in each row."""
    size, given = element_bytes(pace.recipe.model, pace.device), pace.given
    read = shape.parameters * size + rows * context * shape.kv_bytes(size)
    by_memory = read / (pace.device.bandwidth * given.decode_efficiency)
    return max(by_memory, _arithmetic(rows, context, shape, pace)) + given.step_overhead_seconds


def _training(work: Work, pace: Pace, config: TrainSftConfig | TrainRlConfig) -> float:
    """Return the device-seconds of training.

    Backward costs two forwards (one where only adapters are trained), checkpointing a further
    one. RL scores its rollouts once before it trains on them.
    """
    passes = (2 if config.lora_rank else 3) + config.gradient_checkpointing + (work.kind == "rl")
    tokens = work.tokens + work.prefill_tokens
    return passes * _arithmetic(tokens, work.context, pace.shape, pace)


def _rl_sampling(work: Work, pace: Pace) -> float:
    """Return the seconds of sampling in RL: every iteration waits for its longest rollout."""
    config, longest = pace.recipe.train_rl, pace.recipe.train_rl.sampling.max_tokens
    rollouts = config.prompts_per_iteration * config.num_generations
    rows = rollouts / _devices(work, pace.recipe) * pace.given.rl_tokens / longest
    step = _step_seconds(max(1.0, rows), work.context, pace.shape, pace)
    return rl_arms(pace.recipe) * config.num_iterations * longest * step
