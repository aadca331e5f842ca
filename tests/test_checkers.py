"""What every checker must do, and that the page on writing another one tells the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midcourse.checkers import Checker, Comparison, Grader, Pair, checker_named, registry
from midcourse.checkers.base import MAX_ANSWER_CHARS
from midcourse.errors import DataError, MidcourseError
from midcourse.records import Gold, Verdict

PAGE = Path(__file__).parents[1] / "docs" / "grading.md"
NAMES = ("math", "reasoning-gym")


def documented_checker() -> Checker:
    code = PAGE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    scope: dict[str, Any] = {"Callable": Callable, "Comparison": Comparison, "Pair": Pair}
    exec("from __future__ import annotations\n" + code, scope)
    checker: Checker = scope["ExactChecker"]()
    return checker


@pytest.mark.parametrize("name", NAMES)
def test_what_a_checker_states_is_what_it_extracts(name: str) -> None:
    checker = checker_named(name)
    assert checker.name == name
    assert checker.extract(checker.state("[1, 2]")) == "[1, 2]"
    assert checker.extract("no answer") is None
    assert checker.open_tail(checker.state("12")) == ""
    context = checker.state("12").partition("2")[0]
    assert checker.extract(checker.open_tail(context) + "2}.") == "12"


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_over_the_limits_never_reaches_a_worker(name: str) -> None:
    pair = Pair("1" * (MAX_ANSWER_CHARS + 1), Gold(name, '{"task": "gcd", "answer": "1"}'))
    assert checker_named(name).compare_quickly(pair, True) is Comparison.ERROR


def test_the_version_is_that_of_the_package_installed() -> None:
    from importlib.metadata import version

    assert checker_named("math").version == f"math-verify/{version('math-verify')}+midcourse/3"


def test_an_unknown_checker_is_one_line() -> None:
    with pytest.raises(DataError, match=r"no checker is called 'chess': choose one of math, reas"):
        checker_named("chess")
    with pytest.raises(DataError) as caught:  # as files of an older midcourse have it
        checker_named('reasoning-gym\n{"task": "gcd"}' + "x" * 1000)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 120


def test_the_documented_checker_grades(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = documented_checker()
    monkeypatch.setitem(registry._CHECKERS, checker.name, checker)
    gold = Gold("exact", "yes")
    with Grader() as grader:
        results = list(grader.grade([("So:\nyes", gold), ("So:\nYes", gold), (" ", gold)]))
        assert [r.verdict for r in results] == [
            Verdict.CORRECT, Verdict.INCORRECT, Verdict.NO_ANSWER,
        ]  # fmt: skip
        (checked,) = grader.check_golds([Pair("yes", gold)])
        assert checked.verdict is Verdict.CORRECT
        assert checker.leaks("yes, it is", "yes", grader.equal)


def test_a_checker_that_a_worker_cannot_prepare_stops_with_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Undecided:
        """Leaves every pair to a worker, which does not know it."""

        def compare_quickly(self, pair: Pair, by_text: bool) -> None:
            return None

        def same(self, answer: str) -> str:
            return answer

    monkeypatch.setitem(registry._CHECKERS, "here only", Undecided())
    with (
        Grader(num_workers=1) as grader,
        pytest.raises(MidcourseError, match="cannot start: no checker is called 'here only'"),
    ):
        grader.equal(Pair("1", Gold("here only", "1")))
