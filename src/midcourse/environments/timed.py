"""Bounds how long an environment takes: one that hangs costs its dialogues, not the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

from midcourse.environments.base import Environment, Role
from midcourse.errors import EngineError
from midcourse.records import Problem

T = TypeVar("T")

#: Answers that may fail to come. Each leaves a thread behind, which cannot be ended.
MOST_HUNG = 4


class EnvironmentHangsError(EngineError):
    """An environment does not answer, time after time; asking it again would only wait."""


@dataclass(slots=True)
class TimedEnvironment:
    """An environment that has `seconds` for an answer."""

    environment: Environment
    seconds: float
    num_hung: int = 0
    """Answers that did not come."""

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
        fourth time.
        """
        try:
            return _in_time(lambda: self.environment.answer(problem, turns), self.seconds)
        except Empty:
            self.num_hung += 1
        if self.num_hung < MOST_HUNG:
            raise TimeoutError(f"no answer within {self.seconds:g} s")
        raise EnvironmentHangsError(
            f"environment {self.name!r} hangs: {self.num_hung} answers did not come within "
            f"{self.seconds:g} s each; fix it, or raise environment.timeout_seconds, and run the "
            "same command again: what is done is kept"
        )


def _in_time(call: Callable[[], T], seconds: float) -> T:
    """Return what a call returns, made in a thread of its own; raise Empty if time is up.

    The thread sees the context variables of this one, such as the precision of `decimal`.
    """
    context, done = copy_context(), SimpleQueue[tuple[T] | BaseException]()

    def work() -> None:
        try:
            done.put((context.run(call),))
        except BaseException as error:  # noqa: BLE001 - raised where the answer is waited for
            done.put(error)

    Thread(target=work, name="midcourse-environment", daemon=True).start()
    found = done.get(timeout=seconds)
    if isinstance(found, Exception):
        raise found
    if isinstance(found, BaseException):  # sys.exit() would end the run as if all were done
        raise RuntimeError(f"it raised {type(found).__name__}")
    return found[0]
