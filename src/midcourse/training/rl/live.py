"""Samples from the model that is being trained, as it is now: no second copy to refresh."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from midcourse.engines._decoder import Decoder, half_of_free
from midcourse.engines._session import Batch, BatchAnswers
from midcourse.engines.base import Capabilities
from midcourse.engines.fast_batch import FastBatch, adopt
from midcourse.engines.plain_batch import PlainBatch, check_state
from midcourse.engines.stream import Stream
from midcourse.rendering import Renderer

_CACHE_GIB = 4
_MAX_ROWS = 256


@dataclass(kw_only=True, eq=False)
class LiveEngine:
    """The in-process engine over weights that somebody else changes between sessions.

    The model gets its attention and its mode back after each session, so training is not touched.
    """

    model: Any = field(kw_only=False)
    """A causal language model of transformers; adapters in it take part."""
    renderer: Renderer
    stop_ids: Collection[int]
    max_batch_rows: int = _MAX_ROWS
    dtype: torch.dtype = torch.float32
    """What the trainer computes in. Its autocast ends with each forward of the whole model; ours
    lasts a session, so that a weight is cast once, not at every token."""

    @property
    def capabilities(self) -> Capabilities:
        """Token ids, seeds and log-probabilities, in the model's own context."""
        length = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return Capabilities(
            token_ids=True,
            seeds=True,
            max_context_tokens=int(length or 2**31),
            concurrency=self.max_batch_rows,
        )

    @contextmanager
    def session(self) -> Iterator[Stream]:
        """Open a session on the weights as they are."""
        own, was_training = self.model.config._attn_implementation, self.model.training
        self.model.eval()
        is_mixed = self.dtype is torch.bfloat16
        try:
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=is_mixed):
                answers = BatchAnswers(
                    batch=self._batch(),
                    max_rows=self.max_batch_rows,
                    max_context_tokens=self.capabilities.max_context_tokens,
                    stop_ids=self.stop_ids,
                    decode=self.renderer.decode,
                )
                yield Stream(answers.answer)
        finally:
            self.model.set_attn_implementation(own)
            self.model.train(was_training)

    def close(self) -> None:
        """The model is the trainer's: nothing to release."""

    def _batch(self) -> Batch:
        decoder = Decoder(self.model)
        if adopt(decoder, self.capabilities.max_context_tokens):
            return FastBatch(decoder, self._cache_bytes())
        check_state(decoder)
        return PlainBatch(decoder, self._cache_bytes())

    def _cache_bytes(self) -> int:
        if self.model.device.type == "cuda":
            return half_of_free(self.model.device)
        return _CACHE_GIB * 2**30
