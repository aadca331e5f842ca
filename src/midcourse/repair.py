"""Checks everything under a run directory, and re-queues just what is damaged.

What is damaged is deleted and no more: the same command then asks again for the records that it
held, and keeps the rest. A folder that is gone altogether needs no repair, it is made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from midcourse.checksums import damaged_files
from midcourse.errors import ArtifactError
from midcourse.files import read_checked_json, sync, writing
from midcourse.index import read_index, write_index
from midcourse.lock import RunLock
from midcourse.run import read_recipe
from midcourse.store import JOURNAL, MANIFEST, inspect, read_manifest, recover

_FIX = "repair it"
#: What a step leaves in its folder, and others do not.
_MARKS = (MANIFEST, JOURNAL, "job.json", "part-*.parquet")


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged file or folder: what is wrong, what follows, and what makes it so."""

    problem: str
    """Names the file."""
    remedy: str
    repair: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


def check_run(run_dir: Path) -> list[Damage]:
    """Return what is damaged in a run directory; nothing is written.

    Every file with a checksum is read. Raises ArtifactError if it is not a run directory.
    """
    if not any((run_dir / name).exists() for name in ("config.resolved.json", "recipes")) and not (
        run_dir / "stages.json"
    ).is_file():
        raise ArtifactError(f"{run_dir} is not a run directory: it holds no resolved recipe")
    found = [*_recipes(run_dir), *_index(run_dir)]
    for folder in step_folders(run_dir):
        found += _training(folder) if (folder / "job.json").is_file() else _stage(folder)
    return [*found, *_report(run_dir)]


def repair_run(run_dir: Path) -> list[Damage]:
    """Return what was damaged in a run directory, once it is re-queued."""
    check_run(run_dir)  # What is not a run directory gets no lock file.
    with RunLock(run_dir), writing(run_dir):
        found = check_run(run_dir)
        for damage in found:
            damage.repair()
        return found


def step_folders(run_dir: Path) -> list[Path]:
    """Return the folders of the steps that were begun."""
    return sorted({file.parent for mark in _MARKS for file in run_dir.glob(f"*/*/{mark}")})


def _recipes(run_dir: Path) -> Iterator[Damage]:
    for file in (run_dir / "config.resolved.json", *sorted(run_dir.glob("recipes/*.json"))):
        if not file.exists():
            continue
        try:
            read_recipe(file)
        except ArtifactError as error:
            problem = str(error).rpartition(": ")[0]
            yield Damage(problem, "the next command with its recipe writes it", file.unlink)


def _index(run_dir: Path) -> Iterator[Damage]:
    index = read_index(run_dir)
    if index.problem:
        problem = f"{run_dir / 'stages.json'} {index.problem}"
        write = partial(write_index, run_dir, index.entries)
        yield Damage(problem, "written again from the manifests", write)


def _stage(folder: Path) -> Iterator[Damage]:
    """Find what is damaged in the folder of a stage, complete or not."""
    if (folder / MANIFEST).is_file():
        problems = _problems_of(folder)
        remedy = "its records are asked again, all others are kept"
        repair = partial(_open_again, folder)
    else:
        problems = inspect(folder).complaints(folder)
        remedy, repair = "the others are kept", partial(recover, folder)
    for problem in problems:
        yield Damage(problem, remedy, repair)


def _open_again(folder: Path) -> None:
    """Make a complete stage one that is under way, without its damaged parts."""
    (folder / MANIFEST).unlink(missing_ok=True)
    sync(folder)
    recover(folder)


def _training(folder: Path) -> Iterator[Damage]:
    """Find what is damaged in the folder of a complete training.

    One under way looks after its own checkpoints.
    """
    problems = _problems_of(folder) if (folder / MANIFEST).is_file() else []
    for problem in problems:
        yield Damage(problem, "the model is trained again", partial(_train_again, folder))


def _train_again(folder: Path) -> None:
    """Delete a training: what it logged of each step cannot be had from its last checkpoint."""
    (folder / MANIFEST).unlink(missing_ok=True)
    sync(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _problems_of(folder: Path) -> list[str]:
    """Return what is wrong with a complete folder and what its manifest lists."""
    try:
        read_manifest(folder)
    except ArtifactError as error:
        return [str(error).rpartition(": ")[0]]
    return [str(damaged) for damaged in damaged_files(folder)]


def _report(run_dir: Path) -> Iterator[Damage]:
    folder = run_dir / "report"
    tables = folder / "tables.json"
    if not tables.is_file():
        return
    try:
        read_checked_json(tables, _FIX)
        problems = [str(damaged) for damaged in damaged_files(folder, tables.name)]
    except ArtifactError as error:
        problems = [str(error).rpartition(": ")[0]]
    for problem in problems:
        remedy = "the report is written again by the next 'midcourse run'"
        yield Damage(problem, remedy, partial(tables.unlink, missing_ok=True))
