"""Artifacts under fire: kills, damage, full disks, read-only mounts, several processes."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from killed_run import complete, content_of, differing, quick_report, write_inputs
from midcourse.errors import ArtifactError
from midcourse.report.status import status_table
from midcourse.run import package_versions
from midcourse.store.checksums import describe_files
from midcourse.store.files import write_json_atomic
from midcourse.store.index import complete_entries, read_index, write_index
from midcourse.store.journal import Journal, journal_line, read_journal
from midcourse.store.lock import Owner, RunLock
from midcourse.store.repair import check_run, repair_run
from midcourse.store.stage import StageStore, read_manifest, write_manifest

HERE = Path(__file__).parent


# --- kills and full disks -----------------------------------------------------------------------


def disturb(folder: Path, first: int, stride: int, how: str, *before: str) -> list[dict[str, Any]]:
    """Return what `killed_run` found at each place."""
    script = [sys.executable, str(HERE / "killed_run.py"), str(folder), str(first), str(stride)]
    command = [*before, *script, how]
    paths = os.pathsep.join(str(HERE.parents[1] / name) for name in ("src", "tests"))
    environment = {**os.environ, "PYTHONPATH": paths}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def assert_completed(found: list[dict[str, Any]]) -> None:
    assert len(found) > 1
    assert [one for one in found if one["again"] != [0, ""] or one["differs"]] == []


@pytest.mark.parametrize(("how", "first", "stride"), [("before", 1, 240), ("torn", 7, 130)])
def test_a_killed_run_is_completed_to_the_same_files(
    tmp_path: Path, how: str, first: int, stride: int
) -> None:
    found = disturb(tmp_path, first, stride, how)
    assert {one["status"] for one in found} == {137, 0}
    assert_completed(found)


@pytest.mark.faults
@pytest.mark.parametrize("how", ["before", "torn"])
@pytest.mark.parametrize("first", range(1, 9))
def test_a_run_killed_at_any_file_operation_is_completed_to_the_same_files(
    tmp_path: Path, how: str, first: int
) -> None:
    assert_completed(disturb(tmp_path, first, 8, how))


def mounted(folder: Path, options: str) -> tuple[str, ...]:
    """Return what stands before a command to give it a small file system of its own."""
    mount = f"mount -t tmpfs -o {options} tmpfs '{folder}' && exec \"$@\""
    prefix = ("unshare", "-rm", "sh", "-c", mount, "sh")
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("this system lets nobody mount a file system")
    return prefix


def check_full_disk(folder: Path, first: int, stride: int) -> None:
    found = disturb(folder, first, stride, "full", *mounted(folder, "size=3m"))
    assert_completed(found)
    for one in found[:-1]:
        assert one["status"] == 1, one
        assert "cannot write " in one["said"], one
        assert " bytes and " in one["said"], one
        assert "make room and run the same command again" in one["said"], one
        assert "\n" not in one["said"]
        assert not one["is_locked"]


def test_a_full_disk_is_one_line_and_costs_nothing(tmp_path: Path) -> None:
    check_full_disk(tmp_path, 0, 128)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(4))
def test_a_disk_full_at_any_level_is_one_line_and_costs_nothing(tmp_path: Path, first: int) -> None:
    check_full_disk(tmp_path, 2 * first, 8)


def check_limited_files(folder: Path, first: int, stride: int) -> None:
    found = disturb(folder, first, stride, "limit")
    assert_completed(found)
    for one in found[:-1]:
        assert one["status"] == 1, one
        assert "(File too large; " in one["said"], one
        assert "\n" not in one["said"]


def test_a_file_that_may_not_grow_is_one_line(tmp_path: Path) -> None:
    check_limited_files(tmp_path, 0, 45)


@pytest.mark.faults
def test_a_file_that_may_not_grow_anywhere_is_one_line(tmp_path: Path) -> None:
    check_limited_files(tmp_path, 1, 4)


# --- damage -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    """A run directory, and what a run that was never disturbed holds."""

    run_dir: Path
    content: dict[str, str]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Leave out what takes time and is not tested here: there is no power cut."""
    versions = package_versions()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        patched.setattr("midcourse.run.package_versions", lambda: versions)
        for name, stand_in in quick_report().items():
            patched.setattr(f"midcourse.report.write.{name}", stand_in)
        yield


@pytest.fixture(scope="module")
def whole(inputs: Path) -> Whole:
    complete(inputs, inputs / "whole")
    return Whole(inputs / "whole", content_of(inputs / "whole"))


@pytest.fixture(scope="module")
def begun(inputs: Path, whole: Whole) -> Whole:
    """A run that was stopped with a journal of 15 lines, a stage before it without a manifest."""
    append, seen = StageStore.append, []

    def counted(store: StageStore[Any], key: str, records: Any) -> None:
        append(store, key, records)
        seen.append(key)
        if len(seen) == 78:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StageStore, "append", counted)
        complete(inputs, inputs / "begun")
    (manifest,) = (inputs / "begun" / "cases").glob("*/manifest.json")
    manifest.unlink()
    (journal,) = (inputs / "begun").glob("*/*/journal.jsonl")
    assert len(journal.read_bytes().splitlines()) == 15
    return Whole(inputs / "begun", whole.content)


def copied(run: Whole, folder: Path) -> Path:
    return Path(shutil.copytree(run.run_dir, folder / "run"))


def core(cases: Iterable[Any], *named: Any) -> list[Any]:
    """Mark all cases but those named as too many for every day."""
    marks = {False: [pytest.mark.faults], True: []}
    return [pytest.param(case, marks=marks[case in named]) for case in cases]


def empty(content: bytes) -> bytes:
    return b""


def halve(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_the_last_byte(content: bytes) -> bytes:
    return content[:-3]


def flip_a_bit(content: bytes, seed: int = 7) -> bytes:
    at = random.Random(f"{seed}/{len(content)}").randrange(8 * len(content))
    return content[: at // 8] + bytes([content[at // 8] ^ 1 << at % 8]) + content[at // 8 + 1 :]


def zero_the_middle(content: bytes) -> bytes:
    third = len(content) // 3
    return content[:third] + bytes(third) + content[2 * third :]


def other(replacement: bytes) -> Callable[[bytes], bytes]:
    return lambda content: replacement


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": empty,
    "half": halve,
    "end cut": cut_the_last_byte,
    "flipped": flip_a_bit,
    "zeroed": zero_the_middle,
    "{}": other(b"{}"),
    "[]": other(b"[]"),
    "null": other(b"null"),
    "number": other(b"17"),
    "binary": other(bytes(range(256))),
    "deep": other(b"[" * 100_000),
    "other object": other(b'{"schema_version": 2, "record": "Rollout", "parts": 3}'),
}

#: Files of a finished run.
KINDS = {
    "part": "sample/*/part-*.parquet",
    "later part": "likelihood/*/part-*.parquet",
    "manifest": "grade/*/manifest.json",
    "recipe": "config.resolved.json",
    "index": "stages.json",
    "tables": "report/tables.json",
    "page": "report/report.html",
}


def damage(run_dir: Path, kind: str, how: Callable[[bytes], bytes] | None) -> Path:
    """Damage the first file of a kind; None deletes it."""
    file = sorted(run_dir.glob(KINDS[kind]))[0]
    if how is None:
        file.unlink()
    else:
        file.write_bytes(how(file.read_bytes()))
    return file


def go_on(inputs: Path, run_dir: Path, file: Path) -> None:
    """Run the command; if it refuses, it names the file and the repair, which helps.

    The index alone is put right before anything is done.
    """
    try:
        assert complete(inputs, run_dir) or file.name == "stages.json", "nothing to do over a hole"
    except ArtifactError as error:
        assert str(file) in str(error)
        assert f"midcourse repair {run_dir}" in str(error)
        assert "\n" not in str(error)
        assert str(file) in "".join(map(str, repair_run(run_dir)))
        complete(inputs, run_dir)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", core(DAMAGES, "empty", "half", "flipped", "[]"))
def test_a_damaged_file_of_a_finished_run_is_named_and_repaired(
    tmp_path: Path, inputs: Path, whole: Whole, kind: str, how: str
) -> None:
    run_dir = copied(whole, tmp_path)
    file = damage(run_dir, kind, DAMAGES[how])
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    (found,) = check_run(run_dir)
    assert found.file == file
    assert "\n" not in str(found)
    status_table(run_dir)
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    go_on(inputs, run_dir, file)
    assert differing(content_of(run_dir), whole.content) == []
    assert check_run(run_dir) == []
    assert not complete(inputs, run_dir)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_of_a_finished_run_is_made_again(
    tmp_path: Path, inputs: Path, whole: Whole, kind: str
) -> None:
    run_dir = copied(whole, tmp_path)
    go_on(inputs, run_dir, damage(run_dir, kind, None))
    assert differing(content_of(run_dir), whole.content) == []


@pytest.mark.parametrize("stage", ["sample", "report"])
def test_a_missing_folder_of_a_finished_run_is_made_again(
    tmp_path: Path, inputs: Path, whole: Whole, stage: str
) -> None:
    run_dir = copied(whole, tmp_path)
    shutil.rmtree(run_dir / stage)
    assert complete(inputs, run_dir)
    assert differing(content_of(run_dir), whole.content) == []


def flip_bits(
    tmp_path: Path, inputs: Path, run: Whole, pattern: str, seeds: range, blocks: bool
) -> None:
    """Flip one bit after another: each is noticed, and the same files come of it."""
    run_dir = copied(run, tmp_path)
    for seed in seeds:
        file = random.Random(seed).choice(sorted(run_dir.glob(pattern)))
        file.write_bytes(flip_a_bit(file.read_bytes(), seed))
        found = check_run(run_dir)
        assert [one.file for one in found] == [file], seed
        assert found[0].blocks == blocks
        if blocks:
            repair_run(run_dir)
        complete(inputs, run_dir)
        assert differing(content_of(run_dir), run.content) == [], seed
        if not blocks:
            shutil.rmtree(run_dir)
            copied(run, tmp_path)


@pytest.mark.parametrize("pattern", ["*/*/part-*.parquet", "*/*/manifest.json"])
def test_no_flipped_bit_of_a_finished_stage_passes(
    tmp_path: Path, inputs: Path, whole: Whole, pattern: str
) -> None:
    flip_bits(tmp_path, inputs, whole, pattern, range(6), blocks=True)


@pytest.mark.parametrize("pattern", ["*/*/journal.jsonl", "cases/*/part-*.parquet"])
def test_no_flipped_bit_of_a_stage_under_way_passes(
    tmp_path: Path, inputs: Path, begun: Whole, pattern: str
) -> None:
    flip_bits(tmp_path, inputs, begun, pattern, range(4), blocks=False)


@pytest.mark.faults
@pytest.mark.parametrize("start", range(0, 200, 50))
@pytest.mark.parametrize(
    "pattern", ["*/*/part-*.parquet", "*/*/manifest.json", "config.resolved.json"]
)
def test_none_of_many_flipped_bits_of_a_finished_run_passes(
    tmp_path: Path, inputs: Path, whole: Whole, pattern: str, start: int
) -> None:
    flip_bits(tmp_path, inputs, whole, pattern, range(start, start + 50), blocks=True)


@pytest.mark.faults
@pytest.mark.parametrize("start", range(0, 120, 40))
@pytest.mark.parametrize("pattern", ["*/*/journal.jsonl", "cases/*/part-*.parquet"])
def test_none_of_many_flipped_bits_of_a_stage_under_way_passes(
    tmp_path: Path, inputs: Path, begun: Whole, pattern: str, start: int
) -> None:
    flip_bits(tmp_path, inputs, begun, pattern, range(start, start + 40), blocks=False)


def damage_line(number: int, how: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        lines[number] = how(lines[number])
        return b"".join(lines)

    return change


def without(name: str) -> Callable[[bytes], bytes]:
    def change(line: bytes) -> bytes:
        entry = json.loads(line)
        del entry[name]
        return json.dumps(entry).encode() + b"\n"

    return change


def with_records(records: object) -> Callable[[bytes], bytes]:
    return lambda line: json.dumps({**json.loads(line), "records": records}).encode() + b"\n"


DEEP = b'{"key":"x","records":' + b"[" * 100_000 + b"\n"
JOURNAL_DAMAGES: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "last line torn": (lambda content: content[:-40], 1),
    "NULs at the end": (lambda content: content + bytes(4096), 0),
    "middle line torn": (damage_line(6, lambda line: line[:50]), 2),
    "middle line gone": (damage_line(6, lambda line: b""), 1),
    "lines doubled": (lambda content: content + content, 0),
    "line without its key": (damage_line(3, without("key")), 1),
    "line without records": (damage_line(3, without("records")), 1),
    "records a number": (damage_line(3, with_records(4)), 1),
    "a record without fields": (damage_line(3, with_records([{}])), 1),
    "nested too deep": (damage_line(3, lambda line: DEEP), 1),
    "empty": (empty, 15),
    "zeroed": (lambda content: bytes(len(content)), 15),
    "binary": (other(bytes(range(256)) * 9), 15),
}


@pytest.mark.parametrize("how", JOURNAL_DAMAGES)
@pytest.mark.parametrize("is_repaired", core([True, False], False))
def test_a_damaged_journal_costs_its_damaged_lines(
    tmp_path: Path, inputs: Path, begun: Whole, how: str, is_repaired: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run_dir = copied(begun, tmp_path)
    (journal,) = run_dir.glob("*/*/journal.jsonl")
    content = journal.read_bytes()
    change, num_lost = JOURNAL_DAMAGES[how]
    num_there = len(content.splitlines())
    journal.write_bytes(change(content))
    is_damage = how not in ("empty", "middle line gone", "lines doubled")
    assert [one.file for one in check_run(run_dir)] == [journal] * is_damage
    if is_repaired and is_damage:
        repair_run(run_dir)
        assert len(journal.read_bytes().splitlines()) == num_there - num_lost
    kept = []
    recover = StageStore._recover

    def noted(store: StageStore[Any]) -> Any:
        opened = recover(store)
        kept.append((store.path, len(store.done)))
        return opened

    monkeypatch.setattr(StageStore, "_recover", noted)
    complete(inputs, run_dir)
    assert (journal.parent, num_there - num_lost) in kept
    assert differing(content_of(run_dir), begun.content) == []


@pytest.mark.parametrize("how", core([None, *DAMAGES], None, "empty", "half", "flipped"))
def test_a_part_without_a_manifest_is_redone_alone_when_damaged(
    tmp_path: Path, inputs: Path, begun: Whole, how: str | None
) -> None:
    run_dir = copied(begun, tmp_path)
    (part,) = run_dir.glob("cases/*/part-*.parquet")
    if how is None:
        part.unlink()
    else:
        part.write_bytes(DAMAGES[how](part.read_bytes()))
        assert [one.file for one in check_run(run_dir)] == [part]
    complete(inputs, run_dir)
    assert differing(content_of(run_dir), begun.content) == []


def test_a_repair_asks_again_for_the_damaged_part_alone(
    tmp_path: Path, inputs: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = copied(whole, tmp_path)
    damage(run_dir, "part", flip_a_bit)
    repair_run(run_dir)
    opened, recover = [], StageStore._recover

    def noted(store: StageStore[Any]) -> Any:
        opened.append(store.path.parent.name)
        return recover(store)

    monkeypatch.setattr(StageStore, "_recover", noted)
    complete(inputs, run_dir)
    assert opened == ["sample"]


def test_a_damaged_model_is_trained_again_and_a_damaged_manifest_is_not(
    tmp_path: Path, whole: Whole
) -> None:
    run_dir = copied(whole, tmp_path)
    for name in ("model", "manifest"):
        folder = run_dir / "checkpoints" / name
        (folder / "final").mkdir(parents=True)
        for file in ("job.json", "final/model.safetensors"):
            (folder / file).write_text("x" * 100)
        files = describe_files(folder, [folder / "final" / "model.safetensors"])
        manifest = {"stage": "checkpoints", "label": name, "key": name, "files": files}
        write_manifest(folder, manifest)
    write_index(run_dir, read_index(run_dir).entries | complete_entries(run_dir))
    assert check_run(run_dir) == []
    model = run_dir / "checkpoints" / "model" / "final" / "model.safetensors"
    model.write_bytes(flip_a_bit(model.read_bytes()))
    manifest_file = run_dir / "checkpoints" / "manifest" / "manifest.json"
    manifest_file.write_bytes(manifest_file.read_bytes().replace(b"checkpoints", b"chickpoints"))
    assert [str(found) for found in repair_run(run_dir)] == [
        f"{manifest_file} is not what was written: written again",
        f"{model} is not what was written: the model is trained again",
    ]
    left = sorted(path.name for path in (run_dir / "checkpoints").rglob("*") if path.is_file())
    assert left == ["job.json", "model.safetensors"]


def test_one_damaged_folder_hides_no_other_from_status(tmp_path: Path, whole: Whole) -> None:
    run_dir = copied(whole, tmp_path)
    sound = status_table(run_dir).rows
    damage(run_dir, "manifest", halve)
    rows = status_table(run_dir).rows
    assert [row[3] for row in rows].count("damaged") == 1
    assert len([row for row in rows if row in sound]) == len(sound) - 1


def test_the_command_checks_and_repairs(tmp_path: Path, whole: Whole) -> None:
    run_dir = copied(whole, tmp_path)
    file = damage(run_dir, "part", halve)
    (run_dir / "stages.json").write_text("{")

    def repair(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "midcourse", "repair", str(run_dir), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    checked = repair("--check")
    assert checked.returncode == 1
    assert f"{file} has " in checked.stdout
    assert "stages.json is damaged (not JSON): written again" in checked.stdout
    assert file.is_file()
    repaired = repair()
    assert (repaired.returncode, repaired.stderr.count("\n")) == (0, 1)
    assert not file.exists()
    assert "nothing is damaged" in repair("--check").stdout
    with pytest.raises(ArtifactError, match="is not a run directory: it holds no resolved recipe"):
        repair_run(tmp_path)


@pytest.mark.parametrize("name", ["../../../outside.parquet", "/etc/passwd", "final/../../x"])
def test_a_manifest_that_names_a_file_outside_is_refused(
    tmp_path: Path, inputs: Path, whole: Whole, name: str
) -> None:
    run_dir = copied(whole, tmp_path)
    folder = next((run_dir / "sample").iterdir())
    manifest = read_manifest(folder)
    manifest["parts"][0]["file"] = name
    write_manifest(folder, manifest)
    with pytest.raises(ArtifactError, match="outside"):
        complete(inputs, run_dir)


# --- places that cannot be written --------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "make room and run the same command again"),
        (errno.EDQUOT, "make room and run the same command again"),
        (errno.EFBIG, "make room and run the same command again"),
        (errno.EROFS, "make it writable, or use another --run-dir"),
        (errno.EACCES, "make it writable, or use another --run-dir"),
        (errno.ENAMETOOLONG, "use another --run-dir"),
        (errno.ENOENT, "its folder was removed, run the same command again"),
        (errno.EIO, "nothing was lost, run the same command again"),
    ],
)
def test_what_the_system_refuses_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, number: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json_atomic(tmp_path / "x.json", {"old": True})

    def refuse(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:4])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(ArtifactError) as refused:
        write_json_atomic(tmp_path / "x.json", {"new": True})
    start = f"{tmp_path}/x.json: cannot write 17 bytes ({os.strerror(number)}"
    assert str(refused.value).startswith(start)
    assert str(refused.value).endswith(said)
    assert ("files are free there" in str(refused.value)) == ("make room" in said)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert json.loads((tmp_path / "x.json").read_text()) == {"old": True}


def test_half_a_line_that_found_no_room_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(journal_line("a", b"[1]"))

    class Full:
        """A file with room for ten bytes more."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 10

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, content: bytes) -> int:
            if not self.room:
                raise OSError(errno.EDQUOT, "Disk quota exceeded")
            written, self.room = self.file.write(content[: self.room]), 0
            return int(written)

    file = journal._file
    monkeypatch.setattr(journal, "_file", Full(file))
    with pytest.raises(ArtifactError, match=r"cannot write 47 bytes \(Disk quota exceeded; "):
        journal.append(journal_line("b", b"[1,2,3]"))
    monkeypatch.setattr(journal, "_file", file)
    journal.append(journal_line("c", b"[2]"))
    journal.close()
    entries = list(read_journal(tmp_path / "journal.jsonl"))
    assert [entry and entry.key for entry in entries] == ["a", "c"]


def test_a_run_directory_that_is_a_file_is_one_line(tmp_path: Path, inputs: Path) -> None:
    (tmp_path / "file").touch()
    for run_dir in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(ArtifactError, match="use another --run-dir") as refused:
            complete(inputs, run_dir)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("number", [3, 30, 60])
def test_a_directory_that_is_deleted_meanwhile_is_one_line(
    tmp_path: Path, inputs: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, seen = StageStore.append, []

    def deleting(store: StageStore[Any], key: str, records: Any) -> None:
        append(store, key, records)
        seen.append(key)
        if len(seen) == number:
            shutil.rmtree(tmp_path / "run")

    with monkeypatch.context() as patched, pytest.raises(ArtifactError) as refused:
        patched.setattr(StageStore, "append", deleting)
        complete(inputs, tmp_path / "run")
    assert str(tmp_path / "run") in str(refused.value)
    assert "\n" not in str(refused.value)
    complete(inputs, tmp_path / "run")


def test_a_finished_run_on_a_read_only_mount_is_reported(
    tmp_path: Path, inputs: Path, whole: Whole
) -> None:
    run_dir = copied(whole, tmp_path)
    bind = f"mount --bind '{tmp_path}' '{tmp_path}' && mount -o remount,bind,ro '{tmp_path}'"
    prefix = ["unshare", "-rm", "sh", "-c", f'{bind} && exec "$@"', "sh"]
    mounted(tmp_path, "size=1m")
    script = (
        "import sys; from pathlib import Path; import killed_run;"
        "from midcourse.report import write; write.draw_figures = lambda data: {};"
        "inputs, run_dir = map(Path, sys.argv[1:]);"
        "print('something to do:', killed_run.complete(inputs, run_dir));"
        "killed_run.is_reported = lambda run_dir: False;"
        "killed_run.complete(inputs, run_dir);"
        "killed_run.complete(inputs, run_dir.parent / 'new')"
    )
    result = subprocess.run(
        [*prefix, sys.executable, "-c", script, str(inputs), str(run_dir)], capture_output=True,
        text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
    )  # fmt: skip
    assert "something to do: False" in result.stdout
    assert "cannot be written: no report.html was made" in " ".join(result.stdout.split())
    assert "Read-only file system): make it writable, or use another" in result.stderr


# --- locks --------------------------------------------------------------------------------------

DEAD = {"host": os.uname().nodename, "pid": 2**22 + 1, "born": "", "since": ""}


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", "4711", "pid 4711", "\x00", "[" * 100_000,
                '{"host": 1, "pid": "x", "born": "", "since": ""}',
                '{"host": "h", "pid": 0, "born": "", "since": ""}'],
)  # fmt: skip
def test_a_lock_that_names_nobody_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    with RunLock(tmp_path):
        owner = Owner.of(tmp_path / ".lock")
        assert owner is not None
        assert owner.pid == os.getpid()


def test_without_locks_of_the_system_the_file_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".lock").write_text(json.dumps(DEAD))
    with RunLock(tmp_path):
        assert "this file system has no locks" in caplog.text
        with pytest.raises(ArtifactError, match=f"in use by process {os.getpid()} on "):
            RunLock(tmp_path).__enter__()
    assert not (tmp_path / ".lock").exists()


def test_the_lock_of_another_host_is_left_alone(tmp_path: Path) -> None:
    owner = {"host": "elsewhere", "pid": 7, "born": "", "since": "2026-01-01"}
    (tmp_path / ".lock").write_text(json.dumps(owner))
    with pytest.raises(ArtifactError, match=r"process 7 on elsewhere since 2026.*delete .*\.lock"):
        RunLock(tmp_path).__enter__()
    assert json.loads((tmp_path / ".lock").read_text()) == owner


def test_a_second_process_is_refused_and_a_killed_one_is_not_waited_for(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from midcourse.store.lock import RunLock;"
        "RunLock(Path(sys.argv[1])).__enter__(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ArtifactError, match=f"in use by process {holder.pid} on .* since 2"):
            RunLock(tmp_path).__enter__()
        holder.kill()
    with RunLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


STALE = [None, "", json.dumps(DEAD)]


def race(folder: Path, barrier: Barrier, num_rounds: int, is_first: bool, results: Any) -> None:
    """Meet one stale lock with others at the same moment, hold it or go; say who got in."""
    won, clashes = [], 0
    for number in range(num_rounds):
        stale = STALE[number % len(STALE)]
        if is_first and stale is not None:
            (folder / ".lock").write_text(stale)
        barrier.wait()
        lock, got_in = RunLock(folder), True
        try:
            lock.__enter__()
        except ArtifactError:
            got_in = False
        won.append(got_in)
        barrier.wait()
        if got_in:
            lock.__exit__()
        barrier.wait()
        for _ in range(5):  # Now with locks that come and go.
            try:
                with RunLock(folder):
                    os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
                    (folder / "inside").unlink()
            except FileExistsError:
                clashes += 1
            except ArtifactError:
                continue
    results.put((won, clashes))


def run_race(folder: Path, num_rounds: int) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    racers = [
        context.Process(target=race, args=(folder, barrier, num_rounds, number == 0, results))
        for number in range(4)
    ]
    for racer in racers:
        racer.start()
    found = [results.get(timeout=250) for _ in racers]
    for racer in racers:
        racer.join()
    assert sum(clashes for _, clashes in found) == 0
    assert [sum(winners) for winners in zip(*(won for won, _ in found), strict=True)] == [
        1
    ] * num_rounds


def test_a_stale_lock_is_taken_over_by_exactly_one(tmp_path: Path) -> None:
    run_race(tmp_path, 30)


@pytest.mark.faults
def test_a_stale_lock_is_taken_over_by_exactly_one_each_time(tmp_path: Path) -> None:
    run_race(tmp_path, 300)
