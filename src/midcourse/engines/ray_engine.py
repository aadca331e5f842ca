"""Spreads requests over a Ray cluster: one actor per model copy, each with an engine inside.

Requests travel in chunks that keep siblings of one prefix together. A chunk's results come back
whole: when an actor or its node is lost, the chunk goes to another actor, so nothing is lost and
nothing comes twice. Lost actors are replaced where the cluster still has room.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from midcourse.config import InnerEngineConfig, ModelConfig, RayConfig
from midcourse.engines.base import Capabilities, Completion, Engine, Request
from midcourse.errors import EngineError, MidcourseError, MissingExtra

#: Chunks that an actor holds at once: one to work on, one to begin without waiting.
_CHUNKS_PER_ACTOR = 2
#: Replacements of lost actors, per actor that was asked for, before the run stops.
_REPLACEMENTS = 5


def from_config(config: RayConfig, model: ModelConfig, path: str) -> RayEngine:
    """Make the pool; it starts on first use."""
    return RayEngine(config, model, path)


class RayEngine:
    """A pool of `config.num_actors` actors; `config.inner` says which engine each one holds."""

    def __init__(self, config: RayConfig, model: ModelConfig, path: str) -> None:
        self._config, self._model, self._path = config, model, path
        self._pool: _Pool | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What one actor can do, with room for all of them; starts the pool."""
        inner = self.pool().capabilities
        concurrency = inner.concurrency * self._config.num_actors
        return replace(inner, concurrency=concurrency)

    @contextmanager
    def session(self) -> Iterator[_Session]:
        """Open a session. Raises EngineError if the cluster cannot place a single actor."""
        yield _Session(self.pool())

    def pool(self) -> _Pool:
        """Return the actors, starting them if need be."""
        if self._pool is None:
            self._pool = _Pool(self._config, self._model, self._path)
        return self._pool

    def close(self) -> None:
        """End the actors and leave the cluster."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class _Worker:
    """What runs in an actor: an engine, asked for one chunk at a time."""

    def __init__(self, config: InnerEngineConfig, model: ModelConfig, path: str) -> None:
        self._settings = config, model, path

    def capabilities(self) -> Capabilities:
        """Load the model and say what it can do. What goes wrong here is raised to the caller."""
        from midcourse.engines import open_engine

        self._engine: Engine = open_engine(*self._settings)
        return self._engine.capabilities

    def run(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer a chunk."""
        with self._engine.session() as session:
            session.submit(requests)
            return list(session.completions())


@dataclass(slots=True)
class _Task:
    """What an actor was asked for: a chunk, or word that it is up."""

    actor: Any
    chunk: list[Request] | None = None


class _Pool:
    """The actors and what each of them is doing, by Ray's reference."""

    capabilities: Capabilities

    def __init__(self, config: RayConfig, model: ModelConfig, path: str) -> None:
        self.config, self.model, self.path = config, model, path
        self.tasks = dict[Any, _Task]()
        self.load = dict[Any, int]()
        """Chunks in hand of each actor that is up."""
        self.alive = set[Any]()
        """Actors that are up or starting."""
        self._num_started = 0
        self.ray = _import_ray()
        if not self.ray.is_initialized():
            _join_cluster(self.ray, self.config.address)
        with ExitStack() as undo:
            undo.callback(self.close)
            for _ in range(self.config.num_actors):
                self.start_actor()
            self._wait_for_one()
            undo.pop_all()

    def start_actor(self) -> None:
        """Ask the cluster for one more actor; it counts once it answers."""
        limit = self.config.num_actors * (1 + _REPLACEMENTS)
        if self._num_started >= limit:
            raise EngineError(
                f"Ray lost {limit} actors; check the cluster and rerun the same command"
            )
        self._num_started += 1
        options = {
            "num_cpus": self.config.actor_cpus,
            "num_gpus": self.config.actor_gpus,
            "max_restarts": 0,  # a lost actor is replaced by us, its chunk goes elsewhere at once
        }
        worker = self.ray.remote(_Worker).options(**options)
        actor = worker.remote(self.config.inner, self.model, self.path)
        self.alive.add(actor)
        self.tasks[actor.capabilities.remote()] = _Task(actor)

    def _wait_for_one(self) -> None:
        seconds = self.config.timeout_seconds
        while not self.load:
            done, _ = self.ray.wait(list(self.tasks), num_returns=1, timeout=seconds)
            if not done:
                wanted = f"{self.config.actor_cpus:g} CPUs and {self.config.actor_gpus:g} GPUs"
                raise EngineError(
                    f"Ray placed no actor in {seconds:.0f} s: each wants {wanted}, the cluster has "
                    f"{self.ray.cluster_resources()}; lower engine.actor_cpus or actor_gpus"
                )
            self.capabilities = self.settle(done[0], [])

    def give(self, chunks: deque[list[Request]]) -> None:
        """Hand chunks to the actors that have the least in hand."""
        while chunks and self.load:
            actor = min(self.load, key=lambda a: self.load[a])
            if self.load[actor] >= _CHUNKS_PER_ACTOR:
                return
            chunk = chunks.popleft()
            self.load[actor] += 1
            self.tasks[actor.run.remote(chunk)] = _Task(actor, chunk)

    def settle(self, reference: Any, lost: list[list[Request]]) -> Any:
        """Return what a task came to; of a lost actor None, its chunk going to `lost`.

        Raises EngineError with what an actor raised.
        """
        task = self.tasks.pop(reference)
        try:
            result = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, MidcourseError) else error
            last = str(cause).strip().splitlines()[-1]
            raise EngineError(f"a Ray actor failed: {last}") from error
        except self.ray.exceptions.RayError:
            if task.chunk is not None:
                lost.append(task.chunk)
            self._forget(task.actor)
            return None
        if task.chunk is None:
            self.load[task.actor] = 0
        elif task.actor in self.load:
            self.load[task.actor] -= 1
        return result

    def _forget(self, actor: Any) -> None:
        """Take a lost actor off the list and ask for another, once however many chunks it had."""
        if actor in self.alive:
            self.alive.discard(actor)
            self.load.pop(actor, None)
            self.start_actor()

    def close(self) -> None:
        """End every actor and the connection."""
        self.ray.shutdown()


class _Session:
    """One stream of requests over the pool."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._waiting: deque[Request] = deque()
        self._chunks: deque[list[Request]] = deque()
        self._pending: set[str] = set()

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests."""
        self._pending.update(request.request_id for request in requests)
        self._waiting.extend(requests)

    def cancel(self, request_ids: Collection[str]) -> None:
        """Drop these requests: what is queued is not sent, what comes late is ignored."""
        self._pending.difference_update(request_ids)

    def completions(self) -> Iterator[Completion]:
        """Yield completions, chunk by chunk."""
        pool = self._pool
        while self._pending:
            self._cut()
            pool.give(self._chunks)
            done, _ = pool.ray.wait(list(pool.tasks), num_returns=1)
            lost: list[list[Request]] = []
            result = pool.settle(done[0], lost)
            self._chunks.extendleft(lost)
            if isinstance(result, list):
                for completion in result:
                    if completion.request_id in self._pending:
                        self._pending.discard(completion.request_id)
                        yield completion

    def _cut(self) -> None:
        """Cut what waits into chunks, siblings together: a batch each, or an equal share."""
        actors = max(1, len(self._pool.load))
        size = min(self._pool.capabilities.concurrency, -(-len(self._waiting) // actors))
        while self._waiting:
            chunk: list[Request] = []
            while self._waiting and len(chunk) < size:
                request = self._waiting.popleft()
                if request.request_id in self._pending:
                    chunk.append(request)
            if chunk:
                self._chunks.append(chunk)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    return ray


def _join_cluster(ray: Any, address: str) -> None:
    """Join the cluster at `address`, or start one on this machine."""
    settings: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"engine.address: cannot join a Ray cluster at {address!r}: {error}"
        ) from error
