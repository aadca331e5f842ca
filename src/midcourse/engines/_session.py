"""Decoding in this process: who joins a batch, who leaves it, and their tokens.

How rows are decoded is a `Batch`'s affair: `FastBatch` shares contexts and takes rows in at any
time; `PlainBatch` is transformers' own cache, for architectures that need it. `Lanes` are several
batches side by side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from midcourse.engines._decoder import Context
from midcourse.engines._sampling import logprobs_of, sample_tokens, uniforms
from midcourse.engines._threads import LANE_ROWS, using_threads
from midcourse.engines.base import Completion, Request, too_long
from midcourse.engines.stream import Stream
from midcourse.records import FinishReason

#: Tokens of one prefill or scoring pass, padding included.
PASS_TOKENS = 16_384
#: The token by which batches are compared with the model that they run.
PROBE = 32
#: Share of rows that must be free before rows are dropped and others join.
_REFILL_SHARE = 0.125


@dataclass(slots=True)
class Row:
    """One request in the batch."""

    request: Request
    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None


class Batch(Protocol):
    """Rows of a model and what it remembers of them."""

    in_order: bool
    """Whether a row that does not fit keeps those behind it waiting."""

    def begin(self, rows: Sequence[Row], upcoming: Sequence[Context]) -> bool:
        """Prepare for `fits`, given the rows that run; return whether any may join them now."""

    def fits(self, context: Context, max_tokens: int) -> bool:
        """Whether one more row may join; if so it is counted."""

    def join(self, counts: Mapping[Context, int]) -> Tensor:
        """Add ``counts[context]`` rows for each context, longest first; return what follows."""

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token per row; return the logits (rows, vocabulary) that follow."""

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, which are given in ascending order; there may be none."""


@torch.no_grad()
def strays(batch: Batch, counts: Mapping[Context, int], expected: Tensor, share: float) -> Tensor:
    """Run rows and one more token, `PROBE`; return whose logits differ by more than a share."""
    batch.join(counts)
    found = batch.step(torch.full((len(expected),), PROBE, device=expected.device))
    is_close: Tensor = (found - expected).norm(dim=-1) <= share * expected.norm(dim=-1)
    return ~is_close


@dataclass(slots=True, kw_only=True)
class BatchAnswers:
    """What answers one stream of requests, or a share of it: a batch, and the rows in it."""

    batch: Batch
    max_rows: int
    max_context_tokens: int
    stop_ids: Collection[int]
    decode: Callable[[Sequence[int]], str]
    _rows: list[Row] = field(default_factory=list)
    _joining: list[Row] = field(default_factory=list)
    _logits: Any = None

    def answer(self, stream: Stream) -> Iterator[Completion]:
        """Yield completions as rows finish, until nothing waits."""
        return Lanes([self]).answer(stream)

    @property
    def is_busy(self) -> bool:
        """Whether it has rows to decode."""
        return bool(self._rows or self._joining)

    def admit(self, stream: Stream, most: int) -> Iterator[Completion]:
        """Choose who joins next, `most` at most; yield those that cannot run at all."""
        free = self.max_rows - len(self._rows)
        if not stream.waiting or (self._rows and free < _REFILL_SHARE * self.max_rows):
            return
        free = min(free, most)
        upcoming = [request.prompt_token_ids for request in islice(stream.waiting, free)]
        if not self.batch.begin(self._rows, upcoming):
            return
        passed_over = list[Request]()
        for request in stream.take():
            limit = request.limit(self.max_context_tokens)
            if limit < 1:
                yield too_long(request)
            elif self.batch.fits(request.prompt_token_ids, limit):
                self._joining.append(Row(request, limit))
            else:
                passed_over.append(request)
            if len(self._joining) == free or (passed_over and self.batch.in_order):
                break
        stream.waiting.extendleft(reversed(passed_over))

    def draw(self) -> None:
        """Lay down the rows that join, and draw the next token of every row."""
        if self._joining:
            self._join(self._joining)
            self._joining = []
        self._sample()

    def go_on(self) -> None:
        """Drop finished rows, and have the others decoded one token further."""
        self._compact()
        if any(row.finish_reason is None for row in self._rows):
            last = [row.token_ids[-1] for row in self._rows]
            self._logits = self.batch.step(torch.tensor(last, device=self._logits.device))

    def _join(self, joining: Sequence[Row]) -> None:
        """Lay rows down, those of one context side by side."""
        by_context = defaultdict[Context, list[Row]](list)
        for row in joining:
            by_context[row.request.prompt_token_ids].append(row)
        contexts = sorted(by_context, key=len, reverse=True)  # Like lengths waste no padding.
        logits = self.batch.join({context: len(by_context[context]) for context in contexts})
        self._logits = logits if self._logits is None else torch.cat([self._logits, logits])
        self._rows += [row for context in contexts for row in by_context[context]]

    def _sample(self) -> None:
        """Draw the next token of every row, finished ones included: they are ignored."""
        seeds = np.array([row.request.seed for row in self._rows])
        counts = np.array([len(row.token_ids) for row in self._rows])
        draws = torch.from_numpy(uniforms(seeds, counts)).to(self._logits.device)
        sampling = [row.request.sampling for row in self._rows]
        tokens = sample_tokens(self._logits, sampling, draws, self._seen())
        if any(row.request.logprobs for row in self._rows):
            temperatures = torch.tensor([one.temperature for one in sampling])
            self._note(logprobs_of(self._logits, tokens, temperatures))
        for row, token in zip(self._rows, tokens.tolist(), strict=True):
            if row.finish_reason is None:
                row.token_ids.append(token)

    def _note(self, logprobs: Tensor) -> None:
        """Keep the log-probabilities of what running rows have just drawn."""
        for row, logprob in zip(self._rows, logprobs.tolist(), strict=True):
            if row.finish_reason is None and row.request.logprobs:
                row.logprobs.append(logprob)

    def _seen(self) -> Tensor | None:
        """Mark the ids of every row's context, where a repetition penalty asks for it."""
        if all(row.request.sampling.repetition_penalty == 1.0 for row in self._rows):
            return None
        seen = torch.zeros_like(self._logits, dtype=torch.bool)
        for mark, row in zip(seen, self._rows, strict=True):
            mark[[*row.request.prompt_token_ids, *row.token_ids]] = True
        return seen

    def finished(self, stream: Stream) -> Iterator[Completion]:
        """Yield the rows that end with this token."""
        for row in self._rows:
            if row.finish_reason is not None:
                continue
            if row.token_ids[-1] in self.stop_ids or row.request.request_id not in stream.pending:
                row.finish_reason = FinishReason.STOP
            elif len(row.token_ids) >= row.max_tokens:
                row.finish_reason = FinishReason.LENGTH
            if row.finish_reason is not None:
                yield Completion(
                    request_id=row.request.request_id,
                    token_ids=tuple(row.token_ids),
                    logprobs=tuple(row.logprobs),
                    text=self.decode(row.token_ids),
                    finish_reason=row.finish_reason,
                )

    def _compact(self) -> None:
        """Drop finished rows once enough of them have gathered: dropping copies the rest."""
        running = [i for i, row in enumerate(self._rows) if row.finish_reason is None]
        if running and len(self._rows) - len(running) < _REFILL_SHARE * len(self._rows):
            return
        self._rows = [self._rows[i] for i in running]
        self.batch.keep(running)
        if not running:
            self._logits = None


@dataclass(frozen=True, slots=True)
class Lanes:
    """Answers one stream with several batches: at each token each of them has a thread of its own.

    They wait for each other, so that who joins which batch, and the order of completions, depend
    on nothing but the requests.
    """

    batches: Sequence[BatchAnswers]
    num_threads: int | None = None
    """Threads of one product; None leaves it to torch."""
    pool: Executor | None = None
    """Threads for all batches but one; they have `num_threads` already."""

    def answer(self, stream: Stream) -> Iterator[Completion]:
        """Yield completions as rows finish, until nothing waits."""
        while stream.waiting or any(batch.is_busy for batch in self.batches):
            yield from self._admit(stream)
            busy = [batch for batch in self.batches if batch.is_busy]
            self._each(BatchAnswers.draw, busy)
            for batch in busy:
                yield from batch.finished(stream)
            self._each(BatchAnswers.go_on, busy)

    def _admit(self, stream: Stream) -> Iterator[Completion]:
        """Deal what waits evenly, though none gets so little that a batch is not worth it."""
        for taken, batch in enumerate(self.batches):
            share = -(-len(stream.waiting) // (len(self.batches) - taken))
            yield from batch.admit(stream, max(share, LANE_ROWS))

    def _each(self, work: Callable[[BatchAnswers], None], batches: Sequence[BatchAnswers]) -> None:
        """Do a work for each batch, the first one's here."""
        others = [self.pool.submit(work, batch) for batch in batches[1:]] if self.pool else ()
        with using_threads(self.num_threads):
            for batch in batches[: len(batches) - len(others)]:
                work(batch)
        for other in others:
            other.result()
