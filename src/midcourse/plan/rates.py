"""How long the work takes: by rates that are given or measured, else by the device's data sheet.

Decoding is bound by memory: each step reads the weights and the cache of every row once. Prefill
and training are bound by arithmetic. Both reach only a share of the data sheet's figure, which is
an assumption. A rate counts sampled tokens (trained, scored) per second and device; what prefill
costs is part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from midcourse.config import EngineConfig, ModelConfig, TrainRlConfig, TrainSftConfig
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
        devices, rate = devices_of(work), self._rate(work)
        start = self.given.load_seconds if work.training is None else self.given.train_start_seconds
        done = work.requests if work.kind is Kind.GRADE else work.tokens
        seconds = done / rate if done else 0.0
        return Timed(step, work, seconds + work.opens * start, devices, rate)

    def _rate(self, work: Work) -> float:
        """Return the tokens (answers, for grading) per second."""
        if work.kind is Kind.GRADE:
            return self.given.grades_per_second * self.num_graders
        if known := self.given.rate(work.kind):
            return devices_of(work) * known
        return work.tokens / max(self._by_formula(work), 1e-9)

    def _by_formula(self, work: Work) -> float:
        """Return the seconds of work by the data sheet."""
        if work.model is None:
            return 0.0
        source, shape = work.model.source, self.shapes[work.model.source.path]
        if isinstance(work.training, TrainSftConfig):
            return self._training(work, work.training, shape)
        if isinstance(work.training, TrainRlConfig):
            sampling = self._rl_sampling(work, work.training, source, shape)
            return self._training(work, work.training, shape) + sampling
        prefill = self._arithmetic(work.prefill_tokens, work.context / 2, shape)
        if work.engine is None or work.kind is Kind.LIKELIHOOD:
            return prefill + self._arithmetic(work.tokens, work.context, shape)
        rows = self._rows(work, work.engine, source, shape)
        steps = work.tokens / rows
        seconds = prefill + steps * self._step_seconds(rows, work.context, source, shape)
        return seconds / devices_of(work)

    def _arithmetic(self, tokens: float, context: float, shape: ModelShape) -> float:
        """Return the device-seconds of running `tokens` forward."""
        speed = self.device.operations * self.given.compute_efficiency
        return tokens * shape.forward_operations(context) / speed

    def _rows(
        self, work: Work, engine: EngineConfig, source: ModelConfig, shape: ModelShape
    ) -> float:
        """Return how many rows an engine decodes at once: by its settings, the cache, the work."""
        cache = sampling_memory(engine, source, 0.0, shape, self.device).kv_cache
        row = work.context * shape.kv_bytes(element_bytes(source, self.device))
        return max(1.0, min(float(engine.rows_at_once), cache / row, work.requests))

    def _step_seconds(
        self, rows: float, context: float, source: ModelConfig, shape: ModelShape
    ) -> float:
        """Return the time of decoding one token in each row."""
        size = element_bytes(source, self.device)
        read = shape.parameters * size + rows * context * shape.kv_bytes(size)
        by_memory = read / (self.device.bandwidth * self.given.decode_efficiency)
        by_arithmetic = self._arithmetic(rows, context, shape)
        return max(by_memory, by_arithmetic) + self.given.step_overhead_seconds

    def _training(
        self, work: Work, config: TrainSftConfig | TrainRlConfig, shape: ModelShape
    ) -> float:
        """Return the seconds of training.

        Backward costs two forwards (one where only adapters are trained), checkpointing a further
        one. RL scores its rollouts once before it trains on them, DPO its rows under the base.
        """
        scores_first = isinstance(config, TrainRlConfig) or config.method == "dpo"
        passes = (2 if config.lora_rank else 3) + config.gradient_checkpointing + scores_first
        tokens = work.tokens + work.prefill_tokens
        return passes * self._arithmetic(tokens, work.context, shape) / devices_of(work)

    def _rl_sampling(
        self, work: Work, config: TrainRlConfig, source: ModelConfig, shape: ModelShape
    ) -> float:
        """Return the seconds of sampling in RL: every iteration waits for its longest rollout."""
        longest = config.sampling.max_tokens
        rollouts = config.prompts_per_iteration * config.num_generations
        rows = rollouts / devices_of(work) * self.given.rl_tokens / longest
        step = self._step_seconds(max(1.0, rows), work.context, source, shape)
        return config.num_iterations * longest * step


def devices_of(work: Work) -> int:
    """Return how many devices are held meanwhile."""
    if work.training is not None:
        return TrainingProcesses.of(work.training.accelerate).number
    return 0 if work.engine is None else work.engine.num_devices
