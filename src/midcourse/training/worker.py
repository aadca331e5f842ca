"""Runs one training job in a process of its own: ``python -m midcourse.training.worker OUT 2``.

Or in several, where the recipe names a config of ``accelerate launch``. The number is of threads.

The job is ``OUT/job.json``. Trainers then never share memory with an engine, two of them run side
by side, and a crash of one is an error message, not the end of the run.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

import torch

from midcourse.errors import MidcourseError
from midcourse.training.jobs import (
    ERROR_FILE,
    RlJob,
    SdftJob,
    SftJob,
    Trainer,
    TrainingJob,
    read_job,
)


def main() -> None:
    """Do the job; say why it cannot be done, where that is no bug of ours."""
    out, num_threads, began = Path(sys.argv[1]), int(sys.argv[2]), time.monotonic()
    _die_with_parent()
    torch.set_num_threads(num_threads)
    job = read_job(out)
    # Under ``accelerate launch`` there are several of us: the first one writes.
    is_first = int(os.environ.get("RANK", "0")) == 0
    with (out / "metrics.jsonl" if is_first else Path(os.devnull)).open("a") as file:

        def on_log(numbers: Mapping[str, float]) -> None:
            entry = {**numbers, "seconds": round(time.monotonic() - began, 3)}
            print(json.dumps(entry), file=file, flush=True)

        try:
            _trainer_of(job)(job, out, on_log)
        except MidcourseError as error:
            # Of several processes that fail, one is enough; who launched them talks last.
            (out / ERROR_FILE).write_text(str(error), "utf-8")
            raise


def _trainer_of(job: TrainingJob) -> Trainer:
    """Return the trainer of a job's type; only its own libraries are loaded."""
    match job:
        case SftJob(rejected_rows=None):
            from midcourse.training import sft

            return sft.run
        case SftJob():
            from midcourse.training import dpo

            return dpo.run
        case RlJob():
            from midcourse.training.rl.run import run

            return run
        case SdftJob():
            from midcourse.training.rl import sdft

            return sdft.run
        case _:
            assert_never(job)


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
