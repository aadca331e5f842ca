"""Any OpenAI-compatible server, or a list of them.

The policy is sampled by token ids over ``/completions`` with every parameter explicit and one seed
per request; a server that only speaks chat messages is used with ``chat=True`` and may propose or
write references, nothing else. Requests run concurrently in one background thread; callers see a
plain iterator.

Replies are streamed, so that a server which works is told from one that is gone: a request may wait
and decode for hours, as long as its server sends something to any request.

Nothing a server does ends a run while it answers something: an attempt is bounded in silence and
size, attempts in number, and a request that fails for good fails alone. If nothing at all is
answered, a short question tells a server that is down from a request that it cannot take.
"""

from __future__ import annotations

import asyncio
import os
import queue
import random
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from midcourse.config import ModelConfig, OpenAIConfig, without_credentials
from midcourse.engines.base import Capabilities, Completion, Request, failed, too_long
from midcourse.engines.exchange import (
    MAX_WAIT_SECONDS,
    NoReply,
    Pulse,
    Reply,
    Secrets,
    exchange,
)
from midcourse.engines.models import open_renderer, stop_token_ids
from midcourse.engines.replies import (
    read_chat,
    read_choice,
    read_completion,
    read_logprobs,
    refused_lengths,
    stated_length,
)
from midcourse.engines.served import Facts, facts_of
from midcourse.engines.stream import Stream
from midcourse.errors import ConfigError, EngineError
from midcourse.rendering import Renderer

#: What a server is asked to encode before it is trusted: words, digits, LaTeX, accents, blanks.
PROBE = "Zoë has 12 nuts.\n\nSo $\\frac{1}{2}$ of 1,234  is 617."
#: Prompt and completion together, where neither the recipe nor the server says.
_CONTEXT_TOKENS = 32_768
#: Attempts at what took a server's time: it fell silent, or its reply was of no use.
_COSTLY_ATTEMPTS = 2
#: How often a request is made shorter as its refusals say.
_SHORTENINGS = 3
#: Statuses that another attempt may change; so may all from 500.
_TRANSIENT = (408, 409, 425, 429)
#: Seconds for each question of the preflight, and bytes of its replies.
_PREFLIGHT_SECONDS, _PREFLIGHT_BYTES = 30.0, 2**24
#: How long a server may take to show what it serves.
_FACTS_SECONDS = 60.0
#: Bytes of a reply at most: for itself, and for each token of its prompt and of its own.
_REPLY_BYTES, _BYTES_PER_TOKEN = 2**20, 1024
#: Statuses by which servers refuse a stream.
_REFUSALS = (400, 404, 405, 415, 422, 501)
#: How servers call a field that they do not know.
_UNKNOWN_FIELD = re.compile(
    "stream_options|include_usage|extra (?:field|input)|unknown|unrecogni[sz]ed|unexpected"
    "|not permitted",
    re.IGNORECASE,
)
#: Tokens of the short question, and of its answer.
_SHORT_PROMPT, _SHORT_REPLY = 4, 16
#: What to change when a server refuses, by status.
_ADVICE = {
    400: "a parameter that it does not take is dropped or renamed by engine.parameters",
    401: "engine.api_key_env must name the variable that holds its key",
    402: "its account has to be paid for",
    403: "the key that engine.api_key_env names may not do this",
    404: "engine.urls must be base URLs, most end in /v1, and engine.served_model a model there",
    405: "engine.urls must be base URLs, most end in /v1",
    407: "the proxy of the environment wants a password",
    429: "its rate limit is reached: lower engine.concurrency, or wait",
    422: "a parameter that it does not take is dropped or renamed by engine.parameters",
}


class Fault(Exception):
    """Why an attempt brought no answer."""

    def __init__(self, reason: str, attempts: int, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.attempts = attempts
        """How many are worth it."""
        self.reply = reply
        """What the server sent, if it refused or could not answer."""

    @property
    def words(self) -> str:
        """How what the server sent begins."""
        return self.reply.text if self.reply else ""

    @property
    def status(self) -> int:
        """The status of what the server sent; 0 if nothing came."""
        return self.reply.status if self.reply else 0


def key_of(config: OpenAIConfig) -> str:
    """Return the key of servers, empty if they need none: in no file and no message of ours.

    Raises ConfigError if no server is named, or the key is not there.
    """
    if not config.urls:
        raise ConfigError(
            f"engine.urls: name at least one server of {config.served_model or 'the model'}, e.g. "
            "http://127.0.0.1:8000/v1"
        )
    if config.api_key_env is None:
        return ""
    key = os.environ.get(config.api_key_env)
    if not key:
        raise ConfigError(f"engine.api_key_env: {config.api_key_env} is not set")
    return key


def from_config(config: OpenAIConfig, model: ModelConfig, path: str) -> OpenAIEngine:
    """Make a client; the model at `path` is what the servers serve. Raises ConfigError."""
    key_of(config)
    if config.chat:
        return OpenAIEngine(config, template_arguments=model.template_arguments)
    return OpenAIEngine(config, open_renderer(model, path), stop_token_ids(path))


@dataclass(eq=False)
class OpenAIEngine:
    """A client of one or more servers that serve the same model."""

    config: OpenAIConfig
    renderer: Renderer | None = None
    """Checks that the ids of replies are those of their texts."""
    stop_token_ids: Sequence[int] = ()
    template_arguments: Mapping[str, bool | int | str] = field(default_factory=dict)
    """What a server that takes messages tells its chat template."""
    max_retries: int = 5
    backoff_seconds: float = 1.0
    seconds_per_token: float = 0.1
    """A server that does not stream may be silent so much longer for each token asked for."""
    trust_env: bool = True
    """Whether a proxy that the environment names may be used."""
    tells_logprobs: bool = False
    """Whether what it calls log-probabilities is what `Completion.logprobs` means. Servers differ
    in that, and do not say."""
    num_retries: int = field(default=0, init=False)
    """Attempts so far that were repeated."""

    @property
    def capabilities(self) -> Capabilities:
        """Token ids unless ``chat``; no scoring."""
        return Capabilities(
            token_ids=not self.config.chat,
            seeds=not self.config.chat,
            max_context_tokens=self.config.max_context_tokens or _CONTEXT_TOKENS,
            concurrency=self.config.concurrency,
        )

    @contextmanager
    def session(self) -> Iterator[Stream]:
        """Check every server, then open a session. Raises EngineError."""
        urls = [url.rstrip("/") for url in self.config.urls]
        with closing(Connection(self, urls)) as connection:
            connection.check()
            yield Stream(connection.answer)

    def close(self) -> None:
        """Nothing to release: the servers are not ours."""

    def check(self) -> int | None:
        """Check every server; return the context length that they state. Raises EngineError."""
        urls = [url.rstrip("/") for url in self.config.urls]
        with closing(Connection(self, urls)) as connection:
            connection.check()
            return connection._context_tokens

    def served(self) -> list[Facts]:
        """Return what each server shows of the model; one that fails here fails its check too."""
        urls = [url.rstrip("/") for url in self.config.urls]
        prompt = self.renderer.encode(PROBE) if self.renderer else []
        with closing(Connection(self, urls)) as connection:
            return connection.facts(prompt)

    def body(
        self, request: Request, max_tokens: int, *, streams: bool, tells_usage: bool = True
    ) -> dict[str, Any]:
        """Return the request as the server reads it; nothing is left to its defaults.

        Where no ids come back, a stream is asked to end with how many tokens there were.
        """
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.config.served_model,
            "n": 1,
            "seed": request.seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": max_tokens,
            "stream": streams,
        }
        if self.config.chat:
            body["messages"] = [dict(message) for message in request.messages]
            if streams and tells_usage and self.config.parameters.get("stream") != "":
                body["stream_options"] = {"include_usage": True}
            if self.template_arguments:
                body["chat_template_kwargs"] = dict(self.template_arguments)
        else:
            body |= {
                "prompt": list(request.prompt_token_ids),
                "top_k": sampling.top_k or -1,
                "min_p": sampling.min_p,
                "repetition_penalty": sampling.repetition_penalty,
                "add_special_tokens": False,
                "return_token_ids": True,
            }
            if request.logprobs and self.tells_logprobs:
                body["logprobs"] = 0  # of the sampled token, and of no others
            if self.stop_token_ids:
                body["stop_token_ids"] = list(self.stop_token_ids)
        return self._as_named_there(body)

    def _as_named_there(self, body: dict[str, Any]) -> dict[str, Any]:
        """Rename or drop what `config.parameters` says."""
        names = {name: name for name in body} | self.config.parameters
        return {names[name]: value for name, value in body.items() if names[name]}

    def parse(self, request: Request, reply: Any, max_tokens: int) -> Completion:
        """Read a reply. Raises ValueError if it is not what was asked for."""
        logprobs: tuple[float, ...] = ()
        if self.config.chat:
            answer = read_chat(reply, max_tokens)
        else:
            answer = read_completion(reply, max_tokens, self.renderer)
            if request.logprobs and self.tells_logprobs:
                logprobs = read_logprobs(reply, len(answer.token_ids))
        return Completion(
            request_id=request.request_id,
            token_ids=answer.token_ids,
            logprobs=logprobs,
            text=answer.text,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
        )


class Connection:
    """Asks the servers, from a thread in which the network lives."""

    def __init__(self, engine: OpenAIEngine, urls: Sequence[str]) -> None:
        self.engine = engine
        self._urls = urls
        key = key_of(engine.config)
        self._secrets = Secrets.of(engine.config.urls, key)
        self._results = queue.Queue[Completion | EngineError]()
        self._tasks = dict[asyncio.Task[None], str]()
        """What is under way, with the ids of requests."""
        self._num_busy, self._num_failed = Counter[str](), Counter[str]()
        """Requests of each server: in flight, and failed in a row."""
        self._pulses = defaultdict[str, Pulse](Pulse)
        self._streaming, self._refusing = set[str](), set[str]()
        """Servers that have streamed a reply, and those that do not stream."""
        self._mute = set[str]()
        """Servers that refuse to say how many tokens a stream had."""
        self._num_answered = 0
        self._end: EngineError | None = None
        """Set once no server answers anything: nothing more is sent."""
        self._context_tokens = engine.config.max_context_tokens
        self._served: str | None = None
        """What replies call the model."""
        concurrency = engine.config.concurrency
        self._slots, self._checking = asyncio.Semaphore(concurrency), asyncio.Lock()
        # A connection for each request: on one that is used again, what a server sends too much or
        # too late would be read as the answer to the next request.
        headers = {"Connection": "close"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=engine.config.timeout_seconds),
            limits=httpx.Limits(max_connections=concurrency),
            trust_env=engine.trust_env,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    # Called from outside.

    def check(self) -> None:
        """Raise EngineError unless every server serves the model and can do what we need."""
        for url in self._urls:
            try:
                self._wait_for(self._preflight(url))
            except (Fault, ValueError, LookupError, TypeError) as error:
                raise self._down(url, error) from error

    def answer(self, stream: Stream) -> Iterator[Completion]:
        """Yield completions as they arrive. Raises EngineError when no server answers anything.

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
        if self._room(request) < 1:
            self._results.put(too_long(request))
        else:
            self._loop.call_soon_threadsafe(self._start, request)

    def facts(self, prompt: Sequence[int]) -> list[Facts]:
        """Return what each server shows of the model."""
        return asyncio.run_coroutine_threadsafe(self._facts(prompt), self._loop).result()

    def close(self) -> None:
        """Drop what is in flight and end the thread."""
        with suppress(TimeoutError):
            self._wait_for(self._shut_down(), timeout=10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10.0)
        self._loop.close()

    def _wait_for(self, work: Coroutine[Any, Any, None], timeout: float | None = None) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    # In the thread.

    def _start(self, request: Request) -> None:
        task = self._loop.create_task(self._answer(request))
        self._tasks[task] = request.request_id
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def _hang_up(self, pending: Collection[str]) -> None:
        for task, request_id in self._tasks.items():
            if request_id not in pending:
                task.cancel()

    async def _facts(self, prompt: Sequence[int]) -> list[Facts]:
        found: list[Facts] = []
        for url in self._urls:
            with suppress(Fault, ValueError, LookupError, TypeError, TimeoutError):
                asking = facts_of(self._ask_plainly, url, self.engine.config.served_model, prompt)
                found.append(await asyncio.wait_for(asking, _FACTS_SECONDS))
        return found

    async def _ask_plainly(self, url: str, body: Any) -> Any:
        asked = None if body is None else self.engine._as_named_there(body)
        return (await self._question(url, asked)).json

    async def _shut_down(self) -> None:
        # Only tasks of ours: the HTTP library's own, cancelled before their first step, would
        # leave a coroutine behind that is never awaited.
        self._hang_up(())
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _answer(self, request: Request) -> None:
        """Put one completion into the results, whatever happens."""
        async with self._slots:
            if self._end is not None:
                return
            try:
                self._results.put(await self._complete(request))
            except EngineError as error:
                self._results.put(error)
            except Exception as error:  # noqa: BLE001 - a request that breaks must not hang the rest
                self._results.put(failed(request, self._secrets.hide(repr(error))))

    async def _complete(self, request: Request) -> Completion:
        """Return the completion of a request, failed if need be. Raises EngineError.

        However many requests fail at once: while any other is answered, the servers are well.
        """
        num_answered = self._num_answered
        try:
            return await self._retry(request)
        except Fault as fault:
            async with self._checking:
                if self._end is None and self._num_answered == num_answered:
                    await self._ask_briefly(request, fault)
            return failed(request, str(fault))

    async def _ask_briefly(self, request: Request, fault: Fault) -> None:
        """Raise EngineError, with the reason of `fault`, unless a short question is answered."""
        short = replace(
            request,
            seed=2**31 - 1 - request.seed,  # always another one
            prompt_token_ids=request.prompt_token_ids[:_SHORT_PROMPT],
            messages=({"role": "user", "content": "Say OK."},),
        )
        try:
            await self._retry(short, most=_SHORT_REPLY)
        except Fault:
            self._end = self._down(self._urls[0], fault)
            raise self._end from fault

    async def _retry(self, request: Request, most: int | None = None) -> Completion:
        """Ask until there is an answer: backoff with jitter, another server where there is one.

        Raises Fault.
        """
        attempt, num_shortened, num_answered = 0, 0, self._num_answered
        while True:
            try:
                return await self._attempt(request, most)
            except Fault as fault:
                shorter = self._shortened(request, fault) if num_shortened < _SHORTENINGS else None
                if shorter is not None and self._room(shorter) < 1:
                    return too_long(request)
                # A limit of the rate is shared: as long as others are answered, our turn comes.
                is_in_line = fault.status == 429 and self._num_answered > num_answered
                attempt, num_answered = 1 if is_in_line else attempt + 1, self._num_answered
                if shorter is None and attempt >= fault.attempts:
                    raise
                pause = self._pause(attempt, fault)
            if shorter is not None:
                request, num_shortened, attempt = shorter, num_shortened + 1, 0
            else:
                self.engine.num_retries += 1
                await asyncio.sleep(pause)

    def _pause(self, attempt: int, fault: Fault) -> float:
        """Return the seconds before the next attempt: ever more, or as many as the server says."""
        backoff = self.engine.backoff_seconds * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)
        asked = fault.reply.wait_seconds if fault.reply else 0.0
        return max(asked, min(backoff, MAX_WAIT_SECONDS))

    async def _attempt(self, request: Request, most: int | None) -> Completion:
        """Ask the server that fails least, or the least busy one, for `most` tokens. Raises Fault.

        A reply is looked at as if all that there is room for had been asked for.
        """
        room = self._room(request)
        url = min(self._urls, key=lambda url: (self._num_failed[url], self._num_busy[url]))
        self._num_busy[url] += 1
        try:
            reply = await self._reply(url, request, min(room, most or room), room)
            completion = self._read(request, reply, room)
        except Fault:
            self._num_failed[url] += 1
            raise
        finally:
            self._num_busy[url] -= 1
        self._num_failed[url] = 0
        self._num_answered += 1
        return completion

    async def _reply(self, url: str, request: Request, asked: int, room: int) -> Reply:
        """Have `asked` tokens sent, streamed unless the server refuses that. Raises Fault."""
        path = "chat/completions" if self.engine.config.chat else "completions"
        streams, silence = url not in self._refusing, self.engine.config.timeout_seconds
        if url not in self._streaming:  # it may say nothing before it has decoded everything
            silence += self.engine.seconds_per_token * asked
        try:
            reply = await self._exchange(
                f"{url}/{path}",
                self.engine.body(
                    request, asked, streams=streams, tells_usage=url not in self._mute
                ),
                silence,
                _REPLY_BYTES + _BYTES_PER_TOKEN * (room + len(request.prompt_token_ids)),
                self._pulses[url],
            )
        except Fault as fault:
            if not streams:
                raise
            if self.engine.config.chat and url not in self._mute and _is_refused_usage(fault):
                self._mute.add(url)
            elif _is_refused_stream(fault):
                self._refusing.add(url)
            else:
                raise
            return await self._reply(url, request, asked, room)
        if reply.is_streamed:
            self._streaming.add(url)
        return reply

    def _read(self, request: Request, reply: Reply, room: int) -> Completion:
        """Read a reply of status 200. Raises Fault if it is not what was asked for."""
        try:
            content = reply.json
            completion = self.engine.parse(request, content, room)
            self._check_name(content.get("model"))
        except ValueError as error:
            said = self._secrets.hide(f"{error}: {reply.words}")
            raise Fault(said, _COSTLY_ATTEMPTS, reply) from error
        return completion

    def _check_name(self, model: object) -> None:
        """Raise ValueError if a reply comes from another model than the first one came from.

        Servers call a model by other names than they are asked for, but always by the same.
        """
        if not isinstance(model, str):
            return
        self._served = self._served or model
        if model != self._served:
            raise ValueError(f"model {model!r} answered, where {self._served!r} did before")

    async def _exchange(
        self, url: str, body: Any, seconds: float, max_bytes: int, pulse: Pulse | None = None
    ) -> Reply:
        """Return a reply of status 200. Raises Fault with what else there was."""
        try:
            reply = await exchange(
                self._client, url, body, seconds=seconds, max_bytes=max_bytes, pulse=pulse
            )
        except NoReply as error:
            attempts = _COSTLY_ATTEMPTS if error.is_costly else self.engine.max_retries + 1
            raise Fault(self._secrets.hide(str(error)), attempts) from error
        if reply.status == 200:
            return reply
        words, attempts = reply.words, 1
        if reply.status >= 500 or reply.status in _TRANSIENT:
            attempts = self.engine.max_retries + 1
        elif reply.status < 300:
            attempts = _COSTLY_ATTEMPTS
        if 300 <= reply.status < 400:
            words = f"it redirects to {reply.headers.get('Location', 'nowhere')}: name that one"
        said = self._secrets.hide(f"status {reply.status}: {words}")
        raise Fault(said, attempts, reply)

    # Lengths.

    def _room(self, request: Request) -> int:
        """Return how many tokens to ask for: as many as wanted, if the server takes them."""
        return request.limit(self._context_tokens or _CONTEXT_TOKENS)

    def _shortened(self, request: Request, fault: Fault) -> Request | None:
        """Return the request for as many tokens as a refusal says there is room for.

        None if the fault is about something else.
        """
        if fault.reply is None or fault.status == 429:
            return None
        asked = self._room(request)
        said = refused_lengths(fault.reply.text, asked)
        room = said.most
        if said.context is not None:
            prompt = said.prompt or len(request.prompt_token_ids) or said.context
            room = min(said.context - prompt, room or asked)
        if room is None or (room >= asked and said.prompt):
            return None  # It refuses what by its own words it takes: this is about something else.
        # A prompt may be longer there than here, where it goes through a template of the server's.
        room = room if room < asked else 0
        return replace(request, sampling=replace(request.sampling, max_tokens=room))

    # Before the first request.

    async def _preflight(self, url: str) -> None:
        """Ask for the models, for one token by ids, and for ids of a probe.

        A server must give ids back. One that can encode (vLLM can) must do as we do: ids of another
        tokenizer are noise.
        """
        engine, name = self.engine, self.engine.config.served_model
        served = (await self._question(f"{url}/models")).json["data"]
        if name not in [entry["id"] for entry in served]:
            said = self._secrets.hide(str([entry["id"] for entry in served]))
            raise EngineError(
                f"{without_credentials(url)} does not serve {name!r}; it serves {said}"
            )
        entry = next(entry for entry in served if entry["id"] == name)
        length = stated_length(entry) or await self._stated_elsewhere(url)
        known = [tokens for tokens in (self._context_tokens, length) if tokens]
        self._context_tokens = min(known, default=None)
        if engine.config.chat:
            return
        if not await self._gives_ids(url, streams=True):
            self._refusing.add(url)
            if not await self._gives_ids(url, streams=False):
                raise EngineError(
                    f"{without_credentials(url)} returns no token ids, so it cannot sample the "
                    "policy: use vLLM, or set engine.chat and use it as a proposer only"
                )
        if engine.renderer is not None:
            await self._check_tokenizer(url, engine.renderer)

    async def _gives_ids(self, url: str, *, streams: bool) -> bool:
        """Whether a reply of one token has its id. Raises Fault unless it was the stream."""
        asked = {
            "model": self.engine.config.served_model,
            "prompt": [1, 2],
            "max_tokens": 1,
            "return_token_ids": True,
            "stream": streams,
        }
        try:
            reply = await self._question(f"{url}/completions", self.engine._as_named_there(asked))
            choice = read_choice(reply.json)
        except (Fault, ValueError):
            if streams:
                return False
            raise
        self._check_name(reply.json.get("model"))
        gives_ids = bool(choice.get("token_ids"))
        if gives_ids and reply.is_streamed:
            self._streaming.add(url)
        return gives_ids

    async def _check_tokenizer(self, url: str, renderer: Renderer) -> None:
        asked = {
            "model": self.engine.config.served_model,
            "prompt": PROBE,
            "add_special_tokens": False,
        }
        try:
            reply = await self._question(f"{url.removesuffix('/v1')}/tokenize", asked)
        except Fault:
            return  # it cannot be asked
        if reply.json["tokens"] != renderer.encode(PROBE):
            raise EngineError(
                f"{without_credentials(url)} has another tokenizer than the policy: set model.path "
                "to the folder or hub name of what it serves"
            )

    async def _stated_elsewhere(self, url: str) -> int | None:
        """Return the context length that llama.cpp and TGI state outside of the list of models."""
        for path in ("props", "info"):
            with suppress(Fault, ValueError):
                reply = await self._question(f"{url.removesuffix('/v1')}/{path}")
                if length := stated_length(reply.json):
                    return length
        return None

    async def _question(self, url: str, body: Any = None) -> Reply:
        seconds = min(_PREFLIGHT_SECONDS, self.engine.config.timeout_seconds)
        return await self._exchange(url, body, seconds, _PREFLIGHT_BYTES)

    def _down(self, url: str, error: Exception) -> EngineError:
        """Return the end of the run: no server answers, for the reason of `error`."""
        reason = str(error) if isinstance(error, Fault) else self._secrets.hide(repr(error))
        status = error.status if isinstance(error, Fault) else 0
        advice = _ADVICE.get(status, "fix the server")
        return EngineError(
            f"{without_credentials(url)} does not answer as expected ({reason}): nothing is lost; "
            f"{advice}, then run the same command again"
        )


def _is_refused_usage(fault: Fault) -> bool:
    """Whether a server says that it does not know a field: what we ask for and can do without."""
    return fault.status in _REFUSALS and bool(_UNKNOWN_FIELD.search(fault.words))


def _is_refused_stream(fault: Fault) -> bool:
    """Whether a server says that it does not stream."""
    reply = fault.reply
    return reply is not None and reply.status in _REFUSALS and "stream" in reply.text.lower()
