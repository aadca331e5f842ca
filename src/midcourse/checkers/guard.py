"""What a worker refuses while it compares an answer, whatever code runs in it.

A checker only computes. An answer that reaches an ``eval`` by some path in somebody's verifier is
not run: evaluating text, opening a socket, starting a process, writing a file or reading one that
is not Python's own raises `PermissionError` in the worker, and the answer is `ungraded`. It rests
on Python's audit hooks, which cannot be taken off again. It is a second fence behind the list of
tasks that are asked at all, not a prison for native code.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import midcourse

#: Prefixes of the audit events that are refused.
_REFUSED = (
    "socket.",
    "subprocess.",
    "shutil.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.kill",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "webbrowser.",
    "urllib.",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: They build classes and functions from text of their own.
_WRITERS_OF_CODE = {"collections", "dataclasses", "typing", "sympy.polys.monomials"}
#: How sympy reads a number or a single name: it evaluates a call that it writes around it.
_SYMPY = "sympy.parsing.sympy_parser"
_SYMPY_ATOMS = re.compile(
    rb"from sympy import \*|[A-Za-z_]\w* ?|"
    rb"(?:(?:Integer|Float|Rational|Symbol) \('?[A-Za-z0-9_.+-]+'? \)|[-+*/() ])+"
)


class Fence:
    """Refuses all of it while it is up. It stays for the life of the process: for workers only."""

    def __init__(self) -> None:
        self.up = False
        self.num_refused = 0
        roots = {sys.prefix, sys.base_prefix, str(Path(midcourse.__file__).parent), *sys.path}
        self._readable = tuple(os.path.realpath(root) + os.sep for root in roots if root)
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.up:
            return
        refused = event.startswith(_REFUSED)
        if event == "open":
            path, _, flags = arguments
            refused = not _may_open(path, flags, self._readable)
        elif event == "compile" and arguments[1] == "<string>":
            refused = not _may_evaluate(arguments[0], str(sys._getframe(1).f_globals["__name__"]))
        if refused:
            self.num_refused += 1
            raise PermissionError(f"a checker may not do this: {event}")


def _may_open(path: Any, flags: int, readable: tuple[str, ...]) -> bool:
    if flags & _WRITING:
        return False
    return isinstance(path, int) or os.path.realpath(os.fsdecode(path)).startswith(readable)


def _may_evaluate(source: object, module: str) -> bool:
    if module == _SYMPY and isinstance(source, bytes):
        return bool(_SYMPY_ATOMS.fullmatch(source))
    return module in _WRITERS_OF_CODE
