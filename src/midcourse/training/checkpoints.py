"""Checkpoints that a killed training goes on from: only those that are as they were written.

transformers would resume from the newest folder, whatever is in it. So each gets a marker, written
last, that lists the checksum of every file. Loads no torch: checkpoints are looked through before
the training process starts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from midcourse.store.checksums import damaged_files, describe_files, sync_files
from midcourse.store.files import sync, write_json_atomic

#: The marker of a checkpoint that was written to its end.
COMPLETE = "COMPLETE"
#: A pickle of the trainer's arguments that transformers adds to all it saves, and nothing reads.
_PICKLE = "training_args.bin"


def clear_unusable(out: Path) -> Iterator[str]:
    """Remove the checkpoints that were not written to their end or are damaged.

    Yields a line about each damaged one, whose training goes on from an earlier one.
    """
    for folder in checkpoints(out):
        was_marked = (folder / COMPLETE).is_file()
        damaged = damaged_files(folder, COMPLETE)
        if damaged:
            shutil.rmtree(folder)
        if damaged and was_marked:
            yield f"{damaged[0]}: this checkpoint is not used"


def newest_complete(out: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end; none if there is none."""
    complete = (folder for folder in checkpoints(out) if (folder / COMPLETE).is_file())
    return max(complete, key=optimiser_step, default=None)


def checkpoints(out: Path) -> list[Path]:
    """Return the checkpoints of a training, finished or not, in no order."""
    return list(out.glob("checkpoint-[0-9]*"))


def optimiser_step(checkpoint: Path) -> int:
    """Return the optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def mark_complete(folder: Path) -> None:
    """Write the marker, once all in a checkpoint, and what was counted before it, is on disk."""
    drop_pickle(folder)
    sync_files(folder)
    for journal in folder.parent.glob("*.jsonl"):
        sync(journal)
    files = [path for path in folder.rglob("*") if path.is_file()]
    write_json_atomic(folder / COMPLETE, {"files": describe_files(folder, files)})


def drop_checkpoints(out: Path) -> None:
    """Remove the checkpoints of a training that is done."""
    for folder in checkpoints(out):
        shutil.rmtree(folder)


def drop_pickle(folder: Path) -> None:
    """Remove the one file of a saved model that would run code where it is loaded."""
    (folder / _PICKLE).unlink(missing_ok=True)
