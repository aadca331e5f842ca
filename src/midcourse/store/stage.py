"""Records on disk: an append-only journal, sealed Parquet parts, and the manifest last.

A stage directory is complete if, and only if, it holds ``manifest.json``. Until then every result
is one journal line, written before it is counted, so a killed process loses nothing it reported. A
sealed part is on disk before its journal is emptied, and the manifest is written after everything
else. Each journal line has a checksum, a part has one in its name, a manifest has its own and those
of the parts: what is not as it was written is never read as if it were. Records never leave this
module as anything but themselves: the Parquet schema and the JSON form are both read off the
record's type hints.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import types
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from itertools import count, groupby
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from midcourse.errors import ArtifactError
from midcourse.store.checksums import DamagedFile, damaged_files, sha256_of
from midcourse.store.files import (
    make_folder,
    read_checked_json,
    write_checked_json,
    write_durably,
    writing,
)
from midcourse.store.journal import Entry, Journal, journal_line, read_journal

#: Raised when a record's fields change: an older reader refuses a newer file, and says so.
SCHEMA_VERSION = 2
JOURNAL = "journal.jsonl"
MANIFEST = "manifest.json"
_KEY, _KIND = "_key", b"midcourse"
#: ``part-00003-<checksum>.parquet``: a part is known to be sound before a manifest lists it.
_PART_NAME = re.compile(r"part-\d{5}-[0-9a-f]{16}\.parquet")
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
        self._num_in_journal, self._bytes_in_journal = 0, 0
        self._parts = parts_of(path)
        self._journal: Journal | None = None if self.is_complete else self._recover()

    def __enter__(self) -> StageStore[R]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # What went wrong before is what is to be told.
        with suppress(ArtifactError) if kind else nullcontext():
            self.close()

    def close(self) -> None:
        """Close the journal; everything appended is on disk."""
        if self._journal is not None:
            self._journal.close()

    @property
    def is_complete(self) -> bool:
        """Whether the manifest is there."""
        return (self.path / MANIFEST).is_file()

    @cached_property
    def done(self) -> Keys:
        """The keys that were there at the start: a stage yields each other key once."""
        return _keys_of(self._parts)

    def append(self, key: str, records: Sequence[R]) -> None:
        """Journal the records of `key`; when this returns, a killed process keeps them."""
        journal = self._open_journal()
        try:
            line = journal_line(key, self._lines.dump_json(tuple(records)))
        except PydanticSerializationError as error:
            raise ArtifactError(f"{self.path}: {key} holds text that is not Unicode") from error
        journal.append(line)
        self._num_in_journal += len(records)
        self._bytes_in_journal += len(line)
        if self._num_in_journal >= self._part_records or self._bytes_in_journal >= self._part_bytes:
            self._roll()

    def read(self) -> Iterator[R]:
        """Stream everything there is, parts first, in the order it arrived."""
        for part in self._parts:
            yield from _decode(self._record_type, _part_rows(part), part)
        rows = (row for entry in self._entries() for row in entry.rows)
        yield from _decode(self._record_type, rows, self.path / JOURNAL)

    def seal(self, manifest: Mapping[str, object]) -> None:
        """Turn the journal into a last part and write ``manifest.json``, last of all.

        Completions arrive in any order; sorting makes the sealed content depend on what was
        sampled alone. Sorting is within a part: more than `part_records` records come in the
        order in which they filled the parts.
        """
        journal = self._open_journal()
        self._roll()
        parts = [_describe(part) for part in self._parts]
        header = {
            **_kind(self._record_type),
            "num_records": sum(part["num_records"] for part in parts),
            "parts": parts,
            **manifest,
        }
        journal.remove()
        self._journal = None
        write_checked_json(self.path / MANIFEST, header)

    def _open_journal(self) -> Journal:
        if self._journal is None:
            raise ArtifactError(f"{self.path} is complete: nothing can be added to it")
        return self._journal

    def _recover(self) -> Journal:
        """Clear what a killed process left half written; return the journal, open for appending."""
        make_folder(self.path)
        found = recover(self.path)
        self._parts, self.done = found.parts, found.done
        self._num_in_journal = sum(len(entry.rows) for entry in found.entries)
        self._bytes_in_journal = sum(len(entry.line) for entry in found.entries)
        return Journal(self.path / JOURNAL)

    def _entries(self) -> Iterator[Entry]:
        """Yield what is in the journal. Raises ArtifactError if it is not what was written."""
        num_records = 0
        for entry in filter(None, read_journal(self.path / JOURNAL)):
            num_records += len(entry.rows)
            yield entry
        if num_records != self._num_in_journal:
            raise ArtifactError(
                f"{self.path / JOURNAL} holds {num_records} sound records of "
                f"{self._num_in_journal} that were written: run the same command again, the "
                "others are asked again"
            )

    def _roll(self) -> None:
        """Seal the journal into a part, and empty it once the part is on disk.

        A crash between the two leaves keys in both places; `recover` drops them from the journal.
        """
        entries = sorted(self._entries(), key=lambda entry: entry.key)
        if entries:
            keyed = [{_KEY: entry.key, **row} for entry in entries for row in entry.rows]
            content = _parquet(keyed, self._part_schema)
            part = self.path / _part_name(_free_number(self._parts), content)
            write_durably(part, content)
            self._open_journal().empty()
            self._parts = tuple(sorted((*self._parts, part)))
        self._num_in_journal = self._bytes_in_journal = 0


# What is in the folder of a stage, complete or not.


@dataclass(frozen=True, slots=True)
class OpenStage:
    """What the folder of a stage holds, complete or not."""

    path: Path
    parts: tuple[Path, ...]
    """The sound ones."""
    damaged_parts: tuple[Path, ...]
    entries: tuple[Entry, ...]
    """Sound lines of the journal whose key is in no part and no earlier line."""
    damaged_lines: tuple[int, ...]
    """Numbers of the others that are not as they were written, from 1."""
    num_lines: int
    done: Keys
    """Of the sound parts and lines."""

    def damaged(self) -> list[DamagedFile]:
        """Return the damaged files, each with what is wrong."""
        found = [DamagedFile(part, "is not what was written") for part in self.damaged_parts]
        if self.damaged_lines:
            numbers = ", ".join(map(str, self.damaged_lines[:5]))
            more = ", …" if len(self.damaged_lines) > 5 else ""
            problem = f"is truncated or damaged in line {numbers}{more}"
            found.append(DamagedFile(self.path / JOURNAL, problem))
        return found


def inspect(path: Path) -> OpenStage:
    """Look at the folder of a stage, complete or not. Raises ArtifactError if it is not ours."""
    parts = parts_of(path)
    entries: dict[str, Entry] = {}
    damaged, number = [], 0
    with _reading(path / JOURNAL):
        sound = tuple(part for part in parts if sha256_of(part).startswith(_checksum_in(part)))
        in_parts = _keys_of(sound)
        for number, entry in enumerate(read_journal(path / JOURNAL), start=1):
            if entry is None:
                damaged.append(number)
            elif entry.key not in in_parts:
                entries.setdefault(entry.key, entry)
    return OpenStage(
        path=path,
        parts=sound,
        damaged_parts=tuple(part for part in parts if part not in sound),
        entries=tuple(entries.values()),
        damaged_lines=tuple(damaged),
        num_lines=number,
        done=in_parts.with_more(entries),
    )


def recover(path: Path) -> OpenStage:
    """Clear the folder of a stage without a manifest of what is half written or damaged."""
    with writing(path):
        for leftover in path.glob("*.tmp"):
            leftover.unlink()
        found = inspect(path)
        for damaged in found.damaged():
            _LOG.warning("%s: what it held is redone, all else is kept", damaged)
        for part in found.damaged_parts:
            part.unlink()
        if found.num_lines != len(found.entries):
            write_durably(path / JOURNAL, b"".join(entry.line for entry in found.entries))
    return found


def keyed_rows(path: Path, names: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield key and fields of every record in a stage's parts; of `names`, those that it has."""
    for part in parts_of(path):
        with _reading(part), pq.ParquetFile(part) as file:
            columns = [_KEY, *(name for name in file.schema_arrow.names if name in names)]
            for batch in file.iter_batches(columns=columns):
                yield from ((row.pop(_KEY), row) for row in batch.to_pylist())


def drop_keys(path: Path, keys: Collection[str]) -> None:
    """Drop keys from the parts of a stage without a manifest.

    What else those parts hold goes back to the journal, as if it had not been sealed. It is there
    before its part goes: a process that is killed in between leaves it in both, see `recover`.
    """
    journal = path / JOURNAL
    for part in parts_of(path):
        with _reading(part):
            rows = pq.read_table(part).to_pylist()
        kept = [row for row in rows if row[_KEY] not in keys]
        if len(kept) == len(rows):
            continue
        lines = [journal.read_bytes()] if journal.is_file() else []
        for key, records in groupby(kept, key=lambda row: str(row.pop(_KEY))):
            lines.append(journal_line(key, json.dumps(list(records)).encode()))
        write_durably(journal, b"".join(lines))
        with writing(part):
            part.unlink()


def parts_of(path: Path) -> tuple[Path, ...]:
    """Return the parts in a folder, in order. Raises ArtifactError for those of another kind."""
    parts = tuple(sorted(path.glob("part-*.parquet")))
    for part in parts:
        if not _PART_NAME.fullmatch(part.name):
            raise ArtifactError(
                f"{part} was written by an earlier midcourse: finish its stage with that one, or "
                f"delete {path} to make it again"
            )
    return parts


def _part_name(number: int, content: bytes) -> str:
    return f"part-{number:05d}-{hashlib.sha256(content).hexdigest()[:16]}.parquet"


def _free_number(parts: Iterable[Path]) -> int:
    """Return the lowest number that no part has: what replaces a damaged part takes its place."""
    taken = {int(part.name.split("-")[1]) for part in parts}
    return next(number for number in count() if number not in taken)


def _keys_of(parts: Iterable[Path]) -> Keys:
    return Keys(key for part in parts for key in _part_keys(part))


def _checksum_in(part: Path) -> str:
    """Return the digits of its checksum that a part's name holds."""
    return part.stem.split("-")[2]


class Keys:
    """A frozen set of texts at eight bytes each: membership by 64-bit hash.

    Among a million keys the chance that any foreign key seems to be in it is 1 in 10⁷.
    """

    def __init__(self, keys: Iterable[str], known: Iterable[int] = ()) -> None:
        self._hashes = array("Q", sorted({*known, *map(_hash64, keys)}))

    def with_more(self, keys: Iterable[str]) -> Keys:
        """Return these and more."""
        return Keys(keys, self._hashes)

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
    for damaged in damaged_files(path):
        raise ArtifactError(f"{damaged}: {_fix(path)}, or delete {path} and run again")
    for described in manifest["parts"]:
        part = path / described["file"]
        yield from _decode(record_type, _filled_rows(part, without), part)


def read_found(
    found: OpenStage, record_type: type[R], without: Collection[str] = ()
) -> Iterator[R]:
    """Stream what `inspect` found sound, parts first; `without` is as `read_stage` has it.

    Raises ArtifactError if it is not of this schema.
    """
    for part in found.parts:
        yield from _decode(record_type, _filled_rows(part, without), part)
    yield from _decode(record_type, (row for one in found.entries for row in one.rows), found.path)


def write_records(path: Path, records: Iterable[R], record_type: type[R]) -> None:
    """Write a Parquet file of its own; it is whole and on disk when this returns."""
    rows = list(map(TypeAdapter(record_type).dump_python, records))
    write_durably(path, _parquet(rows, _arrow_schema(record_type)))


def read_records(
    paths: Iterable[Path], record_type: type[R], without: Collection[str] = ()
) -> Iterator[R]:
    """Stream what `write_records` wrote; `without` is as `read_stage` has it.

    Raises ArtifactError if it is not of this schema.
    """
    for path in paths:
        with _reading(path):
            metadata = pq.read_schema(path).metadata or {}
            kind = json.loads(metadata.get(_KIND, b"{}"))
        _check_kind(path, kind, record_type)
        yield from _decode(record_type, _filled_rows(path, without), path)


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


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a complete training; whatever else it holds has to be on disk."""
    write_checked_json(path / MANIFEST, manifest)


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a complete stage or checkpoint.

    Raises ArtifactError if it is not what was written, or names a file outside its folder.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise ArtifactError(f"{path} is not complete (no {MANIFEST}): run its stage again")
    manifest = read_checked_json(file, _fix(path))
    if problem := misfit(manifest):
        raise ArtifactError(f"{file} {problem}: do not use {path}")
    return manifest


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file as a manifest lists it."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Manifest:
    """What is read of a manifest."""

    stage: str = ""
    label: str = ""
    key: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    num_records: int = 0
    parts: list[_Listed] = field(default_factory=list)
    files: list[_Listed] = field(default_factory=list)


def misfit(manifest: Mapping[str, Any]) -> str:
    """Return why a manifest with the right checksum is not one of ours; empty if it is."""
    try:
        TypeAdapter(_Manifest).validate_json(json.dumps(manifest), strict=True)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        return f"is not a manifest ({where}: {error.errors()[0]['msg']})"
    outside = (name for name in listed_in(manifest) if not is_inside(name))
    return next((f"names {name!r}, which is outside" for name in outside), "")


def listed_in(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return the files that a manifest lists, with their sizes."""
    listed = (*manifest.get("parts", ()), *manifest.get("files", ()))
    return {one["file"]: one["bytes"] for one in listed}


def is_inside(name: str) -> bool:
    """Whether a file of this name lies in the folder of the manifest that lists it.

    No name of ours has a line break in it, and errors are one line.
    """
    path = Path(name)
    return name.isprintable() and not path.is_absolute() and ".." not in path.parts


def missing_file(path: Path, manifest: Mapping[str, Any]) -> str:
    """Return what a manifest lists and is not there, or has another size; empty if nothing is."""
    for name, size in listed_in(manifest).items():
        file = path / name
        if not file.is_file() or file.stat().st_size != size:
            return f"{file} is missing or has not the size that was written: {_fix(path)}"
    return ""


def _fix(path: Path) -> str:
    """Say what re-queues a damaged artifact: a run directory holds ``<stage>/<key>``."""
    return f"run 'midcourse repair {path.parent.parent}'"


def _parquet(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged Parquet file raises in here into one line."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ArtifactError(f"{path} cannot be read ({reason}): {_fix(path.parent)}") from error


def _part_rows(path: Path, without: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    with _reading(path), pq.ParquetFile(path) as file:
        columns = [n for n in file.schema_arrow.names if n != _KEY and n not in without]
        for batch in file.iter_batches(batch_size=256, columns=columns):
            yield from batch.to_pylist()


def _filled_rows(path: Path, without: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows with what is not read as empty tuples."""
    empty: dict[str, Any] = dict.fromkeys(without, ())
    return ({**row, **empty} for row in _part_rows(path, without))


def _part_keys(path: Path) -> set[str]:
    with _reading(path):
        return set(pq.read_table(path, columns=[_KEY])[_KEY].to_pylist())


def _describe(part: Path) -> dict[str, Any]:
    """Return what a manifest says of a part. Raises ArtifactError if it is not what was written."""
    checksum = sha256_of(part) if part.is_file() else ""
    if not checksum.startswith(_checksum_in(part)):
        raise ArtifactError(
            f"{part} is not what was written: run the same command again, its records are redone"
        )
    return {
        "file": part.name,
        "sha256": checksum,
        "bytes": part.stat().st_size,
        "num_records": pq.read_metadata(part).num_rows,
    }


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
