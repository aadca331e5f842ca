from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

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
from midcourse.store import RunLock, StageStore, read_manifest, read_stage

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


def test_a_torn_last_line_is_owed_again_at_every_byte(tmp_path: Path) -> None:
    fill(tmp_path, [0, 1], 100).close()
    whole = (tmp_path / "journal.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        (tmp_path / "journal.jsonl").write_bytes(whole[:cut])
        with StageStore(tmp_path, Rollout) as store:
            assert list(map(store.done.__contains__, ("r0000", "r0001"))) == [True, False]
            store.append("r0001", [rollout(1)])
            assert list(store.read()) == [rollout(0), rollout(1)]


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


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, [0, 1]).seal({})
    part = tmp_path / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"part-00000.*delete"):
        list(read_stage(tmp_path, Rollout))


def test_another_schema_or_record_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, [0]).seal({})
    with pytest.raises(ArtifactError, match="wanted SftRow"):
        list(read_stage(tmp_path, SftRow))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(ArtifactError, match="schema 99"):
        list(read_stage(tmp_path, Rollout))


def test_text_that_is_not_unicode_is_named(tmp_path: Path) -> None:
    with StageStore(tmp_path, Rollout) as store, pytest.raises(ArtifactError, match="r9"):
        store.append("r9", [rollout(9, "half \ud800")])


CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import fill
from midcourse.store import StageStore
from midcourse.records import Rollout
import midcourse.store as store_module

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
path = Path(sys.argv[1])
store = StageStore(path, Rollout, part_records=4)
if not store.is_complete:
    from test_store import rollout
    for number in range(10):
        if f"r{number:04d}" not in store.done:
            store.append(f"r{number:04d}", [rollout(number)])
    store.seal({})
"""


def test_a_kill_at_any_file_operation_loses_and_doubles_nothing(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    for limit in range(1, 40):
        path = tmp_path / str(limit)
        arguments = [sys.executable, "-c", CHILD, str(path), here]
        killed = subprocess.run([*arguments, str(limit)], check=False).returncode
        subprocess.run([*arguments, "0"], check=True)
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
            count = GroupCount(
                iteration=number, problem_id="p", num_correct=0, num_incorrect=8, num_ungraded=0
            )
            store.append(str(number), [count])
        store.seal({})
    assert sum(c.iteration for c in read_stage(tmp_path, GroupCount)) == 3000 * 2999 // 2
