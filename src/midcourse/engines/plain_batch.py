"""Rows over transformers' own cache and attention, for what `FastBatch` cannot run.

Soft caps and sinks, sliding windows shorter than a row, convolutions and recurrent states: the
cache is made for the model, so whatever it keeps is right. A batch runs to its end before the
next begins. Where a layer is more than attention, padding would enter its state: rows with prompts
of one length run together, and nothing is padded or masked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from midcourse.engines._decoder import FAILURES, Context, Decoder, repeated
from midcourse.engines._session import PASS_TOKENS, PROBE, Row, strays

#: Relative difference of logits that only a lost state makes.
_LOST = 0.2


class PlainBatch:
    """Rows of a model as `generate` would run them, within `cache_bytes`."""

    in_order = False

    def __init__(self, decoder: Decoder, cache_bytes: int) -> None:
        self._decoder, self._cache_bytes = decoder, cache_bytes
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.long)
        self._contexts: set[Context] = set()
        self._num_rows = self._width = self._to_come = 0

    def begin(self, rows: Sequence[Row], upcoming: Sequence[Context]) -> bool:
        """Begin a batch, unless one runs."""
        self._contexts = set()
        self._num_rows = self._width = self._to_come = 0
        return not rows

    def fits(self, context: Context, max_tokens: int) -> bool:
        """Whether cache and prefill hold one more row; one row alone always runs."""
        contexts = self._contexts | {context}
        width = max(self._width, len(context))
        to_come = max(self._to_come, max_tokens)
        per_row, per_token = self._decoder.sizes
        needed = (self._num_rows + 1) * (per_row + (width + to_come) * per_token)
        if self._num_rows and (
            (self._decoder.keeps_state and len(context) != self._width)
            or needed > self._cache_bytes
            or len(contexts) * width > PASS_TOKENS
        ):
            return False
        self._contexts, self._width, self._to_come = contexts, width, to_come
        self._num_rows += 1
        return True

    def join(self, counts: Mapping[Context, int]) -> Tensor:
        """Prefill each context once, then repeat what the model kept of it."""
        self._cache = self._decoder.new_cache()
        logits, self._mask = self._decoder.prefill(list(counts), self._cache)
        index = repeated(list(counts.values())).to(logits.device)
        self._select(index)
        return logits[index]

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token per row; return the logits that follow."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        mask = None if self._decoder.keeps_state else self._mask
        positions = self._mask.sum(-1, keepdim=True) - 1
        return self._decoder.run(tokens[:, None], mask, positions, self._cache)

    @torch.no_grad()
    def _select(self, index: Tensor) -> None:
        """Have the rows that `index` names, as often as it names them."""
        self._cache.reorder_cache(index)
        self._mask = self._mask[index]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        if rows:
            self._select(torch.tensor(rows, device=self._mask.device))
        else:
            self._cache = None


def check_state(decoder: Decoder) -> None:
    """Raise EngineError unless a cache carries all of a model's state, also to a repeated row.

    A lost state changes every row's logits, by far more than rounding does.
    """
    first, second = tuple(range(16)), tuple(range(16, 32))
    try:
        expected = decoder.logits_of([(*context, PROBE) for context in (first, second, second)])
        lost = strays(PlainBatch(decoder, cache_bytes=0), {first: 1, second: 2}, expected, _LOST)
    except FAILURES as error:
        raise decoder.refusal() from error
    if lost.all():
        raise decoder.refusal()
