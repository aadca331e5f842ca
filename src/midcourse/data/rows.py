"""Rows of a file or of a Hugging Face data set, as they stand: no field means anything here.

A place is a file (``.jsonl``, ``.json``, ``.csv``, ``.parquet``; a path may start with
``$MIDCOURSE_DATA``), a data set, ``hub:OWNER/NAME[:CONFIG][@SPLIT]``, or a user's own function
(`own_rows`); for ``OWNER/NAME`` a folder that `datasets` can read does as well. A JSON number stays
as it was written.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from midcourse.errors import DataError, MissingExtra
from midcourse.plugins import load_path

HUB = "hub:"
_DATA_FOLDER = "$MIDCOURSE_DATA"
_DATA_SET = re.compile(r"hub:(?P<name>[^:@]+)(?::(?P<config>[^:@]+))?(?:@(?P<split>[^:@]+))?")
_KINDS = (".jsonl", ".json", ".csv", ".parquet")
#: Solutions in a CSV cell are longer than the module's default of 128 KiB.
_MAX_CELL_CHARS = 10_000_000


class Number(str):
    """A JSON number, as it was written."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row, e.g. where ``"p.jsonl:3"``, or the complaint that stands for it."""

    where: str
    fields: dict[str, Any]
    complaint: str = ""
    columns: tuple[str, ...] = ()
    """Of a table with a header all its columns, also those that are empty here."""


def is_hub(place: str | Path) -> bool:
    """Whether a place is a data set, not a file."""
    return str(place).startswith(HUB)


def read_rows(place: str | Path) -> Iterator[RawRow]:
    """Yield the rows of a file or data set. Raises DataError if it cannot be opened."""
    if is_hub(place):
        yield from _read_hub(str(place))
        return
    file = find_data(place)
    if file.suffix == ".parquet":
        yield from _read_parquet(file)
    elif file.suffix == ".csv":
        yield from _read_csv(file)
    elif file.suffix == ".json":
        yield from _read_json(file)
    else:
        yield from _read_jsonl(file)


def find_data(
    path: str | Path,
    hint: str = "give a .jsonl, .json, .csv or .parquet file, hub:OWNER/NAME or a known source",
) -> Path:
    """Return the file of `path`. Raises DataError that ends in `hint`."""
    root, data, rest = "", "", str(path)
    if rest.startswith(_DATA_FOLDER):
        root, rest = os.environ.get("MIDCOURSE_DATA", ""), rest.removeprefix(_DATA_FOLDER)
        if not root:
            raise DataError(f"{path}: MIDCOURSE_DATA is not set: set it to the folder of your data")
        data = f" (MIDCOURSE_DATA is {root!r})"
    file = Path(root + rest).expanduser()
    if file.is_dir():
        raise DataError(f"{file}: is a folder: give a file in it, or hub:{file} for a data set")
    if not file.is_file():
        raise DataError(f"{file}: no such file{data}: {hint}")
    return file


def own_rows(path: str) -> Iterator[RawRow]:
    """Yield the rows of a user's own function, ``package.module:function``: dictionaries.

    Raises DataError if it is none or fails.
    """
    function = load_path(path, "problems.path").value
    try:
        for number, fields in enumerate(function(), start=1):
            where = f"{path}:row {number}"
            if isinstance(fields, dict):
                yield RawRow(where, _named_numbers(fields))
            else:
                yield RawRow(where, {}, 'not a dictionary: yield {"problem": "…", "answer": "…"}')
    except Exception as error:  # whatever a user's function does
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(f"{path}: fails: {what}") from error


def _read_jsonl(file: Path) -> Iterator[RawRow]:
    """Yield the rows of a file; blank lines are passed over."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _row(f"{file}:{number}", *_parsed(line))


def _row(where: str, value: object, complaint: str = "") -> RawRow:
    if isinstance(value, dict):
        return RawRow(where, value)
    return RawRow(where, {}, complaint or 'not an object: write {"problem": "…", "answer": "…"}')


def _parsed(text: bytes) -> tuple[object, str]:
    """Return what the JSON says, or nothing and the complaint about it."""
    try:
        # The byte-order mark that some editors write in front of a file is not an error.
        value = json.loads(
            text.decode("utf-8-sig"), parse_int=Number, parse_float=Number, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        return None, f"not JSON in UTF-8 ({error}): write one object per line"
    return value, ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def _read_json(file: Path) -> Iterator[RawRow]:
    """Yield the objects of one JSON array."""
    value, complaint = _parsed(file.read_bytes())
    if not isinstance(value, list):
        raise DataError(f"{file}: {complaint or 'not an array'}: write [{{…}}, …], or use .jsonl")
    yield from (_row(f"{file}:item {index}", item) for index, item in enumerate(value, start=1))


def _read_csv(file: Path) -> Iterator[RawRow]:
    limit = csv.field_size_limit(_MAX_CELL_CHARS)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            names = tuple(rows.fieldnames or ())
            for number, row in enumerate(rows, start=1):
                # Cells beyond the header stand under None: they have no name.
                fields = {name: cell for name, cell in row.items() if name is not None and cell}
                yield RawRow(f"{file}:row {number}", fields, columns=names)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not CSV in UTF-8 ({error})") from error
    finally:
        csv.field_size_limit(limit)


def _read_parquet(file: Path) -> Iterator[RawRow]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        batches = (batch.to_pylist() for batch in ParquetFile(file).iter_batches())
        for number, fields in enumerate(chain.from_iterable(batches), start=1):
            yield RawRow(f"{file}:row {number}", _named_numbers(fields))
    except ArrowException as error:
        raise DataError(f"{file}: not a Parquet file ({error})") from error


def _read_hub(place: str) -> Iterator[RawRow]:
    found = _DATA_SET.fullmatch(place)
    if found is None:
        raise DataError(f"{place}: write hub:OWNER/NAME, hub:OWNER/NAME:CONFIG or …@SPLIT")
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetNotFoundError
    except ImportError as error:
        raise MissingExtra("datasets", "train") from error
    split = found["split"] or "train"
    try:
        rows = load_dataset(found["name"], found["config"], split=split)
    except (DatasetNotFoundError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{place}: cannot be loaded: {reason}") from error
    for number, fields in enumerate(rows, start=1):
        yield RawRow(f"{place}:row {number}", _named_numbers(fields))


def _named_numbers(fields: dict[str, Any]) -> dict[str, Any]:
    """Mark the numbers of typed columns as what JSON would have marked them."""
    return {
        name: Number(value) if isinstance(value, int | float) and type(value) is not bool else value
        for name, value in fields.items()
    }
