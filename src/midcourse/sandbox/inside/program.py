"""The program's side: begun before the tests are read, it makes a process for each of them.

The process that runs a program holds no test, no report and no descriptor but the channel on which
it is asked for values. What it answers is data (`wire`).
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import resource
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any, NoReturn

from .fences import refuse_calls, refuse_files
from .walls import die_with_parent
from .wire import BEGUN, Closed, pack, receive, send, unpack

#: What a process may hold open.
_MAX_FILES = 64


def serve(control: socket.socket, job: Mapping[str, Any]) -> NoReturn:
    """Start a process for each request of the judge, and say how each ended; end with the judge.

    A request comes with a channel, and the files that are its input and output.
    """
    die_with_parent()
    while True:
        try:
            message, handles, _, _ = socket.recv_fds(control, 1000, 3)
        except OSError:
            os._exit(0)
        if not message:
            os._exit(0)
        pid = os.fork()
        if not pid:
            control.close()
            _begin(job, message.decode(), handles)
        for handle in handles:
            os.close(handle)
        with contextlib.suppress(OSError):
            control.sendall(f"{pid}\n".encode())
            _, status, used = os.wait4(pid, 0)
            control.sendall(f"{status} {used.ru_utime + used.ru_stime}\n".encode())


def _begin(job: Mapping[str, Any], folder: str, handles: Sequence[int]) -> NoReturn:
    """Become the program: in a folder of its own, within its limits."""
    try:
        channel = socket.socket(fileno=os.dup(handles[0]))
        _enter(job, folder, channel, handles[1:])
        send(channel, BEGUN)
        answer_for(channel, str(job["program"]))
    except BaseException:  # noqa: BLE001 - nothing of ours may go on as the program
        os._exit(1)
    os._exit(0)


def _enter(
    job: Mapping[str, Any], folder: str, channel: socket.socket, files: Sequence[int]
) -> None:
    """Take the program's place. Raises what fails of it, which is never the program's fault."""
    die_with_parent()
    os.setsid()
    for descriptor, handle in ((0, files[0]), (1, files[1]), (2, files[1])):
        os.dup2(handle, descriptor)
    os.closerange(3, channel.fileno())
    os.closerange(channel.fileno() + 1, 1 << 10)
    sys.stdin, sys.stdout = io.TextIOWrapper(io.FileIO(0)), io.TextIOWrapper(io.FileIO(1, "w"))
    sys.stderr = sys.stdout
    os.chdir(folder)
    _limit(job)
    has_walls = job["kind"] == "namespaces"
    if not has_walls:
        refuse_files(folder)
    refuse_calls(processes=not has_walls)


def _limit(job: Mapping[str, Any]) -> None:
    for name, limit in {
        "RLIMIT_CPU": ceil(job["seconds"]),
        "RLIMIT_AS": int(job["memory_mib"]) * 2**20,
        "RLIMIT_FSIZE": int(job["file_mib"]) * 2**20,
        "RLIMIT_NPROC": int(job["processes"]),
        "RLIMIT_NOFILE": _MAX_FILES,
        "RLIMIT_CORE": 0,
    }.items():
        # Where the system has no such limit (macOS has no RLIMIT_AS), the others hold.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            kind = getattr(resource, name)
            most = resource.getrlimit(kind)[1]
            limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
            # At the first limit of time comes a signal that says so, a second later the end.
            resource.setrlimit(kind, (limit, limit + (name == "RLIMIT_CPU")))


def answer_for(channel: socket.socket, source: str) -> None:
    """Run the program, then answer for what it defines until nobody asks any more.

    Asked for ``main`` it is run as a script, and its end is the answer.
    """
    (wanted,) = receive(channel)
    names: dict[str, Any] = {"__name__": "__main__" if wanted == "main" else "program"}
    try:
        builtins.exec(builtins.compile(source, "program.py", "exec"), names)
    except SystemExit as error:
        if wanted == "main" and error.code in (None, 0):
            return _finish(channel)
        return send(channel, ["raised", "SystemExit", str(error.code)])
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        return send(channel, ["raised", type(error).__name__, str(error)[:200]])
    if wanted == "main":
        return _finish(channel)
    kept: list[Any] = []
    public = [name for name in names if name.isidentifier() and not name.startswith("__")]
    send(channel, ["names", {name: _told(names[name], kept) for name in public}])
    with contextlib.suppress(Closed):
        while True:
            send(channel, _answer(receive(channel), kept))


def _finish(channel: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    send(channel, ["done"])


def _told(value: Any, kept: list[Any]) -> Any:
    def keep(item: Any) -> int:
        kept.append(item)
        return len(kept) - 1

    return pack(value, keep)


_ON: dict[str, Callable[..., Any]] = {
    "call": lambda of, *args, **named: of(*args, **named),
    "get": getattr,
    "eq": lambda of, other: bool(of == other),
    "lt": lambda of, other: of < other,
    "len": len,
    "str": str,
    "repr": repr,
    "bool": bool,
    "item": lambda of, key: of[key],
    "iter": lambda of: list(of),
    "isinstance": lambda of, other: isinstance(other, of),
    "names": dir,
}


def _answer(request: Any, kept: list[Any]) -> Any:
    """Do what the judge asks of an object; return the value, and what became of its arguments."""
    verb, number, args, named = request
    try:
        args = [unpack(arg, lambda index, _: kept[index]) for arg in args]
        named = {k: unpack(v, lambda index, _: kept[index]) for k, v in named.items()}
        value = _told(_ON[verb](kept[number], *args, **named), kept)
        return ["value", value, [_told(arg, kept) for arg in args]]
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        return ["raised", type(error).__name__, str(error)[:200]]
