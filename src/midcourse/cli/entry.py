"""Runs the command line: one line for every error a user can fix, and the exit codes."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from midcourse.cli.app import app
from midcourse.cli.typed import as_typed
from midcourse.errors import MidcourseError
from midcourse.printable import printable
from midcourse.processes import Interrupted, interruption, raise_on_signals, wait_passively

#: Failures of a write that more room, or another place, repairs.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EROFS}
_KEPT = "what is done is kept: make room and run the same command again"


def main() -> None:
    """Run the command line; what a user can fix is one line on stderr.

    So are a signal that stops us, and a disk or an output that takes no more.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # its encoding may lack a character
    wait_passively(os.environ)
    code, said = 1, ""
    try:
        raise_on_signals()
        code = _run_app()
        if sys.stdout:
            sys.stdout.flush()
    except (MidcourseError, Interrupted) as error:
        said = str(error)
        # Children that got the signal too may have failed first.
        if interrupted := interruption():
            code = interrupted.exit_code
            kept = "" if hasattr(interrupted, "__notes__") else "; what is complete is kept"
            again = command_line(sys.argv, sys.orig_argv)
            said = f"{interrupted.message()}{kept}; to go on: {again}"
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        code, said = 1, f"cannot write {error.filename or 'the output'}: {error.strerror}; {_KEPT}"
    _end(code, said)


def command_line(arguments: Sequence[str], original: Sequence[str]) -> str:
    """Return the user's own command, as a shell reads it, without passwords and keys.

    `arguments` are Python's ``sys.argv``, `original` its ``sys.orig_argv``.
    """
    program, *given = arguments
    start = [Path(program).name]
    if start == ["__main__.py"]:  # python -m midcourse
        start = list(original[: len(original) - len(given)])
    elif shutil.which(start[0]) != program:
        start = [program]
    return as_typed(start, given)


def _run_app() -> int:
    try:
        app(prog_name="midcourse")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _end(code: int, said: str) -> NoReturn:
    """Say one line, if there is one, and end; an output that failed is not tried again."""
    if said:
        from midcourse.config import without_credentials

        with suppress(OSError, AttributeError):  # there may be no stderr
            sys.stderr.write(f"midcourse: {printable(without_credentials(said))}\n")
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
