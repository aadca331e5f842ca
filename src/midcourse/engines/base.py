"""The one seam to models: a streaming protocol of token ids.

An engine knows no chat template and no method: a `Request` is token ids in, a `Completion` token
ids out. Requests are queued, completions come as they finish, in any order; each is journalled by
the caller the moment it arrives, and a later request may depend on an earlier completion.

    with engine.session() as session:
        session.submit(requests)
        for completion in session.completions():
            ...            # may call session.submit and session.cancel

Engines whose server only speaks chat messages declare ``token_ids=False``: they may propose and
write references, never sample the policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from midcourse.engines.served import Facts
from midcourse.records import EnvironmentTurn, FinishReason, Sampling
from midcourse.rendering import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do."""

    token_ids: bool
    """Takes token ids and returns token ids; if not, it takes messages only."""
    seeds: bool
    """The same seed gives the same text whatever else is in flight."""
    max_context_tokens: int
    """Prompt and completion together."""
    concurrency: int
    """Requests worth offering at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion to sample, e.g. 41 prompt ids, one seed, group ``"p1"``."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    """The whole context; empty only for engines that take messages."""
    sampling: Sampling
    seed: int
    group: str
    """Names the context that is shared with other requests: prefilled once."""
    messages: tuple[Message, ...] = ()
    """The same context as messages, for engines that take nothing else (proposing only)."""
    logprobs: bool = False
    """Whether the log-probability of every sampled token is wanted."""
    problem_id: str = ""
    """What an environment that answers is told (`midcourse.stages.dialogue`); engines ignore it."""
    said: tuple[str, ...] = ()
    """The model's own turns in the context, the open one last; engines ignore them."""

    def limit(self, max_context_tokens: int) -> int:
        """Return how many new tokens there is room for."""
        return min(self.sampling.max_tokens, max_context_tokens - len(self.prompt_token_ids))


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one request, as a server counts and bills them: thoughts are in them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What one request returned."""

    request_id: str
    token_ids: tuple[int, ...] = ()
    """Sampled ids, the end-of-turn included; empty from engines that return text only."""
    logprobs: tuple[float, ...] = ()
    """Per sampled id, in nats, if asked for: at the sampling temperature, before top-p, top-k and
    min-p cut anything off. Empty from engines that cannot tell."""
    text: str = ""
    """The sampled text without control tokens."""
    finish_reason: FinishReason
    usage: Usage | None = None
    """What the server says of tokens; null from engines that return ids, and where it is mute."""
    given: tuple[EnvironmentTurn, ...] = ()
    """What an environment said in between; `text` is then the model's turns, joined."""
    error: str | None = None
    """Set if this request, and only this one, failed for good: a failure of ours, never an
    answer. A stage records a few of them as outcomes; with more it stops (`Failures`)."""


def failed(request: Request, error: str) -> Completion:
    """Return the outcome of a request that got no usable reply."""
    reason = FinishReason.REQUEST_FAILED
    return Completion(request_id=request.request_id, finish_reason=reason, error=error)


def too_long(request: Request) -> Completion:
    """Return the outcome of a request whose prompt leaves no room."""
    return Completion(request_id=request.request_id, finish_reason=FinishReason.PROMPT_TOO_LONG)


class Session(Protocol):
    """One stream of requests and completions."""

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue `requests`; never waits for a completion."""

    def cancel(self, request_ids: Collection[str]) -> None:
        """Drop these requests; late replies are ignored."""

    def completions(self) -> Iterator[Completion]:
        """Yield completions as they finish; ends when every request has its own."""


class Engine(Protocol):
    """A model one can sample from."""

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do; may load the model or ask the server."""

    def session(self) -> AbstractContextManager[Session]:
        """Open a session. Raises EngineError if the model or server is not there."""

    def close(self) -> None:
        """Release what the engine holds: a loaded model, servers; it may be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """One sequence to score; the first `num_context` ids are given, the rest is scored."""

    request_id: str
    token_ids: tuple[int, ...]
    num_context: int
    alternatives: tuple[int, ...] = ()
    """Ids whose log-probability is wanted too at every scored position, e.g. two labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """Per scored token: log-probability and full-softmax entropy at temperature 1, in nats."""

    request_id: str
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    alternatives: tuple[tuple[float, ...], ...] = ()
    """Per scored token, the log-probabilities of the ids that the request names, in its order."""


@runtime_checkable
class Scorer(Protocol):
    """An engine that can score given tokens."""

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[TokenScores]:
        """Yield the scores of each request, in any order."""


@runtime_checkable
class Served(Protocol):
    """An engine whose model others serve: they may serve another one under its name."""

    def served(self) -> list[Facts]:
        """Return what each server shows of the model; servers that show nothing are left out."""
