from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, make_dataclass, replace
from pathlib import Path
from typing import get_type_hints
from unittest.mock import ANY

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from midcourse.errors import ArtifactError
from midcourse.records import (
    Condition,
    FinishReason,
    GroupCount,
    Proposal,
    ProposalOutcome,
    Rollout,
    Sampling,
    SftRow,
    Turn,
)
from midcourse.store.journal import read_journal
from midcourse.store.lock import RunLock
from midcourse.store.stage import (
    StageStore,
    read_manifest,
    read_records,
    read_stage,
    write_manifest,
    write_records,
)

SAMPLING = Sampling(
    temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, max_tokens=9
)


def rollout(number: int, text: str = "a\n\nb ∀ \u2028") -> Rollout:
    return Rollout(
        rollout_id=f"r{number:04d}",
        problem_id="p",
        index=number,
        condition=Condition.PROBLEM,
        parent_id=None,
        prompt_sha="s",
        prompt_tokens=3,
        text=text,
        token_ids=(1, 2, number),
        num_tokens=3,
        finish_reason=FinishReason.STOP,
        model="base",
        sampling=SAMPLING,
        seed=2**31 - 1,
    )


def proposal(number: int) -> Proposal:
    return Proposal(
        proposal_id=f"q{number}",
        problem_id="p",
        rollout_id="r",
        index=0,
        item=number,
        proposer="base",
        outcome=ProposalOutcome.ACCEPTED,
        detail="",
        error_step=None,
        location=2,
        intervention="So.\n\n",
        after_error=False,
        leaks_substring=None,
        turns=(Turn(prompt="x", reply="", finish_reason=FinishReason.LENGTH),),
        prompt_name="lab/single_turn",
        prompt_sha="s",
    )


def fill(path: Path, numbers: list[int], part_records: int = 4) -> StageStore[Rollout]:
    store = StageStore(path, Rollout, part_records=part_records)
    for number in numbers:
        store.append(f"r{number:04d}", [rollout(number)])
    return store


def test_records_come_back_as_they_went_in(tmp_path: Path) -> None:
    with StageStore(tmp_path, Proposal) as store:
        store.append("a", [proposal(1), proposal(2)])
        store.append("nothing", [])
        assert list(store.read()) == [proposal(1), proposal(2)]
        store.seal({"counts": {}})
    assert list(read_stage(tmp_path, Proposal)) == [proposal(1), proposal(2)]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_part_from_before_a_field_was_added_is_read(tmp_path: Path) -> None:
    added = "guided_verdict"
    before = make_dataclass(
        "Proposal",
        [(name, hint) for name, hint in get_type_hints(Proposal).items() if name != added],
        kw_only=True,
    )
    fields = asdict(proposal(1))
    old = before(**{name: fields[name] for name in fields if name != added} | {"turns": ()})
    write_records(tmp_path / "old.parquet", [old], before)
    assert added not in pq.read_schema(tmp_path / "old.parquet").names
    (read,) = read_records([tmp_path / "old.parquet"], Proposal)
    assert read == replace(proposal(1), turns=())


def test_the_manifest_is_last_and_says_what_is_there(tmp_path: Path) -> None:
    store = fill(tmp_path, list(range(10)))
    with pytest.raises(ArtifactError, match="not complete"):
        read_manifest(tmp_path)
    store.seal({"seed": 3})
    manifest = read_manifest(tmp_path)
    assert (manifest["num_records"], manifest["seed"]) == (10, 3)
    assert [part["num_records"] for part in manifest["parts"]] == [4, 4, 2]
    with StageStore(tmp_path, Rollout) as again:
        assert again.is_complete


def test_arrival_order_does_not_change_what_is_sealed(tmp_path: Path) -> None:
    fill(tmp_path / "a", [3, 1, 2, 0], 100).seal({})
    fill(tmp_path / "b", [0, 1, 2, 3], 100).seal({})
    assert read_manifest(tmp_path / "a")["parts"] == read_manifest(tmp_path / "b")["parts"]


def group(number: int) -> GroupCount:
    return GroupCount(
        iteration=number, problem_id="∀ \u2028", num_correct=0, num_incorrect=8, num_ungraded=0
    )


def test_a_truncated_last_line_is_redone_at_every_byte(tmp_path: Path) -> None:
    with StageStore(tmp_path, GroupCount) as store:
        for number in range(2):
            store.append(f"g{number}", [group(number)])
    whole = (tmp_path / "journal.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    assert len(whole) - first > 100
    for cut in range(first, len(whole)):
        (tmp_path / "journal.jsonl").write_bytes(whole[:cut])
        with StageStore(tmp_path, GroupCount) as store:
            assert list(map(store.done.__contains__, ("g0", "g1"))) == [True, False]
            store.append("g1", [group(1)])
            assert list(store.read()) == [group(0), group(1)]


def test_a_crash_between_part_and_journal_doubles_nothing(tmp_path: Path) -> None:
    store = fill(tmp_path, [0, 1, 2], 100)
    journal = (tmp_path / "journal.jsonl").read_bytes()
    store._roll()
    store.close()
    (tmp_path / "journal.jsonl").write_bytes(journal)
    with StageStore(tmp_path, Rollout) as again:
        assert list(again.read()) == [rollout(0), rollout(1), rollout(2)]
        again.seal({})
    assert read_manifest(tmp_path)["num_records"] == 3


def test_a_part_is_on_disk_before_its_journal_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path, [0, 1], 100)
    whole = (tmp_path / "journal.jsonl").stat().st_size
    happened = record_durability(monkeypatch, tmp_path)
    store._roll()
    (part,) = tmp_path.glob("part-00000-*.parquet")
    assert happened == [
        ("fsync", f"{part.name}.tmp", whole),
        ("replace", part.name, whole),
        ("fsync", tmp_path.name, whole),
    ]
    assert (tmp_path / "journal.jsonl").stat().st_size == 0
    happened.clear()
    store.seal({})
    assert happened == [
        ("fsync", "manifest.json.tmp", None),
        ("replace", "manifest.json", None),
        ("fsync", tmp_path.name, None),
    ]


def test_a_part_that_cannot_reach_the_disk_leaves_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path, [0, 1], 100)

    def fail(handle: int) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(ArtifactError, match="nothing was lost"):
            store._roll()
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob("*.parquet"))
    assert list(store.read()) == [rollout(0), rollout(1)]
    store.append("r0002", [rollout(2)])
    store.seal({})
    assert list(read_stage(tmp_path, Rollout)) == [rollout(0), rollout(1), rollout(2)]


Event = tuple[str, str, int | None]


def record_durability(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[Event]:
    """Note every fsync and rename with the size of the journal at that moment, if there is one."""
    happened: list[Event] = []
    fsync, replace = os.fsync, Path.replace

    def note(what: str, name: str) -> None:
        journal = path / "journal.jsonl"
        happened.append((what, name, journal.stat().st_size if journal.is_file() else None))

    def noting_fsync(handle: int) -> None:
        fsync(handle)
        named = [path, *path.iterdir()]
        note("fsync", next(p.name for p in named if p.stat().st_ino == os.fstat(handle).st_ino))

    def noting_replace(source: Path, target: Path) -> Path:
        note("replace", target.name)
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    return happened


def test_a_complete_stage_takes_nothing_more(tmp_path: Path) -> None:
    sealed = fill(tmp_path, [0, 1])
    sealed.seal({})
    with StageStore(tmp_path, Rollout) as again:
        for store in (sealed, again):
            with pytest.raises(ArtifactError, match="is complete"):
                store.append("r0002", [rollout(2)])
            with pytest.raises(ArtifactError, match="is complete"):
                store.seal({})
        assert list(again.read()) == [rollout(0), rollout(1)]
        assert [k in again.done for k in ("r0000", "r0001", "r0002")] == [True, True, False]
    assert not (tmp_path / "journal.jsonl").exists()


def test_a_complete_stage_opens_without_reading_its_parts(tmp_path: Path) -> None:
    fill(tmp_path, list(range(10))).seal({})
    for part in tmp_path.glob("*.parquet"):
        part.write_bytes(b"")
    with StageStore(tmp_path, Rollout) as store:
        assert store.is_complete
        with pytest.raises(ArtifactError, match=r"cannot be read.*midcourse repair"):
            len(store.done)


def test_what_is_done_is_what_was_there_at_the_start(tmp_path: Path) -> None:
    fill(tmp_path, list(range(6)), part_records=4).close()
    with StageStore(tmp_path, Rollout, part_records=4) as store:
        for number in range(6, 12):
            store.append(f"r{number:04d}", [rollout(number)])
        assert [n for n in range(12) if f"r{n:04d}" in store.done] == list(range(6))
        assert len(store.done) == 6


def test_files_of_records_come_back_and_name_what_they_hold(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.parquet" for name in "ab"]
    write_records(paths[0], [rollout(3), rollout(1)], Rollout)
    write_records(paths[1], [], Rollout)
    assert list(read_records(paths, Rollout)) == [rollout(3), rollout(1)]
    assert sorted(tmp_path.iterdir()) == paths
    with pytest.raises(ArtifactError, match=r"a\.parquet holds Rollout of schema 2, wanted SftRow"):
        list(read_records(paths, SftRow))
    pq.write_table(pa.table({"x": [1]}), paths[1])
    with pytest.raises(ArtifactError, match="holds None"):
        list(read_records(paths, Rollout))


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, [0, 1]).seal({})
    (part,) = tmp_path.glob("part-*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"part-00000.*midcourse repair.*or delete"):
        list(read_stage(tmp_path, Rollout))


def test_no_flipped_bit_of_a_journal_passes_for_a_record(tmp_path: Path) -> None:
    with StageStore(tmp_path, GroupCount) as store:
        for number in range(3):
            store.append(f"g{number}", [group(number)])
    journal = tmp_path / "journal.jsonl"
    whole = journal.read_bytes()
    for bit in range(0, 8 * len(whole), 7):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        journal.write_bytes(damaged)
        entries = [entry for entry in read_journal(journal) if entry is not None]
        assert len(entries) in (1, 2), bit  # A line break that is gone costs two lines.
        assert {entry.line for entry in entries} < set(whole.splitlines(keepends=True))


@pytest.mark.parametrize("lose", [lambda line: line[:30] + b"?" + line[31:], lambda line: b""])
def test_a_journal_that_changes_under_a_store_is_never_sealed(
    tmp_path: Path, lose: Callable[[bytes], bytes]
) -> None:
    store = fill(tmp_path, [0, 1, 2], 100)
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(lines[0] + lose(lines[1]) + lines[2])
    with pytest.raises(ArtifactError, match="2 sound records of 3 that were written: run the same"):
        store.seal({})
    store.close()
    with fill(tmp_path, [1], 100) as again:
        again.seal({})
    assert [r.index for r in read_stage(tmp_path, Rollout)] == [0, 1, 2]


def test_a_part_that_changes_under_a_store_is_never_sealed(tmp_path: Path) -> None:
    store = fill(tmp_path, [0, 1, 2], 2)
    (part,) = tmp_path.glob("part-*.parquet")
    part.write_bytes(b"PAR1" + part.read_bytes()[4:-1] + b"2")
    with pytest.raises(ArtifactError, match=r"part-00000.*run the same command again"):
        store.seal({})
    store.close()
    assert not (tmp_path / "manifest.json").exists()


def test_what_replaces_a_damaged_part_takes_its_place(tmp_path: Path) -> None:
    fill(tmp_path / "whole", list(range(9)), 3).seal({})
    fill(tmp_path / "damaged", list(range(9)), 3).close()
    parts = sorted((tmp_path / "damaged").glob("part-*.parquet"))
    parts[1].write_bytes(b"")
    with fill(tmp_path / "damaged", [5, 3, 4], 100) as again:
        again.seal({})
    manifests = [read_manifest(tmp_path / name) for name in ("whole", "damaged")]
    assert manifests[0] == manifests[1]


def test_what_an_earlier_release_wrote_is_one_line(tmp_path: Path) -> None:
    journal = tmp_path / "a" / "journal.jsonl"
    journal.parent.mkdir()
    journal.write_text('{"key":"r0","records":[]}\n')
    with pytest.raises(ArtifactError, match="earlier midcourse, without checksums: finish this"):
        StageStore(tmp_path / "a", Rollout)
    (tmp_path / "b").mkdir()
    write_records(tmp_path / "b" / "part-00000.parquet", [rollout(1)], Rollout)
    with pytest.raises(ArtifactError, match=r"part-00000\.parquet was written by an earlier"):
        StageStore(tmp_path / "b", Rollout)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_of_records_is_one_line(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.parquet"
    write_records(path, [rollout(3)], Rollout)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        ArtifactError, match=r"a\.parquet cannot be read .*midcourse repair"
    ) as said:
        list(read_records([path], Rollout))
    assert "\n" not in str(said.value)


def test_another_schema_or_record_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, [0]).seal({})
    with pytest.raises(ArtifactError, match="wanted SftRow"):
        list(read_stage(tmp_path, SftRow))
    write_manifest(tmp_path, {**read_manifest(tmp_path), "schema_version": 99})
    with pytest.raises(ArtifactError, match="schema 99"):
        list(read_stage(tmp_path, Rollout))


def test_text_that_is_not_unicode_is_named(tmp_path: Path) -> None:
    with StageStore(tmp_path, Rollout) as store, pytest.raises(ArtifactError, match="r9"):
        store.append("r9", [rollout(9, "half \ud800")])


CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import write_ten
import midcourse.store.stage as store_module

count, limit = 0, int(sys.argv[3])
def strike(original):
    def call(*arguments, **keywords):
        global count
        count += 1
        if count == limit:
            os.kill(os.getpid(), 9)
        return original(*arguments, **keywords)
    return call

Path.replace = strike(Path.replace)
Path.unlink = strike(Path.unlink)
os.fsync = strike(os.fsync)
store_module.pq.write_table = strike(store_module.pq.write_table)
write_ten(Path(sys.argv[1]))
"""


def write_ten(path: Path) -> None:
    """Write ten rollouts to a stage, or what is missing of them."""
    store = StageStore(path, Rollout, part_records=4)
    if not store.is_complete:
        for number in range(10):
            if f"r{number:04d}" not in store.done:
                store.append(f"r{number:04d}", [rollout(number)])
        store.seal({})


@pytest.mark.slow
def test_a_kill_at_any_file_operation_loses_and_doubles_nothing(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    for limit in range(1, 40):
        path = tmp_path / str(limit)
        arguments = [sys.executable, "-c", CHILD, str(path), here, str(limit)]
        killed = subprocess.run(arguments, check=False).returncode
        write_ten(path)
        found = sorted(read_stage(path, Rollout), key=lambda r: r.index)
        assert found == [rollout(number) for number in range(10)]
        if killed == 0:
            assert limit > 5
            return
    pytest.fail("the writer never ran to its end")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(ArtifactError, match=f"process {os.getpid()} on"):
        RunLock(tmp_path).__enter__()
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").is_file()
    assert not (tmp_path / ".lock").exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        owner = json.loads((tmp_path / ".lock").read_text())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    # After a restart another process may carry the number of the one that died.
    for stale in ({"pid": dead.pid}, {"born": "an earlier boot/1"}):
        (tmp_path / ".lock").write_text(json.dumps({**owner, **stale}))
        with RunLock(tmp_path):
            assert json.loads((tmp_path / ".lock").read_text()) == {**owner, "since": ANY}


def test_many_small_records(tmp_path: Path) -> None:
    with StageStore(tmp_path, GroupCount) as store:
        for number in range(3000):
            store.append(str(number), [group(number)])
        store.seal({})
    assert sum(c.iteration for c in read_stage(tmp_path, GroupCount)) == 3000 * 2999 // 2
