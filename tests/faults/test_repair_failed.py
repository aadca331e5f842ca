"""Requests that a server never answered, asked again: the result is that of a run without them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import FIXED, REPLY, scripted_recipe
from killed_run import (
    Killer,
    complete,
    content_of,
    differing,
    in_a_fork,
    quick_report,
    write_inputs,
)
from midcourse.config import Recipe
from midcourse.engines.base import Completion, Request, failed
from midcourse.engines.scripted_engine import ByteTokenizer, ScriptedEngine
from midcourse.errors import ArtifactError
from midcourse.store.repair import failed_requests, repair_run
from midcourse.store.stage import read_manifest
from runs import run_to

#: Text in the context of requests of one stage.
SAMPLE, PROPOSE, VERIFY = "2 + 2, 1?", "Compare and intervene", "makes four"


@pytest.fixture(scope="module", autouse=True)
def same_reports() -> Iterator[None]:
    """Reports say when and how long; these do not."""
    with pytest.MonkeyPatch.context() as quick:
        for name, stand_in in quick_report().items():
            quick.setattr(f"midcourse.report.write.{name}", stand_in)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def whole(inputs: Path) -> dict[str, str]:
    """What a run without failures leaves."""
    complete(inputs, inputs / "whole")
    return content_of(inputs / "whole")


@pytest.fixture(scope="module")
def lossy_run(inputs: Path) -> Path:
    """A run of which one verification failed: only to be copied."""
    with pytest.MonkeyPatch.context() as lossy:
        fail(lossy, the_first(VERIFY))
        complete(inputs, inputs / "lossy")
    return inputs / "lossy"


def fail(monkeypatch: pytest.MonkeyPatch, is_lost: Callable[[str, Request], bool]) -> None:
    """Have the scripted engine lose requests, by their context."""
    answer = ScriptedEngine.complete

    def lossy(engine: ScriptedEngine, request: Request) -> Completion:
        context = ByteTokenizer().decode(request.prompt_token_ids)
        return failed(request, "gone") if is_lost(context, request) else answer(engine, request)

    monkeypatch.setattr(ScriptedEngine, "complete", lossy)


def the_first(*pieces: str) -> Callable[[str, Request], bool]:
    """Lose, for each piece, the first request whose context holds it, whenever it is asked."""
    lost: dict[str, str] = {}

    def is_lost(context: str, request: Request) -> bool:
        for piece in pieces:
            if piece in context:
                return lost.setdefault(piece, request.request_id) == request.request_id
        return False

    return is_lost


def failures(run_dir: Path) -> dict[str, int]:
    """Return how many failed requests each stage holds."""
    manifests = [read_manifest(path.parent) for path in run_dir.glob("*/*/manifest.json")]
    found = {f"{m['stage']} {m['label']}": m["counts"].get("request_failed", 0) for m in manifests}
    return {name: count for name, count in found.items() if count}


LOSSES = {
    "sample": [SAMPLE],
    "propose": [PROPOSE],
    "all of them": [PROPOSE, VERIFY, SAMPLE],
}


@pytest.mark.parametrize("pieces", LOSSES.values(), ids=LOSSES)
def test_what_failed_is_asked_again_and_what_was_made_of_it_made_again(
    inputs: Path, whole: dict[str, str], tmp_path: Path, pieces: list[str]
) -> None:
    run_dir = tmp_path / "run"
    with pytest.MonkeyPatch.context() as lossy:
        fail(lossy, the_first(*pieces))
        complete(inputs, run_dir)
    assert failures(run_dir)
    assert differing(content_of(run_dir), whole)
    found = repair_run(run_dir, failed_requests)
    assert found
    assert complete(inputs, run_dir)
    assert failures(run_dir) == {}
    assert differing(content_of(run_dir), whole) == []
    assert repair_run(run_dir, failed_requests) == []
    assert not complete(inputs, run_dir)


def test_only_what_failed_and_its_grade_are_asked_again(
    inputs: Path, whole: dict[str, str], lossy_run: Path, tmp_path: Path
) -> None:
    run_dir, asked = Path(shutil.copytree(lossy_run, tmp_path / "run")), list[str]()
    repair_run(run_dir, failed_requests)
    left = {path.parent.parent.name: path for path in run_dir.glob("*/*/journal.jsonl")}
    kept = {name: len(path.read_bytes().splitlines()) for name, path in left.items()}

    def noted(context: str, request: Request) -> bool:
        asked.append(request.request_id)
        return False

    with pytest.MonkeyPatch.context() as counting:
        fail(counting, noted)
        complete(inputs, run_dir)
    assert len(asked) == 1
    assert kept["sample"] == kept["grade"] > 1
    assert kept.keys() == {"sample", "grade"}
    assert differing(content_of(run_dir), whole) == []


@pytest.mark.parametrize("number", range(1, 12, 2))
def test_a_repair_that_is_killed_is_repaired_to_the_same(
    inputs: Path, whole: dict[str, str], lossy_run: Path, tmp_path: Path, number: int
) -> None:
    run_dir = Path(shutil.copytree(lossy_run, tmp_path / "run"))

    def killed() -> None:
        Killer(number, torn=False).install()
        repair_run(run_dir, failed_requests)

    assert in_a_fork(killed)[0] == 137
    complete(inputs, run_dir)
    repair_run(run_dir, failed_requests)
    complete(inputs, run_dir)
    assert differing(content_of(run_dir), whole) == []


def test_what_is_under_way_or_damaged_is_to_be_seen_to_first(
    inputs: Path, lossy_run: Path, tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(lossy_run, tmp_path / "run"))
    (manifest,) = run_dir.glob("build-sft/*/manifest.json")
    content = manifest.read_bytes()
    manifest.unlink()
    with pytest.raises(ArtifactError, match=r"build-sft/\w+ is under way, .* to the end first"):
        repair_run(run_dir, failed_requests)
    manifest.write_bytes(content[:-9])
    with pytest.raises(ArtifactError, match=r"midcourse repair .*run' without --failed"):
        repair_run(run_dir, failed_requests)


def test_the_command_says_what_is_asked_again(lossy_run: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(lossy_run, tmp_path / "run"))

    def repair(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "midcourse", "repair", str(run_dir), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    before = content_of(run_dir)
    code, said = repair("--failed", "--check")
    assert code == 1
    assert "holds requests that failed: 1 record is asked again, the others are kept" in said
    assert "was made of requests that failed: 1 record is made again, the others are kept" in said
    assert "was made of requests that failed: all of it is made again" in said
    assert content_of(run_dir) == before
    assert repair("--failed")[0] == 0
    assert repair("--failed", "--check") == (0, f"{run_dir}: nothing failed\n")


def select(inputs: Path, run_dir: Path) -> None:
    """Complete what says which problems are hard, in a search."""
    data = scripted_recipe(inputs / "problems.jsonl", inputs / "script.json")
    data["sample"] = {"num_rollouts": 4, "rounds": [1, 3]}
    recipe = Recipe.model_validate({**data, "max_failed_share": 1.0})
    run_to(run_dir, recipe, lambda session, made: session.complete(made.statuses))


def test_a_search_goes_on_from_what_failed(tmp_path: Path) -> None:
    """Later rounds are not kept: had the failed request been answered, it might have stopped."""
    write_inputs(tmp_path)
    (tmp_path / "script.json").write_text(json.dumps([[".", REPLY, FIXED]]))
    select(tmp_path, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as lossy:
        fail(lossy, lambda context, request: request.seed % 2 == 1)  # the right ones
        select(tmp_path, tmp_path / "run")
    assert failures(tmp_path / "run")
    repair_run(tmp_path / "run", failed_requests)
    select(tmp_path, tmp_path / "run")
    assert differing(content_of(tmp_path / "run"), content_of(tmp_path / "whole")) == []
