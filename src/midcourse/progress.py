"""Progress and failures of a stage: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from midcourse.printable import printable

#: Columns where the output is not a terminal: wide enough for every table.
_FILE_COLUMNS = 110


def open_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for tables without one."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_COLUMNS)


class Task(Protocol):
    """One stage under way."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Say that `count` more items are done, and a few words of how it goes."""


class Reporter(Protocol):
    """Where progress goes."""

    def say(self, text: str) -> None:
        """Print one line."""

    def task(self, label: str, total: int | None, done: int = 0) -> AbstractContextManager[Task]:
        """Open a task of `total` items, `done` of them already there."""


class SilentProgress:
    """Says nothing: the reporter of tests and of library use."""

    def say(self, text: str) -> None:
        """Print nothing."""

    @contextmanager
    def task(self, label: str, total: int | None, done: int = 0) -> Iterator[Task]:
        """Open a task that says nothing."""
        yield self

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count nothing."""


class Failures:
    """Requests that failed for good. A few become outcomes; with more of them the stage stops.

    Each was asked several times, and again when all others were answered, while servers answered
    something: it is a request that a server cannot take, or a server that fails often.
    """

    def __init__(self, max_share: float = 0.0, num_done: int = 0) -> None:
        self.max_share, self.num_done = max_share, num_done
        self.num_failed, self.num_recorded = 0, 0
        """What is left for a later run, and what is an outcome."""
        self.first_error = ""

    def add(self, error: str) -> None:
        """Count a failure that is left for a later run."""
        self.num_failed += 1
        self.first_error = self.first_error or error

    def may_record(self, errors: Sequence[str], num_answered: int) -> bool:
        """Count what failed next to what was answered; return whether it is to be recorded."""
        total = self.num_done + num_answered + len(errors)
        if len(errors) > math.ceil(self.max_share * total):
            for error in errors:
                self.add(error)
            return False
        self.num_recorded += len(errors)
        self.first_error = self.first_error or next(iter(errors), "")
        return True


class ConsoleProgress:
    """Rich bars on a terminal; without one, a plain line every `every_seconds`."""

    def __init__(self, console: Console, every_seconds: float = 10.0) -> None:
        self._console = console
        self._every_seconds = every_seconds

    def say(self, text: str) -> None:
        """Print one line, as it is: neither markup nor control sequences are read from it."""
        self._console.print(Text(printable(text)))

    @contextmanager
    def task(self, label: str, total: int | None, done: int = 0) -> Iterator[Task]:
        """Open a task of `total` items, `done` of them already there."""
        started = time.monotonic()
        task: _BarTask | _LineTask
        if self._console.is_terminal:
            with Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
                transient=True,
            ) as bars:
                task = _BarTask(bars, printable(label), total, done)
                yield task
        else:
            task = _LineTask(self._console, label, total, done, self._every_seconds)
            yield task
        self.say(f"  {label}: {task.done:,} done in {time.monotonic() - started:.0f} s")


class _BarTask:
    def __init__(self, bars: Progress, label: str, total: int | None, done: int) -> None:
        self._bars = bars
        self._id = bars.add_task(label, total=total, completed=done, note="")
        self.done = done

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        self._bars.update(self._id, completed=self.done, note=printable(note))


class _LineTask:
    def __init__(
        self, console: Console, label: str, total: int | None, done: int, every_seconds: float
    ) -> None:
        self._console, self._label, self._total = console, label, total
        self._every_seconds, self._last = every_seconds, time.monotonic()
        self.done = done

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if time.monotonic() - self._last >= self._every_seconds:
            self._last = time.monotonic()
            of = f" of {self._total:,}" if self._total else ""
            line = f"  {self._label}: {self.done:,}{of} {note}".rstrip()
            self._console.print(Text(printable(line)))
