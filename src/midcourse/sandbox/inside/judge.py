"""Runs a program's tests: what they say is decided here, in a process that runs none of its code.

A test is one of three:

* ``{"code": "assert f(2) == 4", "names": ["f"]}``: statements, in which these names stand for what
  the program defines; by default all of them that are not Python's own. A value that it returns is
  rebuilt here as one of Python's own types, so it cannot claim to equal what is expected of it.
* ``{"call": "Solution.f", "args": […], "expected": …}``: one call, JSON values.
* ``{"stdin": "…", "stdout": "…"}``: a script; lines are compared but for trailing space, numbers
  as numbers.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .wire import BEGUN, Closed, pack, receive, send, unpack

#: How much longer than its processor time a test may take by the clock on the wall.
_WALL_FACTOR = 3.0
#: What a program has to have run, or waited to run, of that time for it not to be its own waiting.
_BUSY_SHARE = 0.5
_MAX_SHOWN = 200


class OutOfTime(BaseException):
    """A test took too long by the clock; no test's own ``except Exception`` may hold it up."""


class NotBegunError(Exception):
    """The process of a program ended before the program's first line."""


class ProgramError(Exception):
    """The program raised an error of a type that is not Python's own."""


class Ended(NamedTuple):
    """How the process of one test ended."""

    status: int
    """As `os.wait` gives it."""
    seconds: float
    """Processor time."""


class Judge:
    """Runs tests, each in a process that the program's side starts, in an empty folder."""

    def __init__(
        self, control: socket.socket, seconds: float, deadline: float, folder: str
    ) -> None:
        self.control, self.seconds, self._deadline = control, seconds, deadline
        self._folder, self._number = folder, 0

    def new_place(self) -> tuple[str, BinaryIO, BinaryIO]:
        """Return an empty folder, and files without a name for a test's input and output."""
        self._number += 1
        folder = f"{self._folder}/{self._number}"
        Path(folder).mkdir()
        named = [Path(f"{folder}.{end}") for end in ("in", "out")]
        stdin, output = (path.open("w+b") for path in named)
        for path in named:
            path.unlink()
        return folder, stdin, output

    def run(self, tests: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """Return the outcome and a detail: of the first test that is not passed, if any."""
        for number, test in enumerate(tests, start=1):
            outcome, detail = self._run(test)
            if outcome != "passed":
                return outcome, f"test {number}: {detail}"[:_MAX_SHOWN]
        return "passed", f"{len(tests)} tests"

    def _run(self, test: Mapping[str, Any]) -> tuple[str, str]:
        left = self._deadline - time.monotonic()
        wall = min(_WALL_FACTOR * self.seconds, left)
        if wall <= 0:
            return "starved", "no time was left for it"
        try:
            code = _compiled(test)
        except (SyntaxError, ValueError, TypeError, KeyError) as error:
            return "untestable", f"{type(error).__name__}: {error}"
        with Process(self, test.get("stdin", "")) as process:
            try:
                with _alarm(wall):
                    return process.judged(test, code)
            except OutOfTime:
                outcome = "timed_out" if process.blocks_itself(wall, self.seconds) else "starved"
                return outcome, f"not done after {wall:.0f} s"
            except Closed as error:
                return process.ending(str(error))


def _compiled(test: Mapping[str, Any]) -> Any:
    """Return the code of a test that is statements. Raises what `compile` does, or KeyError."""
    if "code" in test:
        return builtins.compile(test["code"], "tests.py", "exec")
    return test["stdout"] if "stdin" in test else test["expected"] and None


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Process:
    """The process that runs the program for one test."""

    def __init__(self, judge: Judge, given: str) -> None:
        self._judge = judge
        self._channel, theirs = socket.socketpair()
        folder, stdin, self._output = judge.new_place()
        with stdin:
            stdin.write(given.encode())
            stdin.flush()
            stdin.seek(0)
            handles = [theirs.fileno(), stdin.fileno(), self._output.fileno()]
            socket.send_fds(judge.control, [folder.encode()], handles)
        theirs.close()
        self.pid = int(self._line())
        self._ended: Ended | None = None
        self._has_begun = False

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()
        self._channel.close()
        self._output.close()

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            part = self._judge.control.recv(1)
            if not part:
                raise Closed("the program's side is gone")
            line += part
        return line.decode()

    def end(self) -> Ended:
        """Kill it with what it started; return how it had ended."""
        if self._ended is None:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(self.pid, signal.SIGKILL)
            status, seconds = self._line().split()
            self._ended = Ended(int(status), float(seconds))
        return self._ended

    def ending(self, why: str) -> tuple[str, str]:
        """Return the outcome of a program that is gone, or said nonsense."""
        # It may be on its way out: what its end was counts, not that we were quicker.
        time.sleep(0.05)
        ended = self.end()
        signal_number = os.WTERMSIG(ended.status) if os.WIFSIGNALED(ended.status) else 0
        if signal_number == signal.SIGXCPU or ended.seconds >= self._judge.seconds + 1:
            return "timed_out", f"{ended.seconds:.1f} s of processor time"
        return "crashed", f"ended by signal {signal_number}" if signal_number else why

    def blocks_itself(self, wall: float, seconds: float) -> bool:
        """Whether it had its time: it neither ran nor waited for a processor for most of it."""
        if not self._has_begun:
            return False
        busy = 0.0
        try:
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                ran, waited, _ = (task / "schedstat").read_text().split()
                if int(ran) / 1e9 >= seconds:
                    return True
                busy = max(busy, (int(ran) + int(waited)) / 1e9)
        except (OSError, ValueError):
            return False
        return busy < _BUSY_SHARE * wall

    # --- what it is asked ----------------------------------------------------------------------

    def judged(self, test: Mapping[str, Any], code: Any) -> tuple[str, str]:
        """Return the outcome of one test.

        Raises Closed if the program is gone, NotBegunError if it was never there.
        """
        self._await_begin()
        send(self._channel, ["main" if "stdin" in test else "names"])
        kind, *told = receive(self._channel)
        if kind == "raised":
            return _raised(*told)
        if "stdin" in test:
            return self._printed(str(test["stdout"]))
        names = {name: unpack(value, self._object) for name, value in told[0].items()}
        try:
            if "code" in test:
                builtins.exec(code, {"__name__": "tests", **_shown(names, test.get("names"))})
            else:
                _expect(_target(names, test["call"])(*test["args"]), test["expected"])
        except Closed:
            raise
        except Exception as error:  # noqa: BLE001 - a test may raise anything
            return "failed", f"{type(error).__name__}: {error}".rstrip(": ")
        return "passed", ""

    def _await_begin(self) -> None:
        try:
            self._has_begun = receive(self._channel) == BEGUN
        except Closed as error:
            raise NotBegunError(f"the process of the program did not begin: {error}") from error

    def _printed(self, expected: str) -> tuple[str, str]:
        self._output.seek(0)
        found = self._output.read().decode(errors="replace")
        if same_output(found, expected):
            return "passed", ""
        return "failed", f"it prints {found[:80]!r}"

    def _object(self, number: int, kind: str) -> Remote:
        return Remote(self, number, kind)

    def ask(self, verb: str, of: Remote, *args: Any, **named: Any) -> Any:
        """Return what the program says. Raises its error, as one of Python's own where it is one.

        Lists, dictionaries and sets that it was given are what it made of them.
        """
        told = [pack(arg, _number) for arg in args]
        by_name = {name: pack(arg, _number) for name, arg in named.items()}
        send(self._channel, [verb, of._number, told, by_name])
        kind, *reply = receive(self._channel)
        if kind == "raised":
            raise _error(*reply)
        value, changed = reply
        for arg, after in zip(args, changed, strict=False):
            _change(arg, unpack(after, self._object))
        return unpack(value, self._object)


def _shown(names: Mapping[str, Any], wanted: Sequence[str] | None) -> dict[str, Any]:
    """Return what tests see of a program's names.

    A program that defines ``len``, or a ``math`` of its own, would else decide what a test means by
    it. A module that it has imported is there for its tests too, and is the real one.
    """
    if wanted is not None:
        return {name: names[name] for name in wanted if name in names}
    modules = {name for name in names if name in sys.stdlib_module_names}
    own = {n: v for n, v in names.items() if n not in modules and not hasattr(builtins, n)}
    return own | {name: importlib.import_module(name) for name in modules - {"antigravity", "this"}}


def _raised(name: str, text: str) -> tuple[str, str]:
    """Return the outcome of a program that ends in an error before it is asked anything."""
    return ("crashed" if name in ("MemoryError", "SystemExit") else "failed"), f"{name}: {text}"


def _error(name: str, text: str) -> Exception:
    found = getattr(builtins, str(name), None)
    if isinstance(found, type) and issubclass(found, Exception):
        with contextlib.suppress(TypeError):
            made: Exception = found(text)
            return made
    return ProgramError(f"{name}: {text}")


def _number(value: Any) -> int:
    if isinstance(value, Remote):
        return value._number
    raise TypeError(f"a test gives the program a {type(value).__name__}, which cannot travel")


def _change(given: Any, after: Any) -> None:
    if type(given) is not type(after):
        return
    if isinstance(given, list | bytearray):
        given[:] = after
    elif isinstance(given, dict | set):
        given.clear()
        given.update(after)


def _target(names: Mapping[str, Any], path: str) -> Any:
    """Return what is called: a function, or the method of an object of a class."""
    name, _, method = path.partition(".")
    if name not in names:
        raise NameError(f"name {name!r} is not defined")
    return getattr(names[name](), method) if method else names[name]


def _expect(found: Any, expected: Any) -> None:
    if not _equal(found, expected):
        raise AssertionError(f"it returns {found!r}"[:_MAX_SHOWN])


def _equal(found: Any, expected: Any) -> bool:
    """Whether a value is what JSON says: a tuple is a list there, and keys are texts."""
    if isinstance(expected, list):
        is_list = isinstance(found, list | tuple) and len(found) == len(expected)
        return is_list and all(map(_equal, found, expected))
    if isinstance(expected, dict) and isinstance(found, dict):
        by_text = {str(key): value for key, value in found.items()}
        same_keys = by_text.keys() == expected.keys()
        return same_keys and all(_equal(by_text[key], expected[key]) for key in expected)
    if isinstance(expected, float) and isinstance(found, int | float):
        return abs(found - expected) <= 1e-6 * max(1.0, abs(expected))
    return type(found) is type(expected) and bool(found == expected)


def same_output(found: str, expected: str) -> bool:
    """Whether two outputs are the same line by line, trailing space aside, numbers as numbers."""
    ours, theirs = (
        [line.rstrip() for line in text.rstrip().splitlines()] for text in (found, expected)
    )
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same_line(found: str, expected: str) -> bool:
    if found == expected:
        return True
    ours, theirs = found.split(), expected.split()
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(found: str, expected: str) -> bool:
    if found == expected:
        return True
    from decimal import Decimal, InvalidOperation  # seldom needed, and slow to import

    try:
        return Decimal(found) == Decimal(expected)
    except InvalidOperation:
        return False


class Remote:
    """An object that stays with the program: it can be asked, and equals only its like."""

    def __init__(self, process: Process, number: int, kind: str) -> None:
        self._process, self._number, self._kind = process, number, kind

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Have the program call it; return what comes back."""
        return self._process.ask("call", self, *args, **named)

    def __getattr__(self, name: str) -> Any:
        return self._process.ask("get", self, name)

    def __eq__(self, other: object) -> bool:
        # What a program says of its own objects; of a value of ours it has no say.
        return isinstance(other, Remote) and self._process.ask("eq", self, other) is True

    def __lt__(self, other: Any) -> bool:
        return isinstance(other, Remote) and self._process.ask("lt", self, other) is True

    def __hash__(self) -> int:
        return hash(self._number)

    def __len__(self) -> int:
        return int(self._process.ask("len", self))

    def __bool__(self) -> bool:
        return self._process.ask("bool", self) is True

    def __getitem__(self, key: Any) -> Any:
        return self._process.ask("item", self, key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._process.ask("iter", self))

    def __instancecheck__(self, instance: object) -> bool:
        """Say whether another object of the program is one of this class."""
        return isinstance(instance, Remote) and self._process.ask("isinstance", self, instance)

    def __str__(self) -> str:
        return str(self._process.ask("str", self))

    def __repr__(self) -> str:
        return f"<{self._kind} of the program>"
