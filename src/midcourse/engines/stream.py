"""The session of every engine here: what waits, what is pending, and who answers it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from midcourse.engines.base import Completion, Request


class Stream:
    """A session over what an engine brings to it: a generator that answers requests.

    It takes what waits and yields completions until nothing is pending. It goes on only when the
    next completion is asked for, and may then find more that waits, or less that is pending.
    """

    def __init__(self, answer: Callable[[Stream], Iterator[Completion]]) -> None:
        self.answer = answer
        self.waiting = deque[Request]()
        self.pending = dict[str, Request]()
        """What has no completion yet and is not cancelled."""

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests."""
        self.waiting.extend(requests)
        self.pending.update((request.request_id, request) for request in requests)

    def cancel(self, request_ids: Collection[str]) -> None:
        """Drop these requests."""
        for request_id in request_ids:
            self.pending.pop(request_id, None)

    def completions(self) -> Iterator[Completion]:
        """Yield completions as they finish. Raises EngineError."""
        for completion in self.answer(self):
            if self.pending.pop(completion.request_id, None):
                yield completion

    def take(self) -> Iterator[Request]:
        """Yield what waits, one by one, each no longer waiting."""
        while self.waiting:
            request = self.waiting.popleft()
            if request.request_id in self.pending:
                yield request
