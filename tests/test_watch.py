"""The full-screen view of a run under way: it reads files that are being written."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from time import sleep

import pytest

from midcourse.report.overview import Overview, State, StepStatus
from midcourse.store.journal import Journal, journal_line, read_tail
from midcourse.store.stage import StageStore
from midcourse.training.rl.store import read_last_iteration, read_rl, write_groups
from midcourse.watch.traces import Trace, Traces, latest_traces
from test_rl_records import EVIL, group_of
from test_store import proposal, rollout

pytest.importorskip("textual")

from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from midcourse.records import Grade, Proposal, Rollout
from midcourse.watch.app import Snapshot, WatchApp

STEPS = Overview(
    directory=Path("run"),
    steps=(
        StepStatus(stage="sample", label="train", folder="sample/a", state=State.COMPLETE),
        StepStatus(stage="grade", label="train", folder="grade/b", state=State.UNDER_WAY),
    ),
    is_index_damaged=False,
)


# --- what is read ------------------------------------------------------------------------------


def test_the_tail_of_a_journal_is_its_last_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    lines = [journal_line(f"k{number}", b'[{"a":%d}]' % number) for number in range(10)]
    for line in lines:
        journal.append(line)
    journal.close()
    with path.open("ab") as file:
        file.write(lines[0][:-5])  # being written
    keys = [entry.key for entry in read_tail(path, 3 * len(lines[0]))]
    assert keys == ["k8", "k9"]
    assert [entry.key for entry in read_tail(path, 10_000)] == [f"k{n}" for n in range(10)]
    assert read_tail(tmp_path / "none", 100) == []


def test_the_latest_traces_are_those_of_the_stage_under_way_newest_first(tmp_path: Path) -> None:
    with StageStore(tmp_path / "propose" / "aaaa", Proposal) as store:
        store.append("0", [proposal(0)])
        store.append("1", [proposal(1)])
    found = latest_traces(tmp_path)
    assert found.source == "propose"
    assert [trace.id for trace in found.traces] == [
        proposal(1).proposal_id,
        proposal(0).proposal_id,
    ]
    assert found.traces[0].verdict == proposal(1).outcome
    assert str(proposal(1).intervention).strip() in found.traces[0].text
    with StageStore(tmp_path / "sample" / "bbbb", Rollout) as later:
        later.append("7", [rollout(7)])
    age = (tmp_path / "propose" / "aaaa" / "journal.jsonl").stat().st_mtime + 5
    os.utime(tmp_path / "sample" / "bbbb" / "journal.jsonl", (age, age))
    newest = latest_traces(tmp_path)
    assert (newest.source, newest.traces[0].text) == ("sample", rollout(7).text)


def test_grades_show_verdict_and_answer(tmp_path: Path) -> None:
    grade = group_of(0, 3, "1").grades[0]
    with StageStore(tmp_path / "grade" / "cccc", Grade) as store:
        store.append("0", [grade])
    (trace,) = latest_traces(tmp_path).traces
    assert (trace.title, trace.verdict) == ("correct  answer 4  p3", "correct")


def test_during_rl_the_last_iteration_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "dddd"
    for iteration in range(2):
        write_groups(folder, iteration, [group_of(iteration, 0, "10")])
    found = latest_traces(tmp_path)
    assert [trace.id for trace in found.traces] == ["p0-1-0", "p0-1-1"]
    assert found.traces[0].title.startswith("correct  advantage +0.50  iteration 1 group 0")
    last = [member for member in read_rl(folder, ("token_ids",)) if member[2].iteration == 1]
    assert read_last_iteration(folder) == last


def test_a_run_that_has_written_nothing_has_no_traces(tmp_path: Path) -> None:
    assert latest_traces(tmp_path) == Traces(source="")


# --- the screen --------------------------------------------------------------------------------


class Looks:
    """Snapshots in turn; the last one stays."""

    def __init__(self, *snapshots: Snapshot) -> None:
        self._snapshots, self.count = snapshots, 0

    def __call__(self, run_dir: Path) -> Snapshot:
        self.count += 1
        return self._snapshots[min(self.count, len(self._snapshots)) - 1]


def traces_of(*texts: str) -> Traces:
    made = [Trace(id=text[:5], title=f"title of {text}", text=text) for text in texts]
    return Traces(source="sample train", traces=tuple(made))


async def settled(pilot: Pilot[None]) -> None:
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def text_of(app: WatchApp) -> str:
    return str(app.query_one("#text", Static).render())


def test_steps_and_traces_are_listed_and_the_chosen_one_is_whole() -> None:
    async def go() -> None:
        app = WatchApp(Path("run"), 60, Looks(Snapshot(STEPS, traces_of("one 1", "two 2"))))
        async with app.run_test() as pilot:
            await settled(pilot)
            steps = app.query_one("#steps", DataTable)
            assert [str(cell) for cell in steps.get_row_at(1)] == ["grade train", "under way", ""]
            assert "1 of 2 steps complete, 1 under way" in app.sub_title
            assert "one 1" in text_of(app)
            await pilot.press("j")
            await pilot.pause()
            assert "two 2" in text_of(app)
            await pilot.press("k")
            await pilot.pause()
            assert "one 1" in text_of(app)
            await pilot.press("q")

    asyncio.run(go())


def test_what_is_read_stays_chosen_when_newer_traces_come() -> None:
    async def go() -> None:
        looks = Looks(
            Snapshot(STEPS, traces_of("one 1", "two 2")),
            Snapshot(STEPS, traces_of("new 0", "one 1", "two 2")),
        )
        app = WatchApp(Path("run"), 60, looks)
        async with app.run_test() as pilot:
            await settled(pilot)
            await pilot.press("j")
            await pilot.press("r")
            await settled(pilot)
            assert app.query_one("#traces", DataTable).row_count == 3
            assert "two 2" in text_of(app)

    asyncio.run(go())


def test_texts_of_models_are_text_on_the_screen() -> None:
    async def go() -> None:
        app = WatchApp(Path("run"), 60, Looks(Snapshot(STEPS, traces_of(EVIL))))
        async with app.run_test() as pilot:
            await settled(pilot)
            shown = text_of(app)
            assert "[/bold]" in shown
            assert r"\x1b]0;owned\x07" in shown
            assert "\x1b" not in shown

    asyncio.run(go())


def test_a_file_that_cannot_be_read_is_said_and_what_was_shown_stays() -> None:
    async def go() -> None:
        gone = Snapshot(None, Traces(source=""), "a part is gone")
        app = WatchApp(Path("run"), 60, Looks(Snapshot(STEPS, traces_of("one 1")), gone))
        async with app.run_test() as pilot:
            await settled(pilot)
            await pilot.press("r")
            await settled(pilot)
            assert app.sub_title == "a part is gone"
            assert "one 1" in text_of(app)

    asyncio.run(go())


def test_a_look_that_ends_while_the_screen_is_closed_is_dropped() -> None:
    async def go() -> None:
        def look(run_dir: Path) -> Snapshot:
            while app.query("#steps"):
                sleep(0.001)
            return Snapshot(STEPS, traces_of("one 1"))

        app = WatchApp(Path("run"), 60, look)
        async with app.run_test():
            pass  # raises on leaving what the look raised

    asyncio.run(go())


@pytest.mark.slow
def test_a_pause_stops_looking() -> None:
    async def go() -> None:
        looks = Looks(Snapshot(STEPS, traces_of("one 1")))
        app = WatchApp(Path("run"), 0.05, looks)
        async with app.run_test() as pilot:
            await pilot.press("space")
            await pilot.pause(0.2)
            before = looks.count
            await pilot.pause(0.3)
            assert looks.count == before
            await pilot.press("space")
            await pilot.pause(0.3)
            assert looks.count > before

    asyncio.run(go())
