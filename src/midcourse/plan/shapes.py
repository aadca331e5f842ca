"""A model's shape, from its config.json or a small table: parameters, cache bytes, operations.

Only dense decoders with gated feed-forward layers (Llama, Qwen2, Qwen3 and their kin) are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midcourse.engines import resolve_model
from midcourse.errors import ConfigError


@dataclass(frozen=True, slots=True)
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
    positions: int | None = None
    """The longest sequence it takes, in tokens; None: not known."""
    embeddings: int = 1
    """Matrices of embeddings: 1 if those of input and output are tied."""

    @property
    def _widths(self) -> int:
        """The sides of a layer's seven linear maps that are not `hidden`, summed."""
        return 2 * (self.heads + self.kv_heads) * self.head_dim + 3 * self.intermediate

    @property
    def layer_parameters(self) -> int:
        """Weights of all layers; norms are too few to count."""
        return self.layers * self.hidden * self._widths

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.layer_parameters + self.embeddings * self.vocabulary * self.hidden

    def adapters(self, lora_rank: int) -> int:
        """Weights of adapters on every linear map of every layer; 0 for rank 0."""
        return self.layers * lora_rank * (7 * self.hidden + self._widths)

    def trained(self, lora_rank: int) -> int:
        """Weights that training changes: adapters, or all."""
        return self.adapters(lora_rank) if lora_rank else self.parameters

    def context(self, limit: int | None) -> int | None:
        """Return the longest sequence that an engine with this limit takes; None: not known."""
        return min((length for length in (limit, self.positions) if length), default=None)

    def kv_bytes(self, element_bytes: int) -> int:
        """Bytes of one token's keys and values, all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes

    def forward_operations(self, context: float) -> float:
        """Floating-point operations of one token that looks back on `context` tokens."""
        products = self.layer_parameters + self.vocabulary * self.hidden
        return 2 * products + 4 * self.layers * self.heads * self.head_dim * context


#: Published shapes, by the last part of the name in lower case.
_KNOWN = {
    "qwen3-0.6b": ModelShape(1024, 3072, 28, 16, 8, 128, 151_936, 40_960),
    "qwen3-1.7b": ModelShape(2048, 6144, 28, 16, 8, 128, 151_936, 40_960),
    "e3-1.7b": ModelShape(2048, 6144, 28, 16, 8, 128, 151_936, 40_960),  # trained from Qwen3-1.7B
    "qwen3-4b": ModelShape(2560, 9728, 36, 32, 8, 128, 151_936, 40_960),
    "qwen3-4b-instruct-2507": ModelShape(2560, 9728, 36, 32, 8, 128, 151_936, 262_144),
    "smollm2-135m-instruct": ModelShape(576, 1536, 30, 9, 3, 64, 49_152, 8_192),
    "smollm2-360m-instruct": ModelShape(960, 2560, 32, 15, 5, 64, 49_152, 8_192),
    "smollm2-1.7b-instruct": ModelShape(2048, 8192, 24, 32, 32, 64, 49_152, 8_192),
}


#: What a config.json calls the sizes of a `ModelShape`.
_CONFIG_KEYS = {
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocabulary": "vocab_size",
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
    given = {name: value for name, value in config.items() if value is not None}
    try:
        heads = given["num_attention_heads"]
        own = {"num_key_value_heads": heads, "head_dim": given["hidden_size"] // heads} | given
        sizes = {name: int(own[key]) for name, key in _CONFIG_KEYS.items()}
    except KeyError as error:
        key = error.args[0]
        raise ConfigError(f"{file}: no {key!r}: not a model that plan can count") from None
    return ModelShape(
        **sizes,
        positions=given.get("max_position_embeddings"),
        embeddings=1 if given.get("tie_word_embeddings") else 2,
    )
