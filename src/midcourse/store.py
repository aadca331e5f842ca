"""Records on disk: an append-only journal, sealed Parquet parts, and the manifest last.

A stage directory is complete if, and only if, it holds ``manifest.json``. Until then every result
is one journal line, flushed before it is counted, so a killed process loses nothing it reported; a
truncated last line is redone. A sealed part is on disk before its journal is emptied, so a power
cut costs at most the lines of the journal. Records never leave this module as anything but
themselves: the Parquet schema and the JSON form are both read off the record's type hints.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import types
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from midcourse.errors import ArtifactError

#: Raised when a record's fields change: an older reader refuses a newer file, and says so.
SCHEMA_VERSION = 2
_KEY, _KIND = "_key", b"midcourse"
_LOG = logging.getLogger(__name__)

R = TypeVar("R")


class StageStore(Generic[R]):
    """One stage directory, open for writing.

    Results are kept under a *key*: the records of one key (one rollout, or the four proposals
    about one rollout) are there whole or not at all.
    """

    def __init__(
        self,
        path: Path,
        record_type: type[R],
        *,
        part_records: int = 20_000,
        part_bytes: int = 32 * 2**20,
    ) -> None:
        self.path, self._record_type = path, record_type
        self._part_records, self._part_bytes = part_records, part_bytes
        self._lines = TypeAdapter(tuple[record_type, ...])  # type: ignore[valid-type]
        self._part_schema = _arrow_schema(record_type).insert(0, pa.field(_KEY, pa.string()))
        self._journal_path = path / "journal.jsonl"
        self._num_in_journal, self._bytes_in_journal = 0, 0
        self._first_parts, self._first_keys = self._parts(), set[str]()
        self._journal: TextIO | None = None if self.is_complete else self._recover()

    def __enter__(self) -> StageStore[R]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal; everything appended is on disk already."""
        if self._journal is not None:
            self._journal.close()

    @property
    def is_complete(self) -> bool:
        """Whether the manifest is there."""
        return (self.path / "manifest.json").is_file()

    @cached_property
    def done(self) -> Keys:
        """The keys that were there at the start: a stage yields each other key once."""
        in_parts = (key for part in self._first_parts for key in _part_keys(part))
        return Keys(chain(self._first_keys, in_parts))

    def append(self, key: str, records: Sequence[R]) -> None:
        """Journal the records of `key`; when this returns, a killed process keeps them."""
        journal = self._open_journal()
        try:
            content = self._lines.dump_json(tuple(records)).decode()
            line = f'{{"key":{json.dumps(key)},"records":{content}}}\n'
            journal.write(line)
            journal.flush()
        except PydanticSerializationError as error:
            raise ArtifactError(f"{self.path}: {key} holds text that is not Unicode") from error
        except OSError as error:
            raise ArtifactError(
                f"{self._journal_path}: cannot write ({error}); make room and run again"
            ) from error
        self._num_in_journal += len(records)
        self._bytes_in_journal += len(line)
        if self._num_in_journal >= self._part_records or self._bytes_in_journal >= self._part_bytes:
            self._roll()

    def read(self) -> Iterator[R]:
        """Stream everything there is, parts first, in the order it arrived."""
        for part in self._parts():
            yield from _decode(self._record_type, _part_rows(part), part)
        rows = (row for _, rows, _ in self._journal_lines() for row in rows)
        yield from _decode(self._record_type, rows, self._journal_path)

    def seal(self, manifest: Mapping[str, object]) -> None:
        """Turn the journal into a last part and write ``manifest.json``, last of all.

        Completions arrive in any order; sorting makes the sealed content depend on what was
        sampled alone. Sorting is within a part: more than `part_records` records come in the
        order in which they filled the parts.
        """
        journal = self._open_journal()
        self._roll()
        parts = [_describe(part) for part in self._parts()]
        header = {
            **_kind(self._record_type),
            "num_records": sum(part["num_records"] for part in parts),
            "parts": parts,
            **manifest,
        }
        write_json_atomic(self.path / "manifest.json", header)
        journal.close()
        self._journal = None
        self._journal_path.unlink()

    def _open_journal(self) -> TextIO:
        if self._journal is None:
            raise ArtifactError(f"{self.path} is complete: nothing can be added to it")
        return self._journal

    def _recover(self) -> TextIO:
        """Clear what a killed process left half written; return the journal, open for appending."""
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob("*.tmp"):
            leftover.unlink()
        if self._journal_path.is_file():
            self._clean_journal()
        return self._journal_path.open("a", encoding="utf-8")

    def _clean_journal(self) -> None:
        """Keep the whole lines whose key is neither in the last part nor in an earlier line."""
        sealed = {key for part in self._first_parts[-1:] for key in _part_keys(part)}
        kept: list[str] = []
        for key, rows, line in self._journal_lines():
            if key not in sealed and key not in self._first_keys:
                kept.append(line)
                self._first_keys.add(key)
                self._num_in_journal += len(rows)
                self._bytes_in_journal += len(line)
        content = "".join(kept).encode()
        _write_durably(self._journal_path, lambda file: file.write_bytes(content))

    def _parts(self) -> list[Path]:
        return sorted(self.path.glob("part-*.parquet"))

    def _journal_lines(self) -> Iterator[tuple[str, list[dict[str, Any]], str]]:
        """Yield key, rows and text of each whole line; stop at the first truncated one."""
        if not self._journal_path.is_file():
            return
        with self._journal_path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                entry = _journal_entry(line)
                if entry is None:
                    where = self._journal_path
                    _LOG.warning("%s: line %d is truncated; will be redone", where, number)
                    return
                yield *entry, line

    def _roll(self) -> None:
        """Seal the journal into a part, and empty it once the part is on disk.

        A crash between the two leaves keys in both places; `_recover` drops them from the journal.
        """
        entries = sorted(self._journal_lines(), key=lambda entry: entry[0])
        keyed = [{_KEY: key, **row} for key, rows, _ in entries for row in rows]
        if entries:
            path = self.path / f"part-{len(self._parts()):05d}.parquet"
            _write_part(path, keyed, self._part_schema)
            self._open_journal().truncate(0)
        self._num_in_journal = self._bytes_in_journal = 0


class Keys:
    """A frozen set of texts at eight bytes each: membership by 64-bit hash.

    Among a million keys the chance that any foreign key seems to be in it is 1 in 10⁷.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = array("Q", sorted({_hash64(key) for key in keys}))

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, key: object) -> bool:
        wanted = _hash64(str(key))
        at = bisect_left(self._hashes, wanted)
        return at < len(self._hashes) and self._hashes[at] == wanted


def _hash64(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def read_stage(path: Path, record_type: type[R], without: Collection[str] = ()) -> Iterator[R]:
    """Stream the records of a complete stage. Raises ArtifactError if it is not to be trusted.

    Fields named in `without` are not read and come back empty: they must hold tuples. Token ids
    are most of a rollout's bytes and time, and most readers want the text.
    """
    manifest = read_manifest(path)
    _check_kind(path, manifest, record_type)
    empty: dict[str, Any] = dict.fromkeys(without, ())
    for described in manifest["parts"]:
        part = path / described["file"]
        _check_part(part, described["sha256"])
        rows = ({**row, **empty} for row in _part_rows(part, without))
        yield from _decode(record_type, rows, part)


def write_records(path: Path, records: Iterable[R], record_type: type[R]) -> None:
    """Write a Parquet file of its own; it is whole and on disk when this returns."""
    rows = list(map(TypeAdapter(record_type).dump_python, records))
    _write_part(path, rows, _arrow_schema(record_type))


def read_records(paths: Iterable[Path], record_type: type[R]) -> Iterator[R]:
    """Stream what `write_records` wrote. Raises ArtifactError if it is not of this schema."""
    for path in paths:
        metadata = pq.read_schema(path).metadata or {}
        _check_kind(path, json.loads(metadata.get(_KIND, b"{}")), record_type)
        yield from _decode(record_type, _part_rows(path), path)


def _kind(record_type: type) -> dict[str, object]:
    return {"schema_version": SCHEMA_VERSION, "record": record_type.__name__}


def _check_kind(path: Path, found: Mapping[str, object], record_type: type) -> None:
    """Raise ArtifactError unless `found` names this record of this schema."""
    if not _kind(record_type).items() <= found.items():
        raise ArtifactError(
            f"{path} holds {found.get('record')} of schema {found.get('schema_version')}, wanted "
            f"{record_type.__name__} of schema {SCHEMA_VERSION}: read it with the midcourse that "
            "made it, or make it again in another run directory"
        )


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a complete stage or checkpoint."""
    file = path / "manifest.json"
    if not file.is_file():
        raise ArtifactError(f"{path} is not complete (no manifest.json): run its stage again")
    manifest: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return manifest


def write_json_atomic(path: Path, data: object) -> None:
    """Write JSON under another name, then rename: readers see the old file or the new one."""
    text = json.dumps(data, ensure_ascii=False, indent=1, default=list)
    content = (text + "\n").encode("utf-8", "backslashreplace")
    _write_durably(path, lambda file: file.write_bytes(content))


def _write_part(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    table = pa.Table.from_pylist(rows, schema=schema)
    try:
        _write_durably(path, lambda file: pq.write_table(table, file, compression="zstd"))
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot write ({error}); nothing was lost, make room and run again"
        ) from error


def _write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill another name, then rename; a power cut after this returns undoes nothing.

    The content has to be on disk before the name points at it, and the name is content of the
    folder.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        _fsync(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _journal_entry(line: str) -> tuple[str, list[dict[str, Any]]] | None:
    """Return key and rows of a journal line, None if it is truncated."""
    if not line.endswith("\n"):
        return None
    try:
        entry = json.loads(line)
        return entry["key"], entry["records"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def _part_rows(path: Path, without: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        columns = [n for n in file.schema_arrow.names if n != _KEY and n not in without]
        for batch in file.iter_batches(batch_size=256, columns=columns):
            yield from batch.to_pylist()


def _part_keys(path: Path) -> set[str]:
    return set(pq.read_table(path, columns=[_KEY])[_KEY].to_pylist())


def _describe(part: Path) -> dict[str, Any]:
    return {
        "file": part.name,
        "sha256": _sha256(part),
        "bytes": part.stat().st_size,
        "num_records": pq.read_metadata(part).num_rows,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_CHECKED: set[tuple[Path, str]] = set()


def _check_part(part: Path, sha256: str) -> None:
    """Compare a part with its checksum, once per process."""
    if (part, sha256) in _CHECKED:
        return
    if not part.is_file() or _sha256(part) != sha256:
        raise ArtifactError(
            f"{part} is missing or not what was written: delete {part.parent} and run again"
        )
    _CHECKED.add((part, sha256))


# Records ⇄ rows, read off the type hints.


def _decode(record_type: type[R], rows: Iterable[dict[str, Any]], path: Path) -> Iterator[R]:
    validate = TypeAdapter(record_type).validate_python
    try:
        yield from map(validate, rows)
    except ValidationError as error:
        first = error.errors()[0]
        field, given = ".".join(map(str, first["loc"])), first["input"]
        raise ArtifactError(
            f"{path}: {record_type.__name__}.{field} cannot be {given!r} ({first['msg']}): made by "
            "another midcourse"
        ) from error


def _arrow_schema(record_type: type) -> pa.Schema:
    metadata = {_KIND: json.dumps(_kind(record_type))}
    return pa.schema(list(_arrow_type(record_type)), metadata=metadata)


def _arrow_type(hint: Any) -> pa.DataType:
    if isinstance(hint, types.UnionType):  # a field that may be null
        hint = next(part for part in get_args(hint) if part is not type(None))
    if is_dataclass(hint):
        fields = get_type_hints(hint).items()
        return pa.struct([(name, _arrow_type(field)) for name, field in fields])
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        return pa.list_(pa.int32() if item is int else _arrow_type(item))
    plain = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return plain.get(hint, pa.string())


class RunLock:
    """One writer per run directory: a file that names host, process and start.

    Created with O_EXCL, which network file systems honour; the lock of a process that is gone
    from this host is taken over, also where its number was given to another one since.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".lock"

    def __enter__(self) -> RunLock:
        pid = os.getpid()
        owner = {"host": platform.node(), "pid": pid, "born": _born(pid), "since": _now()}
        for _ in range(2):
            try:
                handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                self._clear_if_stale()
                continue
            with os.fdopen(handle, "w") as file:
                json.dump(owner, file)
            return self
        raise ArtifactError(f"{self._path} cannot be taken: another process is faster")

    def __exit__(self, *exception: object) -> None:
        self._path.unlink(missing_ok=True)

    def _clear_if_stale(self) -> None:
        """Remove the lock of a dead process of this host; else say who holds it."""
        try:
            owner = json.loads(self._path.read_text("utf-8"))
        except (OSError, json.JSONDecodeError):
            owner = {"host": "unknown", "pid": 0, "born": "", "since": "unknown"}
        is_ours = owner["host"] == platform.node()
        if is_ours and (not _is_alive(owner["pid"]) or _born(owner["pid"]) != owner["born"]):
            self._path.unlink(missing_ok=True)
            return
        raise ArtifactError(
            f"{self._path.parent} is in use by process {owner['pid']} on {owner['host']} since "
            f"{owner['since']}: wait for it, or delete {self._path} if it is gone"
        )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _born(pid: int) -> str:
    """Return the boot and the tick in which a process began; empty where the system hides it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    return f"{boot}/{stat.rpartition(')')[2].split()[19]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
