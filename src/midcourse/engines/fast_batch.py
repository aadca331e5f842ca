"""Rows over one key-value buffer: shared contexts are stored once, rows join and leave at any time.

It asks of a model that all its layers attend through transformers' attention interface, to
everything before them. `adopt` finds out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from midcourse.engines._kv_buffer import KvBuffer, register_attention
from midcourse.engines._session import PASS_TOKENS, Context, Row, cache_name, left_padded, repeated
from midcourse.errors import EngineError

#: Columns added to the key-value buffer at a time.
_SPARE_COLUMNS = 64
#: Columns that a step must save for a context to be stored once: below, the products of its own
#: cost more. On two CPU cores it breaks even at 1,200 to 1,500; a GPU reads faster and starts a
#: product no faster (not measured).
_WORTH_SHARING = {"cpu": 1500, "cuda": 15_000}
#: Relative difference that rounding in bfloat16 makes at most; a wrong attention makes more.
_ROUNDING = 0.1


@dataclass(frozen=True, slots=True)
class _Footprint:
    """Columns that a batch takes at its end, to be held against the key-value cache."""

    rows: int = 0
    own: int = 0
    """Columns of its own that every row has when all have joined."""
    to_come: int = 0
    shared: int = 0
    """Columns of all shared contexts."""
    last: Context | None = None
    """The shared context counted last: its rows come one after the other."""

    @property
    def tokens(self) -> int:
        """Rows times columns."""
        return self.rows * (self.own + self.to_come + _SPARE_COLUMNS) + self.shared

    def plus(self, context: Context, max_tokens: int, is_shared: bool) -> _Footprint:
        """Return the footprint with one more row."""
        return _Footprint(
            rows=self.rows + 1,
            own=self.own if is_shared else max(self.own, len(context)),
            to_come=max(self.to_come, max_tokens),
            shared=self.shared + (len(context) if is_shared and context != self.last else 0),
            last=context if is_shared else self.last,
        )


class FastBatch:
    """Rows of `model`, which must attend by `register_attention`."""

    in_order = True

    def __init__(self, model: Any, kv_cache_tokens: int) -> None:
        self._model, self._kv_cache_tokens = model, kv_cache_tokens
        self._cache_name = cache_name(model)
        self.buffer = KvBuffer()
        self._footprint, self._shared = _Footprint(), set[Context]()

    def begin(self, rows: Sequence[Row], upcoming: Sequence[Context]) -> bool:
        """Count what the running rows will have taken by their end; anyone may join."""
        self._shared = self._worth_sharing(upcoming)
        self._footprint = _Footprint()
        if rows:
            to_come = max(row.max_tokens - len(row.token_ids) for row in rows)
            own = self.buffer.column - self.buffer.first
            shared = self.buffer.shared_columns
            self._footprint = _Footprint(len(rows), own, to_come, shared)
        return True

    def _worth_sharing(self, upcoming: Sequence[Context]) -> set[Context]:
        """Return the contexts that enough of the next requests have in common."""
        least = _WORTH_SHARING.get(self._model.device.type, _WORTH_SHARING["cuda"])
        return {
            context
            for context, count in Counter(upcoming).items()
            if (count - 1) * len(context) >= least
        }

    def fits(self, context: Context, max_tokens: int) -> bool:
        """Whether the cache holds one more row; a longer context waits until the batch is as long.

        One row alone always runs.
        """
        if self.buffer.num_rows and len(context) > self.buffer.longest:
            return False
        larger = self._footprint.plus(context, max_tokens, context in self._shared)
        if self._footprint.rows and larger.tokens > self._kv_cache_tokens:
            return False
        self._footprint = larger
        return True

    def join(self, counts: Mapping[Context, int]) -> torch.Tensor:
        """Prefill each context once, in passes of bounded size, and lay rows down."""
        contexts = list(counts)
        per_pass = max(1, PASS_TOKENS // len(contexts[0]))
        logits = []
        for start in range(0, len(contexts), per_pass):
            chunk = contexts[start : start + per_pass]
            cache, last = self._prefill(chunk)
            rows = [counts[context] for context in chunk]
            is_shared = [context in self._shared for context in chunk]
            self.buffer.join(cache, [len(c) for c in chunk], rows, is_shared, _SPARE_COLUMNS)
            logits.append(last[repeated(rows).to(last.device)])
        return torch.cat(logits)

    @torch.inference_mode()
    def _prefill(self, contexts: Sequence[Context]) -> tuple[DynamicCache, torch.Tensor]:
        """Run left-padded contexts; return their keys and values and the last logits."""
        device = self._model.device
        ids, mask, positions = (tensor.to(device) for tensor in left_padded(contexts))
        cache = DynamicCache()  # told of the model, it would forget what a sliding window has left
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: cache},
        )
        return cache, output.logits[:, -1]

    @torch.inference_mode()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed one token per row; return the logits that follow."""
        buffer = self.buffer
        buffer.make_room(_SPARE_COLUMNS)
        output = self._model(
            input_ids=tokens[:, None],
            attention_mask=buffer.mask(),
            position_ids=buffer.positions(),
            use_cache=True,
            buffer=buffer,
            **{self._cache_name: buffer},
        )
        buffer.end_step()
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        if rows:
            self.buffer.keep(rows)
        else:
            self.buffer = KvBuffer()


@torch.inference_mode()
def adopt(model: Any) -> bool:
    """Have `model` attend our way if that gives its own logits for three tokens; else leave it.

    An architecture that keeps other states, or asks of attention what ours does not do, fails here
    in one way or another.
    """
    ids = torch.tensor([[0, 1, 2]], device=model.device)
    expected = model(input_ids=ids, use_cache=False).logits[:, -1].float()
    own = model.config._attn_implementation
    try:
        model.set_attn_implementation(register_attention())
        batch = FastBatch(model, kv_cache_tokens=0)
        batch.join({(0, 1): 1})
        difference = (batch.step(ids[0, 2:]) - expected).norm()
    except (EngineError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        difference = torch.inf
    is_same = bool(difference <= _ROUNDING * expected.norm())
    if not is_same:
        model.set_attn_implementation(own)
    return is_same
