"""The in-process engine: any causal language model that transformers loads, on CPU or GPU.

Rows are decoded by `FastBatch` where the architecture lets it, else by `PlainBatch`. Draws depend
on a request's own seed alone, so the same seed gives the same text in any batch, up to the rounding
of the arithmetic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from midcourse.config import Dtype, ModelConfig, TransformersConfig, is_bfloat16
from midcourse.engines._decoder import Decoder, half_of_free
from midcourse.engines._head import logits_by_column
from midcourse.engines._session import PASS_TOKENS, BatchAnswers, Lanes
from midcourse.engines._threads import Cores, set_threads, share_cores
from midcourse.engines.base import Capabilities, ScoreRequest, TokenScores
from midcourse.engines.fast_batch import FastBatch, adopt
from midcourse.engines.models import model_folder, stop_token_ids
from midcourse.engines.plain_batch import PlainBatch, check_state
from midcourse.engines.stream import Stream
from midcourse.engines.weights import load_weights
from midcourse.errors import EngineError
from midcourse.rendering import Renderer

#: Tokens whose probabilities over the vocabulary are held at once.
COLUMNS_AT_ONCE = 512


def from_config(config: TransformersConfig, model: ModelConfig, path: str) -> TransformersEngine:
    """Make the engine of the model at `path`; it is loaded on first use."""
    settings = config.model_dump(exclude={"kind"})
    return TransformersEngine(model_folder(path, model.revision), dtype=model.dtype, **settings)


@dataclass(kw_only=True, eq=False)
class TransformersEngine:
    """Samples and scores in this process. The model in `folder` is loaded on first use."""

    folder: str | Path = field(kw_only=False)
    device: str = "auto"
    dtype: Dtype = "auto"
    max_batch_rows: int = 256
    max_context_tokens: int | None = None
    kv_cache_gib: float | None = None
    num_threads: int | None = None

    @cached_property
    def _loaded(self) -> tuple[Decoder, bool]:
        """The model, and whether it attends our way, as `FastBatch` wants it."""
        transformers_logging.disable_progress_bar()  # ours is the one to look at
        found = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(found if self.device == "auto" else self.device)
        # float32 is the faster type on most CPUs; on a GPU it would double everything.
        is_half = is_bfloat16(self.dtype, on_gpu=device.type != "cpu")
        dtype = torch.bfloat16 if is_half else torch.float32
        model = load_weights(self.folder, dtype)
        decoder = Decoder(model.to(device).eval())
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
        return Renderer(AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False))

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a turn, as the model folder and its tokenizer name them."""
        own = self.renderer.tokenizer.eos_token_id
        return frozenset([*stop_token_ids(str(self.folder)), *([] if own is None else [own])])

    @property
    def capabilities(self) -> Capabilities:
        """Token ids and seeds; the context is the model's own unless set lower."""
        length, rows = self._context_tokens(self.model), self.max_batch_rows
        return Capabilities(token_ids=True, seeds=True, max_context_tokens=length, concurrency=rows)

    @property
    def cores(self) -> Cores:
        """How sampling uses a CPU; only what `FastBatch` runs is known to run in two threads."""
        cores = share_cores(self.model, self.num_threads, self.max_batch_rows)
        return cores if self.is_fast else replace(cores, num_lanes=1)

    def _cache_bytes(self) -> int:
        """Memory of the key-value cache: 4 GiB, or half of what is free on a GPU, unless set."""
        if self.kv_cache_gib is None and self.model.device.type == "cuda":
            return half_of_free(self.model.device)
        return int((self.kv_cache_gib or 4) * 2**30)

    def _context_tokens(self, model: Any) -> int:
        own = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        known = [length for length in (own, self.max_context_tokens) if length]
        if not known:
            raise EngineError(
                f"the model at {str(self.folder)!r} names no context length: set "
                "engine.max_context_tokens"
            )
        return int(min(known))

    @contextmanager
    def session(self) -> Iterator[Stream]:
        """Open a session on the loaded model."""
        cores = self.cores
        batches = [self._batch(cores.num_lanes) for _ in range(cores.num_lanes)]
        # Its threads start with the first row of a second batch.
        set_up = partial(set_threads, cores.num_threads)
        with ThreadPoolExecutor(cores.num_lanes, initializer=set_up) as pool:
            yield Stream(Lanes(batches, cores.num_threads, pool).answer)

    def _batch(self, num_lanes: int) -> BatchAnswers:
        """Return an empty batch with its share of rows and memory."""
        decoder, is_fast = self._loaded
        return BatchAnswers(
            batch=(FastBatch if is_fast else PlainBatch)(decoder, self._cache_bytes() // num_lanes),
            max_rows=self.max_batch_rows // num_lanes,
            max_context_tokens=self._context_tokens(decoder.model),
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
            count = max(1, PASS_TOKENS // 4 // len(waiting[0].token_ids))
            yield from self._score([waiting.popleft() for _ in range(min(count, len(waiting)))])

    @torch.inference_mode()
    def _score(self, batch: Sequence[ScoreRequest]) -> list[TokenScores]:
        # Padding is on the right and attention is causal: no mask is needed.
        ids = pad_sequence([torch.tensor(r.token_ids) for r in batch], batch_first=True)
        logits_of = logits_by_column(self.model, ids.to(self.model.device))
        return [_scores(request, partial(logits_of, row)) for row, request in enumerate(batch)]


def _scores(request: ScoreRequest, logits_of: Callable[[slice], torch.Tensor]) -> TokenScores:
    """Score one row, a few columns at a time."""
    first, end = request.num_context, len(request.token_ids)
    chosen, entropies, others = list[float](), list[float](), list[tuple[float, ...]]()
    for start in range(first, end, COLUMNS_AT_ONCE):
        stop = min(start + COLUMNS_AT_ONCE, end)
        logprobs = logits_of(slice(start - 1, stop - 1)).float().log_softmax(-1)
        ids = torch.tensor(request.token_ids[start:stop], device=logprobs.device)
        chosen += logprobs.gather(-1, ids[:, None])[:, 0].tolist()
        entropies += (-(logprobs.exp() * logprobs).sum(-1)).tolist()
        if request.alternatives:
            others += map(tuple, logprobs[:, list(request.alternatives)].tolist())
    return TokenScores(
        request_id=request.request_id,
        logprobs=tuple(chosen),
        entropies=tuple(entropies),
        alternatives=tuple(others),
    )
