"""Dialogues: an environment answers the model's turns, until it has nothing more to say.

A `Dialogue` is an engine around an engine: one request is one whole dialogue, so whatever samples
(rollouts, verification, evaluation, RL) need not know that there are turns. What the environment
says is encoded as the chat template writes it and stands among the ids; it is never trained on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from midcourse.engines.base import (
    Capabilities,
    Completion,
    Engine,
    Request,
    Session,
    failed,
)
from midcourse.environments import Environment, environment_named
from midcourse.environments.timed import EnvironmentHangsError, TimedEnvironment
from midcourse.records import EnvironmentTurn, FinishReason, Problem, derive_seed
from midcourse.rendering import Renderer


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """What answers the model's turns, as plain data: it can be handed to another process."""

    environment: str
    """Its name in the recipe."""
    max_turns: int
    """Of the model; a dialogue that has not ended by then is truncated."""
    timeout_seconds: float
    """For an answer of the environment."""
    problems: tuple[Problem, ...]
    """As the environment may see them."""

    def through(self, engine: Engine, renderer: Renderer) -> Dialogue:
        """Return an engine of dialogues. Raises ConfigError if there is no such environment."""
        by_id = {problem.problem_id: problem for problem in self.problems}
        environment = TimedEnvironment(environment_named(self.environment), self.timeout_seconds)
        return Dialogue(engine, renderer, environment, by_id, self.max_turns)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """An engine whose replies an environment answers; all else is its own."""

    engine: Engine
    """Takes token ids."""
    renderer: Renderer
    environment: Environment
    problems: Mapping[str, Problem]
    """By problem id, as the environment may see them."""
    max_turns: int

    @property
    def capabilities(self) -> Capabilities:
        """Those of the engine."""
        return self.engine.capabilities

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session of dialogues."""
        with self.engine.session() as session:
            yield _DialogueSession(session, self)

    def close(self) -> None:
        """Release what the engine holds."""
        self.engine.close()


@dataclass(frozen=True, slots=True)
class _Open:
    """A dialogue under way: what was asked, and what has come of it."""

    request: Request
    said: tuple[str, ...]
    """The model's turns before the one that it writes now, those of the request among them."""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    text: str = ""
    given: tuple[EnvironmentTurn, ...] = ()

    @property
    def begun(self) -> str:
        """What stands in the turn that the request goes on with; later turns begin empty."""
        return self.request.said[-1] if self.request.said and not self.given else ""

    @property
    def num_sampled(self) -> int:
        """How many ids the model wrote: they share one budget."""
        return len(self.token_ids) - sum(turn.num_tokens for turn in self.given)

    def next_request(self) -> Request:
        """Return the request for the next turn; each has a seed of its own."""
        asked = self.request
        sampling = replace(asked.sampling, max_tokens=asked.sampling.max_tokens - self.num_sampled)
        return replace(
            asked,
            prompt_token_ids=(*asked.prompt_token_ids, *self.token_ids),
            sampling=sampling,
            seed=derive_seed(asked.seed, "turn", str(len(self.given))),
            group=f"{asked.request_id}/{len(self.given)}",
        )

    def with_reply(self, completion: Completion) -> _Open:
        """Return it with another turn of the model."""
        return replace(
            self,
            said=(*self.said, self.begun + completion.text),
            token_ids=(*self.token_ids, *completion.token_ids),
            logprobs=(*self.logprobs, *completion.logprobs),
            text=self.text + completion.text,
        )

    def with_answer(self, answer: str, ids: Sequence[int]) -> _Open:
        """Return it with what the environment said, `ids` in all."""
        turn = EnvironmentTurn(
            text=answer, at=len(self.text), start=len(self.token_ids), num_tokens=len(ids)
        )
        # Nobody sampled these: their log-probability is no one's, and is masked wherever it is.
        unsampled = (0.0,) * len(ids) if self.logprobs else ()
        return replace(
            self,
            token_ids=(*self.token_ids, *ids),
            logprobs=(*self.logprobs, *unsampled),
            given=(*self.given, turn),
        )

    def ended(self, reason: FinishReason) -> Completion:
        """Return the dialogue as one completion."""
        return Completion(
            request_id=self.request.request_id,
            token_ids=self.token_ids,
            logprobs=self.logprobs,
            text=self.text,
            finish_reason=reason,
            given=self.given,
        )


@dataclass(frozen=True, slots=True)
class _DialogueSession:
    session: Session
    dialogue: Dialogue
    under_way: dict[str, _Open] = field(default_factory=dict)
    encoded: dict[str, list[int]] = field(default_factory=dict)
    """What the environment says is often the same few words."""

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self.under_way[request.request_id] = _Open(request, request.said[:-1])
        self.session.submit(requests)

    def cancel(self, request_ids: Collection[str]) -> None:
        for request_id in request_ids:
            self.under_way.pop(request_id, None)
        self.session.cancel(request_ids)

    def completions(self) -> Iterator[Completion]:
        for completion in self.session.completions():
            found = self.under_way.pop(completion.request_id, None)
            if found is not None and (ended := self._after(found, completion)):
                yield ended

    def _after(self, found: _Open, completion: Completion) -> Completion | None:
        """Return how a dialogue ended, or None where the model has been asked for another turn."""
        if completion.error is not None:
            return completion
        reason = completion.finish_reason
        if found.given and reason is FinishReason.PROMPT_TOO_LONG:
            return found.ended(FinishReason.LENGTH)  # the dialogue itself used up the room
        if not reason.has_reply:
            return completion
        found = found.with_reply(completion)
        if reason is not FinishReason.STOP:
            return found.ended(reason)
        try:
            problem = self.dialogue.problems[found.request.problem_id]
            answer = self.dialogue.environment.answer(problem, found.said)
            if answer is not None and not isinstance(answer, str):
                raise TypeError(f"its answer is of type {type(answer).__name__}, not a text")
        except EnvironmentHangsError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a user's code does: our failure
            name = self.dialogue.environment.name
            return failed(found.request, f"environment {name!r}: {type(error).__name__}: {error}")
        if answer is None:
            return found.ended(reason)
        found = found.with_answer(answer, [*self._closing(completion), *self._ids(answer)])
        room = found.request.sampling.max_tokens - found.num_sampled
        if len(found.said) >= self.dialogue.max_turns or room < 1:
            return found.ended(FinishReason.LENGTH)
        self.under_way[found.request.request_id] = found
        self.session.submit([found.next_request()])
        return None

    def _closing(self, completion: Completion) -> list[int]:
        """Return what closes a turn that ended otherwise: by another stop id, or by none."""
        closing = self.dialogue.renderer.end_of_turn_ids
        return [] if completion.token_ids[-1:] == (closing[-1],) else closing

    def _ids(self, answer: str) -> list[int]:
        """Return the ids that the chat template writes for an answer and the next turn's start."""
        if answer not in self.encoded:
            role = self.dialogue.environment.role
            self.encoded[answer] = self.dialogue.renderer.next_turn_ids(answer, role)
        return self.encoded[answer]
