"""Progress and failures of a stage: a bar on a terminal, a line every few seconds elsewhere.

A `Reporter` is told what is under way; to hear of it yourself, give `open_session` an object with
its two methods. What a line says is the same in both places:

      sample train: 1,024 of 2,560 · 40 % · 3,410 tok/s · finished 1,024 · 12 s · ETA 18 s
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from midcourse.printable import printable
from midcourse.tokens import duration, number

#: Columns where the output is not a terminal: wide enough for every table.
_FILE_COLUMNS = 110
_BAR_COLUMNS = 24
#: The rate and what it promises are of so many seconds: a model that was loaded, or a server that
#: was slow at first, is forgotten.
_PACE_SECONDS = 60.0
#: Before that the rate is told, and no ETA until this share is done.
_TELLING_SHARE = 0.01
#: What is said of how things go, where there is nothing to say.
_NOTHING = str
#: How outcomes are called where their names are those of an interface.
_WORDS = {"stop": "finished", "length": "truncated"}


def open_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for tables without one."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_COLUMNS)


def outcome_word(outcome: str) -> str:
    """Return an outcome as a reader calls it: ``no_answer`` is "no answer", ``stop`` "finished"."""
    return _WORDS.get(outcome, outcome.replace("_", " "))


def outcomes(counts: Mapping[str, int]) -> str:
    """Return counts by outcome in words: "correct 12, incorrect 1,000"."""
    return ", ".join(f"{outcome_word(name)} {count:,}" for name, count in counts.items())


class Task(Protocol):
    """One stage under way."""

    def advance(self, count: int = 1, note: str = "", tokens: int = 0) -> None:
        """Say that `count` more items are done, how it goes, and how many tokens that took."""


class Reporter(Protocol):
    """Where progress goes."""

    def say(self, text: str) -> None:
        """Print one line."""

    def task(
        self, label: str, total: int | None, done: int = 0, words: Callable[[], str] = _NOTHING
    ) -> AbstractContextManager[Task]:
        """Open a task of `total` items, `done` of them already there.

        `words` says how it goes, from another thread, whenever a line is shown: a call must be
        cheap.
        """


class SilentProgress:
    """Says nothing: the reporter of tests and of library use."""

    def say(self, text: str) -> None:
        """Print nothing."""

    @contextmanager
    def task(
        self, label: str, total: int | None, done: int = 0, words: Callable[[], str] = _NOTHING
    ) -> Iterator[Task]:
        """Open a task that says nothing."""
        yield self

    def advance(self, count: int = 1, note: str = "", tokens: int = 0) -> None:
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


@dataclass(eq=False, kw_only=True)
class Shown:
    """What a line says of a task; a `Task` itself."""

    label: str
    total: int | None
    done: int = 0
    words: Callable[[], str] = _NOTHING
    clock: Callable[[], float] = time.monotonic
    note: str = ""
    tokens: int = 0
    _began: float = field(init=False)
    _start: tuple[float, int, int] = field(init=False)
    _points: deque[tuple[float, int, int]] = field(init=False)
    """When how many were done, with how many tokens: the start, then the last minute."""

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._start = (self._began, self.done, 0)
        self._points = deque([self._start])

    def advance(self, count: int = 1, note: str = "", tokens: int = 0) -> None:
        """Count."""
        self.done += count
        self.tokens += tokens
        self.note = note or self.note
        now = self.clock()
        if now - self._points[-1][0] >= 1.0:
            self._points.append((now, self.done, self.tokens))
            while len(self._points) > 2 and now - self._points[1][0] > _PACE_SECONDS:
                self._points.popleft()

    @property
    def seconds(self) -> float:
        """How long it has been under way."""
        return self.clock() - self._began

    def line(self) -> str:
        """Return how far it is, how fast it goes, what came of it, and how long it will take."""
        of = f" of {self.total:,}" if self.total else ""
        share = f"{100 * self.done // self.total} %" if self.total else ""
        since = self._points[0]
        course = (self._rate(since), self._said(), duration(self.seconds), self._eta(since))
        return self._joined(f"{self.done:,}{of}", share, *course)

    def last_line(self) -> str:
        """Return what it came to."""
        _, earlier, _ = self._start
        now = f", {self.done - earlier:,} of them" if earlier and self.done > earlier else ""
        took = f"{self.done:,} done{now} in {duration(self.seconds)}"
        return self._joined(took, self._rate(self._start), self._said())

    def _joined(self, first: str, *parts: str) -> str:
        return printable(f"  {self.label}: " + " · ".join(filter(None, (first, *parts))), keep="")

    def _said(self) -> str:
        return " · ".join(filter(None, (self.note, self.words())))

    def _rate(self, since: tuple[float, int, int]) -> str:
        then, done, tokens = since
        seconds = max(self.clock() - then, 1e-3)
        if self.tokens:
            return f"{number((self.tokens - tokens) / seconds)} tok/s"
        fresh = self.done - done
        return f"{number(fresh / seconds)}/s" if fresh >= seconds else ""

    def _eta(self, since: tuple[float, int, int]) -> str:
        then, done, _ = since
        fresh = self.done - done
        if not self.total or self.done >= self.total or fresh <= 0:
            return ""
        # The first to come waited for the model to load: one of many says nothing of the others.
        if self.seconds < _PACE_SECONDS and fresh < _TELLING_SHARE * self.total:
            return ""
        each = (self.clock() - then) / fresh
        return f"ETA {duration((self.total - self.done) * each)}"


class ConsoleProgress:
    """A bar on a terminal; without one, a plain line about every `every_seconds`."""

    def __init__(self, console: Console, every_seconds: float = 10.0) -> None:
        self._console = console
        self._every_seconds = every_seconds

    def say(self, text: str) -> None:
        """Print one line, as it is: neither markup nor control sequences are read from it."""
        self._console.print(Text(printable(text)), soft_wrap=True)

    @contextmanager
    def task(
        self, label: str, total: int | None, done: int = 0, words: Callable[[], str] = _NOTHING
    ) -> Iterator[Task]:
        """Open a task of `total` items, `done` of them already there."""
        shown = Shown(label=label, total=total, done=done, words=words)
        with self._bar(shown) if self._console.is_terminal else self._lines(shown):
            yield shown
        self.say(shown.last_line())

    def _bar(self, shown: Shown) -> Live:
        return Live(
            get_renderable=lambda: _drawn(shown, self._console.width), console=self._console,
            transient=True, refresh_per_second=4,
        )  # fmt: skip

    @contextmanager
    def _lines(self, shown: Shown) -> Iterator[None]:
        """Print a line now and then, more seldom as hours go by, whether anything comes or not."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(max(self._every_seconds, shown.seconds / 60)):
                self._console.print(Text(shown.line()), soft_wrap=True)

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()


def _drawn(shown: Shown, width: int) -> Table:
    """Return the line with a bar before it, where there is room: what the line says comes first."""
    total = float(shown.total) if shown.total else None
    line = shown.line().strip()
    drawn = Table.grid(padding=(0, 1))
    if len(line) + _BAR_COLUMNS < width:
        bar = ProgressBar(
            total=total, completed=shown.done, width=_BAR_COLUMNS, pulse=total is None
        )
        drawn.add_row(bar, Text(line))
    else:
        drawn.add_row(Text(line))
    return drawn
