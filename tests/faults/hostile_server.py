"""An OpenAI-compatible server that does what it likes, over plain sockets.

A `Hostile` has a list of behaviours: each request for a completion takes the next one, and the last
one stays. A behaviour is given the request and its connection, and writes what it wants.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from midcourse.engines.scripted_engine import ByteTokenizer

TOKENIZER = ByteTokenizer()


@dataclass
class Asked:
    """One request as it came, and the socket it came on."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    connection: socket.socket

    @property
    def is_chat(self) -> bool:
        return self.path.endswith("/chat/completions")

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        """Send a whole reply; the connection is closed after it."""
        lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(content)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + content)


Behaviour = Callable[[Asked], None]


@dataclass
class Hostile:
    """What a server does, and what it was asked."""

    behaviours: list[Behaviour]
    models: dict[str, Any] = field(default_factory=dict)
    """Further fields of the model's entry."""
    at_models: Behaviour | None = None
    """What it does when asked for its models, if not what it should."""
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    """Requests for completions, those of the preflight left out."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: socket.socket) -> None:
        """Answer one request."""
        with connection, suppress(OSError, ValueError):
            asked = read_request(connection)
            if asked.path.endswith("/models") and self.at_models:
                self.at_models(asked)
            elif asked.path.endswith("/models"):
                entry = {"id": "m", **self.models}
                asked.send(json.dumps({"data": [entry]}).encode())
            elif asked.path.endswith("/tokenize"):
                ids = TOKENIZER(asked.body["prompt"], split_special_tokens=True)["input_ids"]
                asked.send(json.dumps({"tokens": ids}).encode())
            elif not asked.path.endswith("/completions"):
                asked.send(b"{}", 404)
            elif asked.body.get("prompt") == [1, 2]:
                honest(asked)
            else:
                with self.lock:
                    self.asked.append(asked)
                    last = len(self.behaviours) == 1
                    behaviour = self.behaviours[0] if last else self.behaviours.pop(0)
                behaviour(asked)


def read_request(connection: socket.socket) -> Asked:
    """Read a request of HTTP/1.1 with a Content-Length, or without content."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65_536)
        if not piece:
            raise ValueError("hung up")
        received += piece
    head, _, content = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(content) < int(headers.get("content-length", "0")):
        content += connection.recv(65_536)
    return Asked(first.split()[1], headers, json.loads(content or b"{}"), connection)


@contextmanager
def serving(*behaviours: Behaviour, **models: Any) -> Iterator[Hostile]:
    """Serve on loopback; the last behaviour stays."""
    hostile = Hostile(list(behaviours), models)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        hostile.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=hostile.serve, args=[connection], daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield hostile
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


# --- behaviours --------------------------------------------------------------------------------


def choice(asked: Asked, text: str = "Fine.", **changes: Any) -> dict[str, Any]:
    """Return an honest choice, and what of it is changed."""
    if asked.is_chat:
        return {"index": 0, "message": {"content": text}, "finish_reason": "stop"} | changes
    ids = [*text.encode("utf-8", "replace"), TOKENIZER.eos_token_id]
    return {"index": 0, "text": text, "token_ids": ids, "finish_reason": "stop"} | changes


def honest(asked: Asked) -> None:
    asked.send(json.dumps({"model": "m", "choices": [choice(asked)]}).encode())


def says(**changes: Any) -> Behaviour:
    """Return a choice of which something is changed."""
    return lambda asked: asked.send(
        json.dumps({"model": "m", "choices": [{**choice(asked), **changes}]}).encode()
    )


def replies(content: str | bytes, status: int = 200, **headers: str) -> Behaviour:
    """Return this content, whatever is asked."""
    encoded = content.encode() if isinstance(content, str) else content
    return lambda asked: asked.send(encoded, status, **headers)


def streams(*lines: str) -> Behaviour:
    """Send these lines as a stream of events, whatever is asked."""
    content = "".join(f"{line}\n\n" for line in lines).encode()
    return lambda asked: asked.send(content, Content_Type="text/event-stream")


def unless(is_refused: Callable[[dict[str, Any]], str]) -> Behaviour:
    """Refuse with status 400 where the body gives reason to; else answer."""

    def behave(asked: Asked) -> None:
        reason = is_refused(asked.body)
        if reason:
            asked.send(json.dumps({"error": {"message": reason}}).encode(), 400)
        else:
            honest(asked)

    return behave


def reset(asked: Asked) -> None:
    """Hang up with RST."""
    asked.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def one_reset_each(count: int) -> Behaviour:
    """Let the first `count` connections wait for each other, reset all of them, then be well."""
    barrier, seen, lock = threading.Barrier(count), [], threading.Lock()

    def behave(asked: Asked) -> None:
        with lock:
            seen.append(asked)
            is_first = len(seen) <= count
        if is_first:
            barrier.wait(30.0)
            reset(asked)
        else:
            honest(asked)

    return behave


def drips(content: bytes) -> Behaviour:
    """Send a byte now and then, for a minute."""

    def behave(asked: Asked) -> None:
        for byte in content.ljust(600):
            asked.connection.sendall(bytes([byte]))
            time.sleep(0.1)

    return behave


def slow_headers(asked: Asked) -> None:
    drips(b"HTTP/1.1 200 OK\r\nX: ")(asked)


def slow_body(asked: Asked) -> None:
    asked.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n")
    drips(b"{")(asked)


def bomb(mebibytes: int) -> Behaviour:
    """Send that much, packed small."""
    content = gzip.compress(b'{"choices": [' + b" " * (mebibytes * 2**20), compresslevel=9)
    return lambda asked: asked.send(content, Content_Encoding="gzip")


def endless(asked: Asked) -> None:
    """Send for as long as anybody reads."""
    asked.connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        asked.connection.sendall(b" " * 65_536)


def in_turn(*behaviours: Behaviour) -> tuple[Behaviour, ...]:
    """Do these, then be honest."""
    return (*behaviours, honest)
