"""The in-process engine: any causal language model that transformers loads, on CPU or GPU.

A context that several requests share is prefilled once, finished rows leave the batch, waiting
requests take their place. Draws depend on a request's own seed alone, so the same seed gives the
same text in any batch, up to the rounding of the arithmetic.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import DynamicCache
from transformers.utils import logging as transformers_logging

from midcourse.config import ModelConfig, TransformersConfig
from midcourse.engines import model_folder
from midcourse.engines._kv_buffer import KvBuffer, register_attention
from midcourse.engines._sampling import sample_tokens, uniforms
from midcourse.engines.base import Capabilities, Completion, Request, ScoreRequest, TokenScores
from midcourse.errors import EngineError
from midcourse.records import FinishReason
from midcourse.rendering import Renderer

#: Columns added to the key-value buffer at a time.
_SPARE_COLUMNS = 64
#: Tokens of one prefill or scoring pass, padding included.
_PASS_TOKENS = 16_384
#: Share of rows that must be free before rows are dropped and others join.
_REFILL_SHARE = 0.125
#: Columns that a step must save for a context to be stored once: below, the products of its own
#: cost more. On two CPU cores it breaks even at 1,200 to 1,500; a GPU reads faster and starts a
#: product no faster (not measured).
_WORTH_SHARING = {"cpu": 1500, "cuda": 15_000}


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
    def model(self) -> Any:
        """The loaded model. Raises EngineError if there is none."""
        transformers_logging.disable_progress_bar()  # ours is the one to look at
        try:
            model = AutoModelForCausalLM.from_pretrained(
                self._name,
                dtype=self._dtype,
                trust_remote_code=False,
                attn_implementation=register_attention(),
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise EngineError(f"cannot load the model at {self._name!r}: {reason}") from error
        return model.to(self._device).eval()

    @cached_property
    def renderer(self) -> Renderer:
        """Decodes what was sampled."""
        return Renderer(AutoTokenizer.from_pretrained(self._name))

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a turn, from the generation config, the config and the tokenizer."""
        sources = (self.model.generation_config, self.model.config, self.renderer.tokenizer)
        found: set[int] = set()
        for source in sources:
            ids = getattr(source, "eos_token_id", None)
            found.update([] if ids is None else [ids] if isinstance(ids, int) else ids)
        return frozenset(found)

    @property
    def kv_cache_tokens(self) -> int:
        """Rows times columns that fit the key-value cache.

        Its memory is 4 GiB, or half of what is free on a GPU, unless it was set.
        """
        config, free = self.model.config, 4 * 2**30
        if self._device.type == "cuda":
            free = torch.cuda.mem_get_info(self._device)[0] // 2
        if self._kv_cache_gib is not None:
            free = int(self._kv_cache_gib * 2**30)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        per_token = 2 * config.num_hidden_layers * heads * width * self.model.dtype.itemsize
        return max(1, int(free // per_token))

    @property
    def capabilities(self) -> Capabilities:
        """Token ids, seeds and scoring; the context is the model's own unless set lower."""
        own = int(self.model.config.max_position_embeddings)
        return Capabilities(
            token_ids=True,
            seeds=True,
            scoring=True,
            max_context_tokens=min(own, self._max_context_tokens or own),
            concurrency=self.max_batch_rows,
        )

    @contextmanager
    def session(self) -> Iterator[_Session]:
        """Open a session on the loaded model."""
        yield _Session(self, self.capabilities.max_context_tokens)

    def close(self) -> None:
        """Let go of the model; it is loaded again when it is needed."""
        self.__dict__.pop("model", None)

    @torch.inference_mode()
    def prefill(self, contexts: Sequence[tuple[int, ...]]) -> tuple[DynamicCache, torch.Tensor]:
        """Run left-padded contexts; return their keys and values and the last logits."""
        width = max(map(len, contexts))
        ids = torch.zeros(len(contexts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, context in enumerate(contexts):
            ids[row, width - len(context) :] = torch.tensor(context)
            mask[row, width - len(context) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache()  # told of the model, it would forget what a sliding window has left
        output = self.model(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            position_ids=positions.to(self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cache, output.logits[:, -1]

    @torch.inference_mode()
    def step(self, tokens: torch.Tensor, buffer: KvBuffer) -> torch.Tensor:
        """Feed one token per row; return the logits (rows, vocabulary) that follow."""
        buffer.make_room(_SPARE_COLUMNS)
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=buffer.mask(),
            position_ids=buffer.positions(),
            past_key_values=buffer,
            use_cache=True,
            buffer=buffer,
        )
        buffer.end_step()
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[TokenScores]:
        """Yield log-probability and full-softmax entropy of every scored token, in nats."""
        waiting = deque(sorted(requests, key=lambda request: -len(request.token_ids)))
        while waiting:
            width = len(waiting[0].token_ids)
            count = max(1, _PASS_TOKENS // 4 // width)
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


@dataclass(slots=True)
class _Row:
    """One request in the batch."""

    request: Request
    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class _Footprint:
    """Columns that a batch takes at its end, to be held against the key-value cache."""

    rows: int
    own: int
    """Columns of its own that every row has when all have joined."""
    to_come: int
    shared: int
    """Columns of all shared contexts."""
    last: tuple[int, ...] | None
    """The shared context counted last: its rows come one after the other."""

    @property
    def tokens(self) -> int:
        """Rows times columns."""
        return self.rows * (self.own + self.to_come + _SPARE_COLUMNS) + self.shared

    def plus(self, context: tuple[int, ...], max_tokens: int, is_shared: bool) -> _Footprint:
        """Return the footprint with one more row."""
        return _Footprint(
            rows=self.rows + 1,
            own=self.own if is_shared else max(self.own, len(context)),
            to_come=max(self.to_come, max_tokens),
            shared=self.shared + (len(context) if is_shared and context != self.last else 0),
            last=context if is_shared else self.last,
        )


class _Session:
    """One stream of requests over one key-value buffer."""

    def __init__(self, engine: TransformersEngine, max_context_tokens: int) -> None:
        self._engine, self._max_context_tokens = engine, max_context_tokens
        self._waiting: deque[Request] = deque()
        self._cancelled: set[str] = set()
        self._buffer = KvBuffer()
        self._kv_cache_tokens = engine.kv_cache_tokens
        self._rows: list[_Row] = []
        self._logits: torch.Tensor | None = None

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests."""
        self._waiting.extend(requests)

    def cancel(self, request_ids: Collection[str]) -> None:
        """Stop owing these."""
        self._cancelled.update(request_ids)

    def completions(self) -> Iterator[Completion]:
        """Yield completions as rows finish."""
        while self._waiting or self._rows:
            yield from self._admit()
            if not self._rows:
                continue
            self._sample()
            yield from self._finished()
            self._compact()
            running = [row for row in self._rows if row.finish_reason is None]
            if running:
                last = [row.token_ids[-1] for row in self._rows]
                tokens = torch.tensor(last, device=self._engine._device)
                self._logits = self._engine.step(tokens, self._buffer)

    def _admit(self) -> Iterator[Completion]:
        """Let waiting requests join where there is room; yield those that cannot run at all."""
        free = self._engine.max_batch_rows - len(self._rows)
        if not self._waiting or (self._rows and free < _REFILL_SHARE * self._engine.max_batch_rows):
            return
        shared = self._worth_sharing(free)
        footprint = self._footprint()
        joining: list[_Row] = []
        fits_now = self._buffer.longest if self._rows else self._max_context_tokens
        while self._waiting and len(joining) < free:
            request = self._waiting[0]
            context = request.prompt_token_ids
            limit = min(request.sampling.max_tokens, self._max_context_tokens - len(context))
            if request.request_id not in self._cancelled and limit >= 1:
                if len(context) > fits_now:
                    break  # A longer context waits until the batch has grown or drained.
                larger = footprint.plus(context, limit, context in shared)
                # One row alone always runs.
                if (self._rows or joining) and larger.tokens > self._kv_cache_tokens:
                    break
                footprint = larger
                joining.append(_Row(request, limit))
            elif request.request_id not in self._cancelled:
                yield _completion(request, (), "", FinishReason.PROMPT_TOO_LONG)
            self._waiting.popleft()
        if joining:
            self._join(joining, shared)

    def _worth_sharing(self, free: int) -> set[tuple[int, ...]]:
        """Return the contexts that enough of the next `free` requests have in common."""
        upcoming = Counter(request.prompt_token_ids for request in islice(self._waiting, free))
        least = _WORTH_SHARING.get(self._engine._device.type, _WORTH_SHARING["cuda"])
        return {
            context for context, count in upcoming.items() if (count - 1) * len(context) >= least
        }

    def _footprint(self) -> _Footprint:
        """Return what the rows in the batch will have taken by their end."""
        if not self._rows:
            return _Footprint(0, 0, 0, 0, None)
        to_come = max(row.max_tokens - len(row.token_ids) for row in self._rows)
        own = self._buffer.column - self._buffer.first
        return _Footprint(len(self._rows), own, to_come, self._buffer.shared_columns, None)

    def _join(self, joining: list[_Row], shared: Collection[tuple[int, ...]]) -> None:
        """Prefill each distinct context once, in passes of bounded size, and lay rows down."""
        by_context: dict[tuple[int, ...], list[_Row]] = {}
        for row in joining:
            by_context.setdefault(row.request.prompt_token_ids, []).append(row)
        contexts = sorted(by_context, key=len, reverse=True)  # Like lengths waste no padding.
        per_pass = max(1, _PASS_TOKENS // len(contexts[0]))
        for start in range(0, len(contexts), per_pass):
            chunk = contexts[start : start + per_pass]
            cache, logits = self._engine.prefill(chunk)
            counts = [len(by_context[context]) for context in chunk]
            is_shared = [context in shared for context in chunk]
            self._buffer.join(cache, [len(c) for c in chunk], counts, is_shared, _SPARE_COLUMNS)
            expanded = logits.repeat_interleave(torch.tensor(counts, device=logits.device), dim=0)
            self._logits = expanded if self._logits is None else torch.cat([self._logits, expanded])
            self._rows += [row for context in chunk for row in by_context[context]]

    def _sample(self) -> None:
        """Draw the next token of every row, finished ones included: they are ignored."""
        assert self._logits is not None
        requests = [row.request for row in self._rows]
        seeds = np.array([request.seed for request in requests])
        counts = np.array([len(row.token_ids) for row in self._rows])
        draws = torch.from_numpy(uniforms(seeds, counts)).to(self._logits.device)
        tokens = sample_tokens(
            self._logits, [request.sampling for request in requests], draws, self._seen()
        )
        for row, token in zip(self._rows, tokens.tolist(), strict=True):
            if row.finish_reason is None:
                row.token_ids.append(token)

    def _seen(self) -> torch.Tensor | None:
        """Mark the ids of every row's context, where a repetition penalty asks for it."""
        if all(row.request.sampling.repetition_penalty == 1.0 for row in self._rows):
            return None
        assert self._logits is not None
        seen = torch.zeros_like(self._logits, dtype=torch.bool)
        for mark, row in zip(seen, self._rows, strict=True):
            mark[[*row.request.prompt_token_ids, *row.token_ids]] = True
        return seen

    def _finished(self) -> Iterator[Completion]:
        """Yield the rows that end with this token."""
        stop_ids = self._engine.stop_ids
        for row in self._rows:
            if row.finish_reason is not None:
                continue
            if row.token_ids[-1] in stop_ids:
                row.finish_reason = FinishReason.STOP
            elif len(row.token_ids) >= row.max_tokens:
                row.finish_reason = FinishReason.LENGTH
            cancelled = row.request.request_id in self._cancelled
            if cancelled:
                row.finish_reason = FinishReason.STOP
            elif row.finish_reason is not None:
                text = self._engine.renderer.decode(row.token_ids)
                yield _completion(row.request, tuple(row.token_ids), text, row.finish_reason)

    def _compact(self) -> None:
        """Drop finished rows once enough of them have gathered: dropping copies the rest."""
        running = [i for i, row in enumerate(self._rows) if row.finish_reason is None]
        num_finished = len(self._rows) - len(running)
        if running and num_finished < _REFILL_SHARE * len(self._rows):
            return
        self._rows = [self._rows[i] for i in running]
        if running:
            self._buffer.keep(running)
        else:
            self._buffer, self._logits = KvBuffer(), None


def _completion(
    request: Request, token_ids: tuple[int, ...], text: str, finish_reason: FinishReason
) -> Completion:
    return Completion(
        request_id=request.request_id,
        token_ids=token_ids,
        text=text,
        finish_reason=finish_reason,
    )


def from_config(config: TransformersConfig, model: ModelConfig, path: str) -> TransformersEngine:
    """Make the engine for the model at `path`."""
    return TransformersEngine(
        model_folder(path, model.revision),
        device=config.device,
        dtype=model.dtype,
        max_batch_rows=config.max_batch_rows,
        max_context_tokens=config.max_context_tokens,
        kv_cache_gib=config.kv_cache_gib,
    )
