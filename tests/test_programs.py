"""Programs with unit tests as a domain: from published rows to a verified intervention."""

from __future__ import annotations

import base64
import json
import os
import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from midcourse.checkers import (
    Compared,
    Comparison,
    Grader,
    Pair,
    ProgramChecker,
    checker_named,
    grade_responses,
    shown_failure,
    shown_tests,
)
from midcourse.config import Recipe
from midcourse.data import curate, load_problems, validate_problems
from midcourse.data.problems import require_sound_programs
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.errors import DataError
from midcourse.pipeline import Method, Session
from midcourse.prompts import PURPOSES
from midcourse.records import Condition, Gold, Proposal, SftRow, UngradedCause, Verdict
from midcourse.sandbox import Outcome, Report, Sandbox
from runs import ready, run_to

CHECKER = checker_named("unit-tests")
DOUBLE = Gold("unit-tests", json.dumps({"tests": [{"code": "assert f(2) == 4\nassert f(3) == 6"}]}))
needs_sandbox = pytest.mark.skipif(
    Sandbox().run("", []).outcome is not Outcome.PASSED, reason="this machine allows no namespaces"
)

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*rows: object) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


# --- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So:\n\n```python\ndef f(): pass\n```\n", "def f(): pass\n"),
        ("```\nfirst\n```\nor\n~~~py\nlast\n~~~", "last\n"),
        ("```python\ndef f():\n    return 1", "def f():\n    return 1"),
        ("```python\nx\n```\n\n```\n\n```", "x\n"),
        ("Use `f(x)`.", None),
        ("", None),
    ],
)
def test_the_last_code_block_is_the_answer(text: str, answer: str | None) -> None:
    assert CHECKER.extract(text) == answer


def test_a_continuation_completes_the_block_that_its_context_leaves_open() -> None:
    context = "Double it.\n\n```python\ndef f(x):\n"
    assert CHECKER.open_tail(context) == "```python\ndef f(x):\n"
    assert CHECKER.extract(CHECKER.open_tail(context) + "    return 2 * x\n```\n") == (
        "def f(x):\n    return 2 * x\n"
    )
    assert CHECKER.open_tail(f"{context}    return x\n```\n\nDone") == ""


@pytest.mark.parametrize("program", ["def f(): return 1", 'x = """\n```\n"""', ""])
def test_a_stated_program_is_found_again(program: str) -> None:
    assert (CHECKER.extract(CHECKER.state(program)) or "").strip() == program


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (None, "needs"),
        ({"tests": []}, "at least one"),
        ({"tests": [{"code": "assert f() == 1"}]}, ""),
        ({"tests": [{"code": "assert ("}]}, "test 1: is no Python"),
        ({"tests": [{"code": "1"}, {"stdin": ""}]}, 'test 2: needs "stdout"'),
        ({"tests": [{"call": "f", "args": 1, "expected": 1}]}, 'needs "args", a list'),
        ({"tests": [{"input": ""}]}, 'has neither "code"'),
        ({"tests": ["f()"]}, "is no object"),
        ({"tests": [{"code": "1", "names": "f"}]}, '"names" are those'),
        ({"tests": [{"code": "1"}] * 1001}, "1001 tests"),
    ],
)
def test_tests_that_cannot_be_run_are_complaints(entry: object, says: str) -> None:
    complaint = CHECKER.complaint_about(entry)
    assert says in complaint if says else not complaint


def test_a_step_that_holds_the_reference_gives_it_away() -> None:
    program = "def f(x):\n    return 2 * x\n"
    with Grader() as grader:
        assert CHECKER.leaks("def f(x):\n        return 2*x", program, grader.equal)
        assert not CHECKER.leaks("    y = 2 * x", program, grader.equal)
        assert not CHECKER.leaks("anything", "", grader.equal)


@needs_sandbox
def test_programs_are_graded_among_other_answers() -> None:
    block = "```python\ndef f(x):\n    return {}\n```"
    found = grade_responses([
        (block.format("2 * x"), DOUBLE),
        (block.format("x + 2"), DOUBLE),
        ("I cannot.", DOUBLE),
        (r"So \boxed{4}.", Gold("math", "4")),
        (block.format("x"), Gold("unit-tests", json.dumps({"tests": [{"code": "assert ("}]}))),
    ])  # fmt: skip
    assert [(result.verdict, result.cause, result.detail) for result in found] == [
        (Verdict.CORRECT, None, "passed: 1 tests"),
        (Verdict.INCORRECT, None, "failed: test 1: AssertionError"),
        (Verdict.NO_ANSWER, None, ""),
        (Verdict.CORRECT, None, ""),
        (Verdict.UNGRADED, UngradedCause.GOLD_UNPARSEABLE, found[-1].detail),
    ]
    assert found[-1].detail.startswith("untestable: test 1: SyntaxError")


@dataclass(frozen=True)
class Saying(Sandbox):
    """A sandbox that has run everything already."""

    report: Report = field(kw_only=True)

    def run(self, program: str, tests: object) -> Report:
        return self.report


@pytest.mark.parametrize(
    ("outcome", "comparison"),
    [
        (Outcome.PASSED, Comparison.EQUAL),
        (Outcome.FAILED, Comparison.DIFFERENT),
        (Outcome.TIMED_OUT, Comparison.DIFFERENT),
        (Outcome.CRASHED, Comparison.DIFFERENT),
        (Outcome.REFUSED, Comparison.ERROR),
        (Outcome.STARVED, Comparison.TIMEOUT),
        (Outcome.UNTESTABLE, Comparison.GOLD_UNPARSEABLE),
    ],
)
def test_every_outcome_is_a_verdict_and_says_why(outcome: Outcome, comparison: Comparison) -> None:
    assert isinstance(CHECKER, ProgramChecker)
    sandbox = Saying(report=Report(outcome, "test 2: because"))
    words = f"{outcome.replace('_', ' ')}: test 2: because"
    assert CHECKER.compare_in(Pair("f", DOUBLE), sandbox) == Compared(comparison, words)


@needs_sandbox
def test_a_program_that_was_graded_before_keeps_its_detail() -> None:
    response = ("```python\ndef f(x):\n    return 5\n```", DOUBLE)
    with Grader() as grader:
        first, again = grader.grade([response, response])
        (later,) = grader.grade([response])
    assert first.detail == "failed: test 1: AssertionError"
    assert first == again == later


def test_what_a_program_says_is_one_short_printable_line() -> None:
    assert isinstance(CHECKER, ProgramChecker)
    said = "test 1: E: \x1b[2J\ud800\n\r\n| correct | " + 10_000 * "x"
    sandbox = Saying(report=Report(Outcome.FAILED, said))
    detail = CHECKER.compare_in(Pair("f", DOUBLE), sandbox).detail
    assert detail.startswith(r"failed: test 1: E: \x1b[2J\ud800 | correct | xxx")
    assert detail.isprintable()
    assert len(detail) < 300


def test_the_failed_test_is_shown_and_no_other() -> None:
    entry = json.dumps({"tests": [{"code": "assert f(1)"}, {"code": "assert f(2)\n"}]})
    shown = shown_failure("unit-tests", entry, "failed: test 2: E: test 1: x")
    assert shown == "failed: test 2: E: test 1: x\n\nassert f(2)"
    assert shown_failure("unit-tests", entry, "failed: test 9: E").strip() == "failed: test 9: E"
    assert shown_failure("unit-tests", entry, "") == shown_failure("math", "", "what") == ""
    for purpose in ("review", "review_list", "single_turn", "no_reference"):
        asked = "{problem} {reference} {attempt} {failing_test}"
        needed = asked if purpose != "no_reference" else asked.replace("{reference} ", "")
        assert not PURPOSES[purpose].complaint_about(needed)
    assert PURPOSES["reflect"].complaint_about("{problem} {reference} {attempt} {failing_test}")


def test_tests_are_shown_to_a_proposer_that_asks_for_them() -> None:
    tests = [
        {"code": "assert f(2) == 4\n"},
        {"stdin": "2\n", "stdout": "4\n"},
        {"call": "Solution.f", "args": [2, "a"], "expected": [4]},
    ]
    shown = shown_tests("unit-tests", json.dumps({"tests": tests}))
    assert shown == "assert f(2) == 4\n\nInput:\n2\nOutput:\n4\n\nf(2, 'a') == [4]"
    assert shown_tests("math", "") == ""
    assert not PURPOSES["review"].complaint_about("{attempt} {tests}")
    assert PURPOSES["solve"].complaint_about("{problem} {tests}")


# --- published rows ----------------------------------------------------------------------------

HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
}
MBPP = {
    "task_id": 7,
    "text": "Write a function to double a number.",
    "code": "def double(x):\r\n  return 2 * x",
    "test_list": ["assert double(2) == 4", "assert math.isclose(double(0.5), 1)"],
    "test_setup_code": "import math",
    "challenge_test_list": ["assert double(0) == 0"],
}


def _private(cases: list[dict[str, str]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


LIVE_SCRIPT = {
    "question_id": "abc1",
    "question_content": "Read a number, print its double.",
    "starter_code": "",
    "metadata": "{}",
    "public_test_cases": json.dumps([{"input": "2\n", "output": "4\n", "testtype": "stdin"}]),
    "private_test_cases": _private([{"input": "-1\n", "output": "-2", "testtype": "stdin"}]),
}
LIVE_METHOD = {
    "question_id": "1001",
    "question_content": "Double every number.",
    "starter_code": "class Solution:\n    def double(self, xs: list[int]) -> list[int]:\n        ",
    "metadata": '{"func_name": "double"}',
    "public_test_cases": json.dumps(
        [{"input": "[1, 2]", "output": "[2, 4]", "testtype": "functional"}]
    ),
    "private_test_cases": "[]",
}
SCRIPT = "print(2 * int(input()))"
METHOD = "class Solution:\n    def double(self, xs):\n        return [2 * x for x in xs]"


@pytest.mark.parametrize(
    ("source", "row", "asks", "num_tests", "program"),
    [
        ("humaneval", HUMAN_EVAL, "def double(x):", 1, None),
        ("mbpp", MBPP, "assert double(2) == 4", 3, None),
        ("livecodebench", LIVE_SCRIPT, "standard input", 2, SCRIPT),
        ("livecodebench", LIVE_METHOD, "class Solution:", 1, METHOD),
    ],
)
@needs_sandbox
def test_a_published_row_becomes_a_problem_whose_tests_tell_right_from_wrong(
    write: Write, source: str, row: dict[str, Any], asks: str, num_tests: int, program: str | None
) -> None:
    [problem] = load_problems(f"{source}:{write(row)}")
    assert asks in problem.text
    assert (problem.checker, problem.source) == ("unit-tests", source)
    assert len(json.loads(problem.entry)["tests"]) == num_tests
    right = CHECKER.state(program or problem.answer)
    assert not program or not problem.answer
    wrong = right.replace("2 * ", "3 * ")
    verdicts = [r.verdict for r in grade_responses([(right, problem.gold), (wrong, problem.gold)])]
    assert verdicts == [Verdict.CORRECT, Verdict.INCORRECT]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


def test_private_tests_are_not_unpickled(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packed = base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()
    place = f"livecodebench:{write(LIVE_SCRIPT | {'private_test_cases': packed})}"
    with pytest.raises(DataError, match="at least one"):
        load_problems(place)
    assert not (tmp_path / "evil").exists()


def test_a_program_needs_no_answer_whoever_names_its_checker(write: Write) -> None:
    row = {"problem": "Write `f`.", "entry": {"tests": [{"code": "assert f() == 1"}]}}
    named = load_problems(write(row | {"checker": "unit-tests"}))
    assert load_problems(write(row), checker="unit-tests") == named
    assert (named[0].answer, named[0].checker) == ("", "unit-tests")
    with pytest.raises(DataError, match="'answer'"):
        load_problems(write(row))


@needs_sandbox
def test_a_reference_that_fails_its_tests_is_named_before_any_work(write: Write) -> None:
    broken = MBPP | {"task_id": 8, "code": "def double(x):\n    return x"}
    place = f"mbpp:{write(MBPP, broken)}"
    with Grader() as grader:
        (complaint,) = validate_problems(place, grader)
        assert "id 'mbpp/8': field 'entry': the reference program does not pass" in complaint
        with pytest.raises(DataError, match=r"1 of 2 reference programs .*mbpp/8"):
            require_sound_programs(load_problems(place), grader)
        assert [p.problem_id for p in curate(place, grader).kept] == ["mbpp/7"]
        live = f"livecodebench:{write(LIVE_SCRIPT)}"
        assert validate_problems(live, grader) == [], "without a reference there is none to fail"


# --- a run -------------------------------------------------------------------------------------

ATTEMPT = "Double it.\n\n```python\ndef f(x):\n    y = x + {}\n    return y\n```\n"
PROPOSAL = r'<intervention>{"content": "y = 2 * x", "location": 3}</intervention>'
SCRIPTED = [
    [r"reading log|Reading log", PROPOSAL],
    [r"    y = 2 \* x\n$", "    return y\n```\n"],
    [r".", ATTEMPT.format(2), ATTEMPT.format(1)],
]


@needs_sandbox
def test_an_intervention_is_a_statement_and_its_continuation_a_whole_program(
    tmp_path: Path, write: Write, recipe_data: dict[str, Any]
) -> None:
    tests = {"tests": [{"code": "assert f(3) == 6"}]}
    row = {"problem": "Double a number with `f`.", "checker": "unit-tests", "entry": tests}
    row |= {"id": "p", "answer": "def f(x):\n    return x * 2", "reference_solution": "2 * x"}
    Path(recipe_data["engine"]["script"]).write_text(json.dumps(SCRIPTED))
    recipe = Recipe.model_validate(
        recipe_data
        | {"prompts": "programs", "steps": {"rule": "statements"}}
        | {"problems": {"path": str(write(row))}}
    )

    def read(session: Session, made: Method) -> tuple[list[Proposal], list[SftRow], list[Verdict]]:
        session.check([made.models.rows])
        rows = ready(session, made)
        verified = made.interventions.verified[Condition.PREFIX_INTERVENTION]
        verdicts = [grade.verdict for grade in session.read(verified.grades)]
        return list(session.read(made.proposals)), rows, verdicts

    proposals, rows, verdicts = run_to(tmp_path / "run", recipe, read)
    assert proposals[0].intervention == "    y = 2 * x\n", "as deep as the statement it replaces"
    prompt = proposals[0].turns[0].prompt
    assert "Substep 3:\n    y = x + " in prompt
    assert prompt.endswith("failed: test 1: AssertionError\n\nassert f(3) == 6")
    assert set(verdicts) == {Verdict.CORRECT}
    text = ByteTokenizer().decode(rows[0].input_ids[rows[0].prompt_tokens :])
    assert text == "Double it.\n\n```python\ndef f(x):\n    y = 2 * x\n"
