"""The first-error benchmark: the published formats, the reading of answers, scores, the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from midcourse.cli import app
from midcourse.config import ModelConfig, SamplingConfig, ScriptedConfig, make_recipe
from midcourse.engines.scripted_engine import ByteTokenizer, ScriptedEngine
from midcourse.errors import DataError
from midcourse.localize.ask import (
    Cases,
    Localization,
    LocalizationOutcome,
    LocalizeSettings,
    localization,
    parse_first_error,
)
from midcourse.localize.cases import ErrorCase, load_error_cases
from midcourse.localize.run import load_cases, run_localization
from midcourse.localize.scores import baselines, first_error_tables, score
from midcourse.pipeline import Model
from midcourse.progress import Failures, SilentProgress
from midcourse.prompts import load_prompt_set
from midcourse.rendering import Renderer
from midcourse.run import Reader, Run, Work

OURS = {
    "id": "a", "problem": "2 + 2?", "reference_solution": "4.", "source": "mine",
    "steps": ["Two.", "Five."], "first_error_step": 1,
}  # fmt: skip


def write(folder: Path, name: str, data: object) -> Path:
    path = folder / name
    lines = isinstance(data, list) and name.endswith(".jsonl")
    path.write_text("".join(json.dumps(x) + "\n" for x in data) if lines else json.dumps(data))  # type: ignore[attr-defined]
    return path


def case(number: int, num_steps: int, error_step: int | None, problem: str = "") -> ErrorCase:
    return ErrorCase(
        case_id=str(number),
        source="s",
        problem=problem or f"problem {number}",
        reference="right",
        steps=tuple(f"step {i}" for i in range(num_steps)),
        error_step=error_step,
    )


def test_our_own_rows(tmp_path: Path) -> None:
    span = {
        "id": "b", "problem": "p", "rollout": "One.\n\nTwo.\n\nThree.", "error_start": 6,
        "error_end": 9, "reference_solution": None,
    }  # fmt: skip
    right = {**OURS, "id": "c", "first_error_step": -1}
    cases = load_error_cases(write(tmp_path, "x.jsonl", [OURS, span, right]))
    assert [(c.case_id, c.source, c.reference, c.error_step) for c in cases] == [
        ("a", "mine", "4.", 1), ("b", "x", None, 1), ("c", "mine", "4.", None),
    ]  # fmt: skip
    assert cases[1].steps == ("One.\n\n", "Two.\n\n", "Three.")


def test_processbench_as_published(tmp_path: Path) -> None:
    row = {
        "id": "olympiadbench-7", "generator": "m", "problem": "p", "steps": ["s", "t"],
        "final_answer_correct": True, "label": -1,
    }  # fmt: skip
    wrong = {**row, "id": "olympiadbench-8", "label": 0}
    first, second = load_error_cases(write(tmp_path, "olympiadbench.json", [row, wrong]))
    assert (first.source, first.error_step, first.reference) == (
        "ProcessBench/olympiadbench", None, None,
    )  # fmt: skip
    assert second.error_step == 0


def test_mr_gsm8k_as_published(tmp_path: Path) -> None:
    row = {
        "uuid": "u", "question": "q", "ground_truth_solution": "g\n#### 5",
        "ground_truth_answer": 5, "model_output_steps": ["Step 1: a", "Step 2: b"],
        "model_output_answer_correctness": "wrong", "model_output_solution_correctness": "wrong",
        "model_output_solution_first_error_step": 2, "question_type": "original",
    }  # fmt: skip
    right = {
        **row, "uuid": "v", "model_output_solution_correctness": "correct",
        "model_output_solution_first_error_step": "N/A",
    }  # fmt: skip
    cases = load_error_cases(write(tmp_path, "m.json", [row, right]))
    assert [c.error_step for c in cases] == [1, None]
    assert (cases[0].source, cases[0].reference) == ("MR-GSM8K/original", "g\n#### 5")
    broken = {**row, "model_output_solution_first_error_step": "N/A"}
    with pytest.raises(DataError, match="row 1: the solution is marked wrong or right"):
        load_error_cases(write(tmp_path, "broken.json", [broken]))


def test_big_bench_mistake_as_published(tmp_path: Path) -> None:
    row = {"input": "1 + 1 =", "steps": ["a", "b"], "target": "2", "answer": "3"}
    rows = [{**row, "mistake_index": 1}, {**row, "mistake_index": None}]
    cases = load_error_cases(write(tmp_path, "word_sorting.jsonl", rows))
    assert [(c.case_id, c.error_step) for c in cases] == [
        ("word_sorting-0", 1), ("word_sorting-1", None),
    ]  # fmt: skip
    assert cases[0].source == "BIG-Bench-Mistake/word_sorting"


def test_champ_as_published(tmp_path: Path) -> None:
    text = "Let x = 1.\n\nSo x = 2.\n\nDone."
    problem = {
        "identifier": "P_1", "_text": "p", "_answer": "1",
        "solution": {"steps": [{"_text": "x is"}, {"_text": "one."}]},
        "fws_annotations": {
            "m|0-Shot": {"text": text, "start_idx": text.index("x = 2"), "end_idx": 20},
            "m|5-Shot": {"text": text, "start_idx": None, "end_idx": None},
        },
    }  # fmt: skip
    data = {"problems": {"P_1": problem}, "concepts": {}, "hints": {}}
    wrong, right = load_error_cases(write(tmp_path, "v0.json", data))
    assert (wrong.case_id, wrong.error_step, wrong.reference) == ("P_1|m|0-Shot", 1, "x is\none.")
    assert right.error_step is None
    assert "".join(right.steps) == text


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem": "p"}, "row 1: no format that is known"),
        ({**OURS, "first_error_step": 2}, "not one of the 2 steps"),
        ({**OURS, "first_error_step": True}, "'first_error_step' is True, wanted int"),
        ({**OURS, "steps": []}, "no steps"),
        ({**OURS, "steps": ["a", 3]}, "not text"),
        ({"problem": "p", "rollout": "One.", "error_start": 4}, "the marked span"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_error_cases(write(tmp_path, "x.jsonl", [row]))
    assert "\n" not in str(caught.value)


def test_a_case_is_given_once(tmp_path: Path) -> None:
    path = write(tmp_path, "x.jsonl", [OURS, OURS])
    with pytest.raises(DataError, match="make ids unique"):
        load_error_cases(path)
    once = str(write(tmp_path, "y.jsonl", [OURS]))
    with pytest.raises(DataError, match="two of the files"):
        load_cases([once, once], None)
    path.write_text("[1,\n")
    with pytest.raises(DataError, match="row 1: not JSON"):
        load_error_cases(path)


def test_a_limit_is_per_source(tmp_path: Path) -> None:
    rows = [{**OURS, "id": str(i), "source": "ab"[i % 2]} for i in range(6)]
    path = str(write(tmp_path, "x.jsonl", rows))
    assert [c.case_id for c in load_cases([path], 2)] == ["0", "1", "2", "3"]


NAMED, NO_ERROR = LocalizationOutcome.NAMED, LocalizationOutcome.NO_ERROR


@pytest.mark.parametrize(
    ("raw", "outcome", "step"),
    [
        ("<first_error>3</first_error>", NAMED, 2),
        ("log\n<first_error> Substep 1 </first_error> bye", NAMED, 0),
        ("<first_error>1</first_error> no, <first_error>2</first_error>", NAMED, 1),
        ("<first_error></first_error>", NO_ERROR, None),
        ("<first_error>\n</first_error>", NO_ERROR, None),
        ('<intervention>{"content": "\\\\x", "location": 2}</intervention>', NAMED, 1),
        ("<intervention></intervention>", NO_ERROR, None),
        ("", LocalizationOutcome.NO_TAG, None),
        ("There is no error.", LocalizationOutcome.NO_TAG, None),
        ("<first_error>3", LocalizationOutcome.NO_TAG, None),
        ("<first_error>none</first_error>", LocalizationOutcome.MALFORMED, None),
        ("<first_error>NUMBER</first_error>", LocalizationOutcome.MALFORMED, None),
        ("<intervention>[]</intervention>", LocalizationOutcome.MALFORMED, None),
        ("<first_error>0</first_error>", LocalizationOutcome.OUT_OF_RANGE, None),
        ("<first_error>-1</first_error>", LocalizationOutcome.OUT_OF_RANGE, None),
        ("<first_error>5</first_error>", LocalizationOutcome.OUT_OF_RANGE, None),
    ],
)
def test_only_an_empty_tag_means_no_error(
    raw: str, outcome: LocalizationOutcome, step: int | None
) -> None:
    assert parse_first_error(raw, 4) == (outcome, step)


@dataclass
class ScriptedTools:
    """Tools that hand out one engine."""

    script: Callable[[str, int], str]

    def engine(self, model: Model) -> ScriptedEngine:
        return ScriptedEngine(self.script)

    def renderer_for(self, model: Model) -> Renderer:
        return Renderer(ByteTokenizer())


def ask(cases: Sequence[ErrorCase], script: Callable[[str, int], str]) -> list[Localization]:
    source = ModelConfig(path="lab")
    settings = LocalizeSettings(
        cases=Cases(tuple(cases)),
        prompt=load_prompt_set("default")["localize"],
        sampling=SamplingConfig(temperature=0.0, max_tokens=60),
        model=Model(name="x", label="script", source=source, engine=ScriptedConfig()),
        seed=0,
    )
    work: Work[Localization] = Work(
        reader=cast("Reader", None), tools=ScriptedTools(script), done=(), kept=lambda: iter(()),
        failures=Failures(),
    )  # fmt: skip
    made = localization(settings, "").make(settings, work)
    return [record for _, records in made for record in records]


def test_every_question_gets_an_outcome() -> None:
    replies = {"problem 0": "<first_error>2</first_error>", "problem 1": "x" * 100}

    def script(text: str, seed: int) -> str:
        return next((reply for key, reply in replies.items() if key in text), "hm")

    answers = ask([case(i, 3, 1) for i in range(3)], script)
    outcomes = ["named", "truncated", "no_tag"]
    assert [str(a.outcome) for a in answers] == outcomes
    assert [a.named_step for a in answers] == [1, None, None]
    (scores,) = score([case(i, 3, 1) for i in range(3)], answers)
    assert scores.exact.estimate == pytest.approx(1 / 3)
    assert scores.num_unread == 2


def test_the_default_question_presumes_nothing() -> None:
    prompts = load_prompt_set("default")
    seen: list[str] = []
    ask([case(0, 2, 1)], lambda text, seed: seen.append(text) or "")  # type: ignore[func-returns-value]
    assert "Substep 2: step 1" in seen[0]
    assert "right" in seen[0]
    for purpose in ("localize", "localize_no_reference"):
        text = prompts[purpose].template
        assert "may be right from beginning to end" in text
        assert "<first_error></first_error>" in text
    assert "reference" not in prompts["localize_no_reference"].fields


def answer(of: ErrorCase, outcome: LocalizationOutcome, named: int | None) -> Localization:
    return Localization(
        localization_id=of.case_id, case_id=of.case_id, source=of.source, locator="x",
        shows_reference=True, num_steps=len(of.steps), error_step=of.error_step,
        outcome=outcome, named_step=named, reply="", prompt_name="", prompt_sha="",
    )  # fmt: skip


def test_scores_by_hand() -> None:
    cases = [case(0, 5, 2), case(1, 5, 2), case(2, 5, 2), case(3, 5, 2), case(4, 5, None),
             case(5, 5, None)]  # fmt: skip
    answers = [
        answer(cases[0], NAMED, 2),
        answer(cases[1], NAMED, 3),
        answer(cases[2], NAMED, 0),
        answer(cases[3], NO_ERROR, None),
        answer(cases[4], NO_ERROR, None),
        answer(cases[5], LocalizationOutcome.NO_TAG, None),
    ]
    (s,) = score(cases, answers)
    assert (s.num_wrong, s.num_right, s.num_unread) == (4, 2, 1)
    assert s.exact.estimate == 0.25
    assert s.within_one.estimate == 0.5
    assert s.not_later.estimate == 0.5
    assert s.says_no_error.estimate == 0.5
    assert s.f1 is not None
    assert s.f1.estimate == pytest.approx(2 * 0.25 * 0.5 / 0.75)
    (only_wrong,) = score(cases[:4], answers[:4])
    assert only_wrong.f1 is None


def test_a_question_that_was_never_answered_counts_as_nothing() -> None:
    cases = [case(0, 5, 2), case(1, 5, 2)]
    unanswered = answer(cases[1], LocalizationOutcome.REQUEST_FAILED, None)
    (with_it,) = score(cases, [answer(cases[0], NAMED, 2), unanswered])
    assert (with_it.num_wrong, with_it.num_unread, with_it.exact.estimate) == (1, 0, 1.0)
    assert score(cases, [unanswered]) == []


def test_nothing_right_still_has_an_interval() -> None:
    cases = [case(i, 5, 2 if i < 8 else None) for i in range(12)]
    (s,) = score(cases, [answer(c, LocalizationOutcome.NO_TAG, None) for c in cases])
    assert s.exact.estimate == 0
    assert 0.2 < s.exact.high < 0.5
    assert s.f1 is not None
    assert 0.2 < s.f1.high < 0.6


def test_solutions_of_one_problem_are_resampled_together() -> None:
    apart = [case(i, 4, 1) for i in range(40)]
    together = [case(i, 4, 1, problem=f"problem {i // 10}") for i in range(40)]

    def width(cases: list[ErrorCase]) -> float:
        answers = [answer(c, NAMED, 1 if int(c.case_id) < 20 else 3) for c in cases]
        (s,) = score(cases, answers)
        return s.exact.high - s.exact.low

    assert width(together) > 2 * width(apart)


def test_baselines_are_what_a_guesser_gets() -> None:
    # Short solutions go wrong at step 0, long ones at step 3; two in three are short.
    cases = [case(i, 2, 0) if i % 3 else case(i, 6, 3) for i in range(90)]
    found = {name: scores[0] for name, scores in baselines(cases).items()}
    assert found["best fixed position, in hindsight"].exact.estimate == pytest.approx(2 / 3)
    assert found["most common position"].exact.estimate == pytest.approx(2 / 3)
    assert found["most common at this length"].exact.estimate == 1.0
    uniform = found["uniform over the steps"]
    assert uniform.exact.estimate == pytest.approx(2 / 3 / 2 + 1 / 3 / 6)
    assert uniform.not_later.estimate == pytest.approx(2 / 3 / 2 + 1 / 3 * 4 / 6)
    assert all(scores.f1 is None for scores in found.values())


def test_guessed_positions_are_not_learnt_from_the_case_itself() -> None:
    cases = [case(i, 50, i) for i in range(50)]  # nothing to learn: every position once
    found = baselines(cases)
    assert found["most common position"][0].exact.estimate == 0
    assert found["best fixed position, in hindsight"][0].exact.estimate == pytest.approx(1 / 50)


def test_the_f1_of_a_guesser_is_the_best_it_can_mix() -> None:
    cases = [case(i, 4, 1 if i < 25 else 2) for i in range(50)]
    cases += [case(i, 4, None) for i in range(50, 80)]
    scores = baselines(cases)["best fixed position, in hindsight"][0]
    exact = scores.exact.estimate
    mixes = [p / 1000 for p in range(1, 1000)]
    best = max(2 * (1 - p) * exact * p / ((1 - p) * exact + p) for p in mixes)
    assert scores.f1 is not None
    assert scores.f1.estimate == pytest.approx(best, abs=1e-4)


def test_a_run_is_kept_and_resumed(tmp_path: Path) -> None:
    rows = [{**OURS, "id": str(i), "reference_solution": "4." if i else None} for i in range(4)]
    cases = load_cases([str(write(tmp_path, "x.jsonl", rows))], None)
    script = tmp_path / "script.json"
    script.write_text(
        json.dumps([["known to be right", "<first_error>2</first_error>"], [".", ""]])
    )
    recipe = make_recipe(
        {
            "name": "x",
            "model": {"path": "lab"},
            "engine": {"kind": "scripted", "script": str(script)},
        },
        [],
        "test",
    )
    with Run(tmp_path / "run", recipe, SilentProgress()) as run:
        tables = run_localization(run, cases)
    assert [(row[0], row[1], row[2][:5]) for row in tables[0].rows[:2]] == [
        ("script.json, with reference", "3 + 0", "100.0"),
        ("script.json, without reference", "4 + 0", "0.0 ["),
    ]
    assert tables[0].rows[1][-1] == "4"
    assert json.loads((tmp_path / "run" / "localize.json").read_text())[0]["rows"]
    parts = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.parquet")}
    moved = script.rename(tmp_path / "moved.json")
    again = make_recipe(recipe.model_dump(), [f"engine.script={moved}"], "test")
    with Run(tmp_path / "run", again, SilentProgress()) as run:
        (table,) = run_localization(run, cases)
    assert [row[1:] for row in table.rows] == [row[1:] for row in tables[0].rows]
    assert parts == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.parquet")}
    moved.write_text(json.dumps([[".", "<first_error>2</first_error>"]]))
    with Run(tmp_path / "run", again, SilentProgress()) as run:
        (table,) = run_localization(run, cases)
    assert table.rows[1][2].startswith("100.0"), "what a script says is who is asked"


def localize_command(folder: Path, *arguments: str) -> str:
    """Run the command on one case with a reference and one without; return what it says."""
    rows = [OURS, {**OURS, "id": "b", "reference_solution": None}]
    file = str(write(folder, "x.jsonl", rows))
    done = CliRunner().invoke(app, ["localize", file, *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_asks_a_script_and_shows_what_guessing_gets(tmp_path: Path) -> None:
    script = write(tmp_path, "s.json", [[".", "<first_error>2</first_error>"]])
    run_dir = tmp_path / "run"
    options = ["--engine", "scripted", "--set", f"engine.script={script}"]
    said = localize_command(tmp_path, *options, "--run-dir", str(run_dir))
    assert said.count("s.json") == 2
    (table,) = json.loads((run_dir / "localize.json").read_text())
    assert [row[0] for row in table["rows"]][:3] == [
        "s.json, with reference", "s.json, without reference", "best fixed position, in hindsight",
    ]  # fmt: skip
    labels = json.loads((run_dir / "stages.json").read_text()).values()
    assert [entry["label"] for entry in labels] == ["with reference", "without reference"]


def test_the_command_scores_the_guesses_alone(tmp_path: Path) -> None:
    assert "uniform over" in localize_command(tmp_path, "--baselines-only")


def test_the_packed_files_give_the_documented_baselines() -> None:
    try:
        cases = load_error_cases("$MIDCOURSE_DATA/first_error.jsonl")
        cases += load_error_cases("$MIDCOURSE_DATA/first_error_span.jsonl")
    except DataError as error:
        pytest.skip(f"the data are not here: {error}")
    fixed = baselines(cases)["best fixed position, in hindsight"]
    marked = [c for c in cases if c.error_step is not None and c.source != "CHAMP"]
    common = max(sum(c.error_step == step for c in marked) for step in range(5))
    assert 0.23 <= common / len(marked) <= 0.30  # as the data's own description says
    page = (Path(__file__).parent.parent / "docs" / "localize.md").read_text()
    for scores in fixed:
        assert f"{100 * scores.exact.estimate:.1f} [" in page
    assert len(first_error_tables({}, baselines(cases))) == 5
