"""Passes for vLLM, with a model: what its arguments name, in the engine of this project.

So its log-probabilities are true, and a rollout is the one that the engine draws in process.
``FAKE_VLLM`` says how it misbehaves: ``stale:FOLDER`` always serves the weights of that folder,
``no-reload`` cannot take any over, ``leaves:FILE`` ends in mid-stream the first time.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from fake_server import Listener
from midcourse.engines.base import Request
from midcourse.records import Sampling
from midcourse.rendering import Renderer
from midcourse.training.rl.live import LiveEngine


class ModelServer(BaseHTTPRequestHandler):
    """Answers one request after the other."""

    model: ClassVar[Any]
    renderer: ClassVar[Renderer]
    misbehaviour: ClassVar[str] = ""
    num_answered: ClassVar[int] = 0
    lock: ClassVar[threading.Lock] = threading.Lock()

    def do_GET(self) -> None:
        self._reply({"data": [{"id": "policy", "max_model_len": 600}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        path = self.path.partition("?")[0]
        with self.lock:
            if path == "/tokenize":
                self._reply({"tokens": self._tokenize(body)})
            elif path == "/collective_rpc" and self.misbehaviour != "no-reload":
                if body["method"] == "reload_weights" and not stale():
                    type(self).model = load(body["kwargs"]["weights_path"])
                self._reply({"results": [None]})
            elif path == "/reset_prefix_cache":
                self._reply({"success": True})
            elif path == "/v1/completions":
                self._maybe_leave(body)
                self._reply({"choices": [self._choice(body)]})
            else:
                self._reply({}, 404)

    def _maybe_leave(self, body: dict[str, Any]) -> None:
        name, _, file = self.misbehaviour.partition(":")
        if name == "leaves" and body["max_tokens"] > 12 and not Path(file).exists():
            type(self).num_answered += 1
            if self.num_answered == 6:
                Path(file).touch()
                os._exit(3)

    def _tokenize(self, body: dict[str, Any]) -> list[int]:
        if "messages" in body:
            return list(self.renderer.prompt_ids(body["messages"]))
        return self.renderer.encode(body["prompt"])

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        sampling = Sampling(
            temperature=body.get("temperature", 1.0), top_p=1.0, top_k=0, min_p=0.0,
            repetition_penalty=1.0, max_tokens=body["max_tokens"],
        )  # fmt: skip
        asked = Request(
            request_id="x", prompt_token_ids=tuple(body["prompt"]), sampling=sampling,
            seed=body.get("seed", 0), group="", logprobs="logprobs" in body,
        )  # fmt: skip
        stops = body.get("stop_token_ids", ())
        engine = LiveEngine(self.model, renderer=self.renderer, stop_ids=stops)
        with engine.session() as session:
            session.submit([asked])
            (done,) = session.completions()
        told = {"token_logprobs": done.logprobs} if asked.logprobs else None
        return {
            "text": done.text, "token_ids": done.token_ids, "logprobs": told,
            "finish_reason": str(done.finish_reason),
        }  # fmt: skip

    def _reply(self, content: dict[str, Any], status: int = 200) -> None:
        sent = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


def stale() -> str:
    return os.environ.get("FAKE_VLLM", "").partition("stale:")[2]


def load(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def main() -> None:
    """Serve on the port that vLLM's arguments name."""
    torch.set_num_threads(1)
    told = dict(zip(sys.argv, sys.argv[1:], strict=False))
    folder, misbehaviour = told["--model"], os.environ.get("FAKE_VLLM", "")
    server, port = ModelServer, int(told["--port"])
    server.misbehaviour = misbehaviour
    server.renderer = Renderer(AutoTokenizer.from_pretrained(folder))
    if told.get("--load-format") == "dummy" and not stale():
        config = AutoConfig.from_pretrained(folder)
        server.model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    else:
        server.model = load(stale() or folder)
    Listener(("127.0.0.1", port), server).serve_forever()


if __name__ == "__main__":
    main()
