"""Checks everything under a run directory, and re-queues just what is damaged.

What is damaged is deleted and no more: the same command then asks again for the records that it
held, and keeps the rest. A folder that is gone altogether needs no repair, it is made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from midcourse.errors import ArtifactError
from midcourse.store.checksums import DamagedFile, damaged_files
from midcourse.store.files import load_checked, sync, writing
from midcourse.store.index import complete_entries, read_index, write_index
from midcourse.store.lock import RunLock
from midcourse.store.stage import (
    JOURNAL,
    MANIFEST,
    inspect,
    is_inside,
    listed_in,
    parts_of,
    recover,
)

#: What a step leaves in its folder, and others do not.
_MARKS = (MANIFEST, JOURNAL, "job.json", "part-*.parquet")


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged file: what is wrong with it, what becomes of it, and what makes it so."""

    file: Path
    problem: str
    remedy: str
    repair: Callable[[], object]
    """Deletes what is damaged; done twice it does no more."""
    blocks: bool = True
    """Whether commands refuse to go on before it is repaired; the others replace it by themselves.
    """

    def __str__(self) -> str:
        return f"{self.file} {self.problem}: {self.remedy}"


def check_run(run_dir: Path, *, changed_only: bool = False) -> list[Damage]:
    """Return what is damaged in a run directory; nothing is written.

    Every file with a checksum is read; with `changed_only`, of models and of the parts of complete
    stages just those that have changed since their manifest was written. Raises ArtifactError if
    it is not a run directory, or one of an earlier midcourse.
    """
    names = ("config.resolved.json", "recipes", "stages.json")
    if not any((run_dir / name).exists() for name in names):
        raise ArtifactError(f"{run_dir} is not a run directory: it holds no resolved recipe")
    found = [*_recipes(run_dir), *_index(run_dir)]
    for folder in step_folders(run_dir):
        check = _training if (folder / "job.json").is_file() else _stage
        found += check(folder, changed_only)
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
    for file in (*run_dir.glob("config.resolved.json"), *sorted(run_dir.glob("recipes/*.json"))):
        _, problem = load_checked(file)
        if problem:
            remedy = "the next command with its recipe writes it again"
            yield Damage(file, problem, remedy, partial(file.unlink, missing_ok=True))


def _index(run_dir: Path) -> Iterator[Damage]:
    index = read_index(run_dir)
    missing = [f for f in complete_entries(run_dir) if f not in index.entries]
    problem = index.problem or (f"does not list {missing[0]}" if missing else "")
    if problem:
        entries = complete_entries(run_dir) | index.entries
        write = partial(write_index, run_dir, entries)
        remedy = "written again from the manifests"
        yield Damage(run_dir / "stages.json", problem, remedy, write, blocks=False)


def _stage(folder: Path, changed_only: bool) -> Iterator[Damage]:
    """Find what is damaged in the folder of a stage, complete or not."""
    if (folder / MANIFEST).is_file():
        parts_of(folder)  # Raises for an earlier midcourse's, which are not ours to open again.
        remedy = "asked again, sound records are kept"
        for damaged in _damaged(folder, changed_only=changed_only):
            yield Damage(damaged.path, damaged.problem, remedy, partial(_open_again, folder))
        return
    found = inspect(folder)
    for damaged in found.damaged(folder):
        remedy = "asked again, sound records are kept"
        again = partial(recover, folder)
        yield Damage(damaged.path, damaged.problem, remedy, again, blocks=False)


def _open_again(folder: Path) -> None:
    """Make a complete stage one that is under way, without its damaged parts."""
    (folder / MANIFEST).unlink(missing_ok=True)
    sync(folder)
    recover(folder)


def _training(folder: Path, changed_only: bool) -> Iterator[Damage]:
    """Find what is damaged in the folder of a complete training.

    One under way looks after its own checkpoints.
    """
    if not (folder / MANIFEST).is_file():
        return
    for damaged in _damaged(folder, changed_only=changed_only):
        is_model = damaged.path != folder / MANIFEST
        remedy = "the model is trained again" if is_model else "written again"
        repair = partial(_finish_again, folder, is_model)
        yield Damage(damaged.path, damaged.problem, remedy, repair)


def _finish_again(folder: Path, from_the_start: bool) -> None:
    """Make a complete training one that is under way.

    Nothing of it is kept if one of its files is damaged: they are made together.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    if from_the_start:
        shutil.rmtree(folder, ignore_errors=True)


def _report(run_dir: Path) -> Iterator[Damage]:
    tables = run_dir / "report" / "tables.json"
    if tables.is_file():
        remedy, repair = "'midcourse run' writes it again", partial(tables.unlink, missing_ok=True)
        for damaged in _damaged(tables.parent, tables.name):
            yield Damage(damaged.path, damaged.problem, remedy, repair, blocks=False)


def _damaged(
    folder: Path, manifest: str = MANIFEST, *, changed_only: bool = False
) -> list[DamagedFile]:
    """Return what is not as it was written: a manifest, or files that it lists."""
    content, problem = load_checked(folder / manifest)
    if problem or not all(map(is_inside, listed_in(content))):
        return [DamagedFile(folder / manifest, problem or "names a file outside its folder")]
    return damaged_files(folder, manifest, changed_only=changed_only)
