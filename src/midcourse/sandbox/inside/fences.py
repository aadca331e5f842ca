"""What a process may not ask the kernel for, however it was started: seccomp and Landlock.

Both need no privilege, and hold for a process and all that it starts. In a sandbox without
namespaces they are what there is; within namespaces they stand behind the walls.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .walls import libc, library_paths

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2


class _Calls(NamedTuple):
    """Numbers of the kernel's calls on one architecture."""

    architecture: int
    """As a filter sees it."""
    refused: tuple[int, ...]
    """Sockets; signals to others, by whatever call; reading, writing and tracing other processes;
    mounting and namespaces; bpf and io_uring, which could do it for one."""
    clone: int
    """Begins threads, which are allowed, and processes."""
    forks: tuple[int, ...]


_CALLS = {
    "x86_64": _Calls(
        architecture=0xC000003E,
        refused=(41, 62, 200, 234, 129, 297, 424, 310, 311, 101, 165, 155, 272, 308, 321, 425),
        clone=56,
        forks=(57, 58),
    ),
    "aarch64": _Calls(
        architecture=0xC00000B7,
        refused=(198, 129, 130, 131, 138, 240, 424, 270, 271, 117, 40, 41, 97, 268, 280, 425),
        clone=220,
        forks=(),
    ),
}
#: Begins both, and says which where no filter sees it: without it libraries fall back on clone.
_CLONE3, _THREAD = 435, 0x10000
_LOAD, _EQUAL, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
#: Where a filter finds a call's number, its architecture, and half of its first argument.
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16
#: Numbers from here on are another way to call x86-64's kernel.
_X32 = 0x40000000
_CREATE_RULES, _ADD_RULE, _RESTRICT = 444, 445, 446
#: Of files: run, read, list.
_READING = 0b1101
_FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF}


def refuse_calls(*, processes: bool) -> None:
    """Refuse what a program has no need of; with `processes` also to begin another process.

    Nothing happens where the kernel has no filters.
    """
    calls = _CALLS.get(os.uname().machine)
    if sys.platform != "linux" or calls is None:
        return
    code = b"".join(struct.pack("HBBI", *step) for step in _filter(calls, processes))
    kept = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(kept))
    libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc().prctl(_SET_SECCOMP, _FILTER, ctypes.c_char_p(program), 0, 0)


def _filter(calls: _Calls, processes: bool) -> Iterator[tuple[int, int, int, int]]:
    """Yield the steps: what is done, how many are left out if so and if not so, with what."""
    yield from ((_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, calls.architecture))
    yield from ((_RETURN, 0, 0, _REFUSE), (_LOAD, 0, 0, _NUMBER))
    yield from ((_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE))
    for number in (*calls.refused, *(calls.forks if processes else ())):
        yield from ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE))
    if processes:
        yield from ((_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _UNKNOWN))
        yield from ((_EQUAL, 0, 3, calls.clone), (_LOAD, 0, 0, _ARGUMENT))
        yield from ((_HAS, 1, 0, _THREAD), (_RETURN, 0, 0, _REFUSE))
    yield (_RETURN, 0, 0, _ALLOW)


def refuse_files(own: str) -> None:
    """Leave a process Python's library to read and one folder to write; where the kernel can."""
    if sys.platform != "linux":
        return
    call = libc().syscall
    version = call(_CREATE_RULES, None, 0, 1)
    if version < 1:
        return
    rights = _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]
    rules = call(_CREATE_RULES, ctypes.c_char_p(struct.pack("Q", rights)), 8, 0)
    devices = [f"/dev/{name}" for name in ("null", "zero", "random", "urandom")]
    _allow(rules, library_paths(), _READING)
    _allow(rules, [own], rights)
    _allow(rules, devices, 0b110)  # reading and writing
    libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    call(_RESTRICT, rules, 0)
    os.close(rules)


def _allow(rules: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            # A file has no entries: rights about those are an error of its rule.
            kept = rights if Path(path).is_dir() else rights & 0b0111
            told = ctypes.c_char_p(struct.pack("=Qi", kept, descriptor))
            libc().syscall(_ADD_RULE, rules, 1, told, 0)
            os.close(descriptor)
