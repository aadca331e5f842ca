"""An OpenAI-compatible server over the scripted engine; run as a script it passes for vLLM.

``FAKE_VLLM`` says how it misbehaves: ``dies`` with status 1 at its start, ``other-tokenizer``,
``one-seed``, ``leaves:FILE``, in which case it ends in mid-stream the first time, or
``broken:FILE``, in which case it then lives on, but refuses everything. It streams where
it is asked to, a character at a time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from midcourse.engines.base import Request
from midcourse.engines.scripted_engine import ByteTokenizer, ScriptedEngine
from midcourse.records import Sampling
from midcourse.rendering import Renderer


def script(text: str, seed: int) -> str:
    """A model of few words: what it says depends on the context and, a little, on the seed."""
    return f"{seed % 7}: seen {len(text)}.\n\nThe answer is \\boxed{{{seed % 7}}}."


class Listener(ThreadingHTTPServer):
    """Lets many clients connect at once: by default the sixth is turned away."""

    request_queue_size = 128


class FakeServer(BaseHTTPRequestHandler):
    """Answers as the script does; `faults` go wrong first."""

    model: ClassVar[str] = "m"
    misbehaviour: ClassVar[str] = ""
    faults: ClassVar[list[tuple[int, bytes]]] = []
    seen: ClassVar[list[dict[str, Any]]] = []
    is_broken: ClassVar[bool] = False
    streams: ClassVar[str] = "ids"
    """What it streams: ``ids`` and text, ``text`` alone, or ``nothing``, which it refuses."""
    pause: ClassVar[float] = 0.0
    """Seconds before each token of a stream, or before what is sent whole; preflights have none."""
    turn: ClassVar[AbstractContextManager[Any]] = nullcontext()
    """A lock makes it decode one stream after the other."""

    def do_GET(self) -> None:
        if self.is_broken:
            self._reply(503, b"")
            return
        served = {"id": self.model, "max_model_len": 400}
        self._reply(200, json.dumps({"data": [served]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self._reply(200, json.dumps({"tokens": self._tokenize(body)}).encode())
            return
        if body["max_tokens"] > 1:
            self.seen.append(body)
            self._maybe_fail()
            if self.is_broken:
                self._reply(500, b"EngineDeadError")
                return
            if self.faults:
                self._reply(*self.faults.pop(0))
                return
        choice, pause = self._choice(body), self.pause if body["max_tokens"] > 1 else 0.0
        if not body.get("stream"):
            time.sleep(pause)
            self._reply(200, json.dumps({"choices": [choice]}).encode())
        elif self.streams == "nothing":
            self._reply(400, b"stream is not supported")
        else:
            with self.turn:
                self._stream(pause, choice)

    def _stream(self, pause: float, choice: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        text, ids = choice["text"], choice["token_ids"]
        for at in range(len(ids)):
            time.sleep(pause)
            piece = {"text": text[at : at + 1], "token_ids": [ids[at]] * (self.streams == "ids")}
            self._event({"choices": [piece | {"index": 0, "finish_reason": None}]})
        end = {"index": 0, "text": "", "finish_reason": choice["finish_reason"]}
        self._event({"choices": [end]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        seed = body.get("seed", 0) if body.get("temperature") else 0
        sampling = Sampling(
            temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0,
            max_tokens=body["max_tokens"],
        )  # fmt: skip
        request = Request(
            request_id="x", prompt_token_ids=tuple(body["prompt"]), sampling=sampling,
            seed=0 if self.misbehaviour == "one-seed" else seed, group="",
        )  # fmt: skip
        done = ScriptedEngine(script).complete(request)
        return {
            "text": done.text,
            "token_ids": done.token_ids,
            "finish_reason": str(done.finish_reason),
        }

    def _tokenize(self, body: dict[str, Any]) -> list[int]:
        renderer = Renderer(ByteTokenizer())
        shift = 1 if self.misbehaviour == "other-tokenizer" else 0
        if "messages" in body:
            return renderer.prompt_ids(body["messages"])
        return [token + shift for token in renderer.encode(body["prompt"])]

    def _maybe_fail(self) -> None:
        name, _, file = self.misbehaviour.partition(":")
        if name not in {"leaves", "broken"} or len(self.seen) <= 8 or Path(file).exists():
            return
        Path(file).touch()
        if name == "leaves":
            os._exit(3)
        type(self).is_broken = True

    def _reply(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


def main() -> None:
    """Serve on the port that vLLM's arguments name."""
    FakeServer.model, FakeServer.misbehaviour = "policy", os.environ.get("FAKE_VLLM", "")
    if FakeServer.misbehaviour == "dies":
        sys.exit("RuntimeError: no memory for the cache")
    port = int(sys.argv[sys.argv.index("--port") + 1])
    Listener(("127.0.0.1", port), FakeServer).serve_forever()


if __name__ == "__main__":
    main()
