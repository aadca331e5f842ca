"""What a warm-up teaches: known first errors, right references, rows that end; and a whole one."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.util import module_from_spec, spec_from_file_location
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from midcourse.checkers import Grader, checker_named
from midcourse.cli import app
from midcourse.config import ModelConfig, Recipe, TrainSftConfig, load_recipe, make_recipe
from midcourse.data import load_problems
from midcourse.data.parts import place, problems_in
from midcourse.data.worked import (
    Lines,
    answer_of,
    intervention_text,
    numbers_in,
    read_solution,
    response_steps,
)
from midcourse.engines import IDENTITY, model_fingerprint
from midcourse.engines.bundled import base_folder
from midcourse.errors import ArtifactError, ConfigError, DataError
from midcourse.pipeline import open_session
from midcourse.progress import Reporter, SilentProgress
from midcourse.prompts import load_prompt_set
from midcourse.prompts.parse import parse_proposal
from midcourse.records import Problem, ProposalOutcome, RowOutcome, RowSource
from midcourse.rendering import Renderer
from midcourse.run import trained_files
from midcourse.store.checksums import damaged_files, describe_files
from midcourse.store.stage import write_manifest
from midcourse.table import Table
from midcourse.training.jobs import ChosenRows, Job, SftJob, write_job
from midcourse.warmup.attempts import Attempt, Flaw, draw_attempt, spoil
from midcourse.warmup.check import check_table
from midcourse.warmup.documents import (
    BLANK,
    Document,
    Verification,
    draw_verification,
    question,
    readable,
    verifications,
    worked,
)
from midcourse.warmup.run import Warmup, row_of, warmup_setup

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("MIDCOURSE_DATA", "/nowhere")) / "gsm8k"
PROMPTS = load_prompt_set("short")
LESSON_PROMPTS = {name: PROMPTS[name] for name in ("solve", "single_turn", "no_reference")}


def problem(number: int = 0, reference: str | None = None) -> Problem:
    start, bought = 7 + number, 3 + number % 5
    total = 4 * (start + bought) - 2
    worked = (
        f"Tom has {start} + {bought} = {start + bought} nuts.\n"
        f"He then has {start + bought} x 4 = {4 * (start + bought)} nuts.\n"
        f"He keeps {4 * (start + bought)}-2={total} nuts."
    )
    return Problem(
        problem_id=f"tom{number}",
        text=f"Tom has {start} nuts and buys {bought} more, then makes it 4 times as many and "
        "eats 2. How many are left?",
        answer=str(total),
        reference_solution=worked if reference is None else reference,
        source="test",
        split="train",
    )


def solution_of(item: Problem) -> Lines:
    solution = read_solution(item)
    assert solution is not None
    return solution


def test_a_solution_is_read_exactly() -> None:
    lines = solution_of(problem())
    assert [line.text for line in lines] == [
        "Tom has 7 + 3 = 10 nuts.",
        "He then has 10 * 4 = 40 nuts.",
        "He keeps 40 - 2 = 38 nuts.",
    ]
    money = problem(reference="He pays $1,200.50 − $0.50 = $1200.\nHe keeps 1200/4*2 - 562 = 38.")
    assert [line.quote for line in solution_of(money)] == [
        "1200.5 - 0.5 = 1200",
        "1200 / 4 * 2 - 562 = 38",
    ]


@pytest.mark.parametrize(
    "reference",
    [
        "He has 7 + 3 = 11 nuts.\nHe keeps 40 - 2 = 38 nuts.",
        "He has 7 + x = 10 nuts.\nHe keeps 40 - 2 = 38 nuts.",
        "He has 20% * 50 = 10 nuts.\nHe keeps 40 - 2 = 38 nuts.",
        "He has (7 + 3) * 4 = 40 nuts.\nHe keeps 40 - 2 = 38 nuts.",
        "He has 7 / 0 = 10 nuts.\nHe keeps 40 - 2 = 38 nuts.",
        "He has 7 + 3 = 10 nuts.\nHe keeps 10 * 4 = 40 nuts.",
        "He keeps 40 - 2 = 38 nuts.",
        "",
    ],
    ids=["untrue", "unknown", "percent", "bracket", "by zero", "other answer", "one line", "none"],
)
def test_what_cannot_be_read_or_is_not_true_is_passed_over(reference: str) -> None:
    assert read_solution(problem(reference=reference)) is None


def draw_many(count: int = 400) -> list[tuple[Lines, Attempt]]:
    drawn = []
    for number in range(count):
        item = problem(number % 40)
        solution = solution_of(item)
        attempt = draw_attempt(random.Random(number), solution, numbers_in(item.text), True)
        assert attempt is not None
        drawn.append((solution, attempt))
    return drawn


def is_true(text: str) -> bool:
    """Whether the equations of a step are true, by Python's own arithmetic on whole numbers."""
    for equation in re.split(r"\.(?!\d)", text):
        left, sign, right = equation.partition("=")
        if sign:
            words = [w for w in left.split() if w[0].isdigit() or w in {"+", "-", "*", "/"}]
            value = Fraction(words[0])
            rest = list(zip(words[1::2], words[2::2], strict=True))
            assert len(rest) == 1, "the test's problems have one operation a step"
            operator, number = rest[0][0], Fraction(rest[0][1])
            value = {
                "+": value + number,
                "-": value - number,
                "*": value * number,
                "/": value / number,
            }[operator]
            if value != Fraction(right.split()[0]):
                return False
    return True


def test_the_first_error_is_where_it_says() -> None:
    drawn = draw_many()
    assert len(drawn) == 400
    for solution, attempt in drawn:
        step = attempt.error_step
        assert step is not None
        true = [line.text for line in attempt.true_lines]
        made = [line.text for line in attempt.lines]
        assert made[:step] == true[:step]
        assert made[step] != true[step]
        assert answer_of(attempt.lines) != answer_of(solution) == answer_of(attempt.true_lines)
        *_, closing = response_steps(attempt.lines)
        (final,) = re.findall(r"The answer is \\boxed\{(.+)\}\.", closing)
        assert Fraction(final) == attempt.lines[-1].calculations[-1].result
        assert " ".join(true) == " ".join(line.text for line in solution)


def spoiled(flaw: Flaw, step: int) -> list[Lines]:
    item = problem()
    quantities = numbers_in(item.text)
    tries = (
        spoil(random.Random(number), solution_of(item), step, flaw, quantities)
        for number in range(60)
    )
    return [lines for lines in tries if lines is not None]


@pytest.mark.parametrize("flaw", [Flaw.MISREAD, Flaw.MISCOPIED, Flaw.OPERATION])
def test_a_wrong_thing_is_reckoned_right(flaw: Flaw) -> None:
    made = spoiled(flaw, 1)
    assert made
    assert all(is_true(lines[1].text) for lines in made)


def test_a_slip_is_a_false_equation_and_mostly_a_near_one() -> None:
    made = spoiled(Flaw.SLIP, 1)
    assert made
    assert not any(is_true(lines[1].text) for lines in made)
    offsets = [abs(lines[1].calculations[-1].result - 40) for lines in made]
    assert sum(offset <= 2 for offset in offsets) > 0.5 * len(offsets), (
        "hard negatives are the rule"
    )
    several = [lines for lines in made if not is_true(lines[2].text)]
    assert 0 < len(several) < len(made), "some attempts have more than one error"


def test_a_skipped_step_is_one_less_and_the_last_cannot_be_skipped() -> None:
    made = spoiled(Flaw.SKIPPED, 1)
    assert made
    assert {len(lines) for lines in made} == {2}
    assert {lines[1].calculations[0].numbers[0] for lines in made} == {10}
    assert not spoiled(Flaw.SKIPPED, 2)


def test_attempts_vary() -> None:
    drawn = [attempt for _, attempt in draw_many()]
    steps = Counter(attempt.error_step for attempt in drawn)
    assert set(steps) == {0, 1, 2}
    assert max(steps.values()) < 0.6 * len(drawn)
    lengths = {len(attempt.lines) - len(attempt.true_lines) for attempt in drawn}
    assert lengths == {0, -1}, "some skip a step"
    assert {len(attempt.true_lines) for attempt in drawn} == {2, 3}, "some are cut otherwise"


def test_a_right_attempt_is_the_solution() -> None:
    solution = solution_of(problem())
    attempt = draw_attempt(random.Random(1), solution, [], False)
    assert attempt is not None
    assert attempt.error_step is None
    assert attempt.lines == attempt.true_lines
    assert answer_of(attempt.lines) == answer_of(solution)


def verification(item: Problem, index: int) -> Verification:
    drawn = draw_verification(0, item, solution_of(item), index)
    assert drawn is not None
    return drawn


def asked(item: Problem, drawn: Verification, shown: bool) -> str:
    return question(LESSON_PROMPTS, item, solution_of(item), drawn, shows_reference=shown)


@pytest.mark.parametrize("with_reference", [True, False])
def test_replies_are_what_the_loop_reads(with_reference: bool, grader: Grader) -> None:
    outcomes, blanks, leaks = Counter[str](), 0, checker_named("math").leaks
    for number in range(120):
        item = problem(number % 40)
        drawn = verification(item, number)
        attempt, user = drawn.attempt, asked(item, drawn, with_reference)
        parsed = parse_proposal(drawn.reply, len(attempt.lines) + 1)
        outcomes[parsed.outcome] += 1
        assert (str(item.reference_solution) in user) is with_reference
        blanks += BLANK in user
        if attempt.error_step is None:
            assert parsed.outcome is ProposalOutcome.NO_ERROR_FOUND
            assert "error" not in drawn.reply
            continue
        assert parsed.outcome is ProposalOutcome.ACCEPTED
        assert parsed.error_step == attempt.error_step
        right = attempt.true_lines[attempt.error_step]
        assert parsed.intervention == intervention_text(right, answer_of(attempt.true_lines))
        assert not leaks(str(parsed.intervention), item.answer, grader.equal)
        log = drawn.reply.split("<intervention>")[0].splitlines()
        assert [line.endswith(": error.") for line in log] == [False] * attempt.error_step + [True]
    assert outcomes[ProposalOutcome.NO_ERROR_FOUND] > 0
    assert (blanks > 0) is with_reference, "without the reference every quantity is given"


def test_the_last_result_is_left_to_the_student() -> None:
    solution = solution_of(problem())
    last = solution[-1]
    assert intervention_text(last, answer_of(solution)) == "He keeps 40 - 2 nuts."
    assert intervention_text(last, Fraction(40)) is None, "40 stands elsewhere in the line"


def test_attempts_are_asked_about_with_and_without_the_reference_in_turn() -> None:
    pairs = readable([problem(5)])
    documents = list(verifications(pairs, 4, LESSON_PROMPTS, 0))
    reference = str(problem(5).reference_solution)
    assert [reference in document.user for document in documents] == [True, False, True, False]
    assert len({document.reply for document in documents}) > 1


def test_parts_share_no_problem() -> None:
    problems = [problem(number) for number in range(40)]
    parts = [problems_in(problems, part) for part in ((0, 0.3), (0.3, 0.6), (0.6, 1))]
    assert sorted(p.problem_id for part in parts for p in part) == sorted(
        p.problem_id for p in problems
    )
    for one, other in combinations(parts, 2):
        assert not {p.text for p in one} & {p.text for p in other}
    assert place("How  many\nnuts?") == place("how many nuts?")
    with pytest.raises(DataError, match="widen it"):
        problems_in(problems[:1], (0.0, 0.0))


def test_the_recipes_keep_their_parts_apart() -> None:
    warmup = load_recipe("gsm8k-warmup")
    loop = load_recipe("gsm8k-smollm2")
    warmup.warmup.check_parts(loop.problems.part)
    assert warmup.problems.part == loop.problems.part
    assert loop.model.path == f"runs/{warmup.name}/verification/model/final"
    assert {warmup.problems.path, loop.problems.path} == {"$MIDCOURSE_DATA/gsm8k/train.jsonl"}
    assert loop.problems.held_out_path == "$MIDCOURSE_DATA/gsm8k/test.jsonl"
    with pytest.raises(ConfigError, match="overlap"):
        warmup.warmup.check_parts((0.1, 0.3))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no GSM8K at {DATA}: set MIDCOURSE_DATA")
def test_gsm8k_train_and_test_share_no_problem_and_most_solutions_are_read() -> None:
    train = load_problems(DATA / "train.jsonl")
    test = load_problems(DATA / "test.jsonl")
    assert not {place(p.text) for p in train} & {place(p.text) for p in test}
    pairs = readable(train)
    assert len(pairs) > 0.5 * len(train)
    made = Counter[bool]()
    for number, (item, solution) in enumerate(pairs[:500]):
        attempt = draw_attempt(random.Random(number), solution, numbers_in(item.text), True)
        made[attempt is not None] += 1
        if attempt is not None and attempt.error_step is not None:
            step = attempt.error_step
            assert attempt.lines[:step] == attempt.true_lines[:step]
            assert attempt.lines[step].quote != attempt.true_lines[step].quote
    assert made[True] > 0.98 * made.total()


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    from transformers import AutoTokenizer

    return Renderer(AutoTokenizer.from_pretrained(base_folder()))


def test_rows_learn_the_reply_and_its_end_and_nothing_else(renderer: Renderer) -> None:
    from midcourse.training.sft import check_rows

    pairs = readable([problem(number) for number in range(5)])
    documents: list[Document] = [
        *worked(pairs, LESSON_PROMPTS), *verifications(pairs, 2, LESSON_PROMPTS, 0)
    ]  # fmt: skip
    rows = [row_of(document, renderer, 1024) for document in documents]
    sources = [RowSource.WORKED_SOLUTION] * 5 + [RowSource.VERIFICATION] * 10
    assert [row.source for row in rows] == sources
    end = tuple(renderer.end_of_turn_ids)
    check_rows(rows, end)
    assert len({row.row_id for row in rows}) == 15
    for row in rows:
        reply = row.labels[row.prompt_tokens :]
        assert set(row.labels[: row.prompt_tokens]) == {-100}
        assert reply == row.input_ids[row.prompt_tokens :]
        assert row.closes_turn
        assert reply[-len(end) :] == end
    text = renderer.decode(rows[0].input_ids[rows[0].prompt_tokens :])
    assert text.count("\n\n") == 3
    assert text.endswith("The answer is \\boxed{38}.")


def test_a_row_that_is_too_long_is_refused_not_cut(renderer: Renderer) -> None:
    (document,) = worked(readable([problem()]), LESSON_PROMPTS)
    row = row_of(document, renderer, 50)
    assert row.outcome is RowOutcome.TOO_LONG
    assert row.input_ids == row.labels == ()


def copied_base(jobs: Sequence[Job], reporter: Reporter, _: object) -> list[dict[str, Any]]:
    """Stand in for training: the model stays the lab's, and names its rows."""
    for job in jobs:
        shutil.copytree(base_folder(), job.out / "final")
    return [
        {"rows": len(job.content.rows.row_ids)} for job in jobs if isinstance(job.content, SftJob)
    ]


def warm_up_recipe(folder: Path, problems: Sequence[Problem]) -> dict[str, Any]:
    """Write problems and a script by which the verifier goes; return a recipe of them."""
    _write_gsm8k(folder / "problems.jsonl", problems)
    block = '<intervention>{"content": "He has 7 + 3 = 10 nuts.", "location": 1}</intervention>'
    script = [["Tom has 1", "<intervention></intervention>"], ["Tom has 2", "hm"], [".", block]]
    (folder / "script.json").write_text(json.dumps(script))
    return {
        "name": "w",
        "prompts": "short",
        "model": {"path": str(base_folder())},
        "problems": {"path": str(folder / "problems.jsonl"), "part": [0.5, 1.0]},
        "engine": {"kind": "scripted", "script": str(folder / "script.json")},
        "warmup": {
            "num_checks": 30,
            "worked": {"part": [0.0, 0.3], "limit": 4},
            "verification": {"part": [0.3, 0.5], "limit": 4, "num_worked": 2},
        },
    }


def warmed_up(
    folder: Path, problems: Sequence[Problem], *overrides: str
) -> tuple[Table, dict[str, Any]]:
    """Run a whole warm-up; return its table and the identity of the last model."""
    recipe = make_recipe(warm_up_recipe(folder, problems), overrides, "test")
    setup = warmup_setup(recipe)
    with open_session(recipe, folder / "run", SilentProgress(), setup=setup) as session:
        warmup = Warmup(session)
        final = warmup.complete()
        return check_table(warmup), json.loads((final / "identity.json").read_text())


def test_a_warm_up_is_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midcourse.pipeline.session.run_jobs", copied_base)
    problems = [problem(number) for number in range(60)]
    table, counts = warmed_up(tmp_path, problems)
    assert [row[:2] for row in table.rows] == [
        (model, shown)
        for model in ("as given", "+ worked solutions", "+ verification")
        for shown in ("shown", "not shown")
    ]
    named, fixed, spared, blockless = table.rows[0][2:]
    assert re.fullmatch(r"[1-9]\d*/\d+ = .* %", named), "the script names step 1 of some"
    assert fixed.startswith("0/"), "but its numbers are another problem's"
    assert re.fullmatch(r"[1-9]\d*/\d+ = .* %", spared), "it finds nothing in some right ones"
    assert re.fullmatch(r"[1-9]\d*/30", blockless)
    assert counts["rows"] == 4 * 2 + 2, "two attempts a problem, and two worked solutions"
    assert json.loads((tmp_path / "run" / "check" / "table.json").read_text())["rows"]
    monkeypatch.delattr("midcourse.pipeline.session.run_jobs")
    made = {path.parent for path in (tmp_path / "run").rglob("manifest.json")}
    (tmp_path / "script.json").rename(tmp_path / "renamed.json")
    again = warmed_up(
        tmp_path,
        problems,
        "warmup.worked.train.micro_batch_size=2",
        f"engine.script={tmp_path / 'renamed.json'}",
    )
    assert again == (table, counts), "nothing is trained or asked again"
    assert {path.parent for path in (tmp_path / "run").rglob("manifest.json")} == made


def reworded(problems: Sequence[Problem]) -> list[Problem]:
    """Return the same problems, by their ids and texts, with other words in the solutions."""
    return [
        replace(p, reference_solution=str(p.reference_solution).replace("nuts", "hazelnuts"))
        for p in problems
    ]


def test_other_problems_under_the_same_ids_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midcourse.pipeline.session.run_jobs", copied_base)
    problems = [problem(number) for number in range(60)]
    warmed_up(tmp_path, problems)
    with pytest.raises(
        ArtifactError, match=r"worked/model was made from other data.*--run-dir"
    ) as caught:
        warmed_up(tmp_path, reworded(problems))
    assert "\n" not in str(caught.value)


def test_checkpoints_of_other_data_are_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(jobs: Sequence[Job], reporter: Reporter, _: object) -> list[dict[str, Any]]:
        raise KeyboardInterrupt

    monkeypatch.setattr("midcourse.pipeline.session.run_jobs", killed)
    problems = [problem(number) for number in range(60)]
    with pytest.raises(KeyboardInterrupt):
        warmed_up(tmp_path, problems)
    with pytest.raises(ArtifactError, match=r"worked/model was begun with other data.*--run-dir"):
        warmed_up(tmp_path, reworded(problems))
    monkeypatch.setattr("midcourse.pipeline.session.run_jobs", copied_base)
    assert warmed_up(tmp_path, problems)[0].rows


def test_other_problems_to_measure_on_are_only_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midcourse.pipeline.session.run_jobs", copied_base)
    problems = [problem(number) for number in range(60)]
    warmed_up(tmp_path, problems)
    monkeypatch.delattr("midcourse.pipeline.session.run_jobs")
    taught = [p for p in problems if place(p.text) < 0.5]
    measured = [p for p in problems if place(p.text) >= 0.5]
    table, _ = warmed_up(tmp_path, [*taught, *measured[:9]])
    assert {row[-1].partition("/")[2] for row in table.rows} == {"9"}


def test_the_command_warms_up_and_shows_its_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midcourse.pipeline.session.run_jobs", copied_base)
    recipe = tmp_path / "w.toml"
    recipe.write_text(_toml(warm_up_recipe(tmp_path, [problem(number) for number in range(60)])))
    done = CliRunner().invoke(app, ["warmup", str(recipe), "--run-dir", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "warmup: complete in" in done.output
    assert "+ verification" in done.output
    card = (tmp_path / "run" / "verification" / "model" / "final" / "README.md").read_text()
    assert "the verification of attempts whose first error is known" in card
    assert "+ verification" in card
    status = CliRunner().invoke(app, ["status", str(tmp_path / "run")])
    assert "worked" in status.output


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with data, tiny recipes, and the lab's base model in SmolLM2's place."""
    gsm8k = tmp_path / "data" / "gsm8k"
    gsm8k.mkdir(parents=True)
    for name, numbers in (("train", range(40)), ("test", range(40, 44))):
        _write_gsm8k(gsm8k / f"{name}.jsonl", [problem(number) for number in numbers])
    shutil.copytree(base_folder(), tmp_path / ".cache" / "smollm2-135m-instruct")
    (tmp_path / "script.json").write_text(
        json.dumps([[".", '<intervention>{"content": "I list it.", "location": 1}</intervention>']])
    )
    small = {"num_epochs": 1, "batch_size": 4, "micro_batch_size": 4, "lora_rank": 2}
    short = {"max_tokens": 24}
    _write_recipe(
        tmp_path, "gsm8k-warmup",
        warmup={
            "num_checks": 2, "check_sampling": short,
            "worked": {"part": [0, 0.3], "limit": 4, "train": small},
            "verification": {"part": [0.3, 0.6], "limit": 4, "num_worked": 2, "train": small},
        },
    )  # fmt: skip
    _write_recipe(
        tmp_path, "gsm8k-smollm2",
        # A model this small proposes nothing in a language it was not taught.
        proposer_engine={"kind": "scripted", "script": "script.json"},
        sample={"num_rollouts": 2, "sampling": short},
        propose={"turns": "single", "num_rollouts": 1, "num_proposals": 1},
        verify={"num_continuations": 2, "sampling": short},
        build_sft={"filter": False}, train_sft=small,
        train_rl={
            "num_iterations": 1, "prompts_per_iteration": 2, "num_generations": 2,
            "micro_batch_size": 2, "lora_rank": 2, "sampling": {"max_tokens": 8},
        },
        evaluate={"num_rollouts": 2, "ks": [1, 2], "sampling": short},
    )  # fmt: skip
    return tmp_path


def _write_gsm8k(file: Path, problems: Sequence[Problem]) -> None:
    """Write problems as GSM8K was published."""
    rows = [
        {"question": p.text, "answer": f"{p.reference_solution}\n#### {p.answer}"} for p in problems
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_recipe(folder: Path, name: str, **sections: Any) -> None:
    """Lay tiny sections over the GPU's recipe of that name."""
    recipe = load_recipe(name).model_dump(mode="json")
    recipe["problems"] |= {"part": [0.6, 1.0], "limit": 4, "held_out_limit": 4}
    recipe |= sections
    Recipe.model_validate(recipe)
    (folder / f"{name}.toml").write_text(_toml(recipe))


def _toml(recipe: dict[str, Any]) -> str:
    """Write a recipe whose sections are inline tables; null is left out, as TOML has none."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return (
                "{" + ", ".join(f"{k} = {value(v)}" for k, v in item.items() if v is not None) + "}"
            )
        if isinstance(item, list):
            return "[" + ", ".join(map(value, item)) + "]"
        return json.dumps(item)

    return "".join(f"{k} = {value(v)}\n" for k, v in recipe.items() if v is not None)


@pytest.fixture
def packing() -> Any:
    """The module scripts/smollm2.py, which is no part of the package."""
    spec = spec_from_file_location("smollm2", ROOT / "scripts" / "smollm2.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_adapters_travel_and_models_are_made_of_them_again(tmp_path: Path, packing: Any) -> None:
    runs = tmp_path / "runs"
    first, second = (runs / "gsm8k-x" / name / "model" for name in ("worked", "verification"))
    _train_at_random(base_folder(), first)
    _train_at_random(first / "final", second)
    files = describe_files(second, trained_files(second))
    write_manifest(second, {"files": files})
    (runs / "gsm8k-x" / ".lock").touch()
    for number, is_whole in ((10, True), (20, False)):
        checkpoint = second / f"checkpoint-{number}"
        checkpoint.mkdir()
        (checkpoint / "optimizer.pt").write_text("state")
        if is_whole:
            (checkpoint / "COMPLETE").touch()
    before = _weights(second / "final" / "model.safetensors")
    packing.PIECE_BYTES = 50_000
    packing.pack(tmp_path / "state", runs)
    assert len(list((tmp_path / "state").glob("part-*"))) > 1
    packing.unpack(tmp_path / "state", runs)  # what is here stays as it is
    assert _equal(before, _weights(second / "final" / "model.safetensors"), 0.0)

    shutil.rmtree(runs)
    packing.unpack(tmp_path / "state", runs)
    after = _weights(second / "final" / "model.safetensors")
    assert _equal(before, after, 1e-2)
    assert not _equal(before, _weights(base_folder() / "model.safetensors"), 1e-2)
    assert damaged_files(second) == []
    assert not (runs / "gsm8k-x" / ".lock").exists()
    assert [path.name for path in second.glob("checkpoint-*")] == ["checkpoint-10"]


def test_a_warmed_up_model_is_known_by_what_made_it(tmp_path: Path) -> None:
    shutil.copytree(base_folder(), tmp_path / "m")
    assert model_fingerprint(str(tmp_path / "m")) == model_fingerprint("lab")
    (tmp_path / "m" / IDENTITY).write_text('{"key": "k", "finished": "today"}')
    named = model_fingerprint(str(tmp_path / "m"))
    (tmp_path / "m" / "model.safetensors").write_bytes(b"rounded otherwise")
    assert named == model_fingerprint(str(tmp_path / "m")) != model_fingerprint("lab")


def _train_at_random(start: Path, out: Path) -> None:
    """Leave what a training with LoRA leaves, with adapters that do something."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from midcourse.training.common import lora_config

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(start), lora_config(2))
    for name, weights in model.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weights, std=0.05)
    model.save_pretrained(out / "adapter")
    model.merge_and_unload().save_pretrained(out / "final")
    rows = ChosenRows(path=out, row_ids=())
    model_config = ModelConfig(path=str(start))
    write_job(out, SftJob(config=TrainSftConfig(), model=model_config, seed=0, rows=rows))


def _equal(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> bool:
    return all(float((one[name] - other[name]).abs().max()) <= tolerance for name in one)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_the_gpu_script_goes_on_from_what_a_slice_left(workplace: Path) -> None:
    assert "warmup: complete" in run_slice(workplace, "warmup")
    runs, state = workplace / "runs", workplace / "state"
    table = json.loads((runs / "gsm8k-warmup" / "check" / "table.json").read_text())
    assert [row[:2] for row in table["rows"][-2:]] == [
        ["+ verification", "shown"],
        ["+ verification", "not shown"],
    ]
    size = sum(file.stat().st_size for file in state.iterdir())
    weights = "gsm8k-warmup/verification/model/final/model.safetensors"
    assert size < (runs / weights).stat().st_size, "no model's weights travel"
    before = _weights(runs / weights)
    shutil.rmtree(runs)  # the next slice gets another machine

    assert "report.html" in run_slice(workplace, "evaluate")
    after = _weights(runs / weights)
    assert _equal(before, after, 1e-2)
    stages = json.loads((runs / "gsm8k-smollm2" / "stages.json").read_text())
    labels = {entry["label"] for entry in stages.values() if entry["stage"] == "checkpoints"}
    assert labels == {"patched", "base + RL", "patched + RL"}
    shutil.rmtree(runs)

    assert "verify: complete in runs/gsm8k-row7-after" in run_slice(workplace, "row7")
    made = json.loads((runs / "gsm8k-row7-after" / "stages.json").read_text())
    named = {folder: (about["stage"], about["label"]) for folder, about in made.items()}
    (sampled,) = (folder for folder, name in named.items() if name == ("sample", "train"))
    ours, loops = (
        (runs / name / sampled / "manifest.json").read_text()
        for name in ("gsm8k-row7-after", "gsm8k-smollm2")
    )
    assert ours == loops, "the loop's rollouts are taken over"


def _weights(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)


def run_slice(workplace: Path, name: str) -> str:
    return _run([str(ROOT / "scripts" / "gsm8k_gpu.sh"), name, "1200", "state"], workplace)


def _run(command: list[str], workplace: Path) -> str:
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT / "src"),
        "RECIPES": str(workplace / "gsm8k"),
        "MIDCOURSE_DATA": str(workplace / "data"),
    }
    done = subprocess.run(
        command, cwd=workplace, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
