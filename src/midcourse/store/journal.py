"""The journal of a stage under way: a line for each result, with a checksum of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from zlib import crc32

from midcourse.errors import ArtifactError
from midcourse.store.files import sync, writing

#: A kill costs no line. A power cut costs at most the lines of so many seconds.
_SYNC_SECONDS = 5.0
_HEAD = b'{"crc":"%08x",'
_HEAD_SIZE = len(_HEAD % 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: a key, the rows of its records, and the line as it stands in the file."""

    key: str
    rows: list[dict[str, Any]]
    line: bytes


class Journal:
    """A journal, open for appending."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            is_new = not path.exists()
            # Without a buffer: what could not be written is not tried again on closing.
            self._file = path.open("ab", buffering=0)
            if is_new:
                sync(path.parent)
            self._size = path.stat().st_size
        self._synced = monotonic()

    def append(self, line: bytes) -> None:
        """Write a line; when this returns, a killed process keeps it."""
        with writing(self._path, len(line)):
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                with suppress(OSError):  # Half a line must not spoil the next one.
                    self._file.truncate(self._size)
                raise
            self._size += len(line)
            if monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = monotonic()

    def empty(self) -> None:
        """Drop every line: they are in a part that is on disk."""
        with writing(self._path):
            self._file.truncate(0)
        self._size = 0

    def remove(self) -> None:
        """Close and delete it: it is empty."""
        with writing(self._path):
            self._file.close()
            self._path.unlink()

    def close(self) -> None:
        """Close it; a power cut after this returns costs nothing."""
        if self._file.closed:
            return
        with writing(self._path), self._file:
            os.fsync(self._file.fileno())


def journal_line(key: str, records: bytes) -> bytes:
    """Return the line of a key and the JSON of its records."""
    body = b'"key":%b,"records":%b}' % (json.dumps(key).encode(), records)
    return b"%b%b\n" % (_HEAD % crc32(body), body)


def read_journal(path: Path) -> Iterator[Entry | None]:
    """Yield each line of a journal, None for one that is not as it was written.

    Raises ArtifactError for the journal of an earlier midcourse, which had no checksums.
    """
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            entry = _entry(line)
            if number == 0 and entry is None and line.startswith(b'{"key":"'):
                raise ArtifactError(
                    f"{path} was written by an earlier midcourse, without checksums: finish this "
                    "stage with that one, or delete the file to have its results asked again"
                )
            yield entry


def read_tail(path: Path, num_bytes: int) -> list[Entry]:
    """Return the sound lines within the last bytes of a journal, in order; none if there is none.

    For whoever looks at a stage under way: what is being written at this moment is left out.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - num_bytes))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:  # sealed, or rolled into a part, since it was listed
        return []
    whole = lines if size <= num_bytes else lines[1:]
    return [entry for line in whole if (entry := _entry(line)) is not None]


def _entry(line: bytes) -> Entry | None:
    """Return what a line holds, None if it is truncated or damaged."""
    body = line[_HEAD_SIZE:-1]
    if line != b"%b%b\n" % (_HEAD % crc32(body), body):
        return None
    try:
        fields = json.loads(b"{" + body)
    except (ValueError, RecursionError):
        return None
    key, rows = fields.get("key"), fields.get("records")
    return Entry(key, rows, line) if isinstance(key, str) and isinstance(rows, list) else None
