"""The parent's handle on one worker process: a question, a deadline, SIGKILL.

Workers are started as ``python -m midcourse.checkers.worker`` and not by multiprocessing, which
would run a user's main script again and is unsafe in a process with threads.
"""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import midcourse
from midcourse.checkers.base import Pair
from midcourse.checkers.worker import READY, STARTUP_SECONDS, frame
from midcourse.errors import MidcourseError


class WorkerDied(Exception):
    """The worker ended while we waited for its reply: a crash, or out of memory."""


class WorkerTimeout(Exception):
    """The worker did not reply by the deadline."""


class WorkerProcess:
    """One worker. It is good for nothing after either exception: kill it."""

    def __init__(self, *, timeout_seconds: float, memory_mib: int) -> None:
        self._timeout_seconds = timeout_seconds
        self._prepared: set[str] = set()
        self.fit = True
        """Whether it may be asked again: not if a comparison has swollen it."""
        # The limit on CPU time only ends an orphan: the wall deadline comes first.
        cpu_seconds = math.ceil(timeout_seconds) + 2
        arguments = ["-P", "-m", "midcourse.checkers.worker", str(memory_mib), str(cpu_seconds)]
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=_environment(),
            process_group=0,  # Ctrl-C is for the parent, which may still want these answers
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def prepare(self, checker: str) -> None:
        """Wait for a checker's imports, once. Raises WorkerDied, or MidcourseError if they fail."""
        if checker in self._prepared:
            return
        try:
            reply = self._exchange(checker, STARTUP_SECONDS)
        except WorkerTimeout as error:
            raise WorkerDied from error
        if reply != READY:
            raise MidcourseError(f"the grader cannot start: {reply}")
        self._prepared.add(checker)

    def ask(self, pair: Pair) -> str:
        """Return the worker's word on one pair. Raises WorkerDied, WorkerTimeout."""
        word, self.fit = self._exchange(asdict(pair), self._timeout_seconds)
        return str(word)

    def kill(self) -> None:
        """End the process at once; whoever waits for its reply gets WorkerDied. Thread-safe."""
        self._process.kill()

    def reap(self) -> None:
        """End it and free what it held; only when no thread waits for its reply."""
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def _exchange(self, message: object, seconds: float) -> Any:
        """Send a message and return the reply. Raises WorkerDied, WorkerTimeout."""
        deadline, data = time.monotonic() + seconds, b""
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        try:
            self._stdin.write(frame(message))
            while not data.endswith(b"\n"):
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise WorkerTimeout
                if not (chunk := os.read(self._stdout.fileno(), 4096)):
                    raise WorkerDied
                data += chunk
            return json.loads(data)
        except (BrokenPipeError, ValueError) as error:  # not our worker's words: as good as dead
            raise WorkerDied from error


def _environment() -> dict[str, str]:
    """Ours, with this very package first, and a fixed hash seed: sympy orders by hashes."""
    source = str(Path(midcourse.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
