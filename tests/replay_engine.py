"""The replay engine: known completions at the pace of a server that batches continuously.

A scheduling question ("how many tokens would this search have cost?") needs no model: each token
of each running request takes one tick, a finished or cancelled request frees its slot at once.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from midcourse.engines.base import Capabilities, Completion, Request

__all__ = ["ReplayEngine"]


class ReplayEngine:
    """Answers with what `complete` says, `concurrency` requests at a time, and counts tokens."""

    def __init__(self, complete: Callable[[Request], Completion], *, concurrency: int) -> None:
        self.complete, self._concurrency = complete, concurrency
        self.num_tokens = 0
        """Tokens generated so far, those of cancelled requests included."""

    @property
    def capabilities(self) -> Capabilities:
        """Token ids and seeds; no limit of its own."""
        return Capabilities(
            token_ids=True,
            seeds=True,
            max_context_tokens=2**31,
            concurrency=self._concurrency,
        )

    @contextmanager
    def session(self) -> Iterator[_Session]:
        """Open a session; its clock starts at zero."""
        yield _Session(self, self._concurrency)

    def close(self) -> None:
        """Nothing is held."""


class _Session:
    def __init__(self, engine: ReplayEngine, concurrency: int) -> None:
        self._engine, self._concurrency = engine, concurrency
        self._waiting: deque[Request] = deque()
        self._cancelled: set[str] = set()
        self._started: dict[str, int] = {}
        self._ends: list[tuple[int, str, Completion]] = []
        self._now = 0

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests."""
        self._waiting.extend(requests)

    def cancel(self, request_ids: Collection[str]) -> None:
        """Free the slots of those that run; forget those that wait."""
        for request_id in request_ids:
            begun = self._started.pop(request_id, None)
            if begun is not None:
                self._engine.num_tokens += self._now - begun
            self._cancelled.add(request_id)

    def completions(self) -> Iterator[Completion]:
        """Yield completions in the order in which they end."""
        while True:
            self._admit()
            if not self._started:
                return
            end, request_id, completion = heapq.heappop(self._ends)
            if self._started.pop(request_id, None) is not None:
                self._now = end
                self._engine.num_tokens += len(completion.token_ids)
                yield completion

    def _admit(self) -> None:
        while self._waiting and len(self._started) < self._concurrency:
            request = self._waiting.popleft()
            if request.request_id in self._cancelled:
                continue
            completion = self._engine.complete(request)
            self._started[request.request_id] = self._now
            end = self._now + len(completion.token_ids)
            heapq.heappush(self._ends, (end, request.request_id, completion))
