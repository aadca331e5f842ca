"""Records on disk: an append-only journal, sealed Parquet parts, and the manifest last.

A stage directory is complete if, and only if, it holds ``manifest.json``. Until then every result
is one journal line, flushed before it is counted, so a killed process loses nothing it reported.
A torn last line is owed again. Records never leave this module as anything but themselves: the
Parquet schema and the JSON form are both read off the record's type hints.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import types
import typing
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from midcourse.errors import ArtifactError

#: Raised when a record's fields change: an older reader refuses a newer file, and says so.
SCHEMA_VERSION = 2
_KEY = "_key"
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
        self._to_json, self._from_json = _encoder(record_type), _decoder(record_type)
        self._journal_path = path / "journal.jsonl"
        self._open()
        self.done = Keys([*self._kept_keys, *self._keys_of_parts()])
        """The keys that were there at the start: a stage yields each other key once."""

    def __enter__(self) -> StageStore[R]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal; everything appended is on disk already."""
        self._journal.close()

    @property
    def is_complete(self) -> bool:
        """Whether the manifest is there."""
        return (self.path / "manifest.json").is_file()

    def append(self, key: str, records: Sequence[R]) -> None:
        """Journal the records of `key`; when this returns, a killed process keeps them."""
        content = {"key": key, "records": [self._to_json(record) for record in records]}
        line = json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            self._journal.write(line)
            self._journal.flush()
        except UnicodeEncodeError as error:
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
            for _, row in _part_rows(part):
                yield self._from_json(row)
        for _, rows in self._journal_lines():
            yield from (self._from_json(row) for row in rows)

    def seal(self, manifest: Mapping[str, object]) -> None:
        """Turn the journal into a last part and write ``manifest.json``, last of all.

        Completions arrive in any order; sorting makes the sealed content depend on what was
        sampled alone. Sorting is within a part: more than `part_records` records come in the
        order in which they filled the parts.
        """
        self._roll()
        parts = [_describe(part) for part in self._parts()]
        header = {
            "schema_version": SCHEMA_VERSION,
            "record": self._record_type.__name__,
            "num_records": sum(part["num_records"] for part in parts),
            "parts": parts,
            **manifest,
        }
        write_json_atomic(self.path / "manifest.json", header)
        self._journal.close()
        self._journal_path.unlink()

    def _open(self) -> None:
        """Recover what an earlier process left: parts, then the journal without its torn tail."""
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob("*.tmp"):
            leftover.unlink()
        kept, self._num_in_journal, self._bytes_in_journal = [], 0, 0
        self._kept_keys: set[str] = set()
        sealed = set(self._keys_of_parts()) if self._journal_path.is_file() else set()
        for line, rows in self._journal_lines():
            key = json.loads(line)["key"]
            if key not in sealed and key not in self._kept_keys:
                kept.append(line)
                self._kept_keys.add(key)
                self._num_in_journal += len(rows)
                self._bytes_in_journal += len(line)
        if self._journal_path.is_file() and not self.is_complete:
            _write_atomic(self._journal_path, "".join(line + "\n" for line in kept).encode())
        self._journal = (
            open(os.devnull, "w")  # noqa: SIM115, PTH123
            if self.is_complete
            else self._journal_path.open("a", encoding="utf-8")
        )

    def _keys_of_parts(self) -> Iterator[str]:
        for part in self._parts():
            yield from _part_keys(part)

    def _parts(self) -> list[Path]:
        return sorted(self.path.glob("part-*.parquet"))

    def _journal_lines(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield each whole line with its rows; stop at the first torn one."""
        if not self._journal_path.is_file():
            return
        with self._journal_path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                rows = _journal_rows(line)
                if rows is None:
                    _LOG.warning("%s: line %d is torn; owed again", self._journal_path, number)
                    return
                yield line.rstrip("\n"), rows

    def _roll(self) -> None:
        """Seal the journal into a part: write under another name, rename, empty the journal.

        A crash between the two leaves keys in both places; `_open` drops them from the journal.
        """
        lines = [(json.loads(line)["key"], rows) for line, rows in self._journal_lines()]
        if not lines:
            return
        keyed = [(key, row) for key, rows in sorted(lines, key=lambda x: x[0]) for row in rows]
        table = pa.Table.from_pylist(
            [{_KEY: key, **row} for key, row in keyed], schema=_arrow_schema(self._record_type)
        )
        path = self.path / f"part-{len(self._parts()):05d}.parquet"
        temporary = path.with_suffix(".tmp")
        try:
            pq.write_table(table, temporary, compression="zstd")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ArtifactError(
                f"{path}: cannot write ({error}); nothing was lost, make room and run again"
            ) from error
        self._journal.close()
        self._journal = self._journal_path.open("w", encoding="utf-8")
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
    if manifest["schema_version"] != SCHEMA_VERSION or manifest["record"] != record_type.__name__:
        raise ArtifactError(
            f"{path} holds {manifest['record']} of schema {manifest['schema_version']}, wanted "
            f"{record_type.__name__} of schema {SCHEMA_VERSION}: read it with the midcourse that "
            "made it, or make it again in another run directory"
        )
    decode, empty = _decoder(record_type), dict.fromkeys(without, ())
    for described in manifest["parts"]:
        part = path / described["file"]
        _check_part(part, described["sha256"])
        for _, row in _part_rows(part, without):
            yield decode({**row, **empty} if empty else row)


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
    _write_atomic(path, (text + "\n").encode("utf-8", "backslashreplace"))


def _write_atomic(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _journal_rows(line: str) -> list[dict[str, Any]] | None:
    """Return the rows of a journal line, None if it is torn."""
    if not line.endswith("\n"):
        return None
    try:
        rows: list[dict[str, Any]] = json.loads(line)["records"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
    return rows


def _part_rows(path: Path, without: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name not in without]
        for batch in file.iter_batches(batch_size=256, columns=columns):
            for row in batch.to_pylist():
                yield row.pop(_KEY), row


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


def _hints(record_type: Any) -> dict[str, Any]:
    """Return the fields of a record with their types: records annotate nothing else."""
    return typing.get_type_hints(record_type)


def _strip_optional(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _is_plain(tuple_hint: Any) -> bool:
    """Whether the items of a tuple are what JSON holds: token ids, by the thousand."""
    return typing.get_args(tuple_hint)[0] in (int, float, bool, str)


def _encoder(hint: Any) -> Callable[[Any], Any]:
    """Return what turns a value of `hint` into JSON."""
    inner = _strip_optional(hint)
    if inner is not hint:
        encode = _encoder(inner)
        return lambda value: None if value is None else encode(value)
    if is_dataclass(hint):
        encoders = {name: _encoder(inner) for name, inner in _hints(hint).items()}
        return lambda value: {name: e(getattr(value, name)) for name, e in encoders.items()}
    if typing.get_origin(hint) is tuple:
        if _is_plain(hint):
            return list
        item = _encoder(typing.get_args(hint)[0])
        return lambda value: [item(part) for part in value]
    return lambda value: value


def _decoder(hint: Any) -> Callable[[Any], Any]:
    """Return what turns JSON back into a value of `hint`."""
    inner = _strip_optional(hint)
    if inner is not hint:
        decode = _decoder(inner)
        return lambda value: None if value is None else decode(value)
    if is_dataclass(hint):
        decoders = {name: _decoder(inner) for name, inner in _hints(hint).items()}
        record_type: Any = hint
        return lambda row: record_type(**{name: d(row[name]) for name, d in decoders.items()})
    if typing.get_origin(hint) is tuple:
        if _is_plain(hint):
            return tuple
        item = _decoder(typing.get_args(hint)[0])
        return lambda value: tuple(item(part) for part in value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return lambda value: _enum(hint, value)
    return lambda value: value


def _enum(kind: type[StrEnum], value: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError as error:
        raise ArtifactError(
            f"{value!r} is no {kind.__name__}: made by another midcourse"
        ) from error


def _arrow_schema(record_type: type) -> pa.Schema:
    columns = [(_KEY, pa.string())]
    columns += [(name, _arrow_type(hint)) for name, hint in _hints(record_type).items()]
    return pa.schema(columns)


def _arrow_type(hint: Any) -> pa.DataType:
    hint = _strip_optional(hint)
    if is_dataclass(hint):
        return pa.struct([(name, _arrow_type(inner)) for name, inner in _hints(hint).items()])
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
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
