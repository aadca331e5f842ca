"""What a model or a data file writes is never run: canaries that a comparison would set off."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from midcourse.checkers.base import Pair
from midcourse.checkers.guard import Fence
from midcourse.checkers.registry import checker_named
from midcourse.records import Gold

canary, source = sys.argv[1:]
import sympy
payload = compile(source, "payload.py", "exec")
fence = Fence()
fence.up = True
try:
    exec(payload)
except PermissionError as error:
    print("refused", str(error).rpartition(" ")[2])
else:
    print("ran")
"""


def attempt(source: str, canary: Path) -> str:
    """Run code behind the fence, as a verifier would that somebody else wrote."""
    command = [sys.executable, "-c", PROGRAM, str(canary), source]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("source", "event"),
    [
        ("eval(\"open(canary, 'w')\")", "compile"),
        ("exec(\"open(canary, 'w')\")", "compile"),
        ("sympy.sympify(\"open(canary, 'w')\")", "compile"),
        ("sympy.parse_expr('(2).real')", "compile"),
        ("open(canary, 'w')", "open"),
        ("import pathlib; pathlib.Path(canary).write_text('x')", "open"),
        ("open('/etc/hosts').read()", "open"),
        ("import os; os.system('touch ' + canary)", "os.system"),
        ("import subprocess; subprocess.run(['touch', canary])", "subprocess.Popen"),
        ("import os; os.fork()", "os.fork"),
        ("import os; os.mkdir(canary)", "os.mkdir"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "socket.getaddrinfo"),
        ("import os; os.kill(os.getppid(), 0)", "os.kill"),
    ],
)
def test_a_comparison_runs_no_text_and_touches_nothing(
    source: str, event: str, tmp_path: Path
) -> None:
    assert attempt(source, tmp_path / "canary") == f"refused {event}"
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "source",
    [
        "assert sympy.Number('0.25') == 0.25",
        "assert sympy.parse_expr('3/4*2').doit() == sympy.Rational(3, 2)",
        "import collections; collections.namedtuple('Point', 'x y')",
        "import wave",  # any module that is not imported yet
        "fence.up = False; checker_named('math').prepare(); fence.up = True; "
        "assert checker_named('math').compare(Pair('\\\\sqrt{16}', Gold('math', '4'))) == 'equal'",
    ],
)
def test_arithmetic_and_imports_are_not_refused(source: str, tmp_path: Path) -> None:
    assert attempt(source, tmp_path / "canary") == "ran"
