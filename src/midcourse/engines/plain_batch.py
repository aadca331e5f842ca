"""Rows over transformers' own cache and attention, for what `FastBatch` cannot run.

Soft caps and sinks, sliding windows shorter than a row, convolutions and recurrent states: the
model makes its cache itself, so whatever it keeps is right. A batch runs to its end before the
next begins. Where a layer is more than attention, padding would enter its state: rows with prompts
of one length run together, and nothing is padded or masked.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from midcourse.engines._session import PASS_TOKENS, Context, Row, cache_name, left_padded, repeated

#: Types of layers that padding leaves alone: it is masked.
_ATTENTION = frozenset({"full_attention", "sliding_attention"})


def keeps_state(model: Any) -> bool:
    """Whether a layer is more than attention to keys that a mask can hide."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    return bool(model._is_stateful or kinds - _ATTENTION)


def slides(model: Any, max_context_tokens: int) -> bool:
    """Whether a row may be longer than a sliding window of the model."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    return window is not None and "sliding_attention" in kinds and window < max_context_tokens


class PlainBatch:
    """Rows of `model` as `generate` would run them."""

    in_order = False

    def __init__(self, model: Any, kv_cache_tokens: int) -> None:
        self._model, self._kv_cache_tokens = model, kv_cache_tokens
        self._pads = not keeps_state(model)
        self._taken = inspect.signature(model.forward).parameters.keys()
        self._cache_name = cache_name(model)
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.long)
        self._contexts: set[Context] = set()
        self._num_rows = self._width = self._to_come = 0

    def begin(self, rows: Sequence[Row], upcoming: Sequence[Context]) -> bool:
        """Begin a batch, unless one runs."""
        if rows:
            return False
        self._contexts = set()
        self._num_rows = self._width = self._to_come = 0
        return True

    def fits(self, context: Context, max_tokens: int) -> bool:
        """Whether cache and prefill hold one more row; one row alone always runs."""
        contexts = self._contexts | {context}
        width = max(self._width, len(context))
        to_come = max(self._to_come, max_tokens)
        if self._num_rows:
            if not self._pads and len(context) != self._width:
                return False
            tokens = (self._num_rows + 1) * (width + to_come)
            if tokens > self._kv_cache_tokens or len(contexts) * width > PASS_TOKENS:
                return False
        self._contexts, self._width, self._to_come = contexts, width, to_come
        self._num_rows += 1
        return True

    def join(self, counts: Mapping[Context, int]) -> torch.Tensor:
        """Prefill each context once, then repeat what the model kept of it."""
        device = self._model.device
        ids, mask, positions = (tensor.to(device) for tensor in left_padded(list(counts)))
        self._cache, self._mask = None, mask
        logits = self._forward(ids, positions)
        index = repeated(list(counts.values())).to(device)
        self._select(index)
        return logits[index]

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed one token per row; return the logits that follow."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        return self._forward(tokens[:, None], self._mask.sum(-1, keepdim=True) - 1)

    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Run the model on, and keep the cache it returns; return the last logits."""
        optional = {"position_ids": positions, "logits_to_keep": 1}
        if self._pads:
            optional["attention_mask"] = self._mask
        output = self._model(
            input_ids=ids,
            use_cache=True,
            **{name: value for name, value in optional.items() if name in self._taken},
            **({} if self._cache is None else {self._cache_name: self._cache}),
        )
        self._cache = getattr(output, self._cache_name)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    @torch.inference_mode()
    def _select(self, index: torch.Tensor) -> None:
        """Have the rows that `index` names, as often as it names them."""
        self._cache.reorder_cache(index)
        self._mask = self._mask[index]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        if rows:
            self._select(torch.tensor(rows, device=self._mask.device))
        else:
            self._cache = None
