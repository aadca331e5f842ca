"""The outside of a sandbox: starts one, hands it a program and its tests, reads what came of it.

What runs inside is `midcourse.sandbox.inside`, which imports nothing else of ours. It is started
for one program and ends with it; its own end, or ours, ends everything in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from midcourse.errors import ConfigError
from midcourse.sandbox.inside.wire import SIZE_BYTES

SandboxKind = Literal["namespaces", "process"]
"""``namespaces``: without network, files and processes of ours; ``process``: behind `fences`."""
Test = Mapping[str, Any]
"""One test, as `midcourse.sandbox.inside.judge` reads it."""

_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from inside.main import main; main()"
#: All that a program sees of an environment.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "HOME": "/tmp"}
#: The most that is read of a report.
_MAX_REPORT_BYTES = 100_000
#: Beyond what the judge allows itself, to build the walls on a busy machine.
_SPARE_SECONDS = 20.0


class Outcome(StrEnum):
    """What became of a program."""

    PASSED = "passed"
    FAILED = "failed"
    """A test says that it is wrong, or it raised an error."""
    TIMED_OUT = "timed_out"
    """It used up its processor time, or waits for something that never comes."""
    CRASHED = "crashed"
    """Its interpreter ended: killed, out of memory, or by its own exit."""
    REFUSED = "refused"
    """There is no sandbox to run it in."""
    STARVED = "starved"
    """It was not done in time, and did not get its processor time: nothing is known of it."""
    UNTESTABLE = "untestable"
    """The tests themselves cannot be run."""


@dataclass(frozen=True, slots=True)
class Report:
    """An outcome, and why in a few words, e.g. ``failed``: ``test 2: AssertionError``."""

    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may take."""

    seconds: float = 5.0
    """Processor time of each test."""
    total_seconds: float = 50.0
    """All tests, by the clock on the wall."""
    memory_mib: int = 1024
    """Address space of a process."""
    processes: int = 16
    """Processes and threads at a time."""
    file_mib: int = 16
    """The largest file, what it prints included; of all files four times as much."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Where programs are run."""

    kind: SandboxKind = "namespaces"
    limits: Limits = Limits()

    def check(self) -> None:
        """Raise ConfigError if it cannot be had on this machine."""
        report = self.run("", [])
        if report.outcome is Outcome.REFUSED:
            raise ConfigError(
                f"grade.sandbox = {self.kind!r} cannot be had here ({report.detail}): allow "
                "unprivileged user namespaces, or, for programs that you trust with this machine, "
                "set grade.sandbox = 'process': limits, and what the kernel refuses, but no walls"
            )

    def run(self, program: str, tests: Sequence[Test]) -> Report:
        """Run a program against its tests, in order, up to the first one that it does not pass."""
        # Named, for Python would try with a file which folder it may use, and a worker writes none.
        where = os.environ.get("TMPDIR") or "/tmp"
        with tempfile.TemporaryDirectory(dir=where, ignore_cleanup_errors=True) as folder:
            return self._run_in(folder, program, tests)

    def _run_in(self, folder: str, program: str, tests: Sequence[Test]) -> Report:
        ours, theirs = os.pipe()
        source = str(Path(__file__).parent)
        first = {"kind": self.kind, "folder": folder, "program": program, **asdict(self.limits)}
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _START, source, str(theirs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs],
                env=_ENVIRONMENT,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            os.close(ours)
            return Report(Outcome.REFUSED, str(error))
        finally:
            os.close(theirs)
        try:
            # The tests come second: what runs the program has begun by then, without them.
            job, told = json.dumps(first).encode(), json.dumps(list(tests)).encode()
            size = len(job).to_bytes(SIZE_BYTES, "big")
            process.communicate(size + job + told, self.limits.total_seconds + _SPARE_SECONDS)
            return _read(ours)
        except subprocess.TimeoutExpired:
            return Report(Outcome.STARVED, "the sandbox was not done in time")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(ours)


def _read(descriptor: int) -> Report:
    """Return the report that stands in a pipe; without one the sandbox itself came to an end."""
    os.set_blocking(descriptor, False)
    try:
        told = json.loads(os.read(descriptor, _MAX_REPORT_BYTES))
        return Report(Outcome(told["outcome"]), str(told["detail"])[:500])
    except (BlockingIOError, ValueError, KeyError, TypeError):
        return Report(Outcome.REFUSED, "the sandbox ended without a word")
