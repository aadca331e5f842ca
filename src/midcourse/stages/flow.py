"""Keeps an engine busy from a lazy stream of requests.

Requests are made one by one as room appears, so a stage over millions of rollouts holds only a
window of them; completions come back with whatever the caller attached to the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from midcourse.engines.base import Completion, Engine, Request
from midcourse.progress import Failures

T = TypeVar("T")


def run_requests(
    engine: Engine,
    requests: Iterable[tuple[Request, T]],
    failures: Failures,
    follow_up: Callable[[T, Completion], Sequence[tuple[Request, T]]] | None = None,
) -> Iterator[tuple[T, Completion]]:
    """Yield ``(attachment, completion)`` as they finish; those that failed for good come last.

    If `failures` finds too many of those, they do not come at all: they are left for a later run.
    `follow_up` may turn a completion into further requests (a second turn) instead.
    """
    window = 4 * engine.capabilities.concurrency
    waiting, attached = iter(requests), dict[str, T]()
    failed: list[tuple[T, Completion]] = []
    num_answered = 0

    def take(count: int) -> list[Request]:
        batch = list(islice(waiting, count))
        attached.update((request.request_id, attachment) for request, attachment in batch)
        return [request for request, _ in batch]

    with engine.session() as session:
        session.submit(take(window))
        for completion in session.completions():
            attachment = attached.pop(completion.request_id)
            num_answered += completion.error is None
            if completion.error is not None:
                failed.append((attachment, completion))
            elif follow_up is not None and (following := follow_up(attachment, completion)):
                attached.update(
                    (request.request_id, attached_to) for request, attached_to in following
                )
                session.submit([request for request, _ in following])
            else:
                yield attachment, completion
            # Refill in chunks: engines batch what arrives together, siblings share a prefill.
            if len(attached) <= window // 2:
                session.submit(take(window - len(attached)))
    if failures.may_record([str(completion.error) for _, completion in failed], num_answered):
        yield from failed
