"""The inside of a sandbox: builds the walls, begins the program's side, judges, reports.

    python -I -S -B -c "…main()" SOURCE DESCRIPTOR

Standard input has two lines of JSON: first the program and its limits, then the tests, which are
read when the program's side has begun without them. The report is written to the descriptor. Of
Linux it asks for namespaces, made by root or by a user who may make them; no other program is
needed for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from .judge import Judge
from .program import serve
from .walls import Refused, die_with_parent, enclose, end_descendants, hide
from .wire import Closed


def main() -> None:
    """Run one program against its tests."""
    report = int(sys.argv[1])
    sys.path.pop(0)  # it was ours; what a program imports is Python's own library
    die_with_parent()
    lines = sys.stdin.buffer
    job = json.loads(lines.readline())
    try:
        if job["kind"] == "namespaces":
            enclose(job["folder"], int(4 * job["file_mib"]), lambda: _judge(job, lines, report))
        else:
            _judge(job, lines, report)
    except Refused as refused:
        _write(report, "refused", str(refused))


def _judge(job: Mapping[str, Any], lines: Any, report: int) -> None:
    hide()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        os.close(report)
        os.close(0)
        serve(theirs, job)
    theirs.close()
    deadline = time.monotonic() + job["total_seconds"]
    folder = "/tmp" if job["kind"] == "namespaces" else job["folder"]
    judge = Judge(ours, job["seconds"], deadline, folder)
    tests = json.loads(lines.readline() or "[]")
    try:
        outcome, detail = judge.run(tests)
    except (Closed, OSError, ValueError) as error:
        # The program's side is gone: the program has killed it, or it never began.
        outcome, detail = "crashed", f"{type(error).__name__}: {error}"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    end_descendants()
    _write(report, outcome, detail)


def _write(descriptor: int, outcome: str, detail: str) -> NoReturn:
    os.write(descriptor, json.dumps({"outcome": outcome, "detail": detail}).encode())
    os._exit(0)
