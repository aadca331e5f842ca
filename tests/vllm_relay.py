"""Passes for a vLLM server of one model: a real one, already up, takes its weights and answers.

A real server takes most of a minute to start, and the paper's recipes open more than fifty models.
``MIDCOURSE_VLLM_SHARED`` names the real servers as JSON: by architecture, their URLs.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import httpx


def take_weights(url: str, folder: str) -> None:
    """Have a server load other weights of its architecture, and forget what it has computed."""
    asked = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
    httpx.post(f"{url}/collective_rpc", json=asked, timeout=120.0).raise_for_status()
    httpx.post(f"{url}/reset_prefix_cache", timeout=120.0).raise_for_status()


def relay(port: int, url: httpx.URL) -> None:
    """Carry every connection to `port` over to a server."""
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        while True:
            ours, _ = listener.accept()
            theirs = socket.create_connection((url.host, url.port))
            for source, sink in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=carry, args=(source, sink), daemon=True).start()


def carry(source: socket.socket, sink: socket.socket) -> None:
    """Carry bytes until one side ends, then end both."""
    with suppress(OSError):
        while piece := source.recv(65_536):
            sink.sendall(piece)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Serve the model and the port that vLLM's arguments name."""
    given = dict(pairwise(sys.argv))
    config = json.loads((Path(given["--model"]) / "config.json").read_text())
    url = json.loads(os.environ["MIDCOURSE_VLLM_SHARED"])[config["architectures"][0]]
    take_weights(url, given["--model"])
    relay(int(given["--port"]), httpx.URL(url))


if __name__ == "__main__":
    main()
