"""What is said while a run goes on, at the end of a verb, and by `midcourse status`."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from midcourse.cli import app
from midcourse.cli.ends import Given
from midcourse.config import PricesConfig, Recipe
from midcourse.config.prices import PriceConfig
from midcourse.engines.metered import Meter
from midcourse.errors import EngineError
from midcourse.pipeline import method, open_session
from midcourse.pipeline.funnel import dryness
from midcourse.progress import ConsoleProgress, Shown, SilentProgress
from midcourse.records import Rollout
from midcourse.report.overview import State, StepStatus, headline, read_overview
from midcourse.run import Keyed, Run, Stage, Work, in_order, read_recipe
from midcourse.stages.filling import Filling
from midcourse.store.lock import Owner, RunLock
from midcourse.store.progress import PROGRESS, StepProgress, read_progress, write_progress
from midcourse.tokens import TokenCount
from midcourse.training.jobs import training_note
from test_cli import toml

ELSEWHERE = Owner("this machine", 2**22 + 1, "a boot ago", "2026-01-01T00:00:00")


class Heard(SilentProgress):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


# --- lines -------------------------------------------------------------------------------------


def test_a_line_says_how_far_how_fast_what_came_and_how_long() -> None:
    now = 100.0
    shown = Shown(
        label="sample train", total=2560, done=560, words=lambda: "finished 464",
        clock=lambda: now,
    )  # fmt: skip
    now = 102.0
    shown.advance(500, tokens=6820)
    assert shown.line() == (
        "  sample train: 1,060 of 2,560 · 41 % · 3,410 tok/s · finished 464 · 2 s · ETA 6 s"
    )
    assert shown.last_line() == (
        "  sample train: 1,060 done, 500 of them in 2 s · 3,410 tok/s · finished 464"
    )


def test_before_anything_came_a_line_promises_nothing() -> None:
    shown = Shown(label="x", total=None, words=lambda: "loading base", clock=lambda: 0.0)
    assert shown.line() == "  x: 0 · loading base · 0 s"


def said_by(console: Console, seconds: float) -> str:
    with ConsoleProgress(console, every_seconds=0.01).task("sample", 8) as task:
        task.advance(4, note="half")
        time.sleep(seconds)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_one_of_many_that_waited_for_the_model_promises_nothing() -> None:
    now = [0.0]
    shown = Shown(label="sample train", total=2000, clock=lambda: now[0])
    now[0] = 10.0
    shown.advance()
    assert "ETA" not in shown.line()
    now[0] = 12.0
    shown.advance(19)
    assert "ETA 20 min" in shown.line()


def test_without_a_terminal_lines_go_on_while_nothing_comes() -> None:
    lines = said_by(Console(file=io.StringIO(), width=110), 0.2).splitlines()
    assert len(lines) > 2
    assert all(line.startswith("  sample: 4 ") for line in lines)
    assert "half" in lines[0]
    assert "4 of 8 · 50 %" in lines[0]
    assert " done in " in lines[-1]


def test_a_terminal_shows_a_bar_with_the_same_words() -> None:
    shown = said_by(Console(file=io.StringIO(), force_terminal=True, width=110), 0.3)
    assert "━" in shown
    assert "4 of 8" in shown


def test_a_narrow_terminal_shows_the_whole_line_and_no_bar() -> None:
    shown = said_by(Console(file=io.StringIO(), force_terminal=True, width=40), 0.3)
    assert "━" not in shown
    assert "half" in shown
    assert "…" not in shown


@pytest.mark.parametrize("width", [80, 110, 200])
def test_status_shows_states_and_results_whole_however_narrow(
    finished_run: Path, width: int
) -> None:
    console = Console(file=io.StringIO(), width=width)
    console.print(read_overview(finished_run).rich(width))
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "…" not in said
    assert "complete " in said
    assert "6 of 12 accepted" in said
    assert ("until" in said) is (width > 80)


@pytest.mark.parametrize(
    ("last", "note"),
    [
        ({"loss": 0.4121}, "loss 0.412"),
        ({"loss": 0.0, "reward": 0.25, "frac_reward_zero_std": 0.5},
         "reward 0.250, 50 % of groups without advantage"),
        (None, "loading the model"),
    ],
)  # fmt: skip
def test_a_training_says_what_it_learns(last: Mapping[str, float] | None, note: str) -> None:
    assert training_note([last] if last else []) == note


def filling_of(folder: Path, **changes: Any) -> Filling:
    given: dict[str, Any] = {
        "folder": folder, "asked": None, "total": 4, "done": 0, "counts": {}, "before": TokenCount()
    }  # fmt: skip
    given |= changes
    return Filling(**{**given, "counts": Counter(given["counts"])})


def test_words_name_what_is_waited_for_outcomes_and_trouble(tmp_path: Path) -> None:
    filling = filling_of(tmp_path, counts={"stop": 1000, "length": 24}, meter=Meter(num_failed=2))
    filling.doing = "loading base"
    assert filling.words() == "loading base · finished 1,000, truncated 24 · 2 failed requests"


# --- status ------------------------------------------------------------------------------------


def progress(**changes: Any) -> StepProgress:
    given = StepProgress(
        owner=Owner.me(), started="2026-11-28T12:00:00+00:00", updated="2026-11-28T12:00:10+00:00",
        total=110, resumed=10, done=60, counts={"stop": 60},
        tokens={"policy": {"requests": 60, "in": 600, "out": 6000}},
    )  # fmt: skip
    return replace(given, **changes)


@pytest.fixture
def begun(tmp_path: Path, finished_run: Path) -> Path:
    """The finished run, its last stage under way again."""
    shutil.copytree(finished_run, tmp_path / "run")
    (folder,) = (file.parent for file in (tmp_path / "run").glob("build-sft/*/manifest.json"))
    (folder / "manifest.json").unlink()
    return folder


def status_of(folder: Path) -> StepStatus:
    steps = read_overview(folder.parent.parent).steps
    (found,) = [step for step in steps if step.folder == f"{folder.parent.name}/{folder.name}"]
    return found


def test_a_step_under_way_has_rate_and_eta_while_its_process_holds_the_run(begun: Path) -> None:
    write_progress(begun, progress(retries=3))
    with RunLock(begun.parent.parent):
        found = status_of(begun)
    assert (found.state, found.done, found.total) == (State.UNDER_WAY, 60, 110)
    assert (found.rate, found.eta_seconds) == (5.0, 10.0)
    assert found.result == "60 of 110 · finished 60 · 3 retries · 300 a minute · ETA 10 s"


def test_a_step_whose_process_is_gone_was_stopped_and_one_that_failed_says_why(begun: Path) -> None:
    write_progress(begun, progress())
    assert status_of(begun).state is State.STOPPED
    write_progress(begun, progress(error="the server is gone"))
    found = status_of(begun)
    assert found.state is State.FAILED
    assert found.result.endswith("finished 60 · the server is gone")
    assert found.eta_seconds is None
    with RunLock(begun.parent.parent):  # another process goes on with something else
        write_progress(begun, progress(owner=ELSEWHERE))
        assert status_of(begun).state is State.STOPPED


def test_a_training_that_was_stopped_while_loading_loads_no_more(begun: Path) -> None:
    write_progress(begun, progress(done=0, resumed=0, counts={}, note="loading the model"))
    assert status_of(begun).result == "0 of 110"
    with RunLock(begun.parent.parent):
        assert status_of(begun).result == "0 of 110 · loading the model"


@pytest.mark.parametrize("said", [b"", b"{}", b"[1]", b'{"done": "many"}', b"\xff"])
def test_a_progress_file_that_says_nothing_is_done_without(begun: Path, said: bytes) -> None:
    (begun / PROGRESS).write_bytes(said)
    assert read_progress(begun) is None
    found = status_of(begun)
    assert (found.state, found.done) == (State.STOPPED, 6)


def test_a_stage_that_fails_leaves_word_of_it(tmp_path: Path, recipe: Recipe) -> None:
    def fail(settings: int, work: Work[Rollout]) -> Iterator[Keyed[Rollout]]:
        raise EngineError("no server\nat all")

    stage = Stage(
        name="sample", label="x", record=Rollout, settings=1, make=fail, outcome=lambda r: "x"
    )
    with Run(tmp_path / "run", recipe, SilentProgress()) as run, pytest.raises(EngineError):
        run.complete(stage, None)
    found = status_of(tmp_path / "run" / "sample" / stage.key)
    assert (found.state, found.result) == (State.FAILED, "0 · no server")


def test_where_there_is_nothing_to_ask_about_nothing_is_loaded(
    tmp_path: Path, recipe: Recipe
) -> None:
    def load(settings: int, work: Work[Rollout]) -> Iterator[Keyed[Rollout]]:
        raise AssertionError("it is loaded")

    stage = Stage(
        name="sample", label="x", record=Rollout, settings=1, make=load, outcome=lambda r: "x",
        total=lambda settings, reader: 0,
    )  # fmt: skip
    with Run(tmp_path / "run", recipe, SilentProgress()) as run:
        assert run.complete(stage, None).manifest["num_records"] == 0


def test_steps_stand_in_the_order_of_the_flow_inputs_first(tmp_path: Path, recipe: Recipe) -> None:
    with open_session(recipe, tmp_path / "run") as session:
        made = method(session.setup)
        session.run.claim()
        session.run.announce(in_order([(made.models.rows,)]))
    named = [f"{step.stage} {step.label}" for step in read_overview(tmp_path / "run").steps]
    assert named[:5] == ["sample train", "grade train", "select train", "cases train",
                         "propose train"]  # fmt: skip
    assert {step.state for step in read_overview(tmp_path / "run").steps} == {State.NOT_BEGUN}


def test_status_sums_up_times_tokens_cost_and_sizes(finished_run: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    shutil.copytree(finished_run, directory)
    prices = PricesConfig(proposer=PriceConfig(input=1e6, output=0.0))
    recipe = read_recipe(directory / "config.resolved.json")
    recipe = recipe.model_copy(update={"prices": prices})
    with Run(directory, recipe, SilentProgress()):
        pass
    found = read_overview(directory)
    proposed = found.tokens["proposer"]
    assert found.cost == proposed.tokens_in, "a new price counts at once"
    assert found.tokens["policy"].requests > proposed.requests
    assert found.bytes > sum(p.stat().st_size for p in directory.glob("*/*/part-*"))
    made = CliRunner().invoke(app, ["status", str(directory), "--json"])
    said = json.loads(made.stdout)
    assert said["totals"]["tokens"]["proposer"] == proposed.plain()
    assert {step["state"] for step in said["steps"]} == {"complete"}
    shown = CliRunner().invoke(app, ["status", str(directory)]).stdout
    assert "propose train" in shown
    assert f"{len(found.steps)} of {len(found.steps)} steps complete" in shown


def test_a_sum_says_which_steps_did_not_count_their_tokens(finished_run: Path) -> None:
    whole = read_overview(finished_run)
    older = tuple(replace(s, tokens=None) if s.stage == "propose" else s for s in whole.steps)
    number = sum(step.stage == "propose" for step in older)
    assert f"tokens of {number} more not known" in replace(whole, steps=older).totals()
    assert "not known" not in whole.totals()


def test_who_is_not_known_here_has_no_price() -> None:
    prices = PricesConfig(proposer=PriceConfig(input=1.0, output=1.0))
    asked = TokenCount(1, 1_000_000, 0)
    assert prices.cost({"judge": asked}) is None
    assert prices.cost({"judge": asked, "proposer": asked}) == 1.0


def test_a_price_needs_both_halves() -> None:
    with pytest.raises(ValueError, match="give input and output"):
        PriceConfig(input=1.0)
    assert PricesConfig().cost({"policy": TokenCount(1, 2, 3)}) is None


# --- the ends of verbs -------------------------------------------------------------------------


def test_a_verb_ends_with_what_came_of_it_and_the_next_command(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    file, run = tmp_path / "my.toml", tmp_path / "a run"
    file.write_text(toml(recipe_data))
    given = [str(file), "--set", "seed=3", "--run-dir", str(run)]
    done = CliRunner().invoke(app, ["propose", *given])
    said = " ".join(done.stdout.split())
    assert "6 of 12 accepted (duplicate 6), " in said
    assert " tokens in, " in said
    assert f"Next: midcourse verify {file} --set seed=3 --run-dir '{run}'" in said


def test_the_next_command_carries_what_was_given() -> None:
    asked = Given("my.toml", ("scale/lab",), ("name=a b",), None)
    assert asked.command("train sft") == (
        "midcourse train sft my.toml --with scale/lab --set 'name=a b'"
    )


def test_the_next_command_shows_no_password() -> None:
    url = 'proposer_engine.urls=["http://bob:hunter2@host/v1"]'
    said = Given("my.toml", (), (url, "x.api_key=sk-1"), None).command("verify")
    assert "http://host/v1" in said
    assert "hunter2" not in said
    assert "sk-1" not in said


@pytest.mark.parametrize(
    ("name", "label", "counts", "said"),
    [
        ("select", "train", {"solved": 4}, "sample.num_rollouts"),
        ("select", "train", {"solved": 4, "hard": 1}, ""),
        ("propose", "train", {"truncated": 5, "no_tag": 1}, "propose.sampling.max_tokens"),
        ("propose", "train", {}, ""),  # an earlier stage has said so
        ("grade", "prefix_intervention", {}, ""),
        ("build-sft", "intervention", {}, ""),
        ("propose", "train", {"accepted": 1}, ""),
        ("grade", "prefix_intervention", {"incorrect": 8}, "verify.num_continuations"),
        ("grade", "prefix_error", {"incorrect": 8}, ""),
        ("build-sft", "intervention", {"too_long": 3, "not_verified": 1}, "build_sft.max_tokens"),
        ("build-sft", "intervention", {"ready": 3}, ""),
    ],
)
def test_a_funnel_that_runs_dry_says_which_keys_to_look_at(
    name: str, label: str, counts: dict[str, int], said: str
) -> None:
    stage = Stage(
        name=name, label=label, record=Rollout, settings=1, make=lambda s, w: iter(()),
        outcome=lambda r: "x",
    )  # fmt: skip
    found = dryness(stage, {"counts": counts}, [])
    assert (said in found) if said else (found == "")


def test_a_dry_stage_is_said_at_once(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    recipe_data["propose"]["max_intervention_tokens"] = 3
    heard = Heard()
    with open_session(Recipe.model_validate(recipe_data), tmp_path / "run", heard) as session:
        session.complete(method(session.setup).proposals)
    (line,) = [line for line in heard.lines if line.startswith("warning")]
    assert "propose train: no proposal was accepted (too long 12)" in line
    assert "raise propose.max_intervention_tokens" in line


def test_a_headline_says_first_what_a_stage_is_for() -> None:
    assert headline("grade", {"incorrect": 3, "correct": 1}) == "1 of 4 correct (incorrect 3)"
    assert headline("reference", {"given": 3}) == "given 3"


def test_a_refusal_is_not_to_be_tried_again_and_a_busy_server_is(
    tmp_path: Path, recipe: Recipe
) -> None:
    def failing(status: int) -> Stage[Rollout, int]:
        def make(settings: int, work: Work[Rollout]) -> Iterator[Keyed[Rollout]]:
            work.failures.add(f"status {status}: no")
            return iter(())

        return Stage(
            name="x", label="", record=Rollout, settings=status, make=make, outcome=lambda r: "x"
        )

    with Run(tmp_path / "run", recipe, SilentProgress()) as run:
        for status, again in ((400, False), (422, False), (429, True), (503, True)):
            with pytest.raises(EngineError) as raised:
                run.complete(failing(status), None)
            assert ("run the same command again" in str(raised.value)) == again
