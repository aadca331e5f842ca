"""What a step's work takes in time on a device; `midcourse.plan.memory` says what in memory.

Decoding is bound by memory: each step reads the weights and the cache of every row once. Prefill
and training are bound by arithmetic. Both reach only a share of the data sheet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from midcourse import config as c
from midcourse.plan.devices import Dtype
from midcourse.plan.memory import Placed, sampling
from midcourse.plan.training import TrainConfig, rollouts_each
from midcourse.plan.work import Kind, Work
from midcourse.run import Step

#: What the engine adds to its time-out for each token of a reply that is not streamed.
_SECONDS_PER_TOKEN = 0.1


def seconds(placed: Placed, work: Work) -> float:
    """Return the seconds of work on all its devices, by the data sheet."""
    if work.training is not None:
        return _training_seconds(placed, work, work.training)
    prefill = _forward(placed, work.prefill_tokens, work.context / 2, placed.dtype)
    if work.engine is None or work.kind is Kind.LIKELIHOOD:
        return prefill + _forward(placed, work.tokens, work.context, placed.dtype)
    rows = _rows(placed, work, work.engine)
    return (prefill + work.tokens / rows * _step(placed, rows, work.context)) / work.devices


def _rows(placed: Placed, work: Work, engine: c.EngineConfig) -> float:
    """Return the rows decoded at once: bounded by the settings, the cache and the work."""
    row = work.context * placed.shape.kv_bytes(placed.element_bytes)
    cached = sampling(placed, engine, work.longest).one.cache / row
    return max(1.0, min(float(engine.rows_at_once), cached, work.requests))


def _forward(placed: Placed, tokens: float, context: float, dtype: Dtype) -> float:
    speed = placed.device.operations(dtype) * placed.given.compute_efficiency
    return tokens * placed.shape.forward_operations(context) / speed


def _step(placed: Placed, rows: float, context: float) -> float:
    """Return the seconds of decoding one token in each row."""
    size, shape, given = placed.element_bytes, placed.shape, placed.given
    read = shape.parameters * size + rows * context * shape.kv_bytes(size)
    by_memory = read / (placed.device.bandwidth * given.decode_efficiency)
    by_arithmetic = _forward(placed, rows, context, placed.dtype)
    return max(by_memory, by_arithmetic) + given.step_overhead_seconds


def _training_seconds(placed: Placed, work: Work, config: TrainConfig) -> float:
    """Return the seconds of training, and of sampling in RL.

    Backward costs two forwards (one where only adapters are trained), checkpointing a further
    one. RL scores its rollouts once before it trains on them, DPO its rows under the base.
    Every iteration of RL waits for its longest rollout.
    """
    passes = (2 if config.lora_rank else 3) + config.gradient_checkpointing
    passes += isinstance(config, c.TrainRlConfig) or config.method == "dpo"
    tokens, given = work.tokens + work.prefill_tokens, placed.given
    if isinstance(config, c.TrainRlConfig):
        tokens /= given.rl_sampled_share  # what is replaced is not trained on
    is_half = c.is_bfloat16(config.dtype, on_gpu=placed.device.is_gpu)
    dtype: Dtype = "bfloat16" if is_half else "float32"
    needed = passes * _forward(placed, tokens, work.context, dtype) / work.devices
    if isinstance(config, c.TrainRlConfig):
        longest = config.sampling.max_tokens
        rollouts = rollouts_each(config) * given.rl_sampled_share
        rows = max(1.0, rollouts * given.rl_tokens / longest)
        step = _step(placed, rows, given.prompt_tokens + given.rl_tokens / 2)
        needed += config.num_iterations * longest * step
    return needed


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a reply of a server takes on average, e.g. 620 s with 256 in flight."""

    reply: float
    """Seconds from asking to the last token, by Little's law: in flight × tokens / tokens a
    second."""
    queued: float
    """Of them, seconds before the first token: requests that the cache has no room for wait."""
    limit: float
    """Seconds that the engine gives it: no end of them where replies are streamed, because there a
    time-out is of the server's silence, and it works on other requests meanwhile."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A step with its work and its time."""

    step: Step
    work: Work
    seconds: float
    """By the clock, engines and processes started."""
    rate: float
    """Tokens (answers, for grading) per second, all devices together."""
    latency: Latency | None = None
    """Of a server's replies."""


def timed(step: Step, work: Work, placed: Placed, num_graders: int) -> Timed:
    """Return work with its time, by a rate that is known, else by the data sheet."""
    given, done, rate = placed.given, work.tokens, 0.0
    known: float | None = getattr(given, f"{work.kind}_tokens_per_second", None)
    if work.kind is Kind.GRADE:
        done, rate = work.requests, given.grades_per_second * num_graders
    elif known:
        rate = known * work.devices
    elif work.model:
        rate = work.tokens / max(seconds(placed, work), 1e-9)
    start = given.load_seconds if work.training is None else given.train_start_seconds
    taken = (done / rate if done else 0.0) + work.opens * start
    return Timed(step, work, taken, rate, _latency(placed, work, rate))


def _latency(placed: Placed, work: Work, rate: float) -> Latency | None:
    engine = c.single_engine(work.engine) if work.engine else None
    if not isinstance(engine, c.VllmConfig | c.OpenAIConfig) or not (rate and work.requests):
        return None
    in_flight = min(float(engine.rows_at_once), work.requests * work.replies)
    tokens = work.tokens / (work.requests * work.replies)
    reply = in_flight * tokens / (rate / work.devices)
    waiting = max(0.0, 1 - _rows(placed, work, engine) / in_flight)
    streams = isinstance(engine, c.VllmConfig) or engine.parameters.get("stream", "stream")
    limit = math.inf if streams else engine.timeout_seconds + _SECONDS_PER_TOKEN * tokens
    return Latency(reply, reply * waiting, limit)
