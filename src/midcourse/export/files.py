"""Writes files for other projects: Parquet, JSON, and the texts kept in ``templates/``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_parquet(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of plain values, at least one; the columns are those of the first row."""
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path, compression="zstd")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write one object per line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_json(path: Path, data: object) -> None:
    """Write one indented JSON file."""
    path.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", "utf-8")


def template(name: str) -> str:
    """Return one of the packaged files."""
    return (resources.files("midcourse.export") / "templates" / name).read_text("utf-8")


def copy_file(name: str, path: Path) -> None:
    """Copy one of the packaged files to `path`."""
    path.write_text(template(name), "utf-8")
