"""What to change in a recipe that does not fit: found by trying, from what changes least.

Micro-batches, gradient checkpointing and vLLM's share decide speed alone. Only if they do not help
is the training spread over several GPUs, or cut down to adapters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

from midcourse import config as c
from midcourse.plan.devices import Device
from midcourse.plan.memory import Memory, Placed, sampling, size
from midcourse.plan.training import Sampler, TrainConfig, sampler_of

Changes = Mapping[str, object]
_SHARES = [share / 100 for share in range(90, 4, -5)]
#: The rank of the adapters that are tried.
_RANK = 64


def change_training(
    config: TrainConfig, device: Device, memory: Callable[[TrainConfig], Sequence[Memory]]
) -> str:
    """Return the keys and values under which every phase of a training fits."""
    section = "train_sft" if isinstance(config, c.TrainSftConfig) else "train_rl"
    tight = ""
    for changes in _ways(config):
        if tight and "lora_rank" in changes:  # that is another training
            break
        phases = memory(config.model_copy(update=dict(changes)))
        verdicts = {phase.verdict(device) for phase in phases}
        said = _in_words(section, changes)
        if verdicts == {"yes"}:
            return said
        if "no" not in verdicts:
            tight = tight or said
    return tight or f"nothing in [{section}] alone: shorten its rows, or take a larger device"


def change_engine(
    placed: Placed, engine: c.EngineConfig, longest: float, section: str = "engine"
) -> str:
    """Return the keys and values under which an engine can hold the `longest` request."""
    part, one = sampling(placed, engine, longest), c.single_engine(engine)
    total, cache = part.parts.total, part.parts.cache
    if total > placed.device.memory_bytes:
        least = longest * placed.shape.kv_bytes(placed.element_bytes)
        free = 0.9 * placed.device.memory_bytes - (total - cache)
        if free >= least and one.kv_cache_gib is not None:
            return _in_words(section, {"kv_cache_gib": round(free / 2**30, 1)})
        return "take a larger device, or a smaller model"
    fitting = int(cache / placed.shape.kv_bytes(placed.element_bytes))
    if fitting >= longest:
        return _in_words(section, {"max_context_tokens": max(fitting // 1024 * 1024, int(longest))})
    return (
        f"the longest request has {longest:,.0f} tokens and the cache holds {fitting:,}: give "
        f"the engine more memory than {size(total)}, or lower max_tokens"
    )


def _ways(config: TrainConfig) -> Iterator[Changes]:
    """Yield changes of a training, those first that change the least."""
    micro = config.micro_batch_size
    sizes = [rows for rows in range(micro, 0, -1) if micro % rows == 0]
    checkpointing = (
        [{}] if config.gradient_checkpointing else [{}, {"gradient_checkpointing": True}]
    )
    spread: list[Changes] = [{}] if config.accelerate else [{}, {"accelerate": "accelerate/fsdp2"}]
    adapted: list[Changes] = [{}] if config.lora_rank else [{}, {"lora_rank": _RANK}]
    shares: list[Changes] = [{}]
    if isinstance(config, c.TrainRlConfig) and sampler_of(config) is Sampler.VLLM:
        shares += [{"vllm_gpu_share": share} for share in _SHARES]
    fewer: list[Changes] = [{"micro_batch_size": rows} if rows < micro else {} for rows in sizes]
    for changes in product(adapted, spread, checkpointing, fewer, shares):
        yield {key: value for change in reversed(changes) for key, value in change.items()}


def _in_words(section: str, changes: Changes) -> str:
    # JSON writes these values as TOML does.
    return ", ".join(f"{section}.{key} = {json.dumps(value)}" for key, value in changes.items())
