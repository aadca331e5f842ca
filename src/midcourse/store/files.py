"""Files that survive a kill and a power cut, and one line for what the system refuses."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from midcourse.errors import ArtifactError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_CHECKSUM = "checksum"


@contextmanager
def writing(path: Path, num_bytes: int = 0) -> Iterator[None]:
    """Turn what the system refuses in here into one line: what, where, what to do."""
    try:
        yield
    except OSError as error:
        wanted = f"cannot write {num_bytes:,} bytes" if num_bytes else "cannot write"
        reason, advice = (
            error.strerror or str(error),
            "nothing was lost, run the same command again",
        )
        if error.errno in _NO_ROOM:
            reason = f"{reason}; {_free(path)}"
            advice = "nothing was lost, make room and run the same command again"
        elif error.errno in _NO_ACCESS:
            advice = "make it writable, or use another --run-dir"
        elif error.errno in _NO_FOLDER:
            advice = "use another --run-dir"
        elif error.errno == errno.ENOENT:
            advice = "its folder was removed, run the same command again"
        raise ArtifactError(f"{path}: {wanted} ({reason}): {advice}") from error


def _free(path: Path) -> str:
    """Say how much room there is for a file."""
    for folder in path.parents:
        with suppress(OSError):
            system = os.statvfs(folder)
            room = system.f_bavail * system.f_frsize
            return f"{room:,} bytes and {system.f_favail:,} files are free there"
    return "how much is free there is not known"


def make_folder(path: Path) -> None:
    """Make a folder and those above it; they outlive a power cut."""
    with writing(path):
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in made:
            sync(folder.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write under another name, then rename: there is the old file or the new one, at any time.

    The content has to be on disk before the name points at it, and the name is content of the
    folder: a power cut after this returns undoes nothing.
    """
    temporary = path.with_name(path.name + ".tmp")
    with writing(path, len(content)):
        try:
            temporary.write_bytes(content)
            sync(temporary)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def sync(path: Path) -> None:
    """Have the content of a file, or the names in a folder, on disk when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json_atomic(path: Path, data: object) -> None:
    """Write JSON: readers see the old file or the new one."""
    text = json.dumps(data, ensure_ascii=False, indent=1, default=list)
    write_durably(path, (text + "\n").encode("utf-8", "backslashreplace"))


def write_checked_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object and its checksum, as one of its fields."""
    as_read = json.loads(json.dumps(data, default=list))
    write_json_atomic(path, {**as_read, _CHECKSUM: _checksum(as_read)})


def read_checked_json(path: Path, fix: str) -> dict[str, Any]:
    """Return what `write_checked_json` wrote, without its checksum.

    Raises ArtifactError, which names the file and the `fix`, if it is not what was written.
    """
    data, problem = load_checked(path)
    if problem:
        raise ArtifactError(f"{path} {problem}: {fix}")
    return data


def load_checked(path: Path) -> tuple[dict[str, Any], str]:
    """Return what `write_checked_json` wrote, and what is wrong with it; empty if nothing is."""
    data, problem = load_object(path)
    expected = data.pop(_CHECKSUM, None)
    if not problem and expected is None:
        problem = "has no checksum (it is damaged, or an earlier midcourse wrote it)"
    elif not problem and expected != _checksum(data):
        problem = "is not what was written"
    return data, problem


def load_object(path: Path) -> tuple[dict[str, Any], str]:
    """Return the JSON object that a file holds, and what is wrong with it; empty if nothing is."""
    try:
        content = path.read_bytes()
        data = json.loads(content)
    except OSError as error:
        return {}, f"cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        return {}, "is damaged (not JSON)" if content else "is damaged (empty)"
    return (data, "") if isinstance(data, dict) else ({}, "is damaged (not a JSON object)")


def _checksum(data: object) -> str:
    return sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
