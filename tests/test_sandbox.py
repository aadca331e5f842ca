"""Programs that nobody has read are run: what they try is refused, and what they do is known."""

from __future__ import annotations

import ast
import os
import sys
import time
from pathlib import Path

import pytest

from midcourse.errors import ConfigError
from midcourse.sandbox import Limits, Outcome, Sandbox
from midcourse.sandbox.inside.judge import same_output
from midcourse.sandbox.launch import SandboxKind

QUICK = Limits(seconds=1, total_seconds=10, memory_mib=256)
SQUARE = [{"code": "assert f(2) == 4\nassert f(3) == 9"}]


def has(kind: SandboxKind) -> bool:
    return Sandbox(kind).run("", []).outcome is Outcome.PASSED


KINDS: list[SandboxKind] = ["namespaces", "process"]
HAS = {kind: has(kind) for kind in KINDS}
#: Without filters of system calls a hostile program in a mere process could end this very test. To
#: signal oneself with 0 does nothing, and is refused by them.
REFUSED = [{"code": "try:\n    f()\n    assert 0\nexcept PermissionError: pass"}]
SIGNAL = "import os\ndef f(): os.kill(os.getpid(), 0)"
HAS_FENCES = Sandbox("process").run(SIGNAL, REFUSED).outcome is Outcome.PASSED


@pytest.fixture(params=KINDS)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    if not HAS[request.param]:
        pytest.skip("this machine allows no namespaces")
    if not HAS_FENCES:
        pytest.skip("this machine has no filters of system calls")
    return Sandbox(request.param, QUICK)


# --- what is right and what is wrong -----------------------------------------------------------


#: Starts a sandbox in which a part of ours fails.
_BROKEN = (
    "import os, sys; sys.path.insert(0, sys.argv.pop(1)); import inside.main, inside.program; "
    "{}; inside.main.main()"
)
#: Whose side of the program ends at once, or which cannot put a program in its place.
_WAYS_TO_BREAK = (
    "inside.main.serve = lambda *_: os._exit(0)",
    "inside.program._limit = lambda job: os.listdir('/no/such/folder')",
    "inside.program.refuse_calls = lambda **_: os._exit(3)",
    "inside.program.refuse_calls = lambda **_: os.kill(os.getpid(), 9)",
)


def blocks(text: str) -> dict[str, str]:
    """Return the programs of a table, each under a line that begins with two hashes."""
    named = (block.partition("\n") for block in text.strip().removeprefix("## ").split("\n## "))
    return {name: program for name, _, program in named}


RIGHT = blocks(
    r"""
## a function
def f(x): return x * x
-- {'code': 'assert f(2) == 4'}
## a method, a tuple for a list
class Solution:
    def f(self, x): return (x, [x])
-- {'call': 'Solution.f', 'args': [1], 'expected': [1, [1]]}
## keys are texts in JSON
def f(x): return {1: x}
-- {'call': 'f', 'args': ['a'], 'expected': {'1': 'a'}}
## about equal
def f(): return 0.1 + 0.2
-- {'call': 'f', 'args': [], 'expected': 0.3}
## a script
a, b = map(int, input().split())
print(a + b)
-- {'stdin': '1 2\n', 'stdout': '3'}
## numbers as numbers
print(2.0)
print(' x ')
-- {'stdin': '', 'stdout': '2\n x\n'}
## a long input
import sys
print(len(sys.stdin.read()))
sys.exit()
-- {'stdin': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 'stdout': '40'}
## a main block
if __name__ == '__main__':
    print(1)
-- {'stdin': '', 'stdout': '1'}
## a change in place
def f(x): x.sort()
-- {'code': 'a = [3, 1]\nf(a)\nassert a == [1, 3]'}
## a generator
def f(n):
    yield from range(n)
-- {'code': 'assert list(f(3)) == [0, 1, 2]'}
## an error that is asked for
def f(x): raise KeyError(x)
-- {'code': 'try:\n    f(1)\n    assert 0\nexcept KeyError: pass'}
## objects of its own
class P:
    def __init__(self, a): self.a = a
def f(p): return p.a
-- {'code': 'assert f(P(3)) == 3\nassert isinstance(P(1), P)'}
## values of all kinds
def f(): return {'a': [1, (2,)], 'b': {3}, 'c': 10**40, 'd': float('inf')}
-- {'code': "assert f() == {'a': [1, (2,)], 'b': {3}, 'c': 10**40, 'd': float('inf')}"}
## a Counter is a dict
from collections import Counter
def f(): return Counter('aab')
-- {'code': "assert f() == {'a': 2, 'b': 1}"}
## a thread
import threading
def f():
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()
    return 1
-- {'code': 'assert f() == 1'}
## a file of its own
import os
def f():
    open('note', 'w').write('x')
    return os.listdir()
-- {'code': "assert f() == ['note']"}
## the standard library
import json, re, math, heapq, bisect, itertools
import typing, random, datetime, sqlite3
def f(): return 1
-- {'code': 'assert f() == 1'}
"""
)


@pytest.mark.parametrize("what", RIGHT)
def test_a_right_program_passes(sandbox: Sandbox, what: str) -> None:
    program, _, test = RIGHT[what].rpartition("\n-- ")
    report = sandbox.run(program, [ast.literal_eval(test)])
    assert (report.outcome, report.detail) == (Outcome.PASSED, "1 tests")


@pytest.mark.parametrize(
    ("program", "outcome", "detail"),
    [
        ("def f(x): return x + 2", Outcome.FAILED, "AssertionError"),
        ("def g(x): return x", Outcome.FAILED, "name 'f' is not defined"),
        ("def f(x) return x", Outcome.FAILED, "SyntaxError"),
        ("def f(x): return 1 / 0", Outcome.FAILED, "ZeroDivisionError"),
        ("import numpy", Outcome.FAILED, "ModuleNotFoundError"),
        ("def f(x):\n    while True: pass", Outcome.TIMED_OUT, "of processor time"),
        ("while True: pass", Outcome.TIMED_OUT, "of processor time"),
        ("import time\ndef f(x): time.sleep(60)", Outcome.TIMED_OUT, "not done after 3 s"),
        ("import sys\nsys.exit(0)", Outcome.CRASHED, "SystemExit"),
        ("import os\nos._exit(0)", Outcome.CRASHED, "it ended"),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", Outcome.CRASHED, "signal 11"),
        ("def f(x):\n    return f(x)", Outcome.FAILED, "RecursionError"),
    ],
)  # fmt: skip
def test_a_wrong_program_does_not(
    sandbox: Sandbox, program: str, outcome: Outcome, detail: str
) -> None:
    report = sandbox.run(program, SQUARE)
    assert report.outcome is outcome
    assert detail in report.detail


def test_the_first_test_that_is_not_passed_is_named(sandbox: Sandbox) -> None:
    tests = [{"code": f"assert f({n}) == 4"} for n in (2, -2, 3)]
    assert sandbox.run("def f(x): return x * x", tests).detail.startswith("test 3: ")


def test_tests_mean_pythons_own_names_and_modules(sandbox: Sandbox) -> None:
    program = (
        "class math:\n    isclose = staticmethod(lambda a, b: True)\n"
        "def abs(x): return 0\ndef f(x): return 0.0"
    )
    for code in ("assert abs(f(1) - 1) < 0.1", "assert math.isclose(f(1), 1)"):
        assert sandbox.run(program, [{"code": code}]).outcome is Outcome.FAILED
    tests = [{"code": "assert math.isclose(f(1), 1)"}]
    imported = sandbox.run("import math\ndef f(x): return x", tests)
    assert imported.outcome is Outcome.PASSED
    named = [{"code": "assert sum(2, 3) == 6", "names": ["sum"]}]
    assert sandbox.run("def sum(a, b): return a * b", named).outcome is Outcome.PASSED


@pytest.mark.parametrize("code", ["assert (", "\x00"])
def test_tests_that_are_no_python_are_not_the_programs_fault(sandbox: Sandbox, code: str) -> None:
    assert sandbox.run("def f(x): pass", [{"code": code}]).outcome is Outcome.UNTESTABLE


# --- hostile programs --------------------------------------------------------------------------

HOSTILE = blocks(
    r"""
## a fork bomb
import os
def f(x):
    while True: os.fork()
## ten gigabytes
def f(x): return len(bytearray(10**10))
## output without end
def f(x):
    while True: print('x' * 10**6)
## a file without end
def f(x):
    with open('a', 'w') as file:
        while True: file.write('x' * 10**6)
## a socket
import socket
def f(x): socket.create_connection(('127.0.0.1', 22), 1); return x * x
## a name server
import socket
def f(x): socket.gethostbyname('example.org'); return x * x
## a file of the system
def f(x): open('/etc/passwd', 'a').write('x'); return x * x
## killing its parent
import os
def f(x): os.kill(os.getppid(), 9); return x * x
## killing everybody
import os
def f(x): os.kill(-1, 9); return x * x
## what equals everything
class E:
    def __eq__(self, other): return True
def f(x): return E()
## a number that equals everything
class E(int):
    def __eq__(self, other): return True
def f(x): return E(0)
## other tests
import builtins
builtins.AssertionError = Exception
def f(x): return 0
## a trace of its caller
import sys
def f(x):
    sys.settrace(lambda *a: None)
    frame = sys._getframe()
    while frame:
        frame.f_locals['x'] = 4
        frame = frame.f_back
    return 0
## the report
import os
for n in range(3, 60):
    try:
        os.write(n, b'{"outcome": "passed", "detail": ""}')
    except OSError: pass
def f(x): return 0
## leaving at exit
import atexit, os
atexit.register(os._exit, 0)
def f(x): return 0
"""
)


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_program_does_not_pass_and_does_no_harm(sandbox: Sandbox, what: str) -> None:
    before = Path("/etc/passwd").read_bytes()
    assert sandbox.run(HOSTILE[what], SQUARE).outcome in (
        Outcome.FAILED, Outcome.CRASHED, Outcome.TIMED_OUT,
    )  # fmt: skip
    assert Path("/etc/passwd").read_bytes() == before
    assert sandbox.run("def f(x): return x * x", SQUARE).outcome is Outcome.PASSED


def test_no_byte_of_the_tests_is_in_the_programs_memory(sandbox: Sandbox) -> None:
    program = (
        "import gc, io, sys\n"
        "def f():\n"
        "    found = []\n"
        "    for thing in (sys.stdin, sys.__stdin__, *gc.get_objects()):\n"
        "        try:\n"
        "            if isinstance(thing, io.BufferedReader): found.append(thing.peek())\n"
        "            elif isinstance(thing, io.TextIOWrapper): found.append(thing.buffer.peek())\n"
        "            else: found.append(repr(thing)[:10000])\n"
        "        except Exception: pass\n"
        "    return repr(found)"
    )
    secret = [{"code": "found = f()\nassert 'a' + 'bracadabra-17' not in found"}]
    secret.append({"code": "'abracadabra-17'"})
    assert sandbox.run(program, secret).outcome is Outcome.PASSED


def test_it_inherits_no_environment(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    look = "import os\ndef f(): return [*os.environ]"
    assert sandbox.run(look, [{"code": "assert 'HF_TOKEN' not in f()"}]).outcome is Outcome.PASSED
    files = (
        "import glob\ndef f():\n    found = []\n    for p in glob.glob('/proc/*/environ'):\n"
        "        try: found.append(open(p).read())\n        except OSError: pass\n"
        "    return ''.join(found)"
    )
    report = sandbox.run(files, [{"code": "assert 'secret' not in f()"}])
    assert report.outcome is Outcome.PASSED


def test_it_reads_and_writes_nothing_outside(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    secret.chmod(0o666)
    tmp_path.chmod(0o777)
    for verb in ("read()", "write('x')"):
        mode = "r" if verb == "read()" else "w"
        program = f"def f(): open({str(secret)!r}, {mode!r}).{verb}"
        tests = [{"code": "try:\n    f()\n    assert 0\nexcept OSError: pass"}]
        assert sandbox.run(program, tests).outcome is Outcome.PASSED
    assert secret.read_text() == "key"


def test_what_it_leaves_running_ends_with_it() -> None:
    if not HAS["namespaces"]:
        pytest.skip("this machine allows no namespaces")
    mark = f"midcourse-test-{os.getpid()}"
    program = (
        "import os, sys, ctypes\ndef f(x):\n    if not os.fork():\n        os.setsid()\n"
        f"        ctypes.CDLL(None).prctl(15, b'{mark[-15:]}', 0, 0, 0)\n"
        "        while True: pass\n    return x * x"
    )
    assert Sandbox("namespaces", QUICK).run(program, SQUARE).outcome is Outcome.PASSED
    time.sleep(0.2)
    names = []
    for entry in Path("/proc").glob("[0-9]*/comm"):
        try:
            names.append(entry.read_text().strip())
        except OSError:
            continue
    assert mark[-15:] not in names


# --- no sandbox --------------------------------------------------------------------------------


def test_a_sandbox_that_cannot_be_had_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ConfigError, match=r"grade\.sandbox = 'process'") as refused:
        Sandbox("namespaces").check()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("broken", _WAYS_TO_BREAK)
def test_our_own_side_that_ends_is_not_the_programs_fault(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midcourse.sandbox.launch._START", _BROKEN.format(broken))
    report = Sandbox("process", QUICK).run("def f(x): return x * x", SQUARE)
    assert report.outcome is Outcome.REFUSED


def test_outputs_are_compared_line_by_line() -> None:
    assert same_output("1 2 \n3\n\n", "1 2\n3")
    assert same_output("0.50", "0.5")
    assert not same_output("1\n2", "1 2")
    assert not same_output("", "0")
