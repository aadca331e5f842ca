"""The loop on the scripted engine: what it keeps, what it refuses, what it does twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import Recipe
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.errors import ArtifactError, ConfigError, DataError, MidcourseError
from midcourse.pipeline import Method, Session, Setup, method, open_session
from midcourse.pipeline.contexts import ready_rows
from midcourse.pipeline.evaluation import row_texts
from midcourse.pipeline.session import Tools
from midcourse.progress import SilentProgress
from midcourse.records import (
    Condition,
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
from midcourse.run import Keyed, Stage, Step, Training, Work
from runs import run_to


def rows(session: Session, m: Method) -> list[SftRow]:
    return list(session.read(m.models.rows))


def rollouts(session: Session, m: Method) -> list[Rollout]:
    return list(session.read(m.train.rollouts))


def complete_statuses(session: Session, m: Method) -> None:
    session.complete(m.statuses)


def complete_all(session: Session, m: Method) -> list[Step]:
    steps = [step for steps in m.steps() for step in steps]
    session.complete(*steps)
    return steps


def proposals(session: Session, m: Method) -> list[Proposal]:
    return list(session.read(m.proposals))


def test_the_loop_builds_rows_of_verified_ids(tmp_path: Path, recipe: Recipe) -> None:
    def check(session: Session, m: Method) -> None:
        statuses = list(session.read(m.statuses))
        assert [s.status for s in statuses] == [Solvability.HARD] * 3
        made = proposals(session, m)
        assert len(made) == 3 * 2 * 2
        outcomes = sorted(str(p.outcome) for p in made)
        assert outcomes == ["accepted"] * 6 + ["duplicate"] * 6
        built = rows(session, m)
        assert sorted(str(r.outcome) for r in built) == ["not_chosen"] * 3 + ["ready"] * 3
        verified = m.interventions.verified[Condition.PREFIX_INTERVENTION]
        shas = {r.parent_id: r.prompt_sha for r in session.read(verified.rollouts)}
        for row in built:
            if row.outcome is RowOutcome.READY:
                assert token_ids_sha(row.input_ids) == shas[row.proposal_id]

    run_to(tmp_path / "run", recipe, check)


def test_a_row_ends_with_the_intervention_and_never_holds_the_wrong_step(
    tmp_path: Path, recipe: Recipe
) -> None:
    ready = run_to(tmp_path / "run", recipe, lambda s, m: ready_rows(s, m.models.rows))
    renderer = Renderer(ByteTokenizer())
    assert len(ready) == 3
    for row in ready:
        text = renderer.decode(row.input_ids)
        assert text.endswith("So 2 + 2 makes four.\n\n")
        assert "2 + 2 = 5" not in text
        assert not row.closes_turn
        assert not set(renderer.end_of_turn_ids) & {x for x in row.labels if x >= 0}
        assert set(row.labels[: row.prompt_tokens]) == {-100}
        assert row.labels[row.prompt_tokens :] == row.input_ids[row.prompt_tokens :]


def test_a_proposer_without_second_turn_is_refused_before_work_starts(
    tmp_path: Path, recipe_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_turn(self: ByteTokenizer, conversation: list[Any], **_: Any) -> str:
        return str(conversation[0]["content"])

    two_turns = {**recipe_data, "propose": {"turns": "two"}, "prompts": "default"}
    two_turns |= {"sample": {"num_rollouts": 4}}

    def check(session: Session, m: Method) -> None:
        steps = [step for steps in m.steps() for step in steps]
        session.check(steps)
        monkeypatch.setattr(ByteTokenizer, "apply_chat_template", one_turn)
        session.tools = Tools(session.run, session.setup.base, session.recipe.grade)
        with pytest.raises(ConfigError, match=r"set propose\.turns = 'single'"):
            session.check(steps)
        session.check([m.train.grades])  # sampling asks nobody for a second turn

    run_to(tmp_path / "run", Recipe.model_validate(two_turns), check)
    assert not (tmp_path / "run" / "sample").exists()


def test_the_funnel_adds_up(tmp_path: Path, recipe: Recipe) -> None:
    def count(session: Session, m: Method) -> dict[str, dict[str, int]]:
        session.complete(m.models.rows)
        return funnel_counts(session.run, m)

    counts = run_to(tmp_path / "run", recipe, count)
    assert counts["rollouts"]["total"] == 12
    assert counts["proposals"]["total"] == 12
    funnel_table(counts)
    counts["grades"]["incorrect"] += 1
    with pytest.raises(ValueError, match="does not add up at grades"):
        funnel_table(counts)


def test_running_again_changes_nothing(tmp_path: Path, recipe: Recipe) -> None:
    run_to(tmp_path / "run", recipe, rows)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.parquet")}
    run_to(tmp_path / "run", recipe, rows)
    assert before == {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.parquet")}
    assert before


def test_a_stage_cut_short_ends_as_if_it_had_not_been(tmp_path: Path, recipe: Recipe) -> None:
    whole = run_to(tmp_path / "a", recipe, rollouts)

    def cut(session: Session, m: Method) -> None:
        stage = m.train.rollouts

        def stop_early(settings: Any, work: Work[Rollout]) -> Iterator[Keyed[Rollout]]:
            yield from islice(stage.make(settings, work), 5)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            session.complete(replace(stage, make=stop_early))

    run_to(tmp_path / "b", recipe, cut)
    assert run_to(tmp_path / "b", recipe, rollouts) == whole
    resumed = run_to(tmp_path / "b", recipe, lambda s, m: s.run.artifact(m.train.rollouts).manifest)
    assert resumed["num_resumed"] == 5


def test_a_recipe_that_is_refused_does_not_claim_the_directory(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path
) -> None:
    recipe_data["problems"] = {"path": str(tmp_path / "misspelt.jsonl")}
    with pytest.raises(DataError, match="misspelt"):
        run_to(tmp_path / "run", Recipe.model_validate(recipe_data), complete_statuses)
    recipe_data["problems"] = {"path": str(problem_file)}
    run_to(tmp_path / "run", Recipe.model_validate(recipe_data), complete_statuses)


def test_another_recipe_is_refused_with_the_difference(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    run_to(tmp_path / "run", Recipe.model_validate(recipe_data), complete_statuses)
    recipe_data["sample"] = {"num_rollouts": 5}
    with pytest.raises(ArtifactError, match=r"sample\.num_rollouts: 4 → 5"):
        run_to(tmp_path / "run", Recipe.model_validate(recipe_data), complete_statuses)


def change(data: dict[str, Any], **sections: Any) -> Recipe:
    return Recipe.model_validate({**data, **sections})


def test_bad_input_is_one_line_before_any_work(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    cases: list[tuple[type[MidcourseError], str, Recipe]] = [
        (DataError, "empty", change(recipe_data, problems={"path": str(empty)})),
        (DataError, "nowhere", change(recipe_data, problems={"path": "nowhere.jsonl"})),
        (ConfigError, "no model", change(recipe_data, engine={}, model={"path": "./nowhere"})),
        (ConfigError, "no prompt set", change(recipe_data, prompts="nowhere")),
    ]  # fmt: skip
    for number, (kind, said, recipe) in enumerate(cases):
        directory = tmp_path / f"run{number}"
        with pytest.raises(kind) as caught:
            run_to(directory, recipe, rows)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not list(directory.glob("*/*"))


def test_references_are_asked_for_where_a_stage_shows_them(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    bare = tmp_path / "bare.jsonl"
    bare.write_text(json.dumps({"id": "q", "problem": "x?", "answer": "1"}) + "\n")
    recipe = change(recipe_data, problems={"path": str(bare)})

    def sample_alone(session: Session, made: Method) -> None:
        session.check([made.statuses])
        session.complete(made.statuses)
        for ask in (session.check, lambda steps: session.complete(*steps)):
            with pytest.raises(DataError, match="1 of 1 problems have no reference_solution"):
                ask([made.proposals])

    run_to(tmp_path / "run", recipe, sample_alone)


def test_transformers_scores_where_servers_sample(
    recipe_data: dict[str, Any], tmp_path: Path
) -> None:
    from midcourse.engines.transformers_engine import TransformersEngine

    recipe = Recipe.model_validate({**recipe_data, "engine": {"kind": "vllm"}})
    with open_session(recipe, tmp_path / "run", SilentProgress()) as session:
        assert isinstance(session.tools.scorer(session.setup.base), TransformersEngine)


class Heard:
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.say = self.lines.append
        self.task = SilentProgress().task


def test_a_helper_with_fewer_positions_is_opened_with_those_and_the_policy_refused(
    recipe_data: dict[str, Any], tmp_path: Path
) -> None:
    asked = {"kind": "transformers", "max_context_tokens": 4096}
    helped = Recipe.model_validate({**recipe_data, "proposer_engine": asked})
    heard = Heard()
    with open_session(helped, tmp_path / "run", heard) as session:
        proposer = session.setup.helper("", None, helped.proposer_engine)
        assert session.tools.engine(proposer).capabilities.max_context_tokens == 1024
    (line,) = heard.lines
    assert "takes 1,024 tokens" in line
    assert "not the 4,096 of engine.max_context_tokens" in line
    with pytest.raises(ConfigError, match="is 4,096, but lab has 1,024 positions"):
        Setup.of(Recipe.model_validate({**recipe_data, "engine": asked}))


@pytest.mark.parametrize(
    ("served", "said"),
    [
        ({"urls": []}, "engine.urls: name at least one server of other-9b"),
        ({"urls": ["http://a/v1"], "api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
    ],
)
def test_a_server_that_is_not_named_stops_the_run_before_any_work(
    recipe_data: dict[str, Any], tmp_path: Path, served: dict[str, Any], said: str
) -> None:
    engine = {"kind": "openai", "chat": True, "served_model": "other-9b", **served}
    recipe = Recipe.model_validate({**recipe_data, "proposer_engine": engine})
    with open_session(recipe, tmp_path / "run", SilentProgress()) as session:
        made = method(session.setup)
        session.check([made.train.grades])  # sampling asks the policy alone
        with pytest.raises(ConfigError, match=said):
            session.check([made.models.rows])


def test_an_unfinished_or_too_long_proposal_is_counted(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    recipe_data["propose"]["max_intervention_tokens"] = 3
    recipe = Recipe.model_validate(recipe_data)
    made = run_to(tmp_path / "a", recipe, proposals)
    assert {p.outcome for p in made} == {ProposalOutcome.TOO_LONG}
    recipe_data["propose"]["max_intervention_tokens"] = 100
    recipe_data["propose"]["sampling"] = {"max_tokens": 10}
    recipe = Recipe.model_validate(recipe_data)
    made = run_to(tmp_path / "b", recipe, proposals)
    assert {p.outcome for p in made} == {ProposalOutcome.TRUNCATED}


def test_a_shared_seed_is_noticed(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    script = Path(recipe_data["engine"]["script"])
    script.write_text(json.dumps([[".", "always \\boxed{5}"]]))
    with pytest.raises(MidcourseError, match="ignores seeds"):
        run_to(tmp_path / "run", Recipe.model_validate(recipe_data), rollouts)


def test_only_the_models_that_are_compared_are_made(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    recipe = change(recipe_data, evaluate={"models": ["base"]})
    steps = run_to(tmp_path / "run", recipe, complete_all)
    assert [type(step) for step in steps if step.name == "build-sft"] == [Stage, Stage]
    assert not [step for step in steps if isinstance(step, Training)]
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_every_kind_of_row_has_tokens_to_score(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    for changes in ({}, {"source": "original_step"}, {"prefix": "dropped"}, {"prefix": "masked"}):
        recipe_data["build_sft"] = {"filter": False, **changes}
        name = "-".join(changes.values()) or "plain"
        recipe = Recipe.model_validate(recipe_data)
        ready = run_to(tmp_path / name, recipe, lambda s, m: ready_rows(s, m.models.rows))
        assert ready
        for scored in (text for row in ready for text in row_texts(row)):
            assert 0 < scored.num_context < len(scored.token_ids), name


@pytest.mark.parametrize(("rule", "leaks"), [("substring", True), ("assertion", False)])
def test_the_authors_rule_takes_any_substring_for_a_leak(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path, rule: str, leaks: bool
) -> None:
    problem_file.write_text(problem_file.read_text().replace('"4"', '"2"'))
    recipe_data["propose"]["leak_rule"] = rule
    recipe = Recipe.model_validate(recipe_data)
    made = run_to(tmp_path / "run", recipe, proposals)
    written = [proposal for proposal in made if proposal.intervention]
    assert {proposal.leaks_substring for proposal in written} == {True}
    outcome = ProposalOutcome.LEAKS_ANSWER
    assert {proposal.outcome is outcome for proposal in written if proposal.index == 0} == {leaks}
