"""Checksums of a folder's files: written when it is complete, compared before it is trusted.

A manifest, or the marker of a checkpoint, lists every file with its size and SHA-256. Loads no
torch: a model of many gigabytes is read, never opened.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from midcourse.errors import ArtifactError
from midcourse.store.files import sync


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that is not what was written."""

    path: Path
    problem: str
    """What is wrong with it, e.g. ``is missing``."""

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


def describe_files(folder: Path, files: Iterable[Path]) -> list[dict[str, Any]]:
    """Return name, size and checksum of each file, as a manifest lists them, in order of name."""

    def describe(file: Path) -> dict[str, Any]:
        found = file.stat()
        checksum = _sha256_at(file, found.st_size, found.st_mtime_ns)
        name = str(file.relative_to(folder))
        return {"file": name, "sha256": checksum, "bytes": found.st_size}

    # Hashing lets other threads run: the files of a large model are read side by side.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(describe, sorted(files)))


def damaged_files(
    folder: Path, manifest: str = "manifest.json", within: str = "", *, changed_only: bool = False
) -> list[DamagedFile]:
    """Return the files of `folder` that are not what its manifest lists, [] if all is well.

    `within` is the sub-folder to look at alone. A file is read once per process, and again only if
    its size or time of change differs; with `changed_only` not even once, unless it has changed
    since the manifest was written. A manifest without a list lists nothing.
    """
    try:
        trusted_until = (folder / manifest).stat().st_mtime_ns if changed_only else -1
        content = json.loads((folder / manifest).read_text("utf-8"))
        listed = [*content.get("files", ()), *content.get("parts", ())]
        expected = {folder / one["file"]: (int(one["bytes"]), one["sha256"]) for one in listed}
    except FileNotFoundError:
        return [DamagedFile(folder / manifest, "is missing")]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return [DamagedFile(folder / manifest, "cannot be read")]
    chosen = {file: one for file, one in expected.items() if file.is_relative_to(folder / within)}
    problems = {file: _problem(file, *one, trusted_until) for file, one in chosen.items()}
    return [DamagedFile(file, problem) for file, problem in problems.items() if problem]


def require_whole(folder: Path, within: str) -> None:
    """Raise ArtifactError if what is read within a training's folder is not what was written.

    One that is under way has no checksums yet.
    """
    if not (folder / "manifest.json").is_file():
        return
    damaged = damaged_files(folder, within=within)
    if damaged:
        raise ArtifactError(
            f"{damaged[0]}: run 'midcourse repair {folder.parent.parent}', then the same command "
            "again: it trains this model again"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_files(folder: Path) -> None:
    """Have every file and folder within `folder`, and itself, on disk when this returns."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        sync(path)


def _problem(file: Path, size: int, checksum: str, trusted_until: int) -> str:
    """Say what is wrong with a file, nothing if it is as listed."""
    if not file.is_file():
        return "is missing"
    found = file.stat()
    if found.st_size != size:
        return f"has {found.st_size:,} bytes, not {size:,}"
    if found.st_mtime_ns <= trusted_until:
        return ""
    try:
        is_same = _sha256_at(file, found.st_size, found.st_mtime_ns) == checksum
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if is_same else "is not what was written"


@cache
def _sha256_at(path: Path, size: int, changed: int) -> str:
    """Return the checksum of a file as it was when it had this size and time of change."""
    return sha256_of(path)
