"""In company: sampling, grading and training with one busy process next to them.

Each row sets ours against an alternative while another process keeps one core busy, and says what
share of its own idle speed ours keeps; it is taken just before, so the machine must be idle but
for us. On a machine of more than two cores one busy process says little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_grading import NUM_ROLLOUTS, Pair, grade_plainly, load_golds, make_responses
from bench_sampling import Load, make_loads, sample, sample_by_generate
from rows import Row
from transformers import AutoModelForCausalLM

from midcourse.checkers import Grader
from midcourse.config import ModelConfig, TrainSftConfig
from midcourse.engines import resolve_model
from midcourse.engines._threads import using_threads
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.processes import end_with_parent
from midcourse.progress import SilentProgress
from midcourse.records import RowOutcome, RowSource, SftRow
from midcourse.store.stage import StageStore
from midcourse.training.jobs import Job, SftJob, choose_rows, run_jobs

#: Better of so many runs.
NUM_RUNS = 3
#: How long OpenMP's threads spin by default: as many turns as libgomp's own.
SPINNING = "300000"


def rows() -> Iterator[Row]:
    """Yield a row per kind of work."""
    yield from _sampling()
    yield from _grading()
    yield _training()


@contextmanager
def _company() -> Iterator[None]:
    """Have another process keep a core busy."""
    spin = [sys.executable, "-c", "while True: pass"]
    process = subprocess.Popen(spin, preexec_fn=end_with_parent())
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _sampling() -> Iterator[Row]:
    engine = TransformersEngine(resolve_model("lab"), max_batch_rows=512)
    plain = AutoModelForCausalLM.from_pretrained(resolve_model("lab"), dtype=engine.model.dtype)
    short, _, ragged = make_loads(engine, True)
    few = Load("16 problems × 16 ragged rollouts", ragged.contexts, 16, 140, True, 1.5)
    for load in (short, few):
        engine.__dict__.pop("stop_ids", None)
        if not load.ragged:
            engine.__dict__["stop_ids"] = frozenset()
        idle = _best(lambda load=load: sample(engine, load))  # type: ignore[misc]
        with _company():
            ours = _best(lambda load=load: sample(engine, load))  # type: ignore[misc]
            theirs = _best_of_generate(plain, load)
        yield _row(f"lab, {load.what}", ours, theirs, idle, "tokens/s", "generate")


def _best_of_generate(plain: Any, load: Load) -> float:
    """Return the speed of `generate` with torch's threads or with one, whichever is faster."""
    speeds = [_best(lambda: sample_by_generate(plain, load), 1)]
    with using_threads(1):
        speeds.append(_best(lambda: sample_by_generate(plain, load)))
    return max(speeds)


def _grading() -> Iterator[Row]:
    golds = load_golds()
    if not golds:
        print("grading in company: skipped, no $MIDCOURSE_DATA/imo_answerbench_80.jsonl")
        return
    pairs = make_responses(golds)
    idle = _best(lambda: _grade(pairs))
    with _company():
        ours = _best(lambda: _grade(pairs))
        some = pairs[:: NUM_ROLLOUTS // 4]
        theirs = _best(lambda: sum(1 for pair in some if grade_plainly(pair) is not None))
    what = f"grading, {len(pairs):,} real answers"
    yield _row(what, ours, theirs, idle, "answers/s", "math-verify in a row")


def _grade(pairs: list[Pair]) -> int:
    """Grade with new workers, their start included, and an empty cache."""
    with Grader(num_workers=2) as grader:
        return sum(1 for _ in grader.grade(pairs))


def _training() -> Row:
    """Time steps of fine-tuning the lab's model, its rows 200 tokens long."""
    with TemporaryDirectory() as folder:
        job = _sft_job(Path(folder) / "rows")
        idle = _steps(job, Path(folder) / "idle")
        with _company():
            ours = _steps(job, Path(folder) / "ours")
            os.environ["GOMP_SPINCOUNT"] = SPINNING
            theirs = _steps(job, Path(folder) / "theirs")
            del os.environ["GOMP_SPINCOUNT"]
    return _row("lab, fine-tuning, 8 rows a step", ours, theirs, idle, "steps/s", "spinning")


def _sft_job(folder: Path) -> SftJob:
    made = [_sft_row(number) for number in range(128)]
    with StageStore(folder, SftRow) as store:
        for row in made:
            store.append(row.row_id, [row])
        store.seal({})
    config = TrainSftConfig(batch_size=8, micro_batch_size=8, num_epochs=2.0)
    return SftJob(
        config=config, model=ModelConfig(path="lab"), seed=0, rows=choose_rows(folder, made)
    )


def _sft_row(number: int) -> SftRow:
    ids = tuple(300 + (number + place) % 500 for place in range(200))
    return SftRow(
        row_id=str(number), source=RowSource.INTERVENTION, outcome=RowOutcome.READY,
        problem_id="p", proposal_id="q", input_ids=ids, labels=(*[-100] * 100, *ids[100:]),
        closes_turn=False, prompt_tokens=100, prefix_tokens=60, intervention_tokens=40,
        num_correct=1, num_continuations=8,
    )  # fmt: skip


def _steps(job: SftJob, out: Path) -> float:
    """Return optimiser steps per second after the first, which pays for what is loaded."""
    run_jobs([Job("train", out, job)], SilentProgress())
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    times = [entry["seconds"] for entry in entries if "loss" in entry]
    return float((len(times) - 1) / (times[-1] - times[0]))


def _best(run: Callable[[], int], num_runs: int = NUM_RUNS) -> float:
    """Return units per second of the best of some runs."""
    best = 0.0
    for _ in range(num_runs):
        started = time.perf_counter()
        done = run()
        best = max(best, done / (time.perf_counter() - started))
    return best


def _row(what: str, ours: float, theirs: float, idle: float, unit: str, against: str) -> Row:
    return Row(
        what=f"in company: {what}",
        ours=ours,
        theirs=theirs,
        unit=unit,
        against=against,
        target=1.5 if against == "generate" else None,
        floor=f"{ours / idle:.0%} of its idle speed (≥ 50%)",
    )
