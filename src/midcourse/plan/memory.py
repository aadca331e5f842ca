"""What must fit on one device while sampling and while training. Estimates err on the high side.

Training follows what the trainers do: weights are loaded as float32, Adam keeps two float32
moments per trained weight, a GPU computes in bfloat16. Under FSDP all three are spread over the
processes. Activations are the least certain part; the logits of a long row often outweigh them.
"""

from __future__ import annotations

from dataclasses import dataclass

from midcourse.config import (
    EngineConfig,
    ModelConfig,
    Recipe,
    TrainRlConfig,
    TrainSftConfig,
    single_engine,
)
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.devices import Device, TrainingProcesses
from midcourse.plan.shapes import ModelShape
from midcourse.plan.work import rl_arms

#: What a serving process holds beside weights and cache: graphs, workspace.
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
    def total(self) -> float:
        """Everything together."""
        parts = self.weights + self.gradients + self.optimiser + self.activations + self.kv_cache
        return self.copies * parts

    def verdict(self, device: Device) -> str:
        """Return ``yes``, ``tight`` (over 90 %) or ``no``."""
        if self.total > device.memory_bytes or self.longest > self.kv_cache:
            return "no"
        return "tight" if self.total > 0.9 * device.memory_bytes else "yes"


def memory_of(
    recipe: Recipe, given: Assumptions, shape: ModelShape, device: Device
) -> list[Memory]:
    """Return the parts of a run that load a model; `shape` is the policy's."""
    parts = [sampling_memory(recipe.engine, recipe.model, _longest(recipe, given), shape, device)]
    roles = recipe.evaluate.models
    if any(role.startswith("patched") for role in roles):
        length = recipe.build_sft.max_tokens
        parts.append(training_memory("train sft", recipe.train_sft, length, given, shape, device))
    if rl_arms(recipe):
        parts.append(_rl_memory(recipe, given, shape, device))
    return parts


def _longest(recipe: Recipe, given: Assumptions) -> float:
    """Return the longest context with its completion that a stage may ask for."""
    asked = [c.sampling.max_tokens for c in (recipe.sample, recipe.verify, recipe.evaluate)]
    review = given.prompt_tokens + given.reference_tokens + recipe.sample.sampling.max_tokens
    turns = 2 if recipe.propose.turns == "two" else 1
    review += turns * recipe.propose.sampling.max_tokens
    longest = max(review, given.prompt_tokens + max(asked))
    return min(longest, single_engine(recipe.engine).max_context_tokens or longest)


def element_bytes(model: ModelConfig, device: Device) -> int:
    """Return the bytes of one weight where a model is sampled from."""
    is_half = model.dtype == "bfloat16" or (model.dtype == "auto" and device.is_gpu)
    return 2 if is_half else 4


def sampling_memory(
    engine: EngineConfig, model: ModelConfig, longest: float, shape: ModelShape, device: Device
) -> Memory:
    """Return what an engine takes: weights, then as much cache as it may have."""
    size = element_bytes(model, device)
    weights = float(shape.parameters * size)
    single = single_engine(engine)
    if single.kv_cache_gib is not None:
        cache = single.kv_cache_gib * 2**30
    elif not device.is_gpu:
        cache = 4.0 * 2**30
    elif single.in_process:
        cache = max(0.0, device.memory_bytes - weights) / 2
    else:
        cache = max(0.0, single.gpu_share * device.memory_bytes - weights - _SERVER_BYTES)
    # Logits of one step in float32, and their sorted copy with its indices.
    logits = 16.0 * single.rows_at_once * shape.vocabulary
    return Memory(
        name=f"sampling ({single.kind})",
        weights=weights,
        activations=logits if single.in_process else _SERVER_BYTES,
        kv_cache=cache,
        longest=longest * shape.kv_bytes(size),
    )


def training_memory(
    name: str, config: TrainSftConfig | TrainRlConfig, length: float, given: Assumptions,
    shape: ModelShape, device: Device,
) -> Memory:  # fmt: skip
    """Return what training on rows of `length` tokens takes on each device."""
    processes = TrainingProcesses.of(config.accelerate)
    spread = processes.number if processes.sharded else 1
    trained = shape.lora_parameters(config.lora_rank) if config.lora_rank else shape.parameters
    frozen = shape.parameters if config.lora_rank else 0
    weights = 4.0 * (trained + frozen) / spread
    if device.is_gpu:  # bfloat16 copies: of the whole model, or of the layer that FSDP gathers
        whole = shape.layer_parameters / shape.layers + shape.vocabulary * shape.hidden
        weights += 2.0 * (whole if processes.sharded else shape.parameters)
    tokens = config.micro_batch_size * length
    return Memory(
        name=name, weights=weights, gradients=4.0 * trained / spread,
        optimiser=8.0 * trained / spread,
        activations=tokens * (
            _activation_bytes(shape, config.gradient_checkpointing, 2 if device.is_gpu else 4)
            + shape.vocabulary * given.logit_bytes
        ),
    )  # fmt: skip


def _activation_bytes(shape: ModelShape, checkpointing: bool, element: int) -> float:
    """Return the bytes kept per token: every layer's, or one layer's and each layer's input."""
    layer = 8 * shape.hidden + 4 * shape.heads * shape.head_dim + 4 * shape.intermediate
    if checkpointing:
        return float(element * (layer + shape.layers * shape.hidden))
    return float(element * layer * shape.layers)


def _rl_memory(recipe: Recipe, given: Assumptions, shape: ModelShape, device: Device) -> Memory:
    """Return what one device holds in RL: training, and the cache of the rollouts."""
    config = recipe.train_rl
    length = given.prompt_tokens + config.sampling.max_tokens
    base = training_memory("train rl", config, length, given, shape, device)
    element = 2 if device.is_gpu else 4
    cache = config.vllm_gpu_share * device.memory_bytes
    # vLLM's share holds its own copy of the weights.
    longest = shape.parameters * element + length * shape.kv_bytes(element)
    if config.vllm == "off":  # the cache is gone when training begins: the larger one counts
        rows = config.prompts_per_iteration * config.num_generations
        rows //= TrainingProcesses.of(config.accelerate).number
        needed = rows * length * shape.kv_bytes(element)
        cache, longest = max(0.0, needed - base.activations), 0.0
    return Memory(
        name=f"train rl (vllm {config.vllm})", weights=base.weights, gradients=base.gradients,
        optimiser=base.optimiser, activations=base.activations, kv_cache=cache, longest=longest,
        copies=1 if config.takes_all_devices else rl_arms(recipe),
    )  # fmt: skip
