"""The grader's worker process: reads pairs from a pipe, has their checkers compare, replies.

    python -m midcourse.checkers.worker MEMORY_MIB CPU_SECONDS DESCRIPTOR SANDBOX

Messages are JSON: the name of a checker to prepare, or a pair as ``{"answer": …, "gold":
{"checker": …, "value": …}}``. The process may hang, run out of memory or crash at any pair; its
parent kills and replaces it (`midcourse.checkers.process`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import cast

from midcourse.checkers.base import Compared, Comparison, Pair, ProgramChecker
from midcourse.checkers.guard import Fence
from midcourse.checkers.registry import checker_named
from midcourse.errors import MidcourseError
from midcourse.records import Gold
from midcourse.sandbox import Limits, Sandbox, SandboxKind

#: The reply to the name of a checker that is prepared; any other says why it is not.
READY = "ready"
#: A first import of sympy on a busy machine with a networked disk.
STARTUP_SECONDS = 120.0
#: How much longer than its processor time an answer may take by the clock on the wall.
WALL_FACTOR = 10


def main() -> None:
    """Reply to each name, and ``[word, detail, whether we are fit for more]`` to each pair."""
    memory_mib, cpu_seconds, descriptor = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    sandbox = _sandbox(sys.argv[4], cpu_seconds, memory_mib)
    _shield(memory_mib, writes=sandbox is not None)
    fence = Fence()
    pipe = Connection(descriptor)
    started_kib, margin_kib = _peak_kib(), memory_mib * 1024 // 4
    while True:
        try:
            message, before_kib = json.loads(pipe.recv_bytes()), _peak_kib()
        except (EOFError, OSError):  # the parent is gone
            return
        reply: object
        # Imports may do what comparing may not; a sandbox has walls of its own.
        fence.up = not isinstance(message, str) and sandbox is None
        if isinstance(message, str):
            _limit_cpu(STARTUP_SECONDS)
            reply = _prepare(message)
            started_kib = _peak_kib()
        else:
            _limit_cpu(cpu_seconds)
            refused_before = fence.num_refused
            pair = Pair(message["answer"], Gold(**message["gold"]))
            found = _compare(pair, sandbox)
            # sympy swallows MemoryError, or what the fence raises, and then finds things
            # different: that proves nothing, here or where it is remembered.
            swollen = _peak_kib() - before_kib > margin_kib
            refused = fence.num_refused > refused_before
            if found.comparison is Comparison.DIFFERENT and (swollen or refused):
                found = Compared(Comparison.ERROR)
            is_fit = not refused and _peak_kib() - started_kib <= margin_kib
            reply = [found.comparison, found.detail, is_fit]
        pipe.send_bytes(json.dumps(reply).encode())


def _prepare(checker: str) -> str:
    try:
        checker_named(checker).prepare()
    except MidcourseError as error:
        return str(error)
    return READY


def _sandbox(kind: str, seconds: float, memory_mib: int) -> Sandbox | None:
    """Return where programs are run: each test has an answer's time, all have a worker's."""
    if kind == "none":
        return None
    limits = Limits(
        seconds=seconds, total_seconds=0.8 * WALL_FACTOR * seconds, memory_mib=memory_mib
    )
    return Sandbox(cast(SandboxKind, kind), limits)


def _compare(pair: Pair, sandbox: Sandbox | None) -> Compared:
    try:
        checker = checker_named(pair.gold.checker)
        if sandbox is not None and isinstance(checker, ProgramChecker):
            return checker.compare_in(pair, sandbox)
        return Compared(checker.compare(pair))
    except Exception:  # noqa: BLE001 - whatever sympy raises is our failure, not the model's
        return Compared(Comparison.ERROR)


def _shield(memory_mib: int, *, writes: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when we end
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(20_000)  # nested answers within the caps must parse
    # A checker reads: it writes no file and leaves no core. A sandbox has limits of its own.
    for limit in (resource.RLIMIT_CORE, *(() if writes else (resource.RLIMIT_FSIZE,))):
        resource.setrlimit(limit, (0, 0))
    # Where the system has no such limit (macOS), the deadline alone protects.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_mib * 2**20, memory_mib * 2**20))


def _limit_cpu(seconds: float) -> None:
    """Let SIGPROF end us after so much processor time: even in C, even without a parent."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _peak_kib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


if __name__ == "__main__":
    main()
