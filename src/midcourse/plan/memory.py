"""What a model takes of a device's memory, part by part, where it is sampled from.

Everything errs on the high side. Training is in `midcourse.plan.training`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf

from midcourse import config as c
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.devices import Device, Dtype
from midcourse.plan.shapes import ModelShape

#: What a vLLM process holds besides weights and cache: workspace, graphs.
SERVER_BYTES = 2e9


@dataclass(frozen=True, slots=True)
class Longest:
    """The longest sequence that a cache must hold, e.g. 40,960 tokens of Qwen3-4B: 6.0 GB."""

    tokens: float
    token_bytes: float
    cache: float
    """Bytes that the cache has for it."""

    @property
    def bytes(self) -> float:
        """What it takes of the cache."""
        return self.tokens * self.token_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Bytes on one device, by what they hold."""

    weights: float = 0.0
    adapters: float = 0.0
    gradients: float = 0.0
    optimiser: float = 0.0
    activations: float = 0.0
    head: float = 0.0
    """What scoring the tokens takes: tiles of logits, and the gradients that leave them."""
    cache: float = 0.0
    """Keys and values."""
    vllm: float = 0.0
    """Of a server its workspace; of vLLM on a training device all that it was given."""

    def by_name(self) -> dict[str, float]:
        """Return them all, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self.by_name().values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one device during one phase of a run."""

    name: str
    one: Parts
    """What one model takes."""
    longest: Longest | None = None
    """What must fit into the cache at the least."""
    copies: int = 1
    """Arms of RL that share the device."""

    @property
    def title(self) -> str:
        """Its name, and how many there are at once."""
        return self.name + (f", {self.copies} at once" if self.copies > 1 else "")

    @property
    def parts(self) -> Parts:
        """What all copies take."""
        return Parts(**{name: self.copies * of for name, of in self.one.by_name().items()})

    def verdict(self, device: Device) -> str:
        """Return ``yes``, ``tight`` (over 90 %) or ``no``."""
        if self.problem(device):
            return "no"
        return "tight" if self.parts.total > 0.9 * device.memory_bytes else "yes"

    def problem(self, device: Device) -> str:
        """Say what is too much, "" if nothing is."""
        longest, parts = self.longest, self.parts
        if longest and longest.bytes > longest.cache:
            return (
                f"the cache of {size(longest.cache)} does not hold one sequence of "
                f"{longest.tokens:,.0f} tokens, which takes {size(longest.bytes)}"
            )
        if parts.total <= device.memory_bytes:
            return ""
        largest = sorted(parts.by_name().items(), key=lambda item: -item[1])[:2]
        said = " and ".join(f"{size(of)} of {name}" for name, of in largest)
        excess = parts.total - device.memory_bytes
        return f"{size(excess)} too much, with {said}"


def size(number: float) -> str:
    """Return bytes in powers of ten, e.g. ``8.0 GB``."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return "–" if number < 1 else f"{number:.0f} B"


@dataclass(frozen=True, slots=True)
class Placed:
    """A model on a device."""

    source: c.ModelConfig
    shape: ModelShape
    device: Device
    given: Assumptions
    """Filled in."""

    @property
    def dtype(self) -> Dtype:
        """Of its numbers where it is sampled from."""
        is_half = c.is_bfloat16(self.source.dtype, on_gpu=self.device.is_gpu)
        return "bfloat16" if is_half else "float32"

    @property
    def element_bytes(self) -> int:
        """The bytes of one number where it is sampled from."""
        return 2 if self.dtype == "bfloat16" else 4


def sampling(placed: Placed, engine: c.EngineConfig, longest: float) -> Memory:
    """Return what an engine takes: weights, then as much cache as it may have.

    A vLLM server of ours starts only if its cache holds one sequence of the model's length, or of
    `engine.max_context_tokens`; other engines must hold the `longest` that the run asks for.
    """
    one, shape = c.single_engine(engine), placed.shape
    weights = float(shape.parameters * placed.element_bytes)
    limit = shape.context(one.max_context_tokens)
    is_server = isinstance(one, c.VllmConfig)
    tokens = float(limit) if is_server and limit else min(longest, limit or inf)
    cache = cache_bytes(placed, one, weights)
    # Logits of one step in float32, and their sorted copy with its indices.
    logits = 16.0 * one.rows_at_once * shape.vocabulary
    return Memory(
        name=f"sampling ({one.kind})",
        one=Parts(
            weights=weights,
            activations=logits if one.in_process else 0.0,
            cache=cache,
            vllm=0.0 if one.in_process else SERVER_BYTES,
        ),
        longest=Longest(tokens, shape.kv_bytes(placed.element_bytes), cache),
    )


def cache_bytes(placed: Placed, engine: c.SingleEngineConfig, weights: float) -> float:
    """Return the cache of an engine beside `weights`."""
    memory = placed.device.memory_bytes
    if engine.kv_cache_gib is not None or not placed.device.is_gpu:
        return (engine.kv_cache_gib or 4.0) * 2**30
    if engine.in_process:
        return max(0.0, memory - weights) / 2
    return max(0.0, engine.gpu_share * memory - weights - SERVER_BYTES)
