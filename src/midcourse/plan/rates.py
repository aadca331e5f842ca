"""How long the work takes: by rates that are given or measured, else by the device's data sheet.

Decoding is bound by memory: each step reads the weights and the cache of every row once. Prefill
and training are bound by arithmetic. Both reach only a share of the data sheet's figure, which is
an assumption. A rate counts sampled tokens (trained, scored) per second and device; what prefill
costs is part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from midcourse.config import ModelConfig, TrainRlConfig, TrainSftConfig
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.devices import Device, TrainingProcesses
from midcourse.plan.memory import element_bytes, sampling_memory
from midcourse.plan.shapes import ModelShape
from midcourse.plan.work import Kind, Work
from midcourse.run import Step


@dataclass(frozen=True, slots=True)
class Timed:
    """A step with its work and its time."""

    step: Step
    work: Work
    seconds: float
    """By the clock, engines and processes started."""
    devices: int
    """Devices that are held meanwhile."""
    rate: float
    """Tokens (answers, for grading) per second, all devices together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What decides how fast work is done."""

    given: Assumptions
    """Filled in."""
    shapes: Mapping[str, ModelShape]
    """By the path of the model."""
    device: Device
    num_graders: int

    def timed(self, step: Step, work: Work) -> Timed:
        """Return work with its time."""
        given, devices, rate = self.given, devices_of(work), self._rate(work)
        start = given.load_seconds if work.training is None else given.train_start_seconds
        done = work.requests if work.kind is Kind.GRADE else work.tokens
        seconds = done / rate if done else 0.0
        return Timed(step, work, seconds + work.opens * start, devices, rate)

    def _rate(self, work: Work) -> float:
        """Return the tokens (answers, for grading) per second."""
        if work.kind is Kind.GRADE:
            return self.given.grades_per_second * self.num_graders
        if work.model is None:
            return 0.0
        if known := self.given.rate(work.kind):
            return devices_of(work) * known
        source = work.model.source
        speed = _Speed(self.given, self.device, source, self.shapes[source.path])
        return work.tokens / max(speed.seconds(work), 1e-9)


@dataclass(frozen=True, slots=True)
class _Speed:
    """One model on one device, by the data sheet."""

    given: Assumptions
    device: Device
    source: ModelConfig
    shape: ModelShape

    def seconds(self, work: Work) -> float:
        """Return the seconds of work on all its devices."""
        devices, config, engine = devices_of(work), work.training, work.engine
        if config is not None:
            seconds = self._training(work, config) / devices
            return seconds + (self._rl(config) if isinstance(config, TrainRlConfig) else 0.0)
        seconds = self._arithmetic(work.prefill_tokens, work.context / 2)
        if engine is None or work.kind is Kind.LIKELIHOOD:
            return seconds + self._arithmetic(work.tokens, work.context)
        # Rows at once are bounded by the settings, the cache and the work.
        cache = sampling_memory(engine, self.source, 0.0, self.shape, self.device).kv_cache
        row = work.context * self.shape.kv_bytes(element_bytes(self.source, self.device))
        rows = max(1.0, min(float(engine.rows_at_once), cache / row, work.requests))
        return (seconds + work.tokens / rows * self._step(rows, work.context)) / devices

    def _arithmetic(self, tokens: float, context: float) -> float:
        """Return the seconds of running `tokens` forward."""
        speed = self.device.operations * self.given.compute_efficiency
        return tokens * self.shape.forward_operations(context) / speed

    def _step(self, rows: float, context: float) -> float:
        """Return the seconds of decoding one token in each row."""
        size = element_bytes(self.source, self.device)
        read = self.shape.parameters * size + rows * context * self.shape.kv_bytes(size)
        by_memory = read / (self.device.bandwidth * self.given.decode_efficiency)
        by_arithmetic = self._arithmetic(rows, context)
        return max(by_memory, by_arithmetic) + self.given.step_overhead_seconds

    def _training(self, work: Work, config: TrainSftConfig | TrainRlConfig) -> float:
        """Return the seconds of training on one device.

        Backward costs two forwards (one where only adapters are trained), checkpointing a further
        one. RL scores its rollouts once before it trains on them, DPO its rows under the base.
        """
        scores_first = isinstance(config, TrainRlConfig) or config.method == "dpo"
        passes = (2 if config.lora_rank else 3) + config.gradient_checkpointing + scores_first
        return passes * self._arithmetic(work.tokens + work.prefill_tokens, work.context)

    def _rl(self, config: TrainRlConfig) -> float:
        """Return the seconds of sampling in RL: every iteration waits for its longest rollout."""
        longest, given = config.sampling.max_tokens, self.given
        rollouts = config.prompts_per_iteration * config.num_generations
        rows = rollouts / TrainingProcesses.of(config.accelerate).number * given.rl_tokens / longest
        step = self._step(max(1.0, rows), given.prompt_tokens + given.rl_tokens / 2)
        return config.num_iterations * longest * step


def devices_of(work: Work) -> int:
    """Return how many devices are held meanwhile."""
    if work.training is not None:
        return TrainingProcesses.of(work.training.accelerate).number
    return 0 if work.engine is None else work.engine.num_devices
