"""Trackers are told what the run directory says, and never stop a run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import Recipe, make_recipe
from midcourse.errors import ConfigError
from midcourse.pipeline import method, open_session
from midcourse.tracking import Trackers, numbers_of

MANIFEST = {
    "stage": "grade",
    "label": "held_out patched",
    "counts": {"correct": 3, "incorrect": 5},
    "num_records": 8,
    "loading_seconds": 1.5,
    "cpu_seconds": 2.0,
    "tokens": {"policy": {"requests": 8, "in": 80, "out": 160}},
    "seed": 0,
}


class Said:
    """A reporter that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def task(self, *_: object) -> Any:
        raise AssertionError("trackers have no tasks")


class Kept:
    """A tracker that keeps what it is told, or fails at the n-th number."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.entries: list[tuple[str, Mapping[str, float], int | None]] = []
        self.closed, self._fails_at = 0, fails_at

    def log(self, group: str, numbers: Mapping[str, float], step: int | None) -> None:
        if len(self.entries) == self._fails_at:
            raise ConnectionError("the server is gone")
        self.entries.append((group, numbers, step))

    def close(self) -> None:
        self.closed += 1


def recipe(*names: str) -> Recipe:
    return make_recipe(
        {"name": "mine", "model": {"path": "lab"}, "report_to": list(names)}, [], "mine"
    )


def test_a_stage_is_counts_shares_times_and_tokens() -> None:
    assert numbers_of(MANIFEST) == {
        "count/correct": 3.0, "count/incorrect": 5.0,
        "share/correct": 0.375, "share/incorrect": 0.625,
        "loading_seconds": 1.5, "cpu_seconds": 2.0,
        "tokens/policy/requests": 8.0, "tokens/policy/in": 80.0, "tokens/policy/out": 160.0,
    }  # fmt: skip


def test_trackers_hear_of_stages_and_of_every_logged_step(tmp_path: Path) -> None:
    kept = Kept()
    trackers = Trackers(recipe("wandb"), tmp_path, Said(), {"wandb": lambda *_: kept})
    trackers.stage(MANIFEST)
    trackers.training("train patched + RL", {"step": 4.0, "reward": 0.5})
    trackers.close()
    assert [group for group, _, _ in kept.entries] == [
        "grade/held_out_patched",
        "train_patched_+_RL",
    ]
    assert kept.entries[1][1:] == ({"reward": 0.5}, 4)
    assert kept.closed == 1


def test_no_tracker_is_opened_before_there_is_a_number(tmp_path: Path) -> None:
    opened = list[str]()

    def opener(name: str) -> Kept:
        opened.append(name)
        return Kept()

    trackers = Trackers(recipe("wandb"), tmp_path, Said(), {"wandb": lambda r, d: opener("wandb")})
    trackers.close()
    assert not opened
    trackers.stage(MANIFEST)
    assert opened == ["wandb"]


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    broken, good, said = Kept(fails_at=1), Kept(), Said()
    openers = {"wandb": lambda *_: broken, "trackio": lambda *_: good}
    trackers = Trackers(recipe("wandb", "trackio"), tmp_path, said, openers)
    for _ in range(3):
        trackers.stage(MANIFEST)
    trackers.close()
    assert (len(broken.entries), len(good.entries)) == (1, 3)
    (line,) = said.lines
    assert "wandb failed and is left out (the server is gone)" in line
    assert str(tmp_path) in line


def test_a_tracker_that_does_not_open_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    def offline(*_: object) -> Kept:
        raise OSError("no route to host")

    good, said = Kept(), Said()
    openers = {"trackio": offline, "wandb": lambda *_: good}
    trackers = Trackers(recipe("trackio", "wandb"), tmp_path, said, openers)
    for _ in range(2):
        trackers.stage(MANIFEST)
    trackers.close()
    assert len(good.entries) == 2
    (line,) = said.lines
    assert "trackio failed and is left out (no route to host)" in line


@pytest.mark.slow
def test_tensorboard_has_the_numbers_of_the_run(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    trackers = Trackers(recipe("tensorboard"), tmp_path, Said())
    trackers.check()
    trackers.stage(MANIFEST)
    for step in (1, 2):
        trackers.training("train patched", {"step": float(step), "loss": 1.0 / step})
    trackers.close()
    read = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    losses = [(event.step, event.value) for event in read.Scalars("train_patched/loss")]
    assert losses == [(1, 1.0), (2, 0.5)]
    assert read.Scalars("grade/held_out_patched/share/correct")[0].value == 0.375


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed_is_one_line_before_work_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pip install wandb"):
        Trackers(recipe("wandb"), tmp_path, Said()).check()


def test_trackers_are_off_unless_asked_for() -> None:
    assert recipe().report_to == ()
    with pytest.raises(ConfigError, match="report_to"):
        recipe("mlflow")


@pytest.mark.slow
def test_a_session_tells_trackers_of_stages_and_steps(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    kept = Kept()
    data = {**recipe_data, "report_to": ["wandb"], "train_rl": {"num_iterations": 1}}
    asked = make_recipe(data, [], "mine")
    with open_session(asked, tmp_path / "run") as session:
        made = method(session.setup)
        session.trackers = Trackers(asked, tmp_path, Said(), {"wandb": lambda *_: kept})
        assert made.models.patched.trained is not None
        session.complete(made.models.patched.trained)
        session.complete(made.models.patched.trained)  # what is complete is not told again
    groups = [group for group, _, _ in kept.entries]
    assert len([group for group in groups if group.startswith("select")]) == 1
    steps = [step for group, _, step in kept.entries if group == "train_patched"]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 1
    assert kept.closed == 1
