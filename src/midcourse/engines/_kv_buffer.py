"""Keys and values of a batch: a context that rows share is stored, and attended to, once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask


def register_attention() -> str:
    """Make `_attention` known to transformers; return the name to load a model with."""
    AttentionInterface.register("midcourse", _attention)
    AttentionMaskInterface.register("midcourse", sdpa_mask)
    return "midcourse"


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    buffer: KvBuffer | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend as sdpa; with a buffer, one query per row over all that the buffer holds."""
    if buffer is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return output
    assert attention_mask is not None
    scaled = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    return buffer.attend(scaled, attention_mask, int(module.layer_idx)), None


@dataclass(slots=True)
class _SharedContext:
    """A context that the neighbours `rows` have in common."""

    rows: slice
    stores: list[Tensor]
    """As the buffer's, (key-value heads, columns, width)."""

    @property
    def columns(self) -> int:
        return int(self.stores[0].shape[1])


def _per_head(left: Tensor, right: Tensor) -> Tensor:
    """Multiply (rows, heads, group, a) by (heads, a, b), all rows of a head in one product."""
    rows, heads, group, _ = left.shape
    product = left.transpose(0, 1).reshape(heads, rows * group, -1) @ right
    return product.view(heads, rows, group, -1).transpose(0, 1)


class KvBuffer(Cache):  # type: ignore[misc]  # transformers ships no types
    """Keys and values of all rows in preallocated tensors, written in place.

    Every row's last token sits in the same column, so one step writes one column for all. A row
    that joins brings its context either as a part shared with its neighbours, which is stored once
    for all of them, or in columns of its own that end at the current one; columns before `starts`
    of a row are masked. Growing by concatenation, as a dynamic cache does, would copy everything
    at every token, and reading a shared context once per row is most of what decoding costs.

    Rows that come and go move what is used within the tensors, which are made anew only where they
    are too small, or where `most` columns of all rows, shared ones included, would be exceeded.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.layers: list[Any] = []
        """None of transformers' own: its masks ask."""
        self.stores: list[Tensor] = []
        """Keys and values in turn, layer by layer, (rows, key-value heads, columns, width).

        They may have rows and columns to spare. All of it is finite: what is masked is multiplied
        by 0.
        """
        self.shared: list[_SharedContext] = []
        self.starts: list[int] = []
        """The first column of each row's own."""
        self.offsets: list[int] = []
        """Tokens of each row before its own columns: those of its shared context."""
        self.column = 0
        """The next column to write."""

    @property
    def num_rows(self) -> int:
        """Rows held."""
        return len(self.starts)

    @property
    def first(self) -> int:
        """The first column that any row still uses."""
        return min(self.starts, default=self.column)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        pairs = zip(self.starts, self.offsets, strict=True)
        return [self.column - start + offset for start, offset in pairs]

    @property
    def shared_columns(self) -> int:
        """Columns of all shared contexts."""
        return sum(shared.columns for shared in self.shared)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one column of one layer, and return it: `attend` reads all of them.

        A layer that attends by itself has too few columns for the mask, which is an error.
        """
        pair = slice(2 * layer_idx, 2 * layer_idx + 2)
        for store, states in zip(self.stores[pair], (key_states, value_states), strict=True):
            store[: len(states), :, self.column : self.column + 1] = states
        return key_states, value_states

    def attend(self, query: Tensor, mask: Tensor, layer: int) -> Tensor:
        """Return (rows, 1, heads, width) for a scaled query (rows, heads, 1, width).

        Keys are not repeated for grouped heads: at one token a step that copy costs more than
        the attention. One softmax covers the shared and the own part.
        """
        first = self.column + 1 - mask.shape[-1]
        pair, used = slice(2 * layer, 2 * layer + 2), slice(first, self.column + 1)
        rows, heads, _, width = query.shape
        keys, values = (store[:rows, :, used] for store in self.stores[pair])
        grouped = query.reshape(rows, keys.shape[1], heads // keys.shape[1], width)
        scores = grouped @ keys.transpose(2, 3)
        if first < max(self.starts):
            scores.masked_fill_(~mask, -torch.inf)
        widest = max((shared.columns for shared in self.shared), default=0)
        if self.shared:
            own = scores
            scores = own.new_full((*own.shape[:3], widest + own.shape[3]), -torch.inf)
            scores[..., widest:] = own
        for shared in self.shared:
            scores[shared.rows, :, :, : shared.columns] = _per_head(
                grouped[shared.rows], shared.stores[2 * layer].transpose(1, 2)
            )
        weights = scores.float().softmax(-1).to(values.dtype)
        attended = weights[..., widest:] @ values
        for shared in self.shared:
            part = weights[shared.rows, :, :, : shared.columns]
            attended[shared.rows] += _per_head(part, shared.stores[2 * layer + 1])
        return attended.reshape(rows, 1, heads, width)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns of the rows' own that a query attends to, the next one excluded."""
        return self.column - self.first

    def mask(self) -> Tensor:
        """Return the mask of the rows' own columns, (rows, 1, 1, columns)."""
        device = self.stores[0].device
        columns = torch.arange(self.first, self.column + 1, device=device)
        starts = torch.tensor(self.starts, device=device)
        return (columns >= starts[:, None])[:, None, None, :]

    @torch.no_grad()
    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, which are given in ascending order, and columns none uses."""
        at = torch.tensor(rows, device=self.stores[0].device)
        self.starts = [self.starts[row] for row in rows]
        self.offsets = [self.offsets[row] for row in rows]
        used, left = slice(self.first, self.column), self.column - self.first
        for store in self.stores:
            store[: len(rows), :, :left] = store[:, :, used][at]
        self._renumber(-self.first)
        for shared in self.shared:
            ends = (shared.rows.start, shared.rows.stop)
            shared.rows = slice(*(bisect_left(rows, end) for end in ends))
        self.shared = [shared for shared in self.shared if shared.rows.start < shared.rows.stop]

    @torch.no_grad()
    def join(self, prefilled: Cache, contexts: Sequence[tuple[int, int, bool]], spare: int) -> None:
        """Add the rows of each context of a left-padded prefill.

        A context is how many tokens it has, how many rows, and whether they hold it together.
        `spare` columns are kept free for tokens to come.
        """
        before, more = self.num_rows, sum(count for _, count, _ in contexts)
        own = max((length for length, _, is_shared in contexts if not is_shared), default=0)
        joining = [store for layer in prefilled.layers for store in (layer.keys, layer.values)]
        self.stores = self.stores or [store[:0] for store in joining]
        shared = sum(length for length, _, is_shared in contexts if is_shared)
        shift = max(own - self.column, -self.first) if before else own - self.column
        self._arrange(shift, before + more, self.column + shift, spare, shared)
        for index, (length, count, is_shared) in enumerate(contexts):
            if is_shared:
                rows = slice(self.num_rows, self.num_rows + count)
                # Copies, so that the prefill of all, padding included, can be let go of.
                stores = [store[index, :, -length:].clone() for store in joining]
                self.shared.append(_SharedContext(rows, stores))
            self.starts += [self.column - (0 if is_shared else length)] * count
            self.offsets += [length if is_shared else 0] * count
        source = [index for index, (_, count, _) in enumerate(contexts) for _ in range(count)]
        for store, states in zip(self.stores, joining, strict=True):
            store[before : self.num_rows, :, : self.column] = 0  # another row's may not be finite
            if own:
                begin = self.column - own
                store[before : self.num_rows, :, begin : self.column] = states[:, :, -own:][source]

    def make_room(self, spare: int) -> None:
        """If the next column is past the end, drop unused columns or add `spare` new ones."""
        if self.column == self.stores[0].shape[2]:
            self._arrange(-self.first, self.num_rows, self.column - self.first, spare)

    def _arrange(self, shift: int, rows: int, columns: int, spare: int, shared: int = 0) -> None:
        """Move all used columns `shift` to the right, or left, where so many rows and columns fit.

        New tensors have `spare` columns more.
        """
        held_rows, _, held_columns, _ = self.stores[0].shape
        is_large = held_rows >= rows and held_columns > columns
        all_columns = held_rows * held_columns + self.shared_columns + shared
        stays = is_large and all_columns <= self.most
        used, at = (slice(self.first + by, self.column + by) for by in (0, shift))
        for index, store in enumerate(self.stores if shift or not stays else ()):
            moved = store[: self.num_rows, :, used]
            if not stays:
                store = store.new_zeros(rows, store.shape[1], columns + spare, store.shape[3])
            store[: self.num_rows, :, at] = moved.clone() if stays else moved
            self.stores[index] = store
        self._renumber(shift)

    def _renumber(self, shift: int) -> None:
        self.starts = [start + shift for start in self.starts]
        self.column += shift
