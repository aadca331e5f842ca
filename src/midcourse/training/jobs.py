"""Starts training jobs in processes of their own and follows them. Loads no torch itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midcourse.config import ModelConfig, TrainSftConfig
from midcourse.engines import resolve_model
from midcourse.errors import ConfigError, MidcourseError
from midcourse.processes import end_with_parent
from midcourse.progress import Reporter
from midcourse.records import SftRow
from midcourse.store import write_json_atomic


@dataclass(frozen=True, slots=True)
class Job:
    """One training: what to call it, where it goes, what it does, how many steps it logs."""

    label: str
    out: Path
    content: Mapping[str, Any]
    """``job.json`` for `midcourse.training.worker`."""
    total: int
    accelerate: str = ""
    """A config of ``accelerate launch``; empty for one process."""


def sft_content(
    config: TrainSftConfig, model: ModelConfig, seed: int, rows: Path, ready: Sequence[SftRow]
) -> tuple[dict[str, Any], int]:
    """Return ``job.json`` of a fine-tuning on the `ready` rows of a folder, and its steps."""
    content = {
        "kind": config.method, "config": config.model_dump(), "seed": seed,
        "model": resolve_model(model.path), "revision": model.revision,
        "rows": str(rows), "row_ids": [row.row_id for row in ready],
    }  # fmt: skip
    steps_per_epoch = -(-len(ready) // config.batch_size)
    return content, config.max_steps or round(steps_per_epoch * config.num_epochs)


def run_jobs(jobs: Sequence[Job], reporter: Reporter) -> list[dict[str, Any]]:
    """Run `jobs` side by side, sharing the cores; return their summaries, in order.

    Raises MidcourseError with the last words of a job that failed; the others are stopped and
    resume when run again.
    """
    num_threads = max(1, (os.cpu_count() or 1) // max(1, len(jobs)))
    processes = [_start(job, num_threads) for job in jobs]
    try:
        with reporter.task(
            " and ".join(job.label for job in jobs), sum(j.total for j in jobs)
        ) as task:
            shown = 0
            while any(process.poll() is None for process in processes):
                _raise_if_failed(jobs, processes)
                logged = [_logged(job) for job in jobs]
                done = sum(len(entries) for entries in logged)
                if done > shown:
                    task.advance(done - shown, "  ".join(_note(entries) for entries in logged))
                    shown = done
                time.sleep(0.5)
            _raise_if_failed(jobs, processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return [json.loads((job.out / "summary.json").read_text("utf-8")) for job in jobs]


def _start(job: Job, num_threads: int) -> subprocess.Popen[bytes]:
    job.out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(job.out / "job.json", {**job.content, "num_threads": num_threads})
    (job.out / "metrics.jsonl").unlink(missing_ok=True)
    threads = {name: str(num_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with (job.out / "worker.log").open("ab") as log:
        return subprocess.Popen(
            [*_launcher(job), "midcourse.training.worker", str(job.out)],
            preexec_fn=end_with_parent(),
            stdout=log,
            stderr=log,
            env={**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false"},
        )


def _launcher(job: Job) -> list[str]:
    """Return what starts a module: the interpreter, or accelerate with its config."""
    if not job.accelerate:
        return [sys.executable, "-m"]
    file = Path(job.accelerate)
    if not file.is_file():
        raise ConfigError(
            f"{job.label}: no accelerate config at {file}: see recipes/accelerate/ for some"
        )
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*launch, "--config_file", str(file), "--module"]


def _raise_if_failed(jobs: Sequence[Job], processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for job, process in zip(jobs, processes, strict=True):
        if process.poll():
            lines = (job.out / "worker.log").read_text("utf-8", "replace").strip().splitlines()
            last = lines[-1] if lines else "no output"
            raise MidcourseError(f"{job.label} failed: {last} (all of it: {job.out}/worker.log)")


def _logged(job: Job) -> list[dict[str, float]]:
    path = job.out / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    return [entry for entry in entries if "loss" in entry]


def _note(entries: Sequence[Mapping[str, float]]) -> str:
    if not entries:
        return "starting"
    last = entries[-1]
    return f"reward {last['reward']:.2f}" if "reward" in last else f"loss {last['loss']:.3f}"
