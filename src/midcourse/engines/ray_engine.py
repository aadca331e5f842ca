"""Spreads requests over a Ray cluster: one actor per model copy, each with an engine inside.

Requests travel in chunks that keep siblings of one prefix together. A chunk's results come back
whole: when an actor or its node is lost, the chunk goes to another actor, so nothing is lost and
nothing comes twice. Lost actors are replaced where the cluster still has room.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

from midcourse.config import InnerEngineConfig, ModelConfig, RayConfig
from midcourse.engines.base import Capabilities, Completion, Engine, Request
from midcourse.engines.stream import Stream
from midcourse.errors import EngineError, MidcourseError, MissingExtra
from midcourse.processes import own_signals

#: Chunks that an actor holds at once: one to work on, one to begin without waiting.
_CHUNKS_PER_ACTOR = 2
#: Replacements of lost actors, per actor that was asked for, before the run stops.
_REPLACEMENTS = 5


class RayEngine:
    """A pool of `config.num_actors` actors; `config.inner` says which engine each one holds."""

    def __init__(self, config: RayConfig, model: ModelConfig, path: str) -> None:
        self._config, self._model, self._path = config, model, path

    @property
    def capabilities(self) -> Capabilities:
        """What one actor can do, with room for all of them; starts the pool."""
        inner = self.pool.capabilities
        return replace(inner, concurrency=inner.concurrency * self._config.num_actors)

    @contextmanager
    def session(self) -> Iterator[Stream]:
        """Open a session. Raises EngineError if the cluster cannot place a single actor."""
        yield Stream(self.pool.answer)

    @cached_property
    def pool(self) -> _Pool:
        """The actors; started on first use."""
        return _Pool(self._config, self._model, self._path)

    def close(self) -> None:
        """End the actors and leave the cluster."""
        if pool := self.__dict__.pop("pool", None):
            pool.close()


from_config = RayEngine  # the pool starts on first use


class _Worker:
    """What runs in an actor: an engine, asked for one chunk at a time."""

    def __init__(self, config: InnerEngineConfig, model: ModelConfig, path: str) -> None:
        self._settings = config, model, path

    def capabilities(self) -> Capabilities:
        """Load the model and say what it can do."""
        from midcourse.engines import open_engine

        self._engine: Engine = open_engine(*self._settings)
        return self._engine.capabilities

    def run(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer a chunk."""
        with self._engine.session() as session:
            session.submit(requests)
            return list(session.completions())


class _Pool:
    """The actors and what each of them is doing."""

    capabilities: Capabilities

    def __init__(self, config: RayConfig, model: ModelConfig, path: str) -> None:
        self.config, self.model, self.path = config, model, path
        self.tasks = dict[Any, tuple[Any, list[Request]]]()
        """By Ray's reference: an actor and the chunk it was given, empty while it starts."""
        self.load = dict[Any, int]()
        """Chunks in hand of each actor that is up."""
        self._num_started = 0
        self.ray = _import_ray(is_private=not config.address)
        if not self.ray.is_initialized():
            _join_cluster(self.ray, config.address)
        with ExitStack() as undo:
            undo.callback(self.close)
            for _ in range(config.num_actors):
                self._start_actor()
            while not self.load:
                self._settle(deque(), config.timeout_seconds)
            undo.pop_all()

    def _start_actor(self) -> None:
        """Ask the cluster for one more actor; it counts once it answers."""
        limit = self.config.num_actors * (1 + _REPLACEMENTS)
        if self._num_started >= limit:
            raise EngineError(
                f"Ray lost {limit} actors; check the cluster and rerun the same command"
            )
        self._num_started += 1
        worker = self.ray.remote(_Worker).options(
            num_cpus=self.config.actor_cpus,
            num_gpus=self.config.actor_gpus,
            max_restarts=0,  # a lost actor is replaced by us, its chunk goes elsewhere at once
        )
        actor = worker.remote(self.config.inner, self.model, self.path)
        self.tasks[actor.capabilities.remote()] = actor, []

    def answer(self, stream: Stream) -> Iterator[Completion]:
        """Yield completions, chunk by chunk; what is cancelled late is answered in vain."""
        chunks = deque[list[Request]]()
        while stream.pending:
            chunks.extend(self._cut(stream))
            while chunks and self.load:
                actor = min(self.load, key=lambda a: self.load[a])
                if self.load[actor] >= _CHUNKS_PER_ACTOR:
                    break
                chunk = chunks.popleft()
                self.load[actor] += 1
                self.tasks[actor.run.remote(chunk)] = actor, chunk
            yield from self._settle(chunks)

    def _cut(self, stream: Stream) -> Iterator[list[Request]]:
        """Cut what waits into chunks, siblings together: a batch each, or an equal share."""
        share = -(-len(stream.waiting) // max(1, len(self.load)))
        waiting = stream.take()
        while chunk := list(islice(waiting, min(self.capabilities.concurrency, share))):
            yield chunk

    def _settle(
        self, chunks: deque[list[Request]], seconds: float | None = None
    ) -> list[Completion]:
        """Wait for a task and return what it answers; a lost actor's chunk goes back to `chunks`.

        Raises EngineError with what an actor raised, or if nothing happens in `seconds`.
        """
        done, _ = self.ray.wait(list(self.tasks), num_returns=1, timeout=seconds)
        if not done:
            wanted = f"{self.config.actor_cpus:g} CPUs and {self.config.actor_gpus:g} GPUs"
            raise EngineError(
                f"Ray placed no actor in {seconds:.0f} s: each wants {wanted}, the cluster has "
                f"{self.ray.cluster_resources()}; lower engine.actor_cpus or actor_gpus"
            )
        actor, chunk = self.tasks.pop(done[0])
        try:
            result = self.ray.get(done[0])
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, MidcourseError) else error
            last = str(cause).strip().splitlines()[-1]
            raise EngineError(f"a Ray actor failed: {last}") from error
        except self.ray.exceptions.RayError:
            if chunk:
                chunks.appendleft(chunk)
            if not chunk or self.load.pop(actor, None) is not None:
                self._start_actor()  # once, however many chunks it had
            return []
        if isinstance(result, Capabilities):
            self.capabilities, self.load[actor] = result, 0
            return []
        if actor in self.load:
            self.load[actor] -= 1
        completions: list[Completion] = result
        return completions

    def close(self) -> None:
        """End every actor and the connection."""
        self.ray.shutdown()


def _import_ray(*, is_private: bool = False) -> Any:
    """Return Ray, quiet; for a cluster of this machine alone, one that listens on loopback.

    Ray has no setting for that on Linux: told that this is a system without clusters, as it is by
    default on macOS, it takes 127.0.0.1 for its address, and its servers then listen nowhere else.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if is_private:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    return ray


def _join_cluster(ray: Any, address: str) -> None:
    """Join the cluster at `address`, or start one on this machine."""
    settings = {"address": address} if address else {"address": "local", "include_dashboard": False}
    try:
        with own_signals():
            ray.init(log_to_driver=False, logging_level="ERROR", **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"engine.address: cannot join a Ray cluster at {address!r}: {error}"
        ) from error
