"""The grader's worker process: reads pairs from a pipe, has their checkers compare, replies.

    python -m midcourse.checkers.worker MEMORY_MIB CPU_SECONDS DESCRIPTOR

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

from midcourse.checkers.base import Comparison, Pair
from midcourse.checkers.guard import Fence
from midcourse.checkers.registry import checker_named
from midcourse.errors import MidcourseError
from midcourse.records import Gold

#: The reply to the name of a checker that is prepared; any other says why it is not.
READY = "ready"
#: A first import of sympy on a busy machine with a networked disk.
STARTUP_SECONDS = 120.0


def main() -> None:
    """Reply to each name, and ``[word, whether we are fit for more]`` to each pair."""
    memory_mib, cpu_seconds, descriptor = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    _shield(memory_mib)
    fence = Fence()
    pipe = Connection(descriptor)
    started_kib, margin_kib = _peak_kib(), memory_mib * 1024 // 4
    while True:
        try:
            message, before_kib = json.loads(pipe.recv_bytes()), _peak_kib()
        except (EOFError, OSError):  # the parent is gone
            return
        reply: object
        fence.up = not isinstance(message, str)  # imports may do what comparing may not
        if isinstance(message, str):
            _limit_cpu(STARTUP_SECONDS)
            reply = _prepare(message)
            started_kib = _peak_kib()
        else:
            _limit_cpu(cpu_seconds)
            refused_before = fence.num_refused
            word = _compare(Pair(message["answer"], Gold(**message["gold"])))
            # sympy swallows MemoryError, or what the fence raises, and then finds things
            # different: that proves nothing, here or where it is remembered.
            swollen = _peak_kib() - before_kib > margin_kib
            refused = fence.num_refused > refused_before
            if word is Comparison.DIFFERENT and (swollen or refused):
                word = Comparison.ERROR
            reply = [word, not refused and _peak_kib() - started_kib <= margin_kib]
        pipe.send_bytes(json.dumps(reply).encode())


def _prepare(checker: str) -> str:
    try:
        checker_named(checker).prepare()
    except MidcourseError as error:
        return str(error)
    return READY


def _compare(pair: Pair) -> Comparison:
    try:
        return checker_named(pair.gold.checker).compare(pair)
    except Exception:  # noqa: BLE001 - whatever sympy raises is our failure, not the model's
        return Comparison.ERROR


def _shield(memory_mib: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when we end
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(20_000)  # nested answers within the caps must parse
    # A checker reads: it writes no file and leaves no core.
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
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
