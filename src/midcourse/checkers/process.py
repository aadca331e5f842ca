"""The parent's handle on one worker process: a question, a deadline, SIGKILL.

The deadline of an answer is processor time, which the worker limits itself: a busy machine makes
no answer late. Wall time is the backstop, for a worker that neither works nor replies.

Workers are started as ``python -m midcourse.checkers.worker`` and not by multiprocessing, which
would run a user's main script again and is unsafe in a process with threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import midcourse
from midcourse.checkers.base import Pair
from midcourse.checkers.worker import READY, STARTUP_SECONDS, WALL_FACTOR
from midcourse.errors import MidcourseError
from midcourse.sandbox import SandboxKind

#: What a worker needs of our environment; keys and tokens are not for code that reads answers.
_INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH")


class WorkerDied(Exception):
    """The worker ended while we waited for its reply: a crash, or out of memory."""


class WorkerTimeout(Exception):
    """The worker used up its processor time, or did not reply by the backstop."""


class WorkerProcess:
    """One worker. It is good for nothing after either exception: kill it."""

    def __init__(
        self, *, timeout_seconds: float, memory_mib: int, sandbox: SandboxKind | None = None
    ) -> None:
        self.sandbox = sandbox
        """Where it may run programs; a worker that runs none has a fence around it."""
        self._timeout_seconds = timeout_seconds
        self._prepared: set[str] = set()
        self.fit = True
        """Whether it may be asked again: not if a comparison has swollen it."""
        self._pipe, theirs = Pipe()
        numbers = (memory_mib, timeout_seconds, theirs.fileno(), sandbox or "none")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-m", "midcourse.checkers.worker", *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a stray print must not break the stream
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=_environment(),
            process_group=0,  # Ctrl-C is for the parent, which may still want these answers
        )
        theirs.close()

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

    def ask(self, pair: Pair) -> tuple[str, str]:
        """Return the worker's word on a pair, and a detail. Raises WorkerDied, WorkerTimeout."""
        reply = self._exchange(asdict(pair), WALL_FACTOR * self._timeout_seconds)
        word, detail, self.fit = reply
        return str(word), str(detail)

    def kill(self) -> None:
        """End the process at once; what waits for its reply gets WorkerDied. Thread-safe."""
        self._process.kill()

    def reap(self) -> None:
        """End it and free what it held; only when no thread waits for its reply."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()

    def _exchange(self, message: object, seconds: float) -> Any:
        """Send a message and return the reply. Raises WorkerDied, WorkerTimeout."""
        try:
            self._pipe.send_bytes(json.dumps(message).encode())
            if self._pipe.poll(seconds):
                return json.loads(self._pipe.recv_bytes())
        except (OSError, EOFError, ValueError) as error:  # not our worker's words: as good as dead
            raise (WorkerTimeout if self._ran_out_of_time() else WorkerDied) from error
        raise WorkerTimeout

    def _ran_out_of_time(self) -> bool:
        """Whether the process, whose pipe is closed, was ended by its timer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=1.0) == -signal.SIGPROF
        return False


def _environment() -> dict[str, str]:
    """A little of ours, this very package first, a fixed hash seed: sympy orders by hashes."""
    source = str(Path(midcourse.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
