"""The session of every engine here: what waits, what is pending, and who answers it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from midcourse.engines.base import Completion, Request


class Stream:
    """A session over what an engine brings to it: a generator that answers requests.

    The generator takes what waits and yields completions until nothing is pending. It goes on only
    when the next completion is asked for, and may then find more that waits, or less that is
    pending. What failed is asked once more when nothing else is pending: by then a server may have
    recovered.
    """

    def __init__(self, answer: Callable[[Stream], Iterator[Completion]]) -> None:
        self.answer = answer
        self.waiting = deque[Request]()
        self.pending = dict[str, Request]()
        """What has no completion yet and is not cancelled."""
        self._failed = dict[str, Request]()
        """What failed once and waits to be asked again."""
        self._asked_again = set[str]()

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests."""
        self.waiting.extend(requests)
        self.pending.update((request.request_id, request) for request in requests)

    def cancel(self, request_ids: Collection[str]) -> None:
        """Drop these requests."""
        for request_id in request_ids:
            self.pending.pop(request_id, None)
            self._failed.pop(request_id, None)

    def completions(self) -> Iterator[Completion]:
        """Yield completions as they finish. Raises EngineError."""
        for completion in self.answer(self):
            request = self.pending.pop(completion.request_id, None)
            is_first = completion.request_id not in self._asked_again
            if request is not None and completion.error is not None and is_first:
                self._failed[request.request_id] = request
            elif request is not None:
                yield completion
            if not self.pending:
                self._ask_again()

    def _ask_again(self) -> None:
        self._asked_again.update(self._failed)
        self.submit(list(self._failed.values()))
        self._failed.clear()

    def take(self) -> Iterator[Request]:
        """Yield what waits, one by one, each no longer waiting."""
        while self.waiting:
            request = self.waiting.popleft()
            if request.request_id in self.pending:
                yield request
