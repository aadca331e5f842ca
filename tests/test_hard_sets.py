"""What a hard set is made of: said where rollouts were cut, gave no answer, or are ungraded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from midcourse.config import Recipe
from midcourse.pipeline import Method, Session, method
from midcourse.progress import SilentProgress
from midcourse.records import Solvability
from midcourse.run import Run
from midcourse.stages.select import remarks


class Listener(SilentProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def selected(
    directory: Path, data: dict[str, Any], sampling: dict[str, Any]
) -> tuple[list[str], dict[str, Any], set[Solvability]]:
    """Return what is said until *select* is done, its summary, and the statuses."""
    data["sample"] = {"num_rollouts": 4, "sampling": sampling}
    heard = Listener()
    with Run(directory, Recipe.model_validate(data), heard) as run:
        session = Session(run)
        made: Method = method(session.setup)
        statuses = {status.status for status in session.read(made.statuses)}
        summary = session.run.artifact(made.statuses).manifest["summary"]
        session.close()
    return heard.lines, summary, statuses


def test_a_hard_set_of_truncated_rollouts_is_told(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    script = tmp_path / "long.json"
    script.write_text(json.dumps([[".", *(f"{n} and on and on and on" for n in range(9))]]))
    recipe_data["engine"]["script"] = str(script)
    lines, summary, statuses = selected(tmp_path / "run", recipe_data, {"max_tokens": 20})
    assert statuses == {Solvability.HARD}
    assert summary == {
        "hard_rollouts": 12, "truncated": 12, "no_answer": 0, "rollouts": 12, "ungraded": 0,
        "undecided": 0, "max_tokens": 20,
    }  # fmt: skip
    assert (
        "  select train: 12 of 12 rollouts of hard problems were cut at max_tokens = 20: raise "
        "sample.sampling.max_tokens"
    ) in lines


def test_a_hard_set_without_boxes_is_told(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    script = tmp_path / "no-box.json"
    script.write_text(json.dumps([[".", "It is 5.", "It is 6."]]))
    recipe_data["engine"]["script"] = str(script)
    lines, summary, _ = selected(tmp_path / "run", recipe_data, {"max_tokens": 100})
    assert (summary["truncated"], summary["no_answer"]) == (0, 12)
    [line] = [line for line in lines if line.startswith("  select train: ") and "box" in line]
    assert "12 of 12 rollouts of hard problems ended without an answer in a box" in line


def test_a_sound_hard_set_is_not_remarked_on(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    lines, summary, statuses = selected(tmp_path / "run", recipe_data, {"max_tokens": 100})
    assert statuses == {Solvability.HARD}
    assert (summary["truncated"], summary["no_answer"]) == (0, 0)
    assert not [line for line in lines if line.startswith("  select")]


def test_ungraded_rollouts_are_told_with_what_they_leave_open() -> None:
    summary = {"hard_rollouts": 0, "truncated": 0, "no_answer": 0, "max_tokens": 9}
    told = list(remarks({**summary, "rollouts": 100, "ungraded": 7, "undecided": 3}))
    assert [line.partition(":")[0] for line in told] == [
        "7 of 100 rollouts count as ungraded, which leaves 3 problems undecided"
    ]
    assert not list(remarks({**summary, "rollouts": 100, "ungraded": 2, "undecided": 1}))
