"""Answers made to stall or swell the grader, among real ones: nothing real is lost by them."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from midcourse.checkers import Grader
from midcourse.records import Gold, Verdict

REAL = [
    (r"\boxed{\frac{3}{6}}", r"\frac{1}{2}"),
    (r"\boxed{2\sqrt{3}}", r"\sqrt{12}"),
    (r"\boxed{\{3, 1, 2\}}", r"\{1, 2, 3\}"),
    (r"\boxed{x^2 - 1}", r"(x-1)(x+1)"),
    (r"\boxed{1{,}024}", "2^{10}"),
]


def bombs(count: int, seed: int) -> list[str]:
    """Return answers that are too long, too deep, too large or too slow; no two are the same."""
    chance = random.Random(seed)

    def bomb() -> str:
        n = chance.randint(10**6, 10**9)
        return chance.choice(
            [
                "(" * (n % 5000 + 70) + str(n) + ")" * 70,
                "{" * 90 + str(n) + "}" * 90,
                str(n) * (n % 3000 + 300),
                rf"\begin{{cases}} {n} & x > {n} \end{{matrix}}",
                rf"{n} \times {n}^{{{n}}} \bmod 0",
                rf"\underbrace{{{n}",
                "-" * (n % 1900 + 1) + str(n),
                "\u202e" * 50 + str(n) + "\x00\x1b[31m",
                rf"\text{{{chr(0xD800)}{n}}}",
                rf"{n}^{{{n}^{{{n}}}}}" if n % 10 == 0 else rf"\frac{{{n}}}{{0}}",
                rf"\sum_{{k=1}}^{{{n}000}} \frac{{1}}{{k^2+\sin k}}"
                if n % 10 == 0
                else rf"0^{{-{n}}}",
            ]
        )

    return [rf"\boxed{{{bomb()}}}" for _ in range(count)]


def resident_mib(pid: int | str = "self") -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def num_handles() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def grade_among(grader: Grader, count: int, seed: int) -> Counter[Verdict]:
    """Grade bombs with a real answer after each; every real one must be right."""
    pairs: list[tuple[str, str]] = []
    for index, bomb in enumerate(bombs(count, seed)):
        pairs += [(bomb, "4"), REAL[index % len(REAL)]]
    results = list(grader.grade((text, Gold("math", gold)) for text, gold in pairs))
    assert [r.verdict for r in results[1::2]] == [Verdict.CORRECT] * count
    bombed = Counter(r.verdict for r in results[::2])
    assert bombed[Verdict.CORRECT] == 0
    return bombed


@pytest.mark.slow
def test_bombs_among_real_answers_cost_no_real_one() -> None:
    with Grader(num_workers=2, timeout_seconds=0.3) as grader:
        bombed = grade_among(grader, 60, seed=0)
        assert bombed[Verdict.UNGRADED] > 0


@pytest.mark.faults
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_thousands_of_bombs_leave_the_pool_whole_and_memory_flat() -> None:
    with Grader(num_workers=2, timeout_seconds=0.3) as grader:
        grade_among(grader, 500, seed=1)  # caches are full after this
        before, handles = resident_mib(), num_handles()
        for seed in range(2, 8):
            grade_among(grader, 300, seed)
        assert resident_mib() < before + 64
        assert num_handles() <= handles + 2
        assert grader._pool is not None
        workers = [worker._process.pid for worker in grader._pool._workers]
        assert 1 <= len(workers) <= 2
        assert all(resident_mib(pid) < 600 for pid in workers)
