"""Runs one training job in a process of its own: ``python -m midcourse.training.worker OUT``.

Or in several, where the recipe names a config of ``accelerate launch``.

The job is ``OUT/job.json``. Trainers then never share memory with an engine, two of them run side
by side, and a crash of one is an error message, not the end of the run.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from midcourse.checkers import Grader
from midcourse.config import GradeConfig, TrainRlConfig, TrainSftConfig
from midcourse.engines import model_folder
from midcourse.records import Gold, SftRow
from midcourse.store import read_stage, write_json_atomic


def main() -> None:
    """Do the job, write ``summary.json`` last."""
    out, began = Path(sys.argv[1]), time.monotonic()
    job: dict[str, Any] = json.loads((out / "job.json").read_text("utf-8"))
    _die_with_parent()
    torch.set_num_threads(job["num_threads"])
    # Under ``accelerate launch`` there are several of us: the first one writes.
    is_first = int(os.environ.get("RANK", "0")) == 0
    with (out / "metrics.jsonl" if is_first else Path(os.devnull)).open("a") as file:

        def on_log(numbers: Mapping[str, float]) -> None:
            file.write(
                json.dumps({**numbers, "seconds": round(time.monotonic() - began, 3)}) + "\n"
            )
            file.flush()

        run = {"sft": _sft, "dpo": _dpo, "rl": _rl}[job["kind"]]
        summary = run(job, out, on_log)
        if is_first:
            write_json_atomic(out / "summary.json", summary)


def _sft(
    job: Mapping[str, Any], out: Path, on_log: Callable[[Mapping[str, float]], None]
) -> dict[str, float]:
    from midcourse.training.sft import train_sft

    return train_sft(
        TrainSftConfig.model_validate(job["config"]),
        _rows(job),
        model_path=_model(job),
        out=out,
        seed=job["seed"],
        on_log=on_log,
    )


def _dpo(
    job: Mapping[str, Any], out: Path, on_log: Callable[[Mapping[str, float]], None]
) -> dict[str, float]:
    from midcourse.stages.pairs import step_pairs
    from midcourse.training.dpo import train_dpo

    return train_dpo(
        TrainSftConfig.model_validate(job["config"]),
        step_pairs(_rows(job), read_stage(Path(job["rejected_rows"]), SftRow)),
        model_path=_model(job),
        out=out,
        seed=job["seed"],
        on_log=on_log,
    )


def _model(job: Mapping[str, Any]) -> str:
    return str(model_folder(job["model"], job["revision"]))


def _rows(job: Mapping[str, Any]) -> list[SftRow]:
    wanted = set(job["row_ids"])
    return [row for row in read_stage(Path(job["rows"]), SftRow) if row.row_id in wanted]


def _rl(
    job: Mapping[str, Any], out: Path, on_log: Callable[[Mapping[str, float]], None]
) -> dict[str, float]:
    from midcourse.training.rl import RlProblem, train_rl

    limits = GradeConfig.model_validate(job["grade"])
    with Grader(
        num_workers=limits.num_workers,
        timeout_seconds=limits.timeout_seconds,
        memory_mib=limits.memory_mib,
    ) as grader:
        return train_rl(
            TrainRlConfig.model_validate(job["config"]),
            [RlProblem(p["problem_id"], p["prompt"], Gold(**p["gold"])) for p in job["problems"]],
            model_path=_model(job),
            out=out,
            seed=job["seed"],
            grader=grader,
            on_log=on_log,
        )


def _die_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
