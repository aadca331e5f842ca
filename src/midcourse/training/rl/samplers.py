"""Who draws RL's rollouts: an engine of ours, or TRL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from midcourse.engines.base import Completion, Engine
from midcourse.errors import EngineError
from midcourse.progress import Failures
from midcourse.records import FinishReason
from midcourse.rendering import Renderer
from midcourse.stages.flow import run_requests
from midcourse.stages.sample import Ask, request_of


class Sampler(Protocol):
    """Draws from the policy as it is trained."""

    def refresh(self, iteration: int) -> None:
        """Have the weights of `iteration` from now on; every process calls it."""

    def sample(self, asks: Sequence[Ask]) -> list[Completion]:
        """Return one completion per ask, in order; as many for each context, side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSampler:
    """Draws through the `Engine` protocol: a seed per sample, shared contexts, refill."""

    engine: Engine
    failures: Callable[[], Failures]
    converse: Callable[[Engine], Engine] | None = None
    """Makes an engine of dialogues of it, where an environment answers the policy's turns."""

    def refresh(self, iteration: int) -> None:
        """The engine is in this process and has the weights already."""

    def sample(self, asks: Sequence[Ask]) -> list[Completion]:
        """Ask the engine, with the log-probability of every token. Raises EngineError."""
        requests = [(replace(request_of(ask), logprobs=True), ask) for ask in asks]
        engine = self.converse(self.engine) if self.converse else self.engine
        drawn = run_requests(engine, requests, self.failures())
        found = {ask.rollout_id: completion for ask, completion in drawn}
        if len(found) < len(asks):
            raise EngineError(
                f"train_rl: {len(asks) - len(found)} of {len(asks)} rollouts could not be sampled"
            )
        return [found[ask.rollout_id] for ask in asks]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrlSampler:
    """Draws as TRL does: by transformers' ``generate``, or by vLLM on the training GPUs.

    A sample has no seed of its own: all come from one generator. TRL has one limit of new tokens
    for all; where a context leaves less room, what is over it is cut off.
    """

    trainer: Any
    """A GRPOTrainer; TRL brings vLLM's weights up to date itself."""
    renderer: Renderer
    stop_ids: Collection[int]

    def refresh(self, iteration: int) -> None:
        """Leave it to TRL."""

    def sample(self, asks: Sequence[Ask]) -> list[Completion]:
        """Ask TRL; log-probabilities are vLLM's, ``generate`` tells none."""
        contexts = [list(ask.context.token_ids) for ask in asks]
        # The way that TRL itself takes from ids to completions: it has no public name.
        ids, logprobs = self.trainer._generate_single_turn(
            contexts, None, {}, self.trainer.num_generations
        )
        return [
            self._completion(ask, sampled, logprobs[row] if logprobs else ())
            for row, (ask, sampled) in enumerate(zip(asks, ids, strict=True))
        ]

    def _completion(
        self, ask: Ask, sampled: Sequence[int], logprobs: Sequence[float]
    ) -> Completion:
        kept = tuple(sampled[: ask.sampling.max_tokens])
        is_closed = bool(kept) and kept[-1] in self.stop_ids
        return Completion(
            request_id=ask.rollout_id,
            token_ids=kept,
            logprobs=tuple(logprobs[: len(kept)]),
            text=self.renderer.decode(kept),
            finish_reason=FinishReason.STOP if is_closed else FinishReason.LENGTH,
        )
