r"""The checker of programs: the last code block of a response, run against unit tests.

A problem's entry is ``{"tests": […]}``; what a test may be is in `midcourse.sandbox.inside.judge`.
Its answer, where it has one, is a program that passes: the reference. Programs run in a sandbox
(`midcourse.sandbox`), never in a grader's worker.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from midcourse.checkers.base import Compared, Comparison, Pair
from midcourse.printable import printable
from midcourse.sandbox import Outcome, Report, Sandbox
from midcourse.steps.program import code_blocks, open_block

NAME = "unit-tests"
#: A longer program is not run.
_MAX_PROGRAM_CHARS = 200_000
_MAX_TESTS = 1_000
#: Of a detail, which may quote what a program says.
_MAX_DETAIL_CHARS = 240
#: How a detail begins that names a test; what a program says can only come after it.
_NAMED_TEST = re.compile(r"[a-z ]+: test (\d+):")
#: What an outcome says of an answer. Where the sandbox or its tests fail, nothing.
_COMPARISONS = {
    Outcome.PASSED: Comparison.EQUAL,
    Outcome.FAILED: Comparison.DIFFERENT,
    Outcome.CRASHED: Comparison.DIFFERENT,
    Outcome.TIMED_OUT: Comparison.DIFFERENT,
    Outcome.STARVED: Comparison.TIMEOUT,
    Outcome.REFUSED: Comparison.ERROR,
    Outcome.UNTESTABLE: Comparison.GOLD_UNPARSEABLE,
}
#: By a field that only one kind of test has, the others that it needs, and their types.
_KINDS: Mapping[str, Mapping[str, type]] = {
    "code": {"code": str},
    "stdin": {"stdin": str, "stdout": str},
    "call": {"call": str, "args": list, "expected": object},
}


class UnitTestChecker:
    """A program before its tests; the methods are those of `base.Checker`."""

    name = NAME
    version = "unit-tests/1"

    def extract(self, text: str) -> str | None:
        """Return the last code block that holds anything; one that is still open counts."""
        return next((code for code in reversed(code_blocks(text)) if code.strip()), None)

    def open_tail(self, context: str) -> str:
        """Return the code block that a context leaves open: its continuation completes it."""
        return open_block(context)

    def state(self, answer: str) -> str:
        """Return a program in a code block."""
        mark = "~~~" if "```" in answer else "```"
        return f"{mark}python\n{answer.rstrip()}\n{mark}"

    def same(self, answer: str) -> str:
        """Every character may matter."""
        return answer

    def complaint_about(self, entry: object) -> str:
        """Say what is wrong with the tests."""
        tests = entry.get("tests") if isinstance(entry, dict) else None
        if not isinstance(tests, list) or not tests:
            return 'needs {"tests": […]}, at least one'
        if len(tests) > _MAX_TESTS:
            return f"has {len(tests)} tests: {_MAX_TESTS} at most"
        for number, test in enumerate(tests, start=1):
            if complaint := _complaint(test):
                return f"test {number}: {complaint}"
        return ""

    def leaks(self, text: str, answer: str, equal: Callable[[Pair], bool]) -> bool:
        """Whether the reference program stands in a text, however it is laid out."""
        reference = _squeezed(answer)
        return len(reference) > 2 and reference in _squeezed(text)

    def show(self, entry: str) -> str:
        """Return the tests, each as its statements, or as what goes in and what is to come out."""
        return "\n\n".join(map(_shown, json.loads(entry)["tests"]))

    def show_failure(self, entry: str, detail: str) -> str:
        """Return the detail, and below it the test that it names as `show` writes it."""
        named = _NAMED_TEST.match(detail)
        tests = json.loads(entry)["tests"][int(named[1]) - 1 :][:1] if named else []
        return "\n\n".join([detail, *map(_shown, tests)])

    def compare_quickly(self, pair: Pair, by_text: bool) -> Comparison | None:
        """Leave every program that is not too long to the sandbox."""
        return Comparison.ERROR if len(pair.answer) > _MAX_PROGRAM_CHARS else None

    def prepare(self) -> None:
        """There is nothing to import."""

    def compare(self, pair: Pair) -> Comparison:
        """Run the program in a sandbox with the default limits."""
        return self.compare_in(pair, Sandbox()).comparison

    def compare_in(self, pair: Pair, sandbox: Sandbox) -> Compared:
        """Run the program in a sandbox; the detail is its outcome and the first failed test."""
        tests: Sequence[Mapping[str, Any]] = json.loads(pair.gold.value)["tests"]
        report = sandbox.run(pair.answer, tests)
        return Compared(_COMPARISONS[report.outcome], _told(report))


def _told(report: Report) -> str:
    """Return an outcome and its detail as one line that drives no terminal and fits a table."""
    detail = printable(" ".join(report.detail.split()), keep="")
    said = f"{report.outcome.replace('_', ' ')}: {detail}"
    return said if len(said) <= _MAX_DETAIL_CHARS else said[: _MAX_DETAIL_CHARS - 1] + "…"


def _shown(test: Mapping[str, Any]) -> str:
    if "code" in test:
        return str(test["code"]).strip()
    if "stdin" in test:
        return f"Input:\n{test['stdin'].strip()}\nOutput:\n{test['stdout'].strip()}"
    args = ", ".join(map(repr, test["args"]))
    return f"{test['call'].rpartition('.')[2]}({args}) == {test['expected']!r}"


def _complaint(test: object) -> str:
    """Return what is wrong with one test; "" if nothing."""
    if not isinstance(test, dict):
        return "is no object"
    kind = next((kind for kind in _KINDS if kind in test), None)
    if kind is None:
        return 'has neither "code" nor "stdin" nor "call"'
    for field, of in _KINDS[kind].items():
        if field not in test or not isinstance(test[field], of):
            return f'needs "{field}"' + (f", a {of.__name__}" if of is not object else "")
    names = test.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return '"names" are those that it takes from the program, a list of texts'
    if kind == "code":
        try:
            ast.parse(test["code"])
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"is no Python: {error}"
    return ""


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)
