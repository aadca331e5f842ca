"""Any OpenAI-compatible server, or a list of them.

The policy is sampled by token ids over ``/completions`` with every parameter explicit and one seed
per request; a server that only speaks chat messages is used with ``chat=True`` and may propose or
write references, nothing else. Requests run concurrently in one background thread; callers see a
plain iterator.
"""

from __future__ import annotations

import asyncio
import os
import queue
import random
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from midcourse.config import ModelConfig, OpenAIConfig
from midcourse.engines.base import Capabilities, Completion, Request, too_long
from midcourse.engines.models import open_renderer, stop_token_ids
from midcourse.engines.served import Facts, facts_of
from midcourse.engines.stream import Stream
from midcourse.errors import ConfigError, EngineError
from midcourse.records import FinishReason
from midcourse.rendering import Renderer

_FINISH = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
#: What a server is asked to encode before it is trusted: words, digits, LaTeX, accents, blanks.
PROBE = "Zoë has 12 nuts.\n\nSo $\\frac{1}{2}$ of 1,234  is 617."
#: How long a server may take to show what it serves.
_FACTS_SECONDS = 60.0
#: Requests in a row that a server may fail, retries included, before the run stops.
_BREAKER = 8


def from_config(config: OpenAIConfig, model: ModelConfig, path: str) -> OpenAIEngine:
    """Make a client; the model at `path` is what the servers serve. Raises ConfigError."""
    if not config.urls:
        raise ConfigError("engine.urls: give at least one, e.g. http://127.0.0.1:8000/v1")
    if config.chat:
        return OpenAIEngine(config)
    return OpenAIEngine(config, open_renderer(model, path), stop_token_ids(path))


@dataclass(eq=False)
class OpenAIEngine:
    """A client of one or more servers that serve the same model."""

    config: OpenAIConfig
    renderer: Renderer | None = None
    stop_token_ids: Sequence[int] = ()
    max_retries: int = 5
    backoff_seconds: float = 1.0
    trust_env: bool = True
    """Whether a proxy that the environment names may be used."""

    @property
    def capabilities(self) -> Capabilities:
        """Token ids unless ``chat``; no scoring."""
        return Capabilities(
            token_ids=not self.config.chat,
            seeds=not self.config.chat,
            max_context_tokens=self.config.max_context_tokens or 32_768,
            concurrency=self.config.concurrency,
        )

    @contextmanager
    def session(self) -> Iterator[Stream]:
        """Check every server, then open a session. Raises EngineError."""
        urls = [url.rstrip("/") for url in self.config.urls]
        for url in urls:
            try:
                self._preflight(url)
            except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                said = f"{_redact(url)} does not answer as expected: {error!r}"
                raise EngineError(said) from error
        with closing(Connection(self, urls)) as connection:
            yield Stream(connection.answer)

    def close(self) -> None:
        """Nothing to release: the servers are not ours."""

    def served(self) -> list[Facts]:
        """Return what each server shows of the model; one that fails here fails its check too."""
        urls = [url.rstrip("/") for url in self.config.urls]
        prompt = self.renderer.encode(PROBE) if self.renderer else []
        with closing(Connection(self, urls)) as connection:
            return connection.facts(prompt)

    def _preflight(self, url: str) -> None:
        """Ask for the models, for one token by ids, and for ids of a probe.

        A server must give ids back. One that can encode (vLLM can) must do as we do: ids of another
        tokenizer are noise.
        """
        model = {"model": self.config.served_model}
        with httpx.Client(headers=self.headers, timeout=30.0, trust_env=self.trust_env) as client:
            reply = client.get(f"{url}/models").raise_for_status()
            served = [entry["id"] for entry in reply.json()["data"]]
            if model["model"] not in served:
                raise EngineError(
                    f"{_redact(url)} does not serve {model['model']!r}; it serves {served}"
                )
            if self.config.chat:
                return
            asked = {**model, "prompt": [1, 2], "max_tokens": 1, "return_token_ids": True}
            reply = client.post(f"{url}/completions", json=asked).raise_for_status()
            if not reply.json()["choices"][0].get("token_ids"):
                raise EngineError(
                    f"{_redact(url)} returns no token ids, so it cannot sample the policy: use "
                    "vLLM, or set engine.chat and use it as a proposer only"
                )
            if self.renderer is None:
                return
            asked = {**model, "prompt": PROBE, "add_special_tokens": False}
            reply = client.post(f"{url.removesuffix('/v1')}/tokenize", json=asked)
            if reply.is_success and reply.json()["tokens"] != self.renderer.encode(PROBE):
                raise EngineError(
                    f"{_redact(url)} has another tokenizer than the policy: set model.path to the "
                    "folder or hub name of what it serves"
                )

    @property
    def headers(self) -> dict[str, str]:
        """The authorisation header; the key itself is in no message of ours."""
        if self.config.api_key_env is None:
            return {}
        key = os.environ.get(self.config.api_key_env)
        if not key:
            raise ConfigError(f"engine.api_key_env: {self.config.api_key_env} is not set")
        return {"Authorization": f"Bearer {key}"}

    def body(self, request: Request) -> dict[str, Any]:
        """Return the request as the server reads it; nothing is left to its defaults."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.config.served_model,
            "n": 1,
            "seed": request.seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if self.config.chat:
            return body | {"messages": [dict(message) for message in request.messages]}
        if self.stop_token_ids:
            body["stop_token_ids"] = list(self.stop_token_ids)
        return body | {
            "prompt": list(request.prompt_token_ids),
            "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "add_special_tokens": False,
            "return_token_ids": True,
        }

    def parse(self, request: Request, reply: httpx.Response) -> Completion:
        """Read a reply; one that is not what was asked for fails its request."""
        try:
            choice = reply.json()["choices"][0]
            text = choice["message"]["content"] if self.config.chat else choice["text"]
            ids = () if self.config.chat else tuple(choice["token_ids"])
            finish = _FINISH[choice["finish_reason"]]
            if not isinstance(text, str):
                raise TypeError(f"text is {text}")
        except (ValueError, LookupError, TypeError) as error:
            lack = f"the reply lacks something that was asked for ({error!r})"
            return _failed(request, f"{lack}: {reply.text[:100]!r}")
        return Completion(
            request_id=request.request_id, token_ids=ids, text=text, finish_reason=finish
        )


class Connection:
    """Asks the servers, from a thread in which the network lives."""

    def __init__(self, engine: OpenAIEngine, urls: Sequence[str]) -> None:
        self.engine = engine
        self._results = queue.Queue[Completion | EngineError]()
        self._tasks = dict[str, asyncio.Task[None]]()
        self._loop = asyncio.new_event_loop()
        self._urls = urls
        self._num_busy, self._num_failed = Counter[str](), Counter[str]()
        """Requests of each server: in flight, and failed in a row."""
        concurrency = engine.config.concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._client = httpx.AsyncClient(
            headers=engine.headers,
            timeout=engine.config.timeout_seconds,
            limits=httpx.Limits(max_connections=concurrency),
            trust_env=engine.trust_env,
        )
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def answer(self, stream: Stream) -> Iterator[Completion]:
        """Yield completions as they arrive. Raises EngineError when a server is given up.

        Of what is cancelled it hangs up, which tells the server to stop.
        """
        while stream.pending:
            self._loop.call_soon_threadsafe(self._hang_up, set(stream.pending))
            for request in stream.take():
                self.ask(request)
            result = self._results.get()
            if isinstance(result, EngineError):
                raise result
            yield result

    def ask(self, request: Request) -> None:
        """Have a request answered; one that cannot fit is, without asking."""
        is_long = request.limit(self.engine.capabilities.max_context_tokens) < 1
        if is_long and not self.engine.config.chat:
            self._results.put(too_long(request))
        else:
            self._loop.call_soon_threadsafe(self._start, request)

    def facts(self, prompt: Sequence[int]) -> list[Facts]:
        """Return what each server shows of the model."""
        return asyncio.run_coroutine_threadsafe(self._facts(prompt), self._loop).result()

    def close(self) -> None:
        """Drop what is in flight and end the thread."""
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result(timeout=10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10.0)
        self._loop.close()

    def _start(self, request: Request) -> None:
        task = self._loop.create_task(self._answer(request))
        self._tasks[request.request_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(request.request_id, None))

    def _hang_up(self, pending: Collection[str]) -> None:
        for request_id, task in self._tasks.items():
            if request_id not in pending:
                task.cancel()

    async def _facts(self, prompt: Sequence[int]) -> list[Facts]:
        found: list[Facts] = []
        for url in self._urls:
            with suppress(httpx.HTTPError, ValueError, LookupError, TypeError, TimeoutError):
                asking = facts_of(self._ask_plainly, url, self.engine.config.served_model, prompt)
                found.append(await asyncio.wait_for(asking, _FACTS_SECONDS))
        return found

    async def _ask_plainly(self, url: str, body: Any) -> Any:
        method = "GET" if body is None else "POST"
        return (await self._client.request(method, url, json=body)).raise_for_status().json()

    async def _shut_down(self) -> None:
        # Only tasks of ours: the HTTP library's own, cancelled before their first step, would
        # leave a coroutine behind that is never awaited.
        self._hang_up(())
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._client.aclose()

    async def _answer(self, request: Request) -> None:
        """Put one completion into the results, whatever happens."""
        async with self._slots:
            try:
                self._results.put(await self._retry(request))
            except EngineError as error:
                self._results.put(error)
            except Exception as error:  # noqa: BLE001 - a request that breaks must not hang the rest
                self._results.put(_failed(request, repr(error)))

    async def _retry(self, request: Request) -> Completion:
        """Ask until there is an answer: backoff with jitter, another server where there is one."""
        engine, reason = self.engine, ""
        path = "chat/completions" if engine.config.chat else "completions"
        for attempt in range(engine.max_retries + 1):
            url = min(self._urls, key=lambda url: (self._num_failed[url], self._num_busy[url]))
            wait = engine.backoff_seconds * 2**attempt * random.uniform(0.5, 1.5)
            self._num_busy[url] += 1
            try:
                reply = await self._client.post(f"{url}/{path}", json=engine.body(request))
            except httpx.TransportError as error:
                reason = type(error).__name__
            else:
                if reply.status_code == 200:
                    self._num_failed[url] = 0
                    return engine.parse(request, reply)
                reason = f"status {reply.status_code}"
                if reply.status_code < 500 and reply.status_code != 429:
                    return _failed(request, f"{reason}: {reply.text[:200]}")
                with suppress(ValueError):
                    wait = max(wait, float(reply.headers.get("Retry-After", "")))
            finally:
                self._num_busy[url] -= 1
            self._count_failure(url, reason)
            await asyncio.sleep(wait)
        return _failed(request, f"{reason} after {engine.max_retries + 1} attempts")

    def _count_failure(self, url: str, reason: str) -> None:
        """Stop the run once every server has failed too often in a row."""
        self._num_failed[url] += 1
        limit = _BREAKER * max(1, self.engine.max_retries)
        if all(self._num_failed[url] >= limit for url in self._urls):
            raise EngineError(
                f"{_redact(url)} failed {limit} times in a row ({reason}): nothing is lost; "
                "fix the server and rerun the same command"
            )


def _failed(request: Request, error: str) -> Completion:
    return Completion(request_id=request.request_id, finish_reason=FinishReason.STOP, error=error)


def _redact(url: str) -> str:
    """Return `url` without user and password."""
    return str(httpx.URL(url).copy_with(userinfo=b""))
