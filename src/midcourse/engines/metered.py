"""Counts what an engine is asked and what it answers, on the way through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from midcourse.engines.base import (
    Capabilities,
    Completion,
    Engine,
    Request,
    Scorer,
    ScoreRequest,
    Session,
    TokenScores,
)
from midcourse.records import FinishReason
from midcourse.tokens import TokenCount

Estimate = Callable[[str], int]
"""Returns about how many tokens a text has, where nobody says."""


@runtime_checkable
class Retrying(Protocol):
    """An engine that asks again where an attempt failed."""

    @property
    def num_retries(self) -> int:
        """Attempts so far that were repeated."""


@dataclass(eq=False, slots=True)
class Meter:
    """What a stage has asked for so far."""

    count: TokenCount = field(default_factory=TokenCount)
    num_failed: int = 0
    """Requests that failed for good."""
    _retrying: dict[int, tuple[Retrying, int]] = field(default_factory=dict)

    @property
    def num_retries(self) -> int:
        """Attempts that were repeated since the stage began."""
        return sum(engine.num_retries - before for engine, before in list(self._retrying.values()))

    def watch(self, engine: object) -> None:
        """Count the attempts that an engine repeats from now on."""
        if isinstance(engine, Retrying):
            self._retrying.setdefault(id(engine), (engine, engine.num_retries))

    def add(self, request: Request, completion: Completion, estimate: Estimate) -> None:
        """Count a request that has its completion."""
        if completion.error is not None:
            self.num_failed += 1
        elif completion.finish_reason is not FinishReason.PROMPT_TOO_LONG:  # else nobody was asked
            self.count += tokens_of(request, completion, estimate)


def tokens_of(request: Request, completion: Completion, estimate: Estimate) -> TokenCount:
    """Return the tokens of one request: as a server of texts bills them, or the ids.

    Texts of a server that does not say are estimated.
    """
    said = completion.usage
    if said is not None:
        return TokenCount(1, said.prompt_tokens, said.completion_tokens)
    if request.prompt_token_ids:
        return TokenCount(1, len(request.prompt_token_ids), len(completion.token_ids))
    asked = sum(estimate(message["content"]) for message in request.messages)
    return TokenCount(1, asked, estimate(completion.text), estimated=1)


@dataclass(frozen=True, slots=True)
class MeteredEngine:
    """An engine that is counted; all else is its own."""

    engine: Engine
    meter: Meter
    estimate: Estimate

    @property
    def capabilities(self) -> Capabilities:
        """Those of the engine."""
        return self.engine.capabilities

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session that counts."""
        self.meter.watch(self.engine)
        with self.engine.session() as session:
            yield _MeteredSession(session, self.meter, self.estimate)

    def close(self) -> None:
        """Release what the engine holds."""
        self.engine.close()


@dataclass(frozen=True, slots=True)
class _MeteredSession:
    session: Session
    meter: Meter
    estimate: Estimate
    asked: dict[str, Request] = field(default_factory=dict)

    def submit(self, requests: Sequence[Request]) -> None:
        self.asked.update((request.request_id, request) for request in requests)
        self.session.submit(requests)

    def cancel(self, request_ids: Collection[str]) -> None:
        for request_id in request_ids:
            self.asked.pop(request_id, None)
        self.session.cancel(request_ids)

    def completions(self) -> Iterator[Completion]:
        for completion in self.session.completions():
            self.meter.add(self.asked.pop(completion.request_id), completion, self.estimate)
            yield completion


@dataclass(frozen=True, slots=True)
class MeteredScorer:
    """A scorer whose sequences are counted: tokens in, none out."""

    scorer: Scorer
    meter: Meter

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[TokenScores]:
        """Yield the scores of each request."""
        lengths = {request.request_id: len(request.token_ids) for request in requests}
        for scores in self.scorer.score(requests):
            self.meter.count += TokenCount(1, lengths[scores.request_id])
            yield scores
