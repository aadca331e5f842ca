"""The in-process engine: any causal language model that transformers loads, on CPU or GPU.

Rows are decoded by `FastBatch` where the architecture lets it, else by `PlainBatch`. Draws depend
on a request's own seed alone, so the same seed gives the same text in any batch, up to the rounding
of the arithmetic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from midcourse.config import ModelConfig, TransformersConfig
from midcourse.engines._decoder import Decoder
from midcourse.engines._session import PASS_TOKENS, Batch, BatchSession
from midcourse.engines.base import Capabilities, ScoreRequest, TokenScores
from midcourse.engines.fast_batch import FastBatch, adopt
from midcourse.engines.models import model_folder, stop_token_ids
from midcourse.engines.plain_batch import PlainBatch, check_state
from midcourse.errors import EngineError
from midcourse.rendering import Renderer


def from_config(config: TransformersConfig, model: ModelConfig, path: str) -> TransformersEngine:
    """Make the engine of the model at `path`; it is loaded on first use."""
    return TransformersEngine(
        model_folder(path, model.revision),
        device=config.device,
        dtype=model.dtype,
        max_batch_rows=config.max_batch_rows,
        max_context_tokens=config.max_context_tokens,
        kv_cache_gib=config.kv_cache_gib,
    )


class TransformersEngine:
    """Samples and scores in this process. The model is loaded on first use."""

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_batch_rows: int = 256,
        max_context_tokens: int | None = None,
        kv_cache_gib: float | None = None,
    ) -> None:
        self._name, self._kv_cache_gib = str(model), kv_cache_gib
        cuda = torch.cuda.is_available()
        self._device = torch.device(("cuda" if cuda else "cpu") if device == "auto" else device)
        # float32 is the faster type on most CPUs; on a GPU it would double everything.
        preferred = torch.float32 if self._device.type == "cpu" else torch.bfloat16
        self._dtype = preferred if dtype == "auto" else getattr(torch, dtype)
        self.max_batch_rows = max_batch_rows
        self._max_context_tokens = max_context_tokens

    @cached_property
    def _loaded(self) -> tuple[Decoder, bool]:
        """The model, and whether it attends our way, as `FastBatch` wants it."""
        transformers_logging.disable_progress_bar()  # ours is the one to look at
        try:
            model = AutoModelForCausalLM.from_pretrained(
                self._name, dtype=self._dtype, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise EngineError(f"cannot load the model at {self._name!r}: {reason}") from error
        decoder = Decoder(model.to(self._device).eval())
        is_fast = adopt(decoder, self._context_tokens(model))
        if not is_fast:
            check_state(decoder)
        return decoder, is_fast

    @property
    def model(self) -> Any:
        """The loaded model. Raises EngineError if there is none."""
        return self._loaded[0].model

    @property
    def is_fast(self) -> bool:
        """Whether rows share contexts and join at any time; loads the model to find out."""
        return self._loaded[1]

    @cached_property
    def renderer(self) -> Renderer:
        """Decodes what was sampled."""
        return Renderer(AutoTokenizer.from_pretrained(self._name))

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a turn, as the model folder and its tokenizer name them."""
        own = self.renderer.tokenizer.eos_token_id
        return frozenset(stop_token_ids(self._name)) | ({own} if own is not None else set())

    @property
    def kv_cache_bytes(self) -> int:
        """Memory of the key-value cache: 4 GiB, or half of what is free on a GPU, unless set."""
        if self._kv_cache_gib is not None:
            return int(self._kv_cache_gib * 2**30)
        if self._device.type == "cuda":
            return int(torch.cuda.mem_get_info(self._device)[0] // 2)
        return 4 * 2**30

    @property
    def capabilities(self) -> Capabilities:
        """Token ids and seeds; the context is the model's own unless set lower."""
        return Capabilities(
            token_ids=True,
            seeds=True,
            max_context_tokens=self._context_tokens(self.model),
            concurrency=self.max_batch_rows,
        )

    def _context_tokens(self, model: Any) -> int:
        own = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        known = [length for length in (own, self._max_context_tokens) if length]
        if not known:
            raise EngineError(
                f"the model at {self._name!r} names no context length: set "
                "engine.max_context_tokens"
            )
        return int(min(known))

    @contextmanager
    def session(self) -> Iterator[BatchSession]:
        """Open a session on the loaded model."""
        decoder, is_fast = self._loaded
        kind = FastBatch if is_fast else PlainBatch
        batch: Batch = kind(decoder, self.kv_cache_bytes)
        yield BatchSession(
            batch=batch,
            max_rows=self.max_batch_rows,
            max_context_tokens=self.capabilities.max_context_tokens,
            stop_ids=self.stop_ids,
            decode=self.renderer.decode,
        )

    def close(self) -> None:
        """Release the model; it is loaded again when it is needed."""
        self.__dict__.pop("_loaded", None)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[TokenScores]:
        """Yield log-probability and full-softmax entropy of every scored token, in nats."""
        waiting = deque(sorted(requests, key=lambda request: -len(request.token_ids)))
        while waiting:
            width = len(waiting[0].token_ids)
            count = max(1, PASS_TOKENS // 4 // width)
            yield from self._score([waiting.popleft() for _ in range(min(count, len(waiting)))])

    @torch.inference_mode()
    def _score(self, batch: Sequence[ScoreRequest]) -> list[TokenScores]:
        width = max(len(request.token_ids) for request in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        for row, request in enumerate(batch):
            ids[row, : len(request.token_ids)] = torch.tensor(request.token_ids)
        # Padding is on the right and attention is causal: no mask is needed.
        logits = self.model(input_ids=ids.to(self._device), use_cache=False).logits
        scores = []
        for row, request in enumerate(batch):
            scored = slice(request.num_context - 1, len(request.token_ids) - 1)
            logprobs = logits[row, scored].float().log_softmax(-1)
            targets = torch.tensor(request.token_ids[request.num_context :], device=logits.device)
            chosen = logprobs.gather(-1, targets[:, None])[:, 0]
            entropies = -(logprobs.exp() * logprobs).sum(-1)
            scores.append(
                TokenScores(
                    request_id=request.request_id,
                    logprobs=tuple(chosen.tolist()),
                    entropies=tuple(entropies.tolist()),
                )
            )
        return scores
