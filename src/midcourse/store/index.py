"""``stages.json``: which folder of a run directory is what, for people. Nothing is lost with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from midcourse.errors import ArtifactError
from midcourse.records import content_id
from midcourse.store.files import load_object, write_json_atomic
from midcourse.store.stage import is_inside, read_manifest


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What ``stages.json`` says of a folder."""

    stage: str
    label: str


@dataclass(frozen=True, slots=True)
class Index:
    """What ``stages.json`` says, by folder."""

    entries: dict[str, IndexEntry]
    """Of a damaged file: what is left of it, and what the manifests say."""
    problem: str
    """What is wrong with the file, empty if nothing is."""


def require_run(run_dir: Path) -> None:
    """Raise ArtifactError unless a folder is a run directory, whole or damaged."""
    names = ("config.resolved.json", "recipes", "stages.json")
    if not any((run_dir / name).exists() for name in names):
        raise ArtifactError(f"{run_dir} is not a run directory: it holds no resolved recipe")


def read_index(run_dir: Path) -> Index:
    """Read the index of a run directory; an empty one if there is none."""
    path = run_dir / "stages.json"
    data, problem = load_object(path) if path.is_file() else ({}, "")
    entries = {folder: entry for folder, said in data.items() if (entry := _entry(folder, said))}
    if not problem and len(entries) == len(data):
        return Index(entries, "")
    return Index(complete_entries(run_dir) | entries, problem or "is not what was written")


def complete_entries(run_dir: Path) -> dict[str, IndexEntry]:
    """Return what the manifests say of the complete steps."""
    entries = {}
    for file in sorted(run_dir.glob("*/*/manifest.json")):
        with suppress(ArtifactError, KeyError):  # Damage of a manifest is its own matter.
            manifest = read_manifest(file.parent)
            folder = str(file.parent.relative_to(run_dir))
            entries[folder] = IndexEntry(manifest["stage"], manifest["label"])
    return entries


def write_index(run_dir: Path, entries: Mapping[str, IndexEntry]) -> None:
    """Write the index, each entry with a checksum."""
    named = {f: {**asdict(e), "checksum": _entry_checksum(f, e)} for f, e in entries.items()}
    write_json_atomic(run_dir / "stages.json", named)


def _entry(folder: str, said: Any) -> IndexEntry | None:
    """Return an entry, None if it is not what was written or of a place outside."""
    if not isinstance(said, dict):
        return None
    entry = IndexEntry(str(said.get("stage")), str(said.get("label")))
    try:
        is_sound = said.get("checksum") == _entry_checksum(folder, entry)
    except UnicodeEncodeError:  # half of a surrogate pair: nothing that we write
        return None
    return entry if is_sound and is_inside(folder) else None


def _entry_checksum(folder: str, entry: IndexEntry) -> str:
    return content_id(folder, entry.stage, entry.label)[:10]
