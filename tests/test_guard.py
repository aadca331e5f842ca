"""What a model or a data file writes is never run: canaries that a comparison would set off."""

import json
import subprocess
import sys
from pathlib import Path

REFUSED = {
    "eval(\"open(canary, 'w')\")": "compile",
    "exec(\"open(canary, 'w')\")": "compile",
    "sympy.sympify(\"open(canary, 'w')\")": "compile",
    "sympy.parse_expr('(2).real')": "compile",
    "open(canary, 'w')": "open",
    "import pathlib; pathlib.Path(canary).write_text('x')": "open",
    "open('/etc/hosts').read()": "open",
    "import os; os.system('touch ' + canary)": "os.system",
    "import subprocess; subprocess.run(['touch', canary])": "subprocess.Popen",
    "import os; os.fork()": "os.fork",
    "import os; os.mkdir(canary)": "os.mkdir",
    "import socket; socket.create_connection(('127.0.0.1', 9))": "socket.getaddrinfo",
    "import os; os.kill(os.getppid(), 0)": "os.kill",
}
ALLOWED = [
    "assert sympy.Number('0.25') == 0.25",
    "assert sympy.parse_expr('3/4*2').doit() == sympy.Rational(3, 2)",
    "import collections; collections.namedtuple('Point', 'x y')",
    "import wave",  # any module that is not imported yet
    "fence.up = False; math.prepare(); fence.up = True; "
    "assert math.compare(Pair('\\\\sqrt{16}', Gold('math', '4'))) == 'equal'",
]
PROGRAM = """
import json, sys, sympy
from midcourse.checkers.base import Pair
from midcourse.checkers.guard import Fence
from midcourse.checkers.registry import checker_named
from midcourse.records import Gold

canary, sources = sys.argv[1], json.loads(sys.argv[2])
math, said, fence = checker_named("math"), [], Fence()
payloads = [compile(source, "payload.py", "exec") for source in sources]
for payload in payloads:
    fence.up = True
    try:
        exec(payload)
        said.append("ran")
    except PermissionError as error:
        said.append(str(error).rpartition(" ")[2])
fence.up = False
print(json.dumps(said))
"""


def attempt(sources: list[str], canary: Path) -> list[str]:
    """Run code behind the fence, as a verifier would that somebody else wrote."""
    command = [sys.executable, "-c", PROGRAM, str(canary), json.dumps(sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_a_comparison_runs_no_text_and_touches_nothing(tmp_path: Path) -> None:
    said = attempt(list(REFUSED), tmp_path / "canary")
    assert dict(zip(REFUSED, said, strict=True)) == REFUSED
    assert not (tmp_path / "canary").exists()


def test_arithmetic_and_imports_are_not_refused(tmp_path: Path) -> None:
    assert attempt(ALLOWED, tmp_path / "canary") == ["ran"] * len(ALLOWED)
