"""Programs tested per second: walls, against a bare interpreter that runs what it is given.

The load: right and wrong programs with five tests each. The alternative is what most scripts do,
``python -c`` with the tests appended to the program, all in one process, with nothing around it:
the program sees this machine, and its tests. The floor is an interpreter that starts and ends.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from rows import Row

from midcourse.sandbox import Outcome, Sandbox

NUM_PROGRAMS = 40
PROGRAMS = tuple(f"def f(x):\n    return x * {2 + i % 2}\n" for i in range(NUM_PROGRAMS))
ASSERTS = tuple(f"assert f({n}) == {2 * n}" for n in range(1, 6))


def rows() -> Iterator[Row]:
    """Yield the row of the sandbox; nothing where there is none."""
    sandbox = Sandbox()
    if sandbox.run("", []).outcome is not Outcome.PASSED:
        print("sandbox: skipped, no namespaces here")
        return
    tests = [{"code": line} for line in ASSERTS]
    found: list[bool] = []
    ours = _speed(
        lambda program: found.append(sandbox.run(program, tests).outcome is Outcome.PASSED)
    )
    assert found == [_bare(program) for program in PROGRAMS], "both say the same"
    floor = _speed(lambda program: _python("pass"))
    yield Row(
        what=f"{NUM_PROGRAMS} programs, five tests each",
        ours=ours,
        theirs=_speed(_bare),
        unit="programs/s",
        against="python -c, without walls",
        floor=f"{floor:.1f} programs/s: an interpreter that starts and ends",
    )


def _bare(program: str) -> bool:
    return _python("\n".join([program, *ASSERTS]))


def _python(code: str) -> bool:
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _speed(run: Callable[[str], object]) -> float:
    began = time.perf_counter()
    for program in PROGRAMS:
        run(program)
    return NUM_PROGRAMS / (time.perf_counter() - began)
