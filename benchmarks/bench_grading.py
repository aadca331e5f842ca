"""Answers graded per second, against one process per answer and against math-verify in a row.

The load: problems of IMO-AnswerBench and GSM8K, 64 responses each, of which half are right (a
fifth of these in another form) and the others repeat a few wrong answers, as real rollouts do.
math-verify alone cannot be given the bombs: it would not come back. It is measured without them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rows import Row

from midcourse.checkers import Grader
from midcourse.checkers.math.symbolic import compare_symbolically
from midcourse.records import Gold, Verdict

NUM_ROLLOUTS, DEADLINE_SECONDS = 64, 2.0
BOMBS = (
    r"\lfloor \frac{9^{9^{9}}}{7} \rfloor",
    r"\sin((10^9)!)",
    r"\sin\binom{10^8}{10^7}",
    "{" * 3_000 + "1" + "}" * 3_000,
)
Pair = tuple[str, Gold]


def rows() -> Iterator[Row]:
    """Yield a row per alternative; nothing without the data."""
    golds = load_golds()
    if not golds:
        print("grading: skipped, no $MIDCOURSE_DATA/imo_answerbench_80.jsonl")
        return
    pairs = make_responses(golds)
    with Grader(num_workers=2, timeout_seconds=DEADLINE_SECONDS) as grader:
        # The workers import sympy before the clock starts.
        list(grader.grade([(r"\boxed{x}", Gold("math", "2x"))]))
        ours = _speed(lambda: list(grader.grade(pairs)), len(pairs))
    few = random.Random(1).sample(pairs, 60)
    forked = _speed(lambda: _in_processes(few), len(few))
    some = random.Random(2).sample(pairs, 1500)
    serial = _speed(lambda: [grade_plainly(pair) for pair in some], len(some))
    for theirs, against, target in (
        (forked, "a process per answer", 20.0),
        (serial, "math-verify in a row", 3.0),
    ):
        yield Row(
            what=f"grading, {len(pairs):,} real answers",
            ours=ours,
            theirs=theirs,
            unit="answers/s",
            against=against,
            target=target,
        )
    yield _with_bombs(pairs, forked)


def _with_bombs(pairs: Sequence[Pair], forked: float) -> Row:
    """Mix in bombs, 1 in 200: each costs a deadline, is counted, and nothing hangs or grows."""
    rng = random.Random(3)
    four = Gold("math", "4")
    bombs = [(f"\\boxed{{{rng.choice(BOMBS)}}}", four) for _ in range(len(pairs) // 200)]
    bombs = [(text.replace("9", str(5 + i % 4), 1), gold) for i, (text, gold) in enumerate(bombs)]
    mixed = [*pairs, *bombs]
    rng.shuffle(mixed)
    verdicts: Counter[Verdict] = Counter()

    def grade() -> None:
        with Grader(num_workers=2, timeout_seconds=DEADLINE_SECONDS) as grader:
            verdicts.update(result.verdict for result in grader.grade(mixed))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    speed = _speed(grade, len(mixed))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    if verdicts.total() != len(mixed):
        raise AssertionError("an answer has no verdict")
    # What the alternative pays at least: its own speed, and a deadline for each bomb that hangs.
    ungraded = verdicts[Verdict.UNGRADED]
    theirs = len(mixed) / (len(mixed) / forked + ungraded * DEADLINE_SECONDS)
    return Row(
        what=f"grading with {len(bombs)} bombs",
        ours=speed,
        theirs=theirs,
        unit="answers/s",
        against="a process per answer, its deadlines added",
        floor=f"{ungraded} ungraded, none hung, memory +{grown} MiB",
    )


def load_golds() -> list[str]:
    """Return gold answers of both benchmarks; none where the data is not there."""
    folder = Path(os.environ.get("MIDCOURSE_DATA", "/nowhere"))
    files = (folder / "imo_answerbench_80.jsonl", folder / "gsm8k" / "test.jsonl")
    if not all(file.is_file() for file in files):
        return []
    first, second = ([json.loads(line) for line in file.open()] for file in files)
    return [row["answer"] for row in first] + [
        row["answer"].rpartition("####")[2].strip() for row in second[:80]
    ]


def make_responses(golds: Sequence[str]) -> list[Pair]:
    """Return `NUM_ROLLOUTS` responses to each problem, half of them right."""
    rng = random.Random(0)
    pairs = []
    for gold in golds:
        wrong = rng.sample([other for other in golds if other != gold], 12)
        weights = [1 / (rank + 1) for rank in range(len(wrong))]
        for _ in range(NUM_ROLLOUTS):
            right = rng.random() < 0.5
            answer = gold.strip("$") if right else rng.choices(wrong, weights)[0].strip("$")
            if right and rng.random() < 0.2:
                answer = re.sub(r"\\frac", r"\\dfrac", answer).replace(",", ", ")
            pairs.append((f"Hence the answer is \\boxed{{{answer}}}.", Gold("math", gold)))
    return pairs


def _speed(run: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    run()
    return count / (time.perf_counter() - started)


def grade_plainly(pair: Pair) -> bool:
    """Grade as the README of math-verify does."""
    from math_verify import parse, verify

    answer, gold = pair
    return bool(verify(parse(f"${gold.value.strip('$')}$"), parse(answer)))


def _in_processes(pairs: Sequence[Pair]) -> None:
    """Grade each pair in a process of its own that is killed at the deadline."""
    # Imported before the fork, which favours the alternative.
    compare_symbolically(gold="1", answer="x")
    for pair in pairs:
        process = multiprocessing.get_context("fork").Process(target=grade_plainly, args=(pair,))
        process.start()
        process.join(DEADLINE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
