"""Processes that end in order, we on a signal, our children with us; and that wait politely."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

#: What asks a process to stop; a job system sends SIGTERM, a closed terminal SIGHUP.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asks us to stop. Not an Exception: nobody on the way takes it for a failure.

    What is kept is noted on it (``add_note``) where it passes.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"interrupted by {self.signal.name}")

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 130 for SIGINT."""
        return 128 + self.signal

    def message(self) -> str:
        """Return one line: the signal, and what was noted."""
        return "; ".join([str(self), *getattr(self, "__notes__", ())])


@dataclass
class _Signals:
    """What came, and whether it has to wait."""

    received: Interrupted | None = None
    is_held: bool = False


_SIGNALS = _Signals()


def raise_on_signals() -> None:
    """Have the first signal that asks us to stop raise `Interrupted`; the next one ends us at once.

    A signal that our parent had ignored, as ``nohup`` does, stays ignored.
    """
    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def interruption() -> Interrupted | None:
    """Return the signal that came, also where a library took its exception for its own failure."""
    return _SIGNALS.received


@contextmanager
def own_signals() -> Iterator[None]:
    """Do something that takes signals for itself, as some libraries do, and take them back."""
    before = {number: signal.getsignal(number) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Do something short as a whole: a signal that comes meanwhile raises afterwards.

    Compiled code that is interrupted may report a failure of its own instead.
    """
    _SIGNALS.is_held = True
    try:
        yield
    finally:
        _SIGNALS.is_held = False
    if _SIGNALS.received:
        raise _SIGNALS.received


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in _STOPPING:
        if signal.getsignal(other) is _interrupt:
            signal.signal(other, signal.SIG_DFL)
    _SIGNALS.received = Interrupted(number)
    if not _SIGNALS.is_held:
        raise _SIGNALS.received


def wait_passively(environment: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads sleep while they wait, unless `environment` says how they wait.

    They spin otherwise, and keep what they wait for from its core where another process has the
    other one. Only what is set before torch is loaded counts.
    """
    if "GOMP_SPINCOUNT" not in environment:
        environment.setdefault("OMP_WAIT_POLICY", "passive")


def threads_each(num_processes: int) -> int:
    """Return how many threads each of some processes may use: ``OMP_NUM_THREADS``, else a share."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(asked) if asked.isdigit() else (os.cpu_count() or 1) // num_processes)


def end_with_parent() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` that has the system end the child when its parent is gone.

    Linux only; elsewhere None, and a killed parent's children have to be ended by hand.
    """
    return _ask_for_signal if sys.platform == "linux" else None


def _ask_for_signal() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def end(process: subprocess.Popen[Any], seconds: float = 10.0) -> None:
    """End a process: asked first, made to if it has not ended in time."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
