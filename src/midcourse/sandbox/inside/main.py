"""The inside of a sandbox: builds the walls, begins the program's side, judges, reports.

    python -I -S -c "…main()" SOURCE DESCRIPTOR

Standard input has the size of a first part, in eight bytes; that part, the program and its limits
as JSON; and the tests as JSON. The tests are read when the program's side has begun: no byte of
them is ever in its memory. The report is written to the descriptor. Of Linux it asks for
namespaces, made by root or by a user who may make them; no other program is needed for it.
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

from .judge import Judge, NotBegunError
from .program import serve
from .walls import Refused, die_with_parent, enclose, end_descendants, hide
from .wire import SIZE_BYTES, Closed


def main() -> None:
    """Run one program against its tests."""
    report = int(sys.argv[1])
    sys.path.pop(0)  # it was ours; what a program imports is Python's own library
    die_with_parent()
    # Not by a buffered reader: it would read ahead, and hold tests when the program's side begins.
    job = json.loads(_read(int.from_bytes(_read(SIZE_BYTES), "big")))
    try:
        if job["kind"] == "namespaces":
            enclose(job["folder"], int(4 * job["file_mib"]), lambda: _judge(job, report))
        else:
            _judge(job, report)
    except Refused as refused:
        _write(report, "refused", str(refused))


def _read(count: int | None = None) -> bytes:
    """Return so many bytes of standard input, or all that are left."""
    found = bytearray()
    while count is None or len(found) < count:
        part = os.read(0, 1 << 20 if count is None else min(count - len(found), 1 << 20))
        if not part:
            break
        found += part
    return bytes(found)


def _judge(job: Mapping[str, Any], report: int) -> None:
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
    tests = json.loads(_read())
    try:
        outcome, detail = judge.run(tests)
    except (Closed, NotBegunError, OSError, ValueError) as error:
        # Our own side is gone, or could not begin: of the program nothing is known.
        outcome, detail = "refused", f"{type(error).__name__}: {error}"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    end_descendants()
    _write(report, outcome, detail)


def _write(descriptor: int, outcome: str, detail: str) -> NoReturn:
    os.write(descriptor, json.dumps({"outcome": outcome, "detail": detail}).encode())
    os._exit(0)
