"""What must fit on one device while sampling and while training. Estimates err on the high side.

Training follows what the trainers do: weights are loaded as float32, Adam keeps two float32
moments per trained weight, a GPU computes in bfloat16. Under FSDP all three are spread over the
processes. Activations are the least certain part; the logits of a long row often outweigh them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from midcourse.config import (
    EngineConfig,
    ModelConfig,
    OpenAIConfig,
    Recipe,
    TrainRlConfig,
    TrainSftConfig,
    TransformersConfig,
    VllmConfig,
)
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.devices import Device, TrainingProcesses, on_one_device
from midcourse.plan.shapes import ModelShape
from midcourse.plan.work import Kind, Work

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
    recipe: Recipe, works: Sequence[Work], given: Assumptions, shape: ModelShape, device: Device
) -> list[Memory]:
    """Return the parts of a run that load the policy, whose shape is given."""
    longest = max(
        w.longest for w in works if w.engine and w.model and w.model.source == recipe.model
    )
    parts = [sampling_memory(recipe.engine, recipe.model, longest, shape, device)]
    by_kind = {kind: [w for w in works if w.kind is kind] for kind in (Kind.SFT, Kind.RL)}
    for work in by_kind[Kind.SFT][:1]:
        config = recipe.train_sft
        parts.append(training_memory("train sft", config, work.longest, given, shape, device))
    for work in by_kind[Kind.RL][:1]:
        number = 1 if recipe.train_rl.takes_all_devices else len(by_kind[Kind.RL])
        parts.append(_rl_memory(recipe.train_rl, work.longest, number, given, shape, device))
    return parts


def element_bytes(model: ModelConfig, device: Device) -> int:
    """Return the bytes of one weight where a model is sampled from."""
    is_half = model.dtype == "bfloat16" or (model.dtype == "auto" and device.is_gpu)
    return 2 if is_half else 4


def sampling_memory(
    engine: EngineConfig, model: ModelConfig, longest: float, shape: ModelShape, device: Device
) -> Memory:
    """Return what an engine takes: weights, then as much cache as it may have."""
    size, engine = element_bytes(model, device), on_one_device(engine)
    weights = float(shape.parameters * size)
    in_process = isinstance(engine, TransformersConfig)
    # Logits of one step in float32, and their sorted copy with its indices.
    logits = 16.0 * engine.rows_at_once * shape.vocabulary
    if isinstance(engine, TransformersConfig | VllmConfig | OpenAIConfig):
        longest = min(longest, engine.max_context_tokens or longest)
    return Memory(
        name=f"sampling ({engine.kind})",
        weights=weights,
        activations=logits if in_process else _SERVER_BYTES,
        kv_cache=_cache(engine, weights, device),
        longest=longest * shape.kv_bytes(size),
    )


def _cache(engine: EngineConfig, weights: float, device: Device) -> float:
    """Return the bytes of the cache that an engine takes on each device."""
    if isinstance(engine, TransformersConfig | VllmConfig) and engine.kv_cache_gib is not None:
        return engine.kv_cache_gib * 2**30
    if not device.is_gpu:
        return 4.0 * 2**30
    if isinstance(engine, TransformersConfig):
        return max(0.0, device.memory_bytes - weights) / 2
    arguments = engine.server_arguments if isinstance(engine, VllmConfig) else ()
    # vLLM's share of a GPU, as the server is told; its own default is 0.9.
    told = re.search(r"--gpu-memory-utilization[= ]([\d.]+)", " ".join(arguments))
    share = float(told[1]) if told else 0.9
    return max(0.0, share * device.memory_bytes - weights - _SERVER_BYTES)


def training_memory(
    name: str,
    config: TrainSftConfig | TrainRlConfig,
    length: float,
    given: Assumptions,
    shape: ModelShape,
    device: Device,
) -> Memory:
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
        name=name,
        weights=weights,
        gradients=4.0 * trained / spread,
        optimiser=8.0 * trained / spread,
        activations=tokens
        * (
            _activation_bytes(shape, config.gradient_checkpointing, 2 if device.is_gpu else 4)
            + shape.vocabulary * given.logit_bytes
        ),
    )


def _activation_bytes(shape: ModelShape, checkpointing: bool, element: int) -> float:
    """Return the bytes kept per token: every layer's, or one layer's and each layer's input."""
    layer = 8 * shape.hidden + 4 * shape.heads * shape.head_dim + 4 * shape.intermediate
    if checkpointing:
        return float(element * (layer + shape.layers * shape.hidden))
    return float(element * layer * shape.layers)


def _rl_memory(
    config: TrainRlConfig,
    length: float,
    number: int,
    given: Assumptions,
    shape: ModelShape,
    device: Device,
) -> Memory:
    """Return what `number` trainings hold on a device in RL, the cache of the rollouts included."""
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
    name = f"train rl (vllm {config.vllm})"
    return replace(base, name=name, kv_cache=cache, longest=longest, copies=number)
