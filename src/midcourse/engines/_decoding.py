"""The tensor side of the transformers engine: a shared key-value buffer, and sampling by seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from midcourse.records import Sampling

__all__ = ["KvBuffer", "register_attention", "sample_tokens", "uniforms"]


def register_attention() -> str:
    """Make `grouped_attention` known to transformers; return the name to load a model with."""
    AttentionInterface.register("midcourse", grouped_attention)
    AttentionMaskInterface.register("midcourse", sdpa_mask)
    return "midcourse"


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend with one query per row without repeating keys for grouped heads; else as sdpa.

    At one token a step the copy that sdpa makes of all keys and values costs more than the
    attention itself.
    """
    if query.shape[2] > 1:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return output
    rows, heads, _, width = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    scores = grouped @ key.transpose(2, 3) * (width**-0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    attended = scores.float().softmax(-1).to(value.dtype) @ value
    return attended.reshape(rows, 1, heads, width), None


class KvBuffer(Cache):  # type: ignore[misc]  # transformers ships no types
    """Keys and values of all rows in preallocated tensors, written in place.

    Every row's last token sits in the same column, so one step writes one column for all. A row
    that joins late is laid down so that its context ends at the current column; columns before
    `starts` of a row are masked. Growing by concatenation, as a dynamic cache does, would copy
    everything at every token.
    """

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.column = 0
        """The next column to write."""
        self.first = 0
        """The first column that any row still uses."""
        self.starts = torch.zeros(0, dtype=torch.long)

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one column of one layer; return everything from `first` on."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[:, :, self.column : self.column + 1] = key_states
        values[:, :, self.column : self.column + 1] = value_states
        used = slice(self.first, self.column + 1)
        return keys[:, :, used], values[:, :, used]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns that a query attends to, its own excluded."""
        return self.column - self.first

    @property
    def num_rows(self) -> int:
        """Rows held."""
        return len(self.starts)

    def mask(self) -> torch.Tensor:
        """Return the attention mask of the next step, (rows, 1, 1, columns)."""
        columns = torch.arange(self.first, self.column + 1, device=self.starts.device)
        return (columns >= self.starts[:, None])[:, None, None, :]

    def positions(self) -> torch.Tensor:
        """Return the position of the next token of each row, (rows, 1)."""
        return (self.column - self.starts)[:, None]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but these."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        self.starts = self.starts[rows]
        self.first = int(self.starts.min()) if len(rows) else self.column

    def join(
        self, prefilled: Cache, source: torch.Tensor, lengths: torch.Tensor, spare: int
    ) -> None:
        """Add rows: row i is context ``source[i]`` of a left-padded prefill, ``lengths[i]`` long.

        `spare` columns are kept free for tokens to come.
        """
        width = int(prefilled.layers[0].keys.shape[2])
        if not self.num_rows:
            self.column = width
        if width > self.column:
            raise ValueError("a joining context must not be longer than the current column")
        self._drop_columns(min(self.first, self.column - width))
        starts = self.column - lengths
        at = slice(self.column - width, self.column)
        for index, layer in enumerate(prefilled.layers):
            for store, fresh in ((self.keys, layer.keys), (self.values, layer.values)):
                rows = fresh.new_zeros(
                    len(source), fresh.shape[1], self.column + spare, fresh.shape[3]
                )
                rows[:, :, at] = fresh[source]
                if not self.num_rows:
                    store[index : index + 1] = [rows]
                else:
                    store[index] = torch.cat(
                        [_widen(store[index], rows.shape[2]), _widen(rows, store[index].shape[2])]
                    )
        self.starts = torch.cat([self.starts.to(starts.device), starts])
        self.first = int(self.starts.min())

    def make_room(self, spare: int) -> None:
        """If the next column is past the end, drop unused columns and add `spare` new ones."""
        if self.column < self.keys[0].shape[2]:
            return
        self._drop_columns(self.first)
        for store in (self.keys, self.values):
            for index, tensor in enumerate(store):
                store[index] = _widen(tensor, tensor.shape[2] + spare)

    def _drop_columns(self, count: int) -> None:
        """Forget the first `count` columns, which no row uses."""
        if not count:
            return
        self.keys = [keys[:, :, count:] for keys in self.keys]
        self.values = [values[:, :, count:] for values in self.values]
        self.starts = self.starts - count
        self.column -= count
        self.first -= count


def _widen(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    """Return `tensor` with at least `columns` columns, the new ones zero, at the end."""
    missing = columns - tensor.shape[2]
    if missing <= 0:
        return tensor
    return torch.nn.functional.pad(tensor, (0, 0, 0, missing))


def uniforms(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return one number in [0, 1) per (seed, position), by the SplitMix64 finaliser.

    Counter-based, so a row's draws depend on nothing but its own seed and how many tokens it has:
    the batch it happens to share does not matter.
    """
    with np.errstate(over="ignore"):
        state = seeds.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state += (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD1B54A32D192ED03)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53


def sample_tokens(
    logits: torch.Tensor,
    parameters: Sequence[Sampling],
    draws: torch.Tensor,
    seen: torch.Tensor | None,
) -> torch.Tensor:
    """Return one token id per row of `logits` (rows, vocabulary).

    `draws` are uniforms in [0, 1); `seen` marks the ids of each row's context for the repetition
    penalty. Rows with the same parameters are handled together.
    """
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    for sampling in dict.fromkeys(parameters):
        rows = torch.tensor(
            [i for i, p in enumerate(parameters) if p == sampling], device=logits.device
        )
        chosen = logits[rows] if len(rows) < len(logits) else logits
        marks = seen[rows] if seen is not None else None
        tokens[rows] = _sample(chosen.float(), sampling, draws[rows], marks)
    return tokens


def _sample(
    logits: torch.Tensor, sampling: Sampling, draws: torch.Tensor, seen: torch.Tensor | None
) -> torch.Tensor:
    if sampling.repetition_penalty != 1.0 and seen is not None:
        penalised = torch.where(
            logits < 0, logits * sampling.repetition_penalty, logits / sampling.repetition_penalty
        )
        logits = torch.where(seen, penalised, logits)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = _warp(logits / sampling.temperature, sampling).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    # The sum is a hair off 1 in float32; scaling the draw keeps the last id reachable, no more.
    targets = draws[:, None].to(cumulative.dtype) * cumulative[:, -1:]
    return (cumulative <= targets).sum(-1).clamp(max=logits.shape[-1] - 1)


def _warp(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Apply top-k, top-p and min-p, in that order and as `generate` defines them."""
    if sampling.top_k:
        kept = logits.topk(min(sampling.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kept, -torch.inf)
    if sampling.top_p < 1:
        ascending, order = logits.sort(dim=-1)
        dropped = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        dropped[:, -1] = False
        logits = logits.masked_fill(dropped.scatter(-1, order, dropped), -torch.inf)
    if sampling.min_p > 0:
        probabilities = logits.softmax(-1)
        floor = sampling.min_p * probabilities.max(-1, keepdim=True).values
        logits = logits.masked_fill(probabilities < floor, -torch.inf)
    return logits
