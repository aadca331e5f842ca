"""A model's shape, from its config.json or a small table: parameters, cache bytes, operations.

Only dense decoders with gated feed-forward layers (Llama, Qwen2, Qwen3 and their kin) are known:
their sums are a few products. Nothing is loaded and nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midcourse.engines import resolve_model
from midcourse.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes that decide cost, e.g. Qwen3-4B: 36 layers of width 2,560."""

    hidden: int
    intermediate: int
    """Width of the feed-forward layers."""
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Whether input and output embeddings are one matrix."""

    @property
    def linear_sizes(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the linear maps of one layer: attention, then feed-forward."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        into, out = (self.hidden, self.intermediate), (self.intermediate, self.hidden)
        attention = ((self.hidden, queries), (self.hidden, keys), (self.hidden, keys))
        return (*attention, (queries, self.hidden), into, into, out)

    @property
    def layer_parameters(self) -> int:
        """Weights of all layers; norms are too few to count."""
        return self.layers * sum(a * b for a, b in self.linear_sizes)

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.layer_parameters + (1 if self.tied else 2) * self.vocabulary * self.hidden

    def lora_parameters(self, rank: int) -> int:
        """Weights of adapters of `rank` on every linear map of every layer."""
        return self.layers * rank * sum(a + b for a, b in self.linear_sizes)

    def kv_bytes(self, element_bytes: int) -> int:
        """Bytes of one token's keys and values, all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes

    def forward_operations(self, context: float) -> float:
        """Floating-point operations of one token that looks back on `context` tokens."""
        products = self.layer_parameters + self.vocabulary * self.hidden
        return 2 * products + 4 * self.layers * self.heads * self.head_dim * context


def _tied(*sizes: int) -> ModelShape:
    names = ("hidden", "intermediate", "layers", "heads", "kv_heads", "head_dim", "vocabulary")
    return ModelShape(**dict(zip(names, sizes, strict=True)), tied=True)


#: Published shapes, by the last part of the name in lower case.
_KNOWN = {
    "qwen3-0.6b": _tied(1024, 3072, 28, 16, 8, 128, 151_936),
    "qwen3-1.7b": _tied(2048, 6144, 28, 16, 8, 128, 151_936),
    "e3-1.7b": _tied(2048, 6144, 28, 16, 8, 128, 151_936),  # trained from Qwen3-1.7B
    "qwen3-4b": _tied(2560, 9728, 36, 32, 8, 128, 151_936),
    "qwen3-4b-instruct-2507": _tied(2560, 9728, 36, 32, 8, 128, 151_936),
    "smollm2-135m-instruct": _tied(576, 1536, 30, 9, 3, 64, 49_152),
    "smollm2-360m-instruct": _tied(960, 2560, 32, 15, 5, 64, 49_152),
    "smollm2-1.7b-instruct": _tied(2048, 8192, 24, 32, 32, 64, 49_152),
}


def load_shape(path: str, config_file: Path | None = None) -> ModelShape:
    """Return the shape of the model at `path`: a given config.json, its own, or the table's.

    Raises ConfigError if there is none, or if it is not of a kind we can count.
    """
    file = config_file or Path(resolve_model(path)) / "config.json"
    if file.is_file():
        return _from_config(json.loads(file.read_text("utf-8")), file)
    if config_file is not None:
        raise ConfigError(f"--model-config: no file at {config_file}")
    known = _KNOWN.get(Path(path).name.lower())
    if known is None:
        raise ConfigError(
            f"plan: the shape of {path!r} is not known here: give its --model-config config.json"
        )
    return known


def _from_config(config: Mapping[str, Any], file: Path) -> ModelShape:
    try:
        heads = int(config["num_attention_heads"])
        return ModelShape(
            hidden=int(config["hidden_size"]),
            intermediate=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except KeyError as error:
        raise ConfigError(
            f"{file}: no {error.args[0]!r}: not a model that plan can count"
        ) from None
