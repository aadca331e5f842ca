"""The grader's workers: killed at a deadline, replaced, taken down; nothing is called wrong."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midcourse.checkers import Grader, GradeResult, grade_responses
from midcourse.errors import MidcourseError
from midcourse.records import Gold, UngradedCause, Verdict

TIMEOUT_SECONDS = 1.0
#: Its size alone tells a tower from 4; what it is rounded to takes all of its digits.
TOWER = r"\lfloor \frac{9^{9^{9}}}{7} \rfloor"


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=2, timeout_seconds=TIMEOUT_SECONDS, memory_mib=1024) as grader:
        yield grader


def boxed(answer: str) -> str:
    return f"So \\boxed{{{answer}}}."


def one(grader: Grader, answer: str, gold: str = "4") -> GradeResult:
    [result] = grader.grade([(boxed(answer), math(gold))])
    return result


def math(gold: str) -> Gold:
    return Gold("math", gold)


def pids(grader: Grader) -> list[int]:
    """The processes of the workers that are up."""
    return [worker._process.pid for worker in grader._pool._workers] if grader._pool else []


def is_up(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


# --- bombs -------------------------------------------------------------------------------------

BOMBS = {
    "power tower": TOWER,
    "factorial": r"\lfloor \frac{(10^9)!}{7} \rfloor",
    "binomial": r"\sin \binom{10^9}{5 \cdot 10^8}",
    "sum": r"\sum_{k=1}^{1000000000000} \frac{1}{k^2+\sin k}",
    "nested parentheses": "(" * 3000 + "1" + ")" * 3000,
    "nested braces": "{" * 10_000 + "4" + "}" * 10_000,
    "10 MB": "1" * 10_000_000,
    "memory": r"\tan(10^{10^{10}})",
}
#: Each of these costs a second and a worker, as the power tower does.
SLOW_BOMBS = {"factorial", "binomial", "sum"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(bomb, id=name, marks=[pytest.mark.slow] if name in SLOW_BOMBS else [])
        for name, bomb in BOMBS.items()
    ],
)
def test_a_bomb_is_ungraded_in_time_and_the_pool_goes_on(grader: Grader, bomb: str) -> None:
    start = time.process_time()
    result = one(grader, bomb)
    # That it came back is the deadline's work; the parent may only have waited.
    assert time.process_time() - start < TIMEOUT_SECONDS
    assert result.verdict is Verdict.UNGRADED
    assert result.cause in (UngradedCause.TIMEOUT, UngradedCause.GRADER_ERROR)
    assert one(grader, r"\sqrt{16}").verdict is Verdict.CORRECT
    assert len(pids(grader)) <= 2


@pytest.mark.parametrize(
    "answer", ["9^{9^{9}}", "-9^{9^{11}}", "(10^9)!", r"\binom{10^8}{10^7}", r"9^{9^{9}}\pi"]
)
def test_a_number_of_another_size_is_told_without_its_digits(grader: Grader, answer: str) -> None:
    assert one(grader, answer).verdict is Verdict.INCORRECT


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("\x00", Verdict.INCORRECT),
        (r"\sqrt{\x00}", Verdict.INCORRECT),
        ("4\x00", Verdict.CORRECT),
        ("\u202e4\u200f", Verdict.CORRECT),
        ("\ud800", Verdict.INCORRECT),
        ("}{", Verdict.NO_ANSWER),
        (r"\frac{", Verdict.NO_ANSWER),
        (r"\frac", Verdict.INCORRECT),
        ("", Verdict.NO_ANSWER),
    ],
)
def test_odd_characters_get_a_verdict(grader: Grader, answer: str, verdict: Verdict) -> None:
    assert one(grader, answer).verdict is verdict


def test_an_empty_box_after_a_right_answer_scores_nothing(grader: Grader) -> None:
    [result] = grader.grade([(r"\boxed{4} … \boxed{}", math("4"))])
    assert result.verdict is Verdict.NO_ANSWER


@pytest.mark.slow
def test_the_pool_is_whole_again_after_bombs(grader: Grader) -> None:
    bombs = [(boxed(TOWER.replace("7", str(n))), math("4")) for n in (11, 13)]
    list(grader.grade(bombs))
    answers = [(boxed(rf"\sqrt{{{n}}} + 1"), math(rf"1 + \sqrt{{{n}}}")) for n in range(2, 10)]
    assert all(result.verdict is Verdict.CORRECT for result in grader.grade(answers))
    assert len(pids(grader)) <= 2


@pytest.mark.slow
def test_results_come_in_order_whatever_a_bomb_delays(grader: Grader) -> None:
    golds = [math(str(n)) for n in (4, 5, 6, 7)]
    answers = [boxed("4"), boxed(r"\sqrt{25}"), boxed(TOWER + "+6"), boxed("8")]
    results = list(grader.grade(zip(answers, golds, strict=True)))
    assert [result.verdict.value for result in results] == [
        "correct", "correct", "ungraded", "incorrect",
    ]  # fmt: skip
    assert [result.extracted_answer for result in results] == [
        "4", r"\sqrt{25}", TOWER + "+6", "8",
    ]  # fmt: skip


# --- what is ours is never called wrong --------------------------------------------------------


@pytest.mark.parametrize("gold", ["", " ", r"\frac{1}{", "1" * 10_000, r"2,3, \underbrace{2}_{"])
def test_a_gold_answer_that_does_not_parse_is_no_verdict(grader: Grader, gold: str) -> None:
    result = one(grader, "5", gold)
    assert (result.verdict, result.cause) == (
        Verdict.UNGRADED,
        UngradedCause.GOLD_UNPARSEABLE,
    )


@pytest.mark.slow
def test_a_worker_killed_at_work_is_a_grader_error_and_is_replaced() -> None:
    with Grader(num_workers=1, timeout_seconds=30) as grader:
        assert one(grader, r"\sqrt{16}").verdict is Verdict.CORRECT
        [pid] = pids(grader)
        results: list[GradeResult] = []
        thread = threading.Thread(target=lambda: results.append(one(grader, TOWER)))
        thread.start()
        time.sleep(0.5)
        os.kill(pid, signal.SIGSEGV)
        thread.join(20)
        assert [r.cause for r in results] == [UngradedCause.GRADER_ERROR]
        assert one(grader, r"\sqrt{16} + 0").verdict is Verdict.CORRECT
        assert len(pids(grader)) == 1
        assert pids(grader) != [pid]


def test_the_limit_is_processor_time_so_a_worker_held_up_by_others_is_not_late() -> None:
    with Grader(num_workers=1, timeout_seconds=0.4) as grader:
        assert one(grader, r"\sqrt{16}").verdict is Verdict.CORRECT
        [pid] = pids(grader)
        os.kill(pid, signal.SIGSTOP)  # as if other processes had every core
        threading.Timer(1.2, os.kill, (pid, signal.SIGCONT)).start()
        assert one(grader, r"\sqrt{9} + 1").verdict is Verdict.CORRECT
        assert pids(grader) == [pid]


@pytest.mark.slow
def test_wall_time_is_the_backstop_for_a_worker_that_does_nothing() -> None:
    with Grader(num_workers=1, timeout_seconds=0.3) as grader:
        assert wait_until(lambda: one(grader, r"\sqrt{9} + 1").verdict is Verdict.CORRECT, 20)
        os.kill(pids(grader)[0], signal.SIGSTOP)
        assert one(grader, r"\sqrt{16} + \sqrt{1}").cause is UngradedCause.TIMEOUT


def test_a_worker_sees_no_keys_and_writes_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    with Grader(num_workers=1) as grader:
        assert one(grader, r"\sqrt{16}").verdict is Verdict.CORRECT
        [pid] = pids(grader)
        if not Path("/proc/self/environ").exists():
            pytest.skip("no /proc: what a process inherited cannot be read")
        assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max file size +0 +0", limits)


@pytest.mark.slow
def test_a_worker_killed_while_idle_costs_no_answer() -> None:
    with Grader(num_workers=1) as grader:
        assert one(grader, r"\sqrt{16}").verdict is Verdict.CORRECT
        [pid] = pids(grader)
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: one(grader, r"\sqrt{9} + 1").verdict is Verdict.CORRECT, 5)


def test_a_crash_is_not_remembered_but_a_timeout_is(grader: Grader) -> None:
    slow = boxed(TOWER + "+11")
    [first] = grader.grade([(slow, math("4"))])
    before = pids(grader)
    [second] = grader.grade([(slow, math("4"))])
    assert first == second
    assert first.cause is UngradedCause.TIMEOUT
    assert pids(grader) == before, "another timeout would have cost a worker"


# --- processes ---------------------------------------------------------------------------------


def test_plain_answers_start_no_worker() -> None:
    with Grader() as grader:
        pairs = [(boxed(str(n)), math("7")) for n in range(2000)] + [("no box", math("7"))]
        verdicts = [result.verdict for result in grader.grade(pairs)]
        assert verdicts.count(Verdict.CORRECT) == 1
        assert pids(grader) == []


def test_one_answer_at_a_time_needs_one_worker_only() -> None:
    with Grader(num_workers=4) as grader:
        for n in range(2, 8):
            assert (
                one(grader, rf"\sqrt{{{n}}} + 1", rf"1 + \sqrt{{{n}}}").verdict.value == "correct"
            )
        assert len(pids(grader)) == 1


@pytest.mark.slow
def test_grading_looks_ahead_by_a_bounded_window() -> None:
    taken = 0

    def pairs() -> Iterator[tuple[str, Gold]]:
        nonlocal taken
        for n in range(100_000):
            taken += 1
            yield boxed(TOWER if n == 0 else str(n)), math("4")

    with Grader(num_workers=1, timeout_seconds=TIMEOUT_SECONDS) as grader:
        assert next(grader.grade(pairs())).cause is UngradedCause.TIMEOUT
    assert 1 < taken < 1000


def test_known_results_do_not_wait_for_more_input() -> None:
    def pairs() -> Iterator[tuple[str, Gold]]:
        yield boxed("4"), math("4")
        raise AssertionError("asked for more than was needed")

    with Grader() as grader:
        assert next(grader.grade(pairs())).verdict is Verdict.CORRECT


@pytest.mark.slow
def test_closing_takes_workers_down_in_mid_bomb_and_the_grader_can_be_used_again() -> None:
    grader = Grader(num_workers=2, timeout_seconds=60)
    raised: list[str] = []

    def grade_a_bomb() -> None:
        with pytest.raises(MidcourseError) as caught:
            one(grader, TOWER + "+1")
        raised.append(str(caught.value))

    assert one(grader, r"\sqrt{16}").verdict is Verdict.CORRECT
    thread = threading.Thread(target=grade_a_bomb)
    thread.start()
    time.sleep(0.3)
    before = pids(grader)
    assert before
    grader.close()
    assert not any(is_up(pid) for pid in before)
    assert one(grader, r"\sqrt{16} + 0").verdict is Verdict.CORRECT
    grader.close()
    thread.join(5)
    # We stopped it: that is no verdict on the answer, not even an ungraded one.
    assert raised == ["the grader was closed while it was grading"]
    assert pids(grader) == []


def test_many_threads_share_one_grader(grader: Grader) -> None:
    wrong: list[str] = []

    def work(start: int) -> None:
        numbers = range(start, start + 6)
        pairs = [(boxed(rf"\sqrt{{{n}}}+2"), math(rf"2+\sqrt{{{n}}}")) for n in numbers]
        wrong.extend(r.verdict for r in grader.grade(pairs) if r.verdict is not Verdict.CORRECT)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(40, 48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def run_script(script: str, *, kill: bool = False) -> list[str]:
    """Run a plain script, without a main guard, and return the lines that it wrote."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        lines = [stdout.readline()]
        if kill:
            process.kill()
        lines += stdout.readlines()
    process.wait(30)
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.slow
def test_a_plain_script_grades_from_a_thread_and_leaves_nothing_behind() -> None:
    lines = run_script(
        r"""
        import sys, threading
        from midcourse.checkers import Grader, grade_responses
        from midcourse.records import Gold
        print(any(m.split(".")[0] in ("sympy", "math_verify", "pint") for m in sys.modules))
        def work():
            for result in grade_responses([(r"\boxed{\sqrt{4}}", "2"), (r"\boxed{3}", "2")]):
                print(result.verdict)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        left_open = Grader(timeout_seconds=1000)
        answers = (r"\boxed{\sqrt{9}}", r"\boxed{\sin(9^{9^{9}})}")
        results = left_open.grade((answer, Gold("math", "3")) for answer in answers)
        print(next(results).verdict.value)
        print(*(worker._process.pid for worker in left_open._pool._workers))
        """
    )
    assert lines[:4] == ["False", "correct", "incorrect", "correct"]
    assert not any(is_up(int(pid)) for pid in lines[4].split())


@pytest.mark.slow
def test_workers_end_by_themselves_when_their_parent_is_killed() -> None:
    # Even in mid-bomb: the system ends a worker that no one waits for (SIGPROF).
    [pid] = run_script(
        r"""
        import threading, time
        from midcourse.checkers import Grader
        from midcourse.records import Gold
        grader = Grader(num_workers=1, timeout_seconds=1)
        next(grader.grade([(r"\boxed{\sqrt{9}}", Gold("math", "3"))]))
        bomb = [(r"\boxed{\sin(9^{9^{9}})}", Gold("math", "3"))]
        threading.Thread(target=lambda: next(grader.grade(bomb)), daemon=True).start()
        time.sleep(0.2)
        print(*(worker._process.pid for worker in grader._pool._workers), flush=True)
        time.sleep(60)
        """,
        kill=True,
    )
    assert wait_until(lambda: not is_up(int(pid)), 25)


@pytest.mark.slow
def test_a_fork_gets_workers_of_its_own() -> None:
    # A child that ends in the ordinary way must not take its parent's workers down.
    lines = run_script(
        r"""
        import os, sys, warnings
        from midcourse.checkers import Grader
        from midcourse.records import Gold
        warnings.simplefilter("ignore")
        grader = Grader(num_workers=1)
        def grade(answer, gold):
            return next(grader.grade([(answer, Gold("math", gold))])).verdict.value
        def workers():
            return [worker._process.pid for worker in grader._pool._workers]
        grade(r"\boxed{\sqrt{9}}", "3")
        child = os.fork()
        if child == 0:
            sys.exit(grade(r"\boxed{\sqrt{16}}", "4") != "correct")
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        [before] = workers()
        print(grade(r"\boxed{\sqrt{25}}", "5"))
        print(workers() == [before])
        """
    )
    assert lines == ["0", "correct", "True"]


def test_grade_responses_returns_results_in_order() -> None:
    results = grade_responses([(boxed("4"), "4"), ("", math("4")), (boxed("5"), "4")])
    assert [(result.verdict, result.extracted_answer) for result in results] == [
        (Verdict.CORRECT, "4"), (Verdict.NO_ANSWER, None), (Verdict.INCORRECT, "5"),
    ]  # fmt: skip


def test_one_answer_in_two_spellings_is_compared_once_and_shown_as_written() -> None:
    with Grader(num_workers=1) as grader:
        results = list(grader.grade([(boxed(a), math("x + 1")) for a in ("1+x", r"\$1+x\$")]))
        assert [(r.verdict, r.extracted_answer) for r in results] == [
            (Verdict.CORRECT, "1+x"), (Verdict.CORRECT, r"\$1+x\$"),
        ]  # fmt: skip
        assert len(grader._cache) == 1
