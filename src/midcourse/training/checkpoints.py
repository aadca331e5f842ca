"""Checkpoints that a killed training goes on from: only those that were written to their end.

transformers would resume from the newest folder, finished or not; so each gets a marker, written
last.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from midcourse.training.common import processes

#: The marker of a checkpoint that was written to its end.
COMPLETE = "COMPLETE"


def newest_complete(out: Path) -> Path | None:
    """Return the newest checkpoint with a marker; unfinished ones are removed."""
    for folder in checkpoints(out):
        if not (folder / COMPLETE).is_file():
            shutil.rmtree(folder)
    return max(checkpoints(out), key=optimiser_step, default=None)


def checkpoints(out: Path) -> list[Path]:
    """Return the checkpoints of a training, finished or not, in no order."""
    return list(out.glob("checkpoint-*"))


def optimiser_step(checkpoint: Path) -> int:
    """Return the optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


class MarkComplete(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Marks a checkpoint after everything in it was written."""

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Write the marker, once every process has written its part."""
        processes().wait_for_everyone()
        if state.is_world_process_zero:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()
