"""What a model takes on a device: memory that must fit, and time. Memory errs on the high side.

Trainers load weights as float32, Adam keeps two float32 moments per trained weight, a GPU computes
in bfloat16. Decoding is bound by memory: each step reads the weights and the cache of every row
once. Prefill and training are bound by arithmetic. Both reach only a share of the data sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from midcourse import config as c
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.devices import Device, TrainingProcesses
from midcourse.plan.shapes import ModelShape
from midcourse.plan.work import Kind, Work
from midcourse.run import Step

#: What a serving process holds besides weights and cache: graphs, workspace.
_SERVER_BYTES = 2e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one device during one part of a run."""

    name: str
    weights: float
    gradients: float = 0.0
    optimiser: float = 0.0
    activations: float = 0.0
    """Logits included."""
    kv_cache: float = 0.0
    longest: float = 0.0
    """Of the cache: what one completion of full length needs; it must fit."""
    copies: int = 1
    """Arms of RL that share the device."""

    @property
    def parts(self) -> tuple[float, ...]:
        """What all copies hold: weights, gradients, moments, activations, cache."""
        one = (self.weights, self.gradients, self.optimiser, self.activations, self.kv_cache)
        return tuple(self.copies * part for part in one)

    @property
    def total(self) -> float:
        """Everything together."""
        return sum(self.parts)

    def verdict(self, device: Device) -> str:
        """Return ``yes``, ``tight`` (over 90 %) or ``no``."""
        if self.total > device.memory_bytes or self.longest > self.kv_cache:
            return "no"
        return "tight" if self.total > 0.9 * device.memory_bytes else "yes"


@dataclass(frozen=True, slots=True)
class Placed:
    """A model on a device."""

    source: c.ModelConfig
    shape: ModelShape
    device: Device
    given: Assumptions
    """Filled in."""

    @property
    def element_bytes(self) -> int:
        """The bytes of one number where the model is sampled from."""
        dtype = self.source.dtype
        return 2 if dtype == "bfloat16" or (dtype == "auto" and self.device.is_gpu) else 4

    # What fits.

    def sampling(self, engine: c.EngineConfig, longest: float = 0.0) -> Memory:
        """Return what an engine takes: weights, then as much cache as it may have."""
        one, shape, device = c.single_engine(engine), self.shape, self.device
        size = self.element_bytes
        weights = float(shape.parameters * size)
        # Logits of one step in float32, and their sorted copy with its indices.
        logits = 16.0 * one.rows_at_once * shape.vocabulary
        if one.kv_cache_gib is not None or not device.is_gpu:
            cache = (one.kv_cache_gib or 4.0) * 2**30
        elif one.in_process:
            cache = max(0.0, device.memory_bytes - weights) / 2
        else:
            cache = max(0.0, one.gpu_share * device.memory_bytes - weights - _SERVER_BYTES)
        return Memory(
            name=f"sampling ({one.kind})",
            weights=weights,
            activations=logits if one.in_process else _SERVER_BYTES,
            kv_cache=cache,
            longest=min(longest, one.max_context_tokens or longest) * shape.kv_bytes(size),
        )

    def training(self, config: c.TrainSftConfig | c.TrainRlConfig, row: float) -> Memory:
        """Return what training on rows of `row` tokens takes on each device."""
        shape, processes = self.shape, TrainingProcesses.of(config.accelerate)
        spread = processes.number if processes.sharded else 1
        trained = shape.trained(config.lora_rank)
        weights = 4.0 * (trained + (shape.parameters if config.lora_rank else 0)) / spread
        if self.device.is_gpu:  # copies in bfloat16: the whole model, or the layer FSDP gathers
            layer = shape.layer_parameters / shape.layers + shape.vocabulary * shape.hidden
            weights += 2.0 * (layer if processes.sharded else shape.parameters)
        # Kept of each token: every layer's numbers, or one layer's and each layer's input.
        numbers = 8 * shape.hidden + 4 * shape.heads * shape.head_dim + 4 * shape.intermediate
        inputs, kept = shape.layers * shape.hidden, numbers * shape.layers
        numbers = numbers + inputs if config.gradient_checkpointing else kept
        token = numbers * self.device.computed_bytes + shape.vocabulary * self.given.logit_bytes
        return Memory(
            name="train sft",
            weights=weights,
            gradients=4.0 * trained / spread,
            optimiser=8.0 * trained / spread,
            activations=config.micro_batch_size * row * token,
        )

    def reinforcing(self, config: c.TrainRlConfig, row: float) -> Memory:
        """Return what one training holds in RL, the cache of the rollouts included."""
        base, element = self.training(config, row), self.device.computed_bytes
        # vLLM's share holds its own copy of the weights.
        cache = config.vllm_gpu_share * self.device.memory_bytes
        longest = self.shape.parameters * element + row * self.shape.kv_bytes(element)
        if (
            config.sampler != "vllm"
        ):  # the cache is gone when training begins: the larger one counts
            processes = TrainingProcesses.of(config.accelerate).number
            rows = config.prompts_per_iteration * config.num_generations // processes
            needed = rows * row * self.shape.kv_bytes(element)
            cache, longest = max(0.0, needed - base.activations), 0.0
        return replace(base, name=f"train rl ({config.sampler})", kv_cache=cache, longest=longest)

    # How long it takes.

    def seconds(self, work: Work) -> float:
        """Return the seconds of work on all its devices, by the data sheet."""
        if work.training is not None:
            return self._training_seconds(work, work.training)
        prefill = self._forward(work.prefill_tokens, work.context / 2)
        if work.engine is None or work.kind is Kind.LIKELIHOOD:
            return prefill + self._forward(work.tokens, work.context)
        # Rows at once are bounded by the settings, the cache and the work.
        row = work.context * self.shape.kv_bytes(self.element_bytes)
        cached = self.sampling(work.engine).kv_cache / row
        rows = max(1.0, min(float(work.engine.rows_at_once), cached, work.requests))
        return (prefill + work.tokens / rows * self._step(rows, work.context)) / work.devices

    def _forward(self, tokens: float, context: float) -> float:
        speed = self.device.operations * self.given.compute_efficiency
        return tokens * self.shape.forward_operations(context) / speed

    def _step(self, rows: float, context: float) -> float:
        """Return the seconds of decoding one token in each row."""
        size, shape, given = self.element_bytes, self.shape, self.given
        read = shape.parameters * size + rows * context * shape.kv_bytes(size)
        by_memory = read / (self.device.bandwidth * given.decode_efficiency)
        return max(by_memory, self._forward(rows, context)) + given.step_overhead_seconds

    def _training_seconds(self, work: Work, config: c.TrainSftConfig | c.TrainRlConfig) -> float:
        """Return the seconds of training, and of sampling in RL.

        Backward costs two forwards (one where only adapters are trained), checkpointing a further
        one. RL scores its rollouts once before it trains on them, DPO its rows under the base.
        Every iteration of RL waits for its longest rollout.
        """
        passes = (2 if config.lora_rank else 3) + config.gradient_checkpointing
        passes += isinstance(config, c.TrainRlConfig) or config.method == "dpo"
        tokens, given = work.tokens + work.prefill_tokens, self.given
        seconds = passes * self._forward(tokens, work.context) / work.devices
        if isinstance(config, c.TrainRlConfig):
            longest = config.sampling.max_tokens
            rollouts = config.prompts_per_iteration * config.num_generations / work.devices
            rows = max(1.0, rollouts * given.rl_tokens / longest)
            step = self._step(rows, given.prompt_tokens + given.rl_tokens / 2)
            seconds += config.num_iterations * longest * step
        return seconds


@dataclass(frozen=True, slots=True)
class Timed:
    """A step with its work and its time."""

    step: Step
    work: Work
    seconds: float
    """By the clock, engines and processes started."""
    rate: float
    """Tokens (answers, for grading) per second, all devices together."""


def timed(step: Step, work: Work, placed: Placed, num_graders: int) -> Timed:
    """Return work with its time, by a rate that is known, else by the data sheet."""
    given, done, rate = placed.given, work.tokens, 0.0
    known: float | None = getattr(given, f"{work.kind}_tokens_per_second", None)
    if work.kind is Kind.GRADE:
        done, rate = work.requests, given.grades_per_second * num_graders
    elif known:
        rate = known * work.devices
    elif work.model:
        rate = work.tokens / max(placed.seconds(work), 1e-9)
    start = given.load_seconds if work.training is None else given.train_start_seconds
    return Timed(step, work, (done / rate if done else 0.0) + work.opens * start, rate)


def memory_of(recipe: c.Recipe, works: Sequence[Work], policy: Placed) -> list[Memory]:
    """Return the parts of a run that load the policy."""
    sampled = [w.longest for w in works if w.engine and w.model and w.model.source == recipe.model]
    parts = [policy.sampling(recipe.engine, max(sampled))]
    tuned, reinforced = ([w for w in works if w.kind is kind] for kind in (Kind.SFT, Kind.RL))
    if tuned:
        parts.append(policy.training(recipe.train_sft, tuned[0].longest))
    if reinforced:
        copies = 1 if recipe.train_rl.takes_all_devices else len(reinforced)
        one = policy.reinforcing(recipe.train_rl, reinforced[0].longest)
        parts.append(replace(one, copies=copies))
    return parts
