"""Stands in for a strong model behind an OpenAI-compatible API, so that the tutorial needs no key.

Run it with ``python proposer.py 8000``. It compares the numbered attempt in a review prompt with
the reference line by line, and answers as a model would: a log, then the intervention.
"""

from __future__ import annotations

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SIGNS = {"plus": "+", "minus": "-", "times": "*"}
EQUATION = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")


def answer(messages: list[dict[str, str]]) -> str:
    """Solve the problem on the first turn, review the attempt on the second."""
    right = [
        f"{before} {SIGNS[sign]} {amount} = {after}"
        for before, sign, amount, after in re.findall(
            r"(\d+) (plus|minus|times) (\d+) makes (\d+)", messages[0]["content"]
        )
    ]
    attempt = re.findall(r"^Substep (\d+): (.+)$", messages[-1]["content"], re.MULTILINE)
    if not right:
        return "Show me a problem and its reference solution."
    if not attempt:
        return "\n\n".join([*right, rf"\boxed{{{right[-1].split()[-1]}}}"])
    for (number, step), equation in zip(attempt, right, strict=False):
        if equation not in step:
            fixed = json.dumps({"content": EQUATION.sub(equation, step), "location": int(number)})
            return f"Substep {number} is wrong.\n<intervention>{fixed}</intervention>"
    return "<intervention></intervention>"


class Server(BaseHTTPRequestHandler):
    """``GET /v1/models`` and ``POST /v1/chat/completions``, as any such server has them."""

    def do_GET(self) -> None:
        """Say which model is served."""
        self._send({"data": [{"id": "strong-model"}]})

    def do_POST(self) -> None:
        """Answer one chat."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = answer(body["messages"])
        asked = "".join(message["content"] for message in body["messages"])
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(asked) // 4, "completion_tokens": len(text) // 4}
        self._send({"model": "strong-model", "choices": [choice], "usage": usage})

    def _send(self, reply: dict[str, Any]) -> None:
        content = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


class Listener(ThreadingHTTPServer):
    """A server at which many may ask at once."""

    request_queue_size = 128


if __name__ == "__main__":
    Listener(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
