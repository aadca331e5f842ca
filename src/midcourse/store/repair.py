"""Checks everything under a run directory, and re-queues just what is damaged, or what failed.

What is damaged is deleted and no more: the same command then asks again for the records that it
held, and keeps the rest. A folder that is gone altogether needs no repair, it is made again.

Requests that a server never answered are sound records (`request_failed`). They are asked again
only if that is wanted: what was made from them has to be made again then.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from midcourse.errors import ArtifactError
from midcourse.records import FinishReason
from midcourse.store.checksums import DamagedFile, damaged_files
from midcourse.store.files import load_checked, sync, writing
from midcourse.store.index import complete_entries, read_index, require_run, write_index
from midcourse.store.lock import RunLock
from midcourse.store.stage import (
    JOURNAL,
    MANIFEST,
    drop_keys,
    inspect,
    keyed_rows,
    misfit,
    parts_of,
    read_manifest,
    recover,
)

#: What a step leaves in its folder, and others do not.
_MARKS = (MANIFEST, JOURNAL, "job.json", "part-*.parquet")

#: What a run says in the manifest of every step.
_SAID = {"stage", "key", "inputs", "settings", "counts"}

_Manifests = Mapping[Path, Mapping[str, Any]]
"""By the folder of a complete step."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One file or folder: what is wrong with it, what becomes of it, and what makes it so."""

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
    require_run(run_dir)
    found = [*_recipes(run_dir), *_index(run_dir)]
    for folder in step_folders(run_dir):
        check = _training if (folder / "job.json").is_file() else _stage
        found += check(folder, changed_only)
    return [*found, *_report(run_dir)]


def failed_requests(run_dir: Path) -> list[Damage]:
    """Return what holds requests that failed for good, and what was made of it; that comes first.

    Repaired in this order, nothing is ever complete that was made of something else. Raises
    ArtifactError if something is damaged, or under way: what that was made of is not known yet.
    """
    for damage in check_run(run_dir):
        raise ArtifactError(
            f"{damage.file} {damage.problem}: run 'midcourse repair {run_dir}' without --failed"
        )
    under_way = [f for f in step_folders(run_dir) if not (f / MANIFEST).is_file()]
    complete = [f for f in step_folders(run_dir) if f not in under_way]
    found = {folder: read_manifest(folder) for folder in complete}
    manifests = {folder: manifest for folder, manifest in found.items() if manifest.keys() >= _SAID}
    failed = {m["key"] for m in manifests.values() if m["counts"].get(FinishReason.REQUEST_FAILED)}
    if failed and under_way:
        raise ArtifactError(
            f"{under_way[0]} is under way, and may be made of requests that failed: run its "
            "command to the end first, or delete the folder"
        )
    return list(_requeued(manifests, failed))


def repair_run(run_dir: Path, check: Callable[[Path], list[Damage]] = check_run) -> list[Damage]:
    """Return what `check` found in a run directory, once it is re-queued."""
    check(run_dir)  # What is not a run directory gets no lock file.
    with RunLock(run_dir), writing(run_dir):
        found = check(run_dir)
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
    for damaged in found.damaged():
        remedy = "asked again, sound records are kept"
        again = partial(recover, folder)
        yield Damage(damaged.path, damaged.problem, remedy, again, blocks=False)


def _open_again(folder: Path, without: Collection[str] = ()) -> None:
    """Make a complete stage one that is under way, without its damaged parts and these keys."""
    (folder / MANIFEST).unlink(missing_ok=True)
    sync(folder)
    recover(folder)
    drop_keys(folder, without)


def _requeued(manifests: _Manifests, failed: set[str]) -> Iterator[Damage]:
    """Yield what was made of failed requests, then the stages that hold them.

    A grade is of one rollout alone: other grades stay. All else may depend on every record.
    """
    stale = _made_of(failed, manifests)
    dropped = {
        manifest["key"]: _failed_keys(folder, is_search=_is_search(manifest["settings"]))
        for folder, manifest in manifests.items()
        if manifest["key"] in failed - stale
    }
    problem = "was made of requests that failed"
    for folder, manifest in manifests.items():
        inputs = set(manifest["inputs"].values())
        if manifest["key"] not in stale:
            continue
        if manifest["stage"] == "grade" and inputs <= dropped.keys():
            keys = set[str]().union(*map(dropped.__getitem__, inputs))
            remedy = f"{_records(keys)} made again, the others are kept"
            yield Damage(folder, problem, remedy, partial(_open_again, folder, keys))
        else:
            repair = partial(_finish_again, folder, from_the_start=True)
            yield Damage(folder, problem, "all of it is made again", repair)
    for folder, manifest in manifests.items():
        keys = dropped.get(manifest["key"], set())
        if keys:
            remedy = f"{_records(keys)} asked again, the others are kept"
            repair = partial(_open_again, folder, keys)
            yield Damage(folder, "holds requests that failed", remedy, repair)


def _is_search(settings: object) -> bool:
    return isinstance(settings, dict) and "rounds" in settings


def _records(keys: Collection[str]) -> str:
    return "1 record is" if len(keys) == 1 else f"{len(keys):,} records are"


def _made_of(keys: set[str], manifests: _Manifests) -> set[str]:
    """Return the keys of all that was made of stages with these keys, however indirectly."""
    found = set[str]()
    new = keys
    while new:
        read = {m["key"] for m in manifests.values() if new & set(m["inputs"].values())}
        new = read - found
        found |= new
    return found


def _failed_keys(folder: Path, is_search: bool) -> set[str]:
    """Return the keys of failed requests; of a search, also of what was drawn after one.

    Had it been answered, the search might have stopped there.
    """
    fields = ("finish_reason", "outcome", "problem_id", "parent_id", "index")
    failed = [
        (key, row)
        for key, row in keyed_rows(folder, fields)
        if FinishReason.REQUEST_FAILED in (row.get("finish_reason"), row.get("outcome"))
    ]
    keys = {key for key, _ in failed}
    if is_search:
        first = dict[object, int]()
        for _, row in failed:
            search = row["problem_id"], row["parent_id"]
            first[search] = min(row["index"], first.get(search, row["index"]))
        for key, row in keyed_rows(folder, fields):
            if row["index"] > first.get((row["problem_id"], row["parent_id"]), row["index"]):
                keys.add(key)
    return keys


def _training(folder: Path, changed_only: bool) -> Iterator[Damage]:
    """Find what is damaged in the folder of a complete training.

    One under way looks after its own checkpoints.
    """
    if not (folder / MANIFEST).is_file():
        return
    for damaged in _damaged(folder, changed_only=changed_only):
        is_model = damaged.path != folder / MANIFEST
        remedy = "the model is trained again" if is_model else "written again"
        repair = partial(_finish_again, folder, from_the_start=is_model)
        yield Damage(damaged.path, damaged.problem, remedy, repair)


def _finish_again(folder: Path, from_the_start: bool) -> None:
    """Make a complete step one that is under way, or have it made again from the start.

    Nothing of a training is kept if one of its files is damaged: they are made together.
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
    if problem := problem or misfit(content):
        return [DamagedFile(folder / manifest, problem)]
    return damaged_files(folder, manifest, changed_only=changed_only)
