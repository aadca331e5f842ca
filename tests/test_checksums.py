"""Checksums: what is not as it was written is named, and nothing else is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from midcourse.store import checksums
from midcourse.store.checksums import DamagedFile, damaged_files, describe_files, sha256_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete folder of three files."""
    (tmp_path / "final").mkdir()
    for name in ("final/model.safetensors", "final/config.json", "grades.parquet"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": describe_files(tmp_path, files)}))
    return tmp_path


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 64
    file.write_bytes(content)
    later(file)


def later(file: Path) -> None:
    """Let a file have been changed a second later: a file system's clock may be coarse."""
    changed = file.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(changed, changed))


def truncate(file: Path) -> None:
    os.truncate(file, 100)


def test_a_folder_as_it_was_written_is_not_damaged(folder: Path) -> None:
    assert damaged_files(folder) == []
    (folder / "worker.log").write_text("what nobody listed may come and go")
    assert damaged_files(folder) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "is not what was written"),
        (truncate, "has 100 bytes, not 2,300"),
        (Path.unlink, "is missing"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, damage: Callable[[Path], None], said: str) -> None:
    assert damaged_files(folder) == []
    model = folder / "final" / "model.safetensors"
    damage(model)
    assert damaged_files(folder) == [DamagedFile(model, said)]
    assert damaged_files(folder, within="final") == [DamagedFile(model, said)]
    assert damaged_files(folder, within="step-000001") == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"files": 3}',
        '{"files": [{}]}',
        '{"files": [{"file": "grades.parquet", "bytes": "many", "sha256": ""}]}',
    ],
)
def test_a_damaged_manifest_is_named(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    assert damaged_files(folder) == [DamagedFile(folder / "manifest.json", "cannot be read")]
    (folder / "manifest.json").unlink()
    assert damaged_files(folder) == [DamagedFile(folder / "manifest.json", "is missing")]


def test_the_parts_of_a_stage_count_too(folder: Path) -> None:
    files = [folder / "grades.parquet"]
    manifest = {"parts": describe_files(folder, files)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert damaged_files(folder) == []
    flip(files[0])
    assert [one.path for one in damaged_files(folder)] == files


def test_a_file_is_read_once_per_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256_of(path)

    monkeypatch.setattr(checksums, "sha256_of", counted)
    for file in folder.rglob("*"):
        later(file)
    for _ in range(3):
        damaged_files(folder)
    assert len(read) == 3


def test_a_file_that_has_not_changed_since_its_manifest_need_not_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = folder / "final" / "model.safetensors"
    later(folder / "manifest.json")
    flip(model)
    os.utime(model, ns=(0, 0))
    assert damaged_files(folder, changed_only=True) == []
    later(folder / "manifest.json")
    os.utime(model)
    later(model)
    later(model)
    later(model)
    assert [one.path for one in damaged_files(folder, changed_only=True)] == [model]
    truncate(model)
    os.utime(model, ns=(0, 0))
    assert [one.path for one in damaged_files(folder, changed_only=True)] == [model]
