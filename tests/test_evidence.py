"""Exports of proposals, preferences, credit, logs and traces: all from the run's records."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow.parquet as pq
import pytest

from midcourse.config import Recipe
from midcourse.errors import ArtifactError
from midcourse.export import export_run
from midcourse.metrics import wilson
from midcourse.pipeline import Method, Session, open_run
from midcourse.pipeline.contexts import ready_rows
from midcourse.pipeline.interventions import INTERVENTION
from midcourse.records import Condition, SftRow, token_ids_sha
from midcourse.stages.build_sft import RowDesign
from midcourse.stages.pairs import step_pairs
from runs import run_to


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_proposal_is_there_with_its_success_rate(tmp_path: Path, verified_run: Path) -> None:
    export_run(verified_run, "proposals", tmp_path / "out")
    rows = lines(tmp_path / "out" / "proposals.jsonl")
    assert pq.read_table(tmp_path / "out" / "proposals.parquet").to_pylist() == rows
    finished = open_run(verified_run)
    made = Counter(str(p.outcome) for p in finished.read(finished.method.proposals))
    assert Counter(row["outcome"] for row in rows) == made
    assert set(made) == {"accepted", "duplicate"}
    verified = [row for row in rows if row["is_verified"]]
    assert len(verified) == made["accepted"]
    first, success = verified[0], wilson(4, 4)
    rates = (first["success_rate"], first["success_low"], first["success_high"])
    assert rates == (success.estimate, success.low, success.high)
    assert (first["prefix"], first["original_step"]) == ("Two and two.\n\n", "So 2 + 2 = 5.\n\n")
    by_condition = {tally["condition"]: tally for tally in first["conditions"]}
    assert set(by_condition) == {"problem", "prefix", "prefix_error", "prefix_intervention"}
    assert by_condition["prefix"]["verdicts"]["incorrect"] == 4
    assert all(row["is_verified"] is None for row in rows if row["outcome"] == "duplicate")


def test_what_was_not_verified_yet_is_absent(tmp_path: Path, recipe: Recipe) -> None:
    run_to(tmp_path / "run", recipe, lambda session, made: session.complete(made.proposals))
    export_run(tmp_path / "run", "proposals", tmp_path / "out")
    rows = lines(tmp_path / "out" / "proposals.jsonl")
    assert rows
    assert {row["is_verified"] for row in rows} == {row["success_rate"] for row in rows} == {None}
    assert all(row["conditions"] == [] and row["row"] is None for row in rows)
    assert "none yet" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(ArtifactError, match="no intervention was continued"):
        export_run(tmp_path / "run", "credit", tmp_path / "credit")
    with pytest.raises(ArtifactError, match="no intervention is verified"):
        export_run(tmp_path / "run", "dpo", tmp_path / "dpo")
    with pytest.raises(ArtifactError, match="no evaluation and no verification is complete"):
        export_run(tmp_path / "run", "inspect", tmp_path / "inspect")


def test_a_search_has_no_success_rate(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    recipe_data["verify"]["rounds"] = [1, 3]
    recipe = Recipe.model_validate(recipe_data)
    run_to(tmp_path / "run", recipe, lambda session, made: session.complete(made.models.rows))
    export_run(tmp_path / "run", "proposals", tmp_path / "out")
    (first, *_) = [row for row in lines(tmp_path / "out" / "proposals.jsonl") if row["is_verified"]]
    assert (first["num_correct"], first["num_graded"], first["success_rate"]) == (1, 1, None)
    export_run(tmp_path / "run", "credit", tmp_path / "credit")
    assert {row["advantages"] for row in lines(tmp_path / "credit" / "credit.jsonl")} == {None}


def test_preferences_are_the_pairs_of_step_dpo(tmp_path: Path, recipe: Recipe) -> None:
    def both(session: Session, made: Method) -> tuple[list[SftRow], list[SftRow]]:
        design = RowDesign.of(recipe.build_sft, "original_step")
        wrong = list(session.read(made.models._step_rows(design)))
        session.complete(made.models.rows)
        return ready_rows(session.run, made.models.rows), wrong

    pairs = step_pairs(*run_to(tmp_path / "run", recipe, both))
    export_run(tmp_path / "run", "dpo", tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "dpo.parquet").to_pylist()
    chosen = [row for row in rows if row["in_rows"]]
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    expected = [tuple(getattr(pair, name) for name in names) for pair in pairs]
    assert sorted(tuple(tuple(row[name]) for name in names) for row in chosen) == sorted(expected)
    assert (rows[0]["prefix"], rows[0]["chosen"]) == (
        "Two and two.\n\n",
        "So 2 + 2 makes four.\n\n",
    )
    assert rows[0]["rejected"] == "So 2 + 2 = 5.\n\n"
    texts = json.loads((tmp_path / "out" / "midcourse_dpo.json").read_text())
    assert texts[0]["rejected"]["content"] == "Two and two.\n\nSo 2 + 2 = 5.\n\n"


def test_credit_is_what_a_step_changed(tmp_path: Path, verified_run: Path) -> None:
    export_run(verified_run, "credit", tmp_path / "out")
    rows = lines(tmp_path / "out" / "credit.jsonl")
    finished = open_run(verified_run)
    candidates = finished.method.interventions.candidates().read(finished.run)
    assert len(rows) == 2 * len(candidates)
    shas = {
        condition: {r.parent_id: r.prompt_sha for r in finished.read(drawn.rollouts)}
        for condition, drawn in finished.method.interventions.verified.items()
    }
    conditions = {"intervention": INTERVENTION, "original_step": Condition.PREFIX_ERROR}
    worth = {"intervention": 1.0, "original_step": 0.0}
    for row in rows:
        name, kind, ids = row["proposal_id"], row["kind"], row["input_ids"]
        assert token_ids_sha(ids) == shas[conditions[kind]][name]
        bounds = [end for _, _, end in row["segments"]]
        assert [start for _, start, _ in row["segments"]] == [0, *bounds[:-1]]
        assert bounds[-1] == len(ids) == len(row["weights"]) == len(row["advantages"])
        assert set(row["advantages"][: bounds[1]]) | set(row["weights"][: bounds[1]]) == {0}
        assert set(row["advantages"][bounds[1] :]) == {worth[kind]}
        sign = 1 if kind == "intervention" else -1
        assert set(row["weights"][bounds[1] :]) == {sign}


def test_credit_that_was_not_measured_is_null(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    recipe_data["verify"]["conditions"] = ["prefix_intervention"]
    recipe = Recipe.model_validate(recipe_data)
    run_to(tmp_path / "run", recipe, lambda session, made: session.complete(made.models.rows))
    export_run(tmp_path / "run", "credit", tmp_path / "out")
    rows = lines(tmp_path / "out" / "credit.jsonl")
    assert {row["value_before"] for row in rows} == {row["advantages"] for row in rows} == {None}
    assert {row["value_after"] for row in rows if row["kind"] == "intervention"} == {1.0}


def test_logs_hold_every_rollout_with_its_verdict(tmp_path: Path, verified_run: Path) -> None:
    parts = export_run(verified_run, "inspect", tmp_path / "out")
    (name,) = [part.path for part in parts if "prefix_error" in part.path]
    with ZipFile(tmp_path / "out" / name) as log:
        header = json.loads(log.read("header.json"))
        names = [entry for entry in log.namelist() if entry.startswith("samples/")]
        sample = json.loads(log.read(names[0]))
        assert len(json.loads(log.read("summaries.json"))) == len(names) == 24
    (score,) = header["results"]["scores"]
    assert score["metrics"]["accuracy"]["value"] == 0.0
    assert sample["scores"]["midcourse"]["value"] == "I"
    assert sample["messages"][1]["content"] == "Two and two.\n\nSo 2 + 2 = 5.\n\n"
    assert sample["metadata"]["verdicts"]["prefix_intervention"] == {"correct": 4}


def test_traces_hold_the_ids_that_were_sampled_from(tmp_path: Path, verified_run: Path) -> None:
    export_run(verified_run, "traces", tmp_path / "out")
    finished = open_run(verified_run)
    drawn = finished.method.interventions.verified[INTERVENTION]
    episodes = lines(tmp_path / "out" / "verify-prefix_intervention-base" / "traces.jsonl")
    for episode, rollout in zip(episodes, finished.read(drawn.rollouts), strict=True):
        (trace,) = episode["traces"]
        asked, replied = trace["nodes"]
        ids, sampled = asked["token_ids"] + replied["token_ids"], len(rollout.token_ids)
        assert token_ids_sha(ids[:-sampled]) == rollout.prompt_sha
        assert tuple(ids[-sampled:]) == rollout.token_ids
        assert replied["mask"] == [False] * (len(replied["mask"]) - sampled) + [True] * sampled
        assert trace["rewards"]["correct"] == {"score": 1.0}


def run_snippets(folder: Path) -> None:
    """Run the Python of a README as a reader would, in its folder."""
    for source in re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL):
        exec(compile(source, str(folder), "exec"), {})


@pytest.mark.parametrize("name", ["proposals", "credit", "jsonl"])
def test_snippets_run(
    tmp_path: Path, verified_run: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_run(verified_run, name, tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    run_snippets(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_snippet_for_preferences_trains_on_their_ids(
    tmp_path: Path, verified_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scripted run's tokens are not the model's, which is as good for a test."""
    export_run(verified_run, "dpo", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    run_snippets(tmp_path / "out")
    assert (tmp_path / "out" / "patched" / "model.safetensors").is_file()
