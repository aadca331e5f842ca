"""Bounds how long an environment takes: one that hangs costs its dialogues, not the run."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from midcourse.environments.base import Environment, Role
from midcourse.errors import MidcourseError
from midcourse.records import Problem

#: Answers in a row that may fail to come: one that never answers would be waited for each time.
MOST_HUNG = 4


class EnvironmentHangsError(MidcourseError):
    """An environment does not answer, time after time."""


class _TimeIsUp(BaseException):
    """No `Exception`: those an environment may well catch."""


@dataclass(slots=True)
class TimedEnvironment:
    """An environment that has `seconds` for an answer."""

    environment: Environment
    seconds: float
    num_hung: int = 0
    """Answers in a row that did not come."""

    @property
    def name(self) -> str:
        """That of the environment."""
        return self.environment.name

    @property
    def version(self) -> str:
        """That of the environment."""
        return self.environment.version

    @property
    def role(self) -> Role:
        """That of the environment."""
        return self.environment.role

    def answer(self, problem: Problem, turns: Sequence[str]) -> str | None:
        """Return what the environment says; raise what it raises.

        Raises TimeoutError if it says nothing in time, EnvironmentHangsError if that is so for the
        fourth time in a row.
        """
        try:
            with _limit(self.seconds):
                answer = self.environment.answer(problem, turns)
        except SystemExit as error:  # it would end the run as if all were done
            raise RuntimeError(f"it calls sys.exit({error})") from error
        except _TimeIsUp:
            self.num_hung += 1
        else:
            self.num_hung = 0
            return answer
        if self.num_hung < MOST_HUNG:
            raise TimeoutError(f"no answer within {self.seconds:g} s")
        raise EnvironmentHangsError(
            f"environment {self.name!r} hangs: {self.num_hung} answers in a row did not come "
            f"within {self.seconds:g} s each; fix it, or raise environment.timeout_seconds, and "
            "run the same command again: what is done is kept"
        )


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise `_TimeIsUp` in what is done here once time is up, and each second after it.

    By an alarm, not in a thread of its own: a connection to a database, or a browser, may belong
    to the thread that opened it. Only a process's main thread has alarms: in another one, nothing
    is limited. An alarm that someone else has set is set again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_open, began = True, time.monotonic()

    def ring(*_: Any) -> None:
        if is_open:
            raise _TimeIsUp

    handler = signal.signal(signal.SIGALRM, ring)
    rest, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        try:
            yield
        finally:
            is_open = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)  # None: set outside of Python
        if rest:
            left = max(rest - (time.monotonic() - began), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, interval)
