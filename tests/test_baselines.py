"""Hints, whole-solution rows, written references, shifts and fresh continuations, on scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import FIXED, PROPOSAL, REPLY
from midcourse.config import EngineConfig, ModelConfig, ProblemsConfig, Recipe, ScriptedConfig
from midcourse.engines import model_fingerprint, open_engine
from midcourse.engines.base import Capabilities, Completion, Engine, Request
from midcourse.engines.bundled import base_folder
from midcourse.engines.scripted_engine import ByteTokenizer, ScriptedEngine
from midcourse.errors import DataError
from midcourse.lab.counts.world import Story
from midcourse.lab.problems import lab_problems
from midcourse.lab.truth import NAME as WORLD
from midcourse.lab.truth import first_error, world_step
from midcourse.pipeline import Drawn, Method, Session
from midcourse.records import (
    Condition,
    FinishReason,
    Problem,
    ProposalOutcome,
    ReferenceOutcome,
    Rollout,
    RowOutcome,
    RowSource,
    Sampling,
    SftRow,
    Start,
    Verdict,
)
from midcourse.rendering import Renderer
from midcourse.stages.contexts import Context
from midcourse.stages.hints import hint_of, hint_of_share, hint_of_tokens
from midcourse.stages.oracle import Told, oracle_proposals
from midcourse.stages.pairs import step_pairs
from midcourse.stages.propose import Case
from midcourse.stages.solutions import trace_of
from midcourse.steps import insert_step
from runs import funnel, ready, run_to

pytestmark = pytest.mark.slow

REFERENCE = "Take two.\n\nAdd two.\n\nFirst three.\n\nThen four.\n\nSo 4.\n\nIt is 4."
REWRITE = "I take two and two.\n\nThe answer is \\boxed{4}."
RENDERER = Renderer(ByteTokenizer())


@pytest.fixture
def data(recipe_data: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The scripted recipe with references of six steps; a hint alone solves problem 0."""
    rows = [
        {"id": f"p{i}", "problem": f"What is 2 + 2, {i}?", "answer": "4",
         "reference_solution": REFERENCE}
        for i in range(3)
    ]  # fmt: skip
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = [
        [r"Compare and intervene", PROPOSAL],
        [r"(?s)2, 1\?\n.*Rewrite the attempt", "It is \\boxed{5}.", "It must be \\boxed{5}."],
        [r"Rewrite the attempt", REWRITE],
        [r"makes four\.\n\n$", FIXED],
        [r"2, 0\?\nHint: ", FIXED],
        [r".", REPLY, REPLY + " "],
    ]
    Path(recipe_data["engine"]["script"]).write_text(json.dumps(rules))
    return recipe_data


def prompt_text(context: Context) -> str:
    return ByteTokenizer().decode(context.prompt_ids)


def change(data: dict[str, Any], **sections: Any) -> Recipe:
    merged = {k: {**data.get(k, {}), **v} if isinstance(v, dict) else v
              for k, v in sections.items()}  # fmt: skip
    return Recipe.model_validate({**data, **merged})


def script(path: Path, *rules: list[str]) -> dict[str, str]:
    path.write_text(json.dumps(rules))
    return {"kind": "scripted", "script": str(path)}


def problem(reference: str | None, problem_id: str = "p") -> Problem:
    return Problem(
        problem_id=problem_id, text="x?", answer="4", reference_solution=reference, source="s",
        split="train",
    )  # fmt: skip


# Hints.


@pytest.mark.parametrize("joint", ["\n\n", "\n", ". ", " "])
def test_a_hint_is_at_most_a_third_of_the_reference(joint: str) -> None:
    units = [f"unit{n}" for n in range(9)]
    reference = joint.join(units)
    seen = set()
    for number in range(200):
        hint = hint_of(problem(reference, f"p{number}"), seed=0)
        assert reference.startswith(hint)
        seen.add(hint.count("unit"))
    assert seen == {1, 2, 3}


def test_a_hint_is_the_problem_s_own_and_seeded() -> None:
    reference = "\n\n".join(f"Step {n}." for n in range(30))
    hints = [hint_of(problem(reference, f"p{n}"), seed=0) for n in range(20)]
    assert hints == [hint_of(problem(reference, f"p{n}"), seed=0) for n in range(20)]
    assert hints != [hint_of(problem(reference, f"p{n}"), seed=1) for n in range(20)]
    assert len(set(hints)) > 3


def test_a_reference_too_short_for_a_third_has_an_empty_hint() -> None:
    assert hint_of(problem("It's 4."), seed=0) == ""
    with pytest.raises(ValueError, match="no reference"):
        hint_of(problem(None), seed=0)


def test_a_hint_can_have_a_given_number_of_tokens() -> None:
    assert hint_of_tokens(problem(REFERENCE), 7, RENDERER) == REFERENCE[:7]
    assert hint_of_tokens(problem("4."), 7, RENDERER) == "4."


HINTED = {
    Condition.HINT: Condition.PROBLEM,
    Condition.HINT_PREFIX: Condition.PREFIX,
    Condition.HINT_PREFIX_INTERVENTION: Condition.PREFIX_INTERVENTION,
}


def test_a_hint_shows_its_share_of_the_reference() -> None:
    reference = "Half of 8 is 4.\n\nAdd 2: 6.\n\nTwice that is 12.\n\nSo 12."
    assert hint_of_share(problem(reference), 0.5) == "Half of 8 is 4.\n\nAdd 2: 6."
    assert hint_of_share(problem(reference), 0.01) == "Half of 8 is 4."
    assert hint_of_share(problem(reference), 1.0) == reference


def test_a_hint_is_in_the_user_s_turn_and_nowhere_else(tmp_path: Path, data: Any) -> None:
    def check(session: Session, m: Method) -> None:
        problems = {p.problem_id: p for p in m.hard.read(session)}
        candidates = m.interventions.candidates().read(session)
        assert candidates
        for hinted, plain in HINTED.items():
            ours, theirs = contexts_of(session, m, hinted), contexts_of(session, m, plain)
            assert len(ours) == len(candidates)
            for with_hint, without in zip(ours, theirs, strict=True):
                assert with_hint.response == without.response  # prefixes of unhinted rollouts
                assert with_hint.condition is hinted
                hint = hint_of(problems[with_hint.problem_id], 0)
                assert f"Hint: {hint}<|im_end|>" in prompt_text(with_hint)
        grades = list(session.read(m.interventions.verified[Condition.HINT_PREFIX].grades))
        assert len(grades) == len(candidates) * 4

    conditions = [str(c) for c in HINTED]
    run_to(tmp_path / "run", change(data, verify={"conditions": conditions}), check)


def contexts_of(
    session: Session, m: Method, condition: Condition, shift: int | None = None
) -> list[Context]:
    """Return the contexts that continuations are sampled from, in the tokens of the base."""
    renderer = session.tools.renderer(session.setup.base)
    return list(m.interventions.continuations(condition, shift).contexts(session, renderer))


def test_a_hint_can_be_as_long_as_the_intervention(tmp_path: Path, data: Any) -> None:
    recipe = change(data, hints={"length": "intervention"}, verify={"conditions": ["hint"]})
    contexts = run_to(
        tmp_path / "run", recipe, lambda session, m: contexts_of(session, m, Condition.HINT)
    )
    assert len(contexts) == 6
    for context in contexts:
        hint = prompt_text(context).partition("Hint: ")[2].partition("<|im_end|>")[0]
        assert len(hint) == len("So 2 + 2 makes four.")


def test_rows_8_to_10_stand_on_problems_that_hints_do_not_solve(tmp_path: Path, data: Any) -> None:
    def check(session: Session, m: Method) -> None:
        assert m.hinted is not None
        assert m.hinted_statuses is not None
        drawn = list(session.read(m.hinted.rollouts))
        assert len(drawn) == 3 * 16
        assert {r.condition for r in drawn} == {Condition.HINT}
        statuses = {s.problem_id: str(s.status) for s in session.read(m.hinted_statuses)}
        assert statuses == {"p0": "solved", "p1": "hard", "p2": "hard"}
        assert [p.problem_id for p in m.hard.read(session)] == ["p1", "p2"]
        candidates = m.interventions.candidates().read(session)
        assert {p.problem_id for p in candidates} == {"p1", "p2"}
        for condition in HINTED:
            rollouts = session.read(m.interventions.verified[condition].rollouts)
            assert {r.parent_id for r in rollouts} == {p.proposal_id for p in candidates}
        # The rollouts that chose the subset are not those that measure it.
        measured = session.read(m.interventions.verified[Condition.HINT].rollouts)
        assert not {r.rollout_id for r in drawn} & {r.rollout_id for r in measured}
        counts = funnel(session, m)
        assert counts["problems with a hint"] == {"hard": 2, "solved": 1, "total": 3}

    conditions = [str(c) for c in HINTED]
    recipe = change(data, select={"condition": "hint"}, verify={"conditions": conditions})
    run_to(tmp_path / "run", recipe, check)


def test_hint_guided_rl_shows_every_problem_its_hint(tmp_path: Path, data: Any) -> None:
    def prompts(session: Session, m: Method) -> list[str]:
        training = m.models.rl_trainings()[0]
        assert training.label == "base + hint-guided RL"
        job = training.job(training.settings, session, training.key)
        return [problem.contexts[0].message for problem in job.problems]

    shown = run_to(tmp_path / "a", change(data, train_rl={"contexts": {"hint": 1}}), prompts)
    hints = [hint_of(problem(REFERENCE, f"p{n}"), 0) for n in range(3)]
    assert [text.partition("Hint: ")[2] for text in shown] == hints
    bare = tmp_path / "bare.jsonl"
    bare.write_text(json.dumps({"id": "q", "problem": "x?", "answer": "1"}) + "\n")
    recipe = change(
        data,
        problems={"path": str(bare)},
        propose={"reference": "none"},
        train_rl={"contexts": {"hint": 1}},
    )
    with pytest.raises(DataError, match="1 of 1 problems have no reference_solution"):
        run_to(tmp_path / "b", recipe, prompts)


# Rows of whole solutions.


def rows_of(session: Session, m: Method) -> dict[str, SftRow]:
    """Return the rows to train on by problem, once they are what every baseline's must be."""
    rows = list(session.read(m.models.rows))
    step_rows = [r for r in session.read(m.models.step_rows) if r.outcome is RowOutcome.READY]
    assert rows
    assert sorted(r.problem_id for r in rows) == sorted(r.problem_id for r in step_rows)
    texts = {p.problem_id: p.text for p in m.setup.problems.train}
    end = RENDERER.end_of_turn_ids
    for row in rows:
        assert row.source is RowSource(m.setup.recipe.build_sft.source)
        assert row.closes_turn
        if row.outcome is RowOutcome.READY:
            assert list(row.input_ids[-len(end) :]) == end == list(row.labels[-len(end) :])
            question = m.setup.prompts["solve"].render(problem=texts[row.problem_id])
            prompt = RENDERER.prompt_ids([{"role": "user", "content": question}])
            assert list(row.input_ids[: row.prompt_tokens]) == prompt
            assert set(row.labels[: row.prompt_tokens]) == {-100}
            assert row.labels[row.prompt_tokens :] == row.input_ids[row.prompt_tokens :]
        else:
            assert not row.input_ids
    funnel(session, m)
    return {row.problem_id: row for row in rows}


def text_of(row: SftRow) -> str:
    return RENDERER.decode(row.input_ids[row.prompt_tokens :])


def test_references_become_rows_of_int_s_problems(tmp_path: Path, data: Any) -> None:
    recipe = change(data, build_sft={"source": "reference"})
    rows = run_to(tmp_path / "run", recipe, rows_of)
    assert len(rows) == 3
    # The prompt asks for a boxed answer; this reference has none of its own.
    assert {text_of(r) for r in rows.values()} == {f"{REFERENCE}\n\nThe answer is \\boxed{{4}}."}


def test_with_all_rows_a_baseline_has_as_many(tmp_path: Path, data: Any) -> None:
    build = {"source": "reference", "rows_per_problem": "all"}
    rows = run_to(
        tmp_path / "run",
        change(data, build_sft=build),
        lambda session, m: list(session.read(m.models.rows)),
    )
    assert len(rows) == len({row.row_id for row in rows}) == 6


def test_self_reflections_rewrite_the_rollout_that_int_fixes(tmp_path: Path, data: Any) -> None:
    def check(session: Session, m: Method) -> None:
        rows = rows_of(session, m)
        assert {p: str(r.outcome) for p, r in rows.items()} == {
            "p0": "ready", "p1": "not_verified", "p2": "ready",
        }  # fmt: skip
        assert text_of(rows["p0"]) == REWRITE
        assert m.models.solutions is not None
        drawn = {r.rollout_id: r for r in session.read(m.models.solutions.rollouts)}
        assert len(drawn) == 3 * 4
        from_rollouts = {p: row for p, row in rows.items() if row.rollout_id}
        assert from_rollouts.keys() >= {"p0", "p2"}
        for row in from_rollouts.values():
            rollout = drawn[str(row.rollout_id)]
            assert rollout.parent_id == row.proposal_id
            assert rollout.condition is Condition.REFLECTION

    run_to(tmp_path / "run", change(data, build_sft={"source": "self_reflection"}), check)


def test_self_reflections_without_filter_keep_the_wrong_ones(tmp_path: Path, data: Any) -> None:
    recipe = change(data, build_sft={"source": "self_reflection", "filter": False})
    rows = run_to(tmp_path / "run", recipe, rows_of)
    assert {row.outcome for row in rows.values()} == {RowOutcome.READY}
    assert "5" in text_of(rows["p1"])
    assert rows["p1"].num_correct == 0


def test_a_solution_cut_off_by_its_budget_is_no_row(tmp_path: Path, data: Any) -> None:
    build = {"source": "self_reflection", "filter": False, "sampling": {"max_tokens": 10}}
    rows = run_to(tmp_path / "run", change(data, build_sft=build), rows_of)
    assert {row.outcome for row in rows.values()} == {RowOutcome.NO_SOLUTION}


def test_a_teacher_s_correct_rollouts_become_rows(tmp_path: Path, data: Any) -> None:
    replies = ["<think>Hm, 4?</think>\n\nIt is \\boxed{4}.", "It is \\boxed{5}."]
    teacher = script(tmp_path / "teacher.json", [".", *replies])
    build: dict[str, Any] = {"source": "distillation", "num_solutions": 8}

    def check(session: Session, m: Method) -> None:
        rows = rows_of(session, m)
        assert {text_of(row) for row in rows.values()} == {replies[0]}
        assert m.models.solutions is not None
        drawn = list(session.read(m.models.solutions.rollouts))
        assert len(drawn) == 3 * 8
        named = m.setup.helper("", None, m.setup.recipe.teacher_engine)
        assert {r.model for r in drawn} == {named.name} != {m.setup.base.name}

    run_to(tmp_path / "a", change(data, build_sft=build, teacher_engine=teacher), check)
    build["trace"] = "summary"
    recipe = change(data, build_sft=build, teacher_engine=teacher)
    rows = run_to(tmp_path / "b", recipe, rows_of)
    assert {text_of(row) for row in rows.values()} == {"It is \\boxed{4}."}


class ChatEngine(ScriptedEngine):
    """A server that speaks messages only and returns no ids."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, token_ids=False)

    def complete(self, request: Request) -> Completion:
        assert not request.prompt_token_ids
        text = self._script(request.messages[0]["content"], request.seed)
        return Completion(
            request_id=request.request_id, token_ids=(), text=text, finish_reason=FinishReason.STOP
        )


TEACHING = {"build_sft": {"source": "distillation", "num_solutions": 2}}
WRITING = {"prompts": "default", "reference": {"write": "all", "num_attempts": 2}}


@pytest.mark.parametrize(
    ("engine", "sections", "drawn_of", "asked"),
    [
        ("teacher_engine", TEACHING, lambda m: m.models.solutions, "What is 2"),
        ("reference_engine", WRITING, lambda m: m.references.settings.attempts, "Write a r"),
    ],
)
def test_a_server_of_messages_can_teach_and_write_references(
    engine: str, sections: dict[str, Any], drawn_of: Callable[[Method], Drawn], asked: str,
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    helper = script(tmp_path / "chat.json", [".", "what the server would not say"])
    chat = ChatEngine(lambda text, seed: f"I was asked: {text[:9]}")

    def open_helper(config: EngineConfig, source: ModelConfig, path: str) -> Engine:
        is_helper = isinstance(config, ScriptedConfig) and config.script == helper["script"]
        return chat if is_helper else open_engine(config, source, path)

    monkeypatch.setattr("midcourse.pipeline.session.open_engine", open_helper)
    rollouts = run_to(
        tmp_path / "run",
        change(data, **sections, **{engine: helper}),
        lambda session, m: list(session.read(drawn_of(m).rollouts)),
    )
    assert sorted(r.problem_id for r in rollouts) == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert {r.token_ids for r in rollouts} == {()}
    assert {r.text for r in rollouts} == {f"I was asked: {asked}"}


def test_parts_of_a_trace() -> None:
    text = "<think>\nHm.\n</think>\n\nSo 4."
    assert trace_of(text, "whole") == text
    assert trace_of(text, "thinking") == "Hm."
    assert trace_of(text, "summary") == "So 4."
    assert trace_of("So 4.", "summary") == "So 4."
    assert trace_of("So 4.", "thinking") == ""


def test_recipes_that_contradict_themselves_are_refused(data: Any) -> None:
    contradictions: dict[str, dict[str, Any]] = {
        "no intervention yet": {"hints": {"length": "intervention"},
                                "select": {"condition": "hint"}},
        "a hint has no intervention": {"hints": {"length": "intervention"},
                                       "train_rl": {"contexts": {"hint": 1}}},
        "'dpo' compares": {"train_sft": {"method": "dpo"}, "build_sft": {"suffix": True}},
        "needs build_sft.teacher": {"build_sft": {"source": "distillation"}},
        "leave out propose.reference": {"propose": {"truth": True, "reference": "none"}},
        "not a row of Table 1": {"verify": {"conditions": ["reflection"]}},
    }  # fmt: skip
    for said, sections in contradictions.items():
        with pytest.raises(ValueError, match=said):
            change(data, **sections)


# Pairs for Step-DPO.


def test_pairs_part_after_the_prefix(tmp_path: Path, data: Any) -> None:
    def check(session: Session, m: Method) -> None:
        training = m.models.patched.trained
        assert training is not None
        rows = list(session.read(training.settings.rows))
        pairs = step_pairs(rows, session.read(training.settings.rejected))
        assert len(pairs) == 3
        for pair in pairs:
            assert RENDERER.decode(pair.prompt_ids).endswith("Two and two.\n\n")
            assert RENDERER.decode(pair.chosen_ids) == "So 2 + 2 makes four.\n\n"
            assert RENDERER.decode(pair.rejected_ids) == "So 2 + 2 = 5.\n\n"
        with pytest.raises(DataError, match="makes no row"):
            step_pairs(rows, [])

    run_to(tmp_path / "run", change(data, train_sft={"method": "dpo"}), check)


def test_an_original_step_that_ended_the_rollout_does_not_end_the_turn() -> None:
    ids = [*RENDERER.encode(REPLY), *RENDERER.end_of_turn_ids]
    assert RENDERER.cut(ids, REPLY).all == RENDERER.encode(REPLY)


# Written references.


def test_missing_references_are_written_and_graded(tmp_path: Path, data: Any) -> None:
    lines = Path(data["problems"]["path"]).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[1:]:
        del row["reference_solution"]
    Path(data["problems"]["path"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    writer = script(
        tmp_path / "writer.json", ["2, 1", "<think>Hm.</think>\n\nIt is \\boxed{4}."],
        [".", "It is \\boxed{3}."],
    )  # fmt: skip

    def check(session: Session, m: Method) -> None:
        found = {r.problem_id: r for r in session.read(m.references)}
        assert {p: r.outcome for p, r in found.items()} == {
            "p0": ReferenceOutcome.GIVEN, "p1": ReferenceOutcome.WRITTEN,
            "p2": ReferenceOutcome.NOT_SOLVED,
        }  # fmt: skip
        named = m.setup.helper("", None, m.setup.recipe.reference_engine)
        assert found["p1"].text == "It is \\boxed{4}."
        assert found["p1"].source == named.name != m.setup.base.name
        assert found["p0"].source == "problems"
        assert (found["p2"].num_attempts, found["p2"].num_correct) == (2, 0)
        # App. G keeps the problems that its oracle solves.
        assert [p.problem_id for p in m.hard.read(session)] == ["p0", "p1"]
        shown = [p.turns[0].prompt for p in session.read(m.proposals)]
        assert any("It is \\boxed{4}." in prompt for prompt in shown)
        assert funnel(session, m)["references"]["total"] == 3

    reference = {"write": "missing", "num_attempts": 2}
    recipe = change(data, reference=reference, reference_engine=writer)
    run_to(tmp_path / "run", recipe, check)


def test_references_can_be_written_for_all(tmp_path: Path, data: Any) -> None:
    writer = script(tmp_path / "writer.json", [".", "It is \\boxed{4}."])

    def check(session: Session, m: Method) -> None:
        outcomes = {r.outcome for r in session.read(m.references)}
        assert outcomes == {ReferenceOutcome.WRITTEN}
        assert {p.reference_solution for p in m.hard.read(session)} == {"It is \\boxed{4}."}
        rows = {text_of(row) for row in session.read(m.models.rows)}
        assert rows == {"It is \\boxed{4}."}

    recipe = change(
        data, reference={"write": "all"}, reference_engine=writer, build_sft={"source": "reference"}
    )
    run_to(tmp_path / "run", recipe, check)


# Shifts and fresh continuations.


def test_a_shifted_intervention_stands_elsewhere_under_an_id_of_its_own(
    tmp_path: Path, data: Any
) -> None:
    condition = Condition.PREFIX_INTERVENTION

    def check(session: Session, m: Method) -> None:
        plain = {p.rollout_id: p for p in m.interventions.candidates().read(session)}
        assert len(plain) == 6
        for shift, before in ((-1, ""), (1, "Two and two.\n\nSo 2 + 2 = 5.\n\n")):
            moved = m.interventions.candidates(shift).read(session)
            assert len(moved) == len(plain)
            for proposal in moved:
                original = plain[proposal.rollout_id]
                assert proposal.location == (original.location or 0) + shift
                assert proposal.intervention == original.intervention
                assert proposal.proposal_id != original.proposal_id
            texts = [
                RENDERER.decode(context.response.all)
                for context in contexts_of(session, m, condition, shift)
            ]
            assert texts == [before + "So 2 + 2 makes four.\n\n"] * len(plain)
        drawn = [
            {r.rollout_id for r in session.read(m.interventions.verify(condition, shift).rollouts)}
            for shift in (0, 1)
        ]
        assert all(drawn)
        assert not drawn[0] & drawn[1]
        beyond = m.interventions.candidates(3)
        proposals = list(session.read(beyond.proposals))
        assert {p.outcome for p in proposals} == {ProposalOutcome.LOCATION_OUT_OF_RANGE}
        assert len(proposals) == len(plain)
        assert beyond.read(session) == []

    run_to(tmp_path / "run", change(data), check)


def test_a_recipe_s_shift_reaches_the_rows(tmp_path: Path, data: Any) -> None:
    def check(session: Session, m: Method) -> None:
        rows = ready(session, m)
        assert len(rows) == 3
        for row in rows:
            assert text_of(row).startswith("So 2 + 2 makes four.")
        assert funnel(session, m)["shifted"]["total"] == 6

    run_to(tmp_path / "run", change(data, verify={"shift": -1}), check)


def test_kept_interventions_are_measured_again_on_fresh_continuations(
    tmp_path: Path, data: Any
) -> None:
    Path(data["engine"]["script"]).write_text(
        json.dumps(
            [
                [r"Compare and intervene", PROPOSAL],
                [r"(?s)2, 1\?.*makes four\.\n\n$", REPLY],  # never right: not kept
                [r"makes four\.\n\n$", FIXED, REPLY],
                [r".", REPLY, REPLY + " "],
            ]
        )
    )

    def check(session: Session, m: Method) -> None:
        verified = m.interventions.verified[Condition.PREFIX_INTERVENTION]
        first = list(session.read(verified.rollouts))
        again = list(session.read(m.interventions.reestimated.rollouts))
        correct = [g for g in session.read(verified.grades) if g.verdict is Verdict.CORRECT]
        kept = {g.parent_id for g in correct}
        assert {g.problem_id for g in correct} == {"p0", "p2"}
        assert {r.parent_id for r in again} == kept
        assert len(again) == 4 * len(kept)
        assert {r.index for r in again} == {4, 5, 6, 7}
        assert not {r.rollout_id for r in first} & {r.rollout_id for r in again}
        assert not {r.seed for r in first} & {r.seed for r in again}
        shas = {r.parent_id: r.prompt_sha for r in first}
        assert all(r.prompt_sha == shas[r.parent_id] for r in again)

    run_to(tmp_path / "run", change(data), check)


# The lab's truth.


def attempt(lab_problem: Problem, story: Story) -> Rollout:
    """A rollout of somebody who believes what the base was taught."""
    text = "\n\n".join(story.steps_with([move.belief for move in story.moves]))
    return Rollout(
        rollout_id=f"r-{lab_problem.problem_id}", problem_id=lab_problem.problem_id, index=0,
        condition=Condition.PROBLEM, parent_id=None, prompt_sha="", prompt_tokens=0, text=text,
        token_ids=(), num_tokens=0, finish_reason=FinishReason.STOP, model="m", seed=0,
        sampling=Sampling(temperature=1, top_p=1, top_k=0, min_p=0, repetition_penalty=1,
                          max_tokens=1),
    )  # fmt: skip


def test_the_lab_can_propose_the_truth() -> None:
    lab = lab_problems(ProblemsConfig(kind="lab", num_composed=12, num_single=0, num_known=1), 0)
    stories = {name: story for name, story in lab.stories.items() if isinstance(story, Story)}
    cases = [Case(p, attempt(p, stories[p.problem_id]), "") for p in lab.train]

    def tell(case: Case) -> Told:
        return world_step(case, stories[case.problem.problem_id])

    made = [p for _, ps in oracle_proposals(cases, tell, WORLD, "\n\n", ()) for p in ps]
    assert len(made) == len(cases) == 13
    *wrong, right = made
    assert right.outcome is ProposalOutcome.NO_ERROR_FOUND
    for proposal, case in zip(wrong, cases, strict=False):
        story = stories[proposal.problem_id]
        assert proposal.outcome is ProposalOutcome.ACCEPTED
        assert proposal.error_step == first_error(case.rollout.text, story)
        assert insert_step(proposal) == proposal.error_step
        believed = [move.belief != move.amount for move in story.moves]
        assert proposal.error_step == believed.index(True)
        assert proposal.intervention == story.steps[proposal.error_step] + "\n\n"


# Identity.


def test_a_model_is_known_by_its_weights(tmp_path: Path, data: Any) -> None:
    """A patched folder has its base's files at their sizes: only a few bytes differ."""
    copy, patched = tmp_path / "a" / "final", tmp_path / "b" / "final"
    for folder in (copy, patched):
        shutil.copytree(base_folder(), folder)
    weights = patched / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1000] ^= 1
    weights.write_bytes(content)
    assert model_fingerprint(str(copy)) == model_fingerprint("lab")
    assert model_fingerprint(str(patched)) != model_fingerprint("lab")

    def read(session: Session, m: Method) -> tuple[str, set[str], set[str]]:
        rollouts = list(session.read(m.train.rollouts))
        return m.setup.base.name, {r.model for r in rollouts}, {r.rollout_id for r in rollouts}

    found = [
        run_to(tmp_path / str(i), change(data, model={"path": path}), read)
        for i, path in enumerate(("lab", str(copy), str(patched)))
    ]
    base, same, second_round = found
    assert base == same
    assert base[1] == {base[0]}
    assert base[0] != second_round[0]
    assert not base[2] & second_round[2]


def test_verdicts_reach_the_rows(tmp_path: Path, data: Any) -> None:
    def check(session: Session, m: Method) -> None:
        rows = rows_of(session, m)
        assert m.models.solutions is not None
        verdicts = [g.verdict for g in session.read(m.models.solutions.grades)]
        assert sum(r.num_correct for r in rows.values()) == verdicts.count(Verdict.CORRECT) == 8
        assert sum(r.num_continuations for r in rows.values()) == len(verdicts) == 12

    run_to(tmp_path / "run", change(data, build_sft={"source": "self_reflection"}), check)


# Whole, with real training, on the lab's base model.

SMALL: dict[str, Any] = {
    "name": "small", "prompts": "lab", "model": {"path": "lab"},
    "problems": {"kind": "lab", "num_composed": 0, "num_single": 6, "num_known": 0,
                 "num_held_out": 2, "num_probe": 1},
    "sample": {"num_rollouts": 4, "sampling": {"max_tokens": 140}},
    "propose": {"truth": True, "turns": "single", "num_rollouts": 1},
    "verify": {"num_continuations": 2, "sampling": {"max_tokens": 140}},
    "build_sft": {"source": "reference", "filter": False},
    "train_sft": {"batch_size": 2, "micro_batch_size": 2, "learning_rate": 1e-3, "max_steps": 2},
    "train_rl": {"num_iterations": 2, "prompts_per_iteration": 2, "num_generations": 2,
                 "num_updates": 1, "micro_batch_size": 4, "save_every": 1,
                 "keep_checkpoints": True, "contexts": {"hint": 1}, "sampling": {"max_tokens": 60}},
    "evaluate": {"models": ["base", "patched", "patched + RL"], "num_rollouts": 2, "ks": [1, 2],
                 "num_probe_rollouts": 1, "sampling": {"max_tokens": 60}},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_baseline_runs_whole_and_is_called_what_it_is(tmp_path: Path) -> None:
    def check(session: Session, m: Method) -> None:
        assert m.hard.read(session)
        labels = ["base", "SFT on references", "SFT on references + hint-guided RL"]
        assert [model.label for model in m.models.compared] == labels
        trained = m.models.compared[2].trained
        assert trained is not None
        names = [model.name for model in m.models.course(Start.PATCHED).values()]
        assert names == [m.models.patched.name, f"rl:{trained.key}@1", f"rl:{trained.key}@2"]
        assert m.models.patched.name.startswith("sft:")
        drawn = [
            {r.rollout_id for r in session.read(graded.rollouts)}
            for graded in m.evaluation.along_rl().values()
        ]
        assert [len(ids) for ids in drawn] == [4, 4, 4]
        assert not drawn[0] & drawn[1] | drawn[1] & drawn[2]
        assert len(list(session.run.directory.glob("checkpoints/*/manifest.json"))) == 2
        whats = {item.what for item in session.read(m.evaluation.likelihoods[0])}
        assert {"reference_row", "reference", "own_rollout"} <= whats

    run_to(tmp_path / "run", Recipe.model_validate(SMALL), check)
