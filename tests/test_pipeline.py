"""The loop on the scripted engine: what it keeps, what it refuses, what it does twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import Recipe
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.errors import ArtifactError, ConfigError, DataError, MidcourseError
from midcourse.pipeline import Pipeline
from midcourse.pipeline.evaluation import _row_texts
from midcourse.pipeline.training import ready_rows
from midcourse.progress import SilentProgress
from midcourse.records import (
    Condition,
    ProblemStatus,
    Proposal,
    ProposalOutcome,
    Rollout,
    RowOutcome,
    SftRow,
    Solvability,
    token_ids_sha,
)
from midcourse.rendering import Renderer
from midcourse.report.collect import funnel_counts
from midcourse.report.tables import funnel_table
from midcourse.run import Run


def run_to(directory: Path, recipe: Recipe, use: Callable[[Pipeline], Any]) -> Any:
    with Run(directory, recipe, SilentProgress()) as run, Pipeline(run) as pipeline:
        return use(pipeline)


def test_the_loop_builds_rows_of_verified_ids(tmp_path: Path, recipe: Recipe) -> None:
    def check(pipeline: Pipeline) -> None:
        statuses = list(pipeline.statuses.read(ProblemStatus))
        assert [s.status for s in statuses] == [Solvability.HARD] * 3
        proposals = list(pipeline.proposals.read(Proposal))
        assert len(proposals) == 3 * 2 * 2
        outcomes = sorted(str(p.outcome) for p in proposals)
        assert outcomes == ["accepted"] * 6 + ["duplicate"] * 6
        rows = list(pipeline.rows.read(SftRow))
        assert sorted(str(r.outcome) for r in rows) == ["not_chosen"] * 3 + ["ready"] * 3
        verified = pipeline.verified[Condition.PREFIX_INTERVENTION]
        shas = {r.parent_id: r.prompt_sha for r in verified.rollouts.read(Rollout)}
        for row in rows:
            if row.outcome is RowOutcome.READY:
                assert token_ids_sha(row.input_ids) == shas[row.proposal_id]

    run_to(tmp_path / "run", recipe, check)


def test_a_row_ends_with_the_intervention_and_never_holds_the_wrong_step(
    tmp_path: Path, recipe: Recipe
) -> None:
    rows = run_to(tmp_path / "run", recipe, lambda p: list(p.rows.read(SftRow)))
    renderer = Renderer(ByteTokenizer())
    for row in rows:
        if row.outcome is RowOutcome.READY:
            text = renderer.decode(row.input_ids)
            assert text.endswith("So 2 + 2 makes four.\n\n")
            assert "2 + 2 = 5" not in text
            assert not row.closes_turn
            assert not set(renderer.end_of_turn_ids) & {x for x in row.labels if x >= 0}
            assert set(row.labels[: row.prompt_tokens]) == {-100}
            assert row.labels[row.prompt_tokens :] == row.input_ids[row.prompt_tokens :]


def test_the_funnel_adds_up(tmp_path: Path, recipe: Recipe) -> None:
    counts = run_to(tmp_path / "run", recipe, funnel_counts)
    assert counts["rollouts"]["total"] == 12
    assert counts["proposals"]["total"] == 12
    funnel_table(counts)
    counts["grades"]["incorrect"] += 1
    with pytest.raises(ValueError, match="does not add up at grades"):
        funnel_table(counts)


def test_running_again_changes_nothing(tmp_path: Path, recipe: Recipe) -> None:
    run_to(tmp_path / "run", recipe, lambda p: p.rows)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.parquet")}
    run_to(tmp_path / "run", recipe, lambda p: p.rows)
    assert before == {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.parquet")}
    assert before


def test_a_stage_cut_short_ends_as_if_it_had_not_been(tmp_path: Path, recipe: Recipe) -> None:
    whole = run_to(tmp_path / "a", recipe, lambda p: list(p.train_rollouts.rollouts.read(Rollout)))

    def cut(pipeline: Pipeline) -> None:
        original = pipeline.run._fill

        def stop_early(store: Any, results: Any, task: Any, outcome: Any) -> None:
            original(store, (next(results) for _ in range(5)), task, outcome)
            raise KeyboardInterrupt

        pipeline.run._fill = stop_early  # type: ignore[method-assign,assignment]
        with pytest.raises(KeyboardInterrupt):
            _ = pipeline.train_rollouts

    run_to(tmp_path / "b", recipe, cut)
    resumed = run_to(
        tmp_path / "b", recipe, lambda p: list(p.train_rollouts.rollouts.read(Rollout))
    )
    assert resumed == whole


def test_a_recipe_that_is_refused_does_not_claim_the_directory(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path
) -> None:
    recipe_data["problems"] = {"path": str(tmp_path / "misspelt.jsonl")}
    with pytest.raises(DataError, match="misspelt"):
        run_to(tmp_path / "run", Recipe.model_validate(recipe_data), lambda p: p.statuses)
    recipe_data["problems"] = {"path": str(problem_file)}
    run_to(tmp_path / "run", Recipe.model_validate(recipe_data), lambda p: p.statuses)


def test_another_recipe_is_refused_with_the_difference(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    run_to(tmp_path / "run", Recipe.model_validate(recipe_data), lambda p: p.statuses)
    recipe_data["sample"] = {"num_rollouts": 5}
    with pytest.raises(ArtifactError, match=r"sample\.num_rollouts: 4 → 5"):
        run_to(tmp_path / "run", Recipe.model_validate(recipe_data), lambda p: p.problems)


def change(data: dict[str, Any], **sections: Any) -> Recipe:
    return Recipe.model_validate({**data, **sections})


def test_bad_input_is_one_line_before_any_work(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    bare = tmp_path / "bare.jsonl"
    bare.write_text(json.dumps({"id": "q", "problem": "x?", "answer": "1"}) + "\n")
    cases: list[tuple[type[MidcourseError], str, Recipe]] = [
        (DataError, "empty", change(recipe_data, problems={"path": str(empty)})),
        (DataError, "reference_solution", change(recipe_data, problems={"path": str(bare)})),
        (DataError, "nowhere", change(recipe_data, problems={"path": "nowhere.jsonl"})),
        (ConfigError, "no model", change(recipe_data, engine={}, model={"path": "./nowhere"})),
        (ConfigError, "no prompt set", change(recipe_data, prompts="nowhere")),
        (ConfigError, "may propose", change(recipe_data, engine={"kind": "openai", "chat": True})),
    ]  # fmt: skip
    for number, (kind, said, recipe) in enumerate(cases):
        directory = tmp_path / f"run{number}"
        with pytest.raises(kind) as caught:
            run_to(directory, recipe, lambda p: p.rows)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not list(directory.glob("*/*"))


def test_transformers_scores_where_servers_sample(
    recipe_data: dict[str, Any], tmp_path: Path
) -> None:
    from midcourse.engines.transformers_engine import TransformersEngine

    recipe = Recipe.model_validate({**recipe_data, "engine": {"kind": "vllm"}})
    with Run(tmp_path / "run", recipe, SilentProgress()) as run, Pipeline(run) as pipeline:
        assert isinstance(pipeline.scorer(pipeline.base), TransformersEngine)


def test_an_unfinished_or_too_long_proposal_is_counted(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    recipe_data["propose"]["max_intervention_tokens"] = 3
    recipe = Recipe.model_validate(recipe_data)
    proposals = run_to(tmp_path / "a", recipe, lambda p: list(p.proposals.read(Proposal)))
    assert {p.outcome for p in proposals} == {ProposalOutcome.TOO_LONG}
    recipe_data["propose"]["max_intervention_tokens"] = 100
    recipe_data["propose"]["sampling"] = {"max_tokens": 10}
    recipe = Recipe.model_validate(recipe_data)
    proposals = run_to(tmp_path / "b", recipe, lambda p: list(p.proposals.read(Proposal)))
    assert {p.outcome for p in proposals} == {ProposalOutcome.TRUNCATED}


def test_a_shared_seed_is_noticed(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    script = Path(recipe_data["engine"]["script"])
    script.write_text(json.dumps([[".", "always \\boxed{5}"]]))
    with pytest.raises(MidcourseError, match="ignores seeds"):
        run_to(tmp_path / "run", Recipe.model_validate(recipe_data), lambda p: p.train_rollouts)


def test_only_the_models_that_are_compared_are_made(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    recipe = change(recipe_data, evaluate={"models": ["base"]})
    assert run_to(tmp_path / "run", recipe, lambda p: list(p.models)) == ["base"]
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_every_kind_of_row_has_tokens_to_score(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    for changes in ({}, {"source": "original_step"}, {"prefix": "dropped"}, {"prefix": "masked"}):
        recipe_data["build_sft"] = {"filter": False, **changes}
        name = "-".join(changes.values()) or "plain"
        rows = run_to(
            tmp_path / name, Recipe.model_validate(recipe_data), lambda p: ready_rows(p.rows)
        )
        assert rows
        for scored in (text for row in rows for text in _row_texts(row)):
            assert 0 < scored.num_context < len(scored.token_ids), name


@pytest.mark.parametrize(("rule", "leaks"), [("substring", True), ("assertion", False)])
def test_the_authors_rule_takes_any_substring_for_a_leak(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path, rule: str, leaks: bool
) -> None:
    problem_file.write_text(problem_file.read_text().replace('"4"', '"2"'))
    recipe_data["propose"]["leak_rule"] = rule
    recipe = Recipe.model_validate(recipe_data)
    proposals = run_to(tmp_path / "run", recipe, lambda p: list(p.proposals.read(Proposal)))
    written = [proposal for proposal in proposals if proposal.intervention]
    assert {proposal.leaks_substring for proposal in written} == {True}
    outcome = ProposalOutcome.LEAKS_ANSWER
    assert {proposal.outcome is outcome for proposal in written if proposal.index == 0} == {leaks}
