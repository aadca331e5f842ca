"""Hand-over formats: what is written, and what other projects make of it (make test-exports)."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from midcourse.checkers.reasoning_gym import NAME, entry_of
from midcourse.config import Dtype, Recipe
from midcourse.data import load_problems, write_problems
from midcourse.engines.bundled import base_folder
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.errors import ArtifactError, ConfigError
from midcourse.export import FORMATS, export_run, write_format
from midcourse.export.handover import (
    ADDS_END_OF_TURN,
    FAITHFUL,
    ExportRow,
    Handover,
    Part,
    Task,
)
from midcourse.export.rewards import reward
from midcourse.export.settings import (
    grpo_settings,
    llama_factory_settings,
    sft_settings,
    snippet_values,
)
from midcourse.pipeline import open_run
from midcourse.pipeline.contexts import ready_rows
from midcourse.pipeline.interventions import INTERVENTION
from midcourse.records import Gold, Problem, RowOutcome, RowSource, SftRow, token_ids_sha
from midcourse.rendering import Renderer
from runs import ready, run_to

BASE = str(base_folder())
needs_gym = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed"
)
LOADERS = Path(__file__).parent / "loaders"


def lab_handover() -> Handover:
    """Two rows in the lab model's own tokens, nothing sampled."""
    from transformers import AutoTokenizer

    return handover_in(Renderer(AutoTokenizer.from_pretrained(BASE)))


#: As small as a training can be, so that a README's snippet runs in seconds.
TINY = Recipe.model_validate(
    {
        "name": "lab",
        "model": {"path": "lab"},
        "train_sft": {"num_epochs": 1, "batch_size": 2, "micro_batch_size": 1},
        "train_rl": {
            "num_iterations": 1, "prompts_per_iteration": 2, "num_generations": 2,
            "num_updates": 1, "micro_batch_size": 4, "sampling": {"max_tokens": 4},
        },
    }
)  # fmt: skip


def handover_in(renderer: Renderer) -> Handover:
    """Two rows in the tokens of `renderer`."""
    texts = [
        ("", "Loses 4: 12 - 4 = 8.\n\n"),
        ("Finds 3: 2 + 3 = 5.\n\n", "Loses 1: 5 - 1 = 4.\n\n"),
    ]
    rows, tasks = [], []
    for number, (prefix, intervention) in enumerate(texts):
        problem = Problem(
            problem_id=f"p{number}", text=f"Mia has {number + 2} nuts. How many?", answer="8",
            reference_solution="8.", source="lab", split="train",
        )  # fmt: skip
        prompt = renderer.prompt_ids([{"role": "user", "content": problem.text}])
        before, after = renderer.encode(prefix), renderer.encode(intervention)
        row = SftRow(
            row_id=f"r{number}", source=RowSource.INTERVENTION, outcome=RowOutcome.READY,
            problem_id=problem.problem_id, proposal_id="q", input_ids=(*prompt, *before, *after),
            labels=(*(-100 for _ in prompt), *before, *after), closes_turn=False,
            prompt_tokens=len(prompt), prefix_tokens=len(before), intervention_tokens=len(after),
            num_correct=1, num_continuations=8,
        )  # fmt: skip
        rows.append(
            ExportRow(
                row=row, problem=problem, user=problem.text, prefix=prefix,
                intervention=intervention, suffix="",
            )
        )  # fmt: skip
        tasks.append(Task(problem=problem, user=problem.text))
    return Handover(name="lab", rows=rows, tasks=tasks, renderer=renderer, model=BASE, recipe=TINY)


def fidelity(parts: Sequence[Part]) -> dict[str, str]:
    return {part.path: part.fidelity for part in parts}


def test_every_format_says_what_it_wrote(tmp_path: Path, finished_run: Path) -> None:
    for name in FORMATS:
        parts = export_run(finished_run, name, tmp_path / name)
        page = (tmp_path / name / "README.md").read_text()
        assert parts
        for part in parts:
            assert all((tmp_path / name / path).exists() for path in part.path.split(", "))
            assert part.path in page
            assert part.fidelity in page


def test_the_run_is_not_touched(tmp_path: Path, finished_run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished_run.rglob("*")}
    assert before
    export_run(finished_run, "jsonl", tmp_path / "out")
    assert before == {p: p.stat().st_mtime_ns for p in finished_run.rglob("*")}


def test_ids_go_over_as_they_are(tmp_path: Path, finished_run: Path) -> None:
    finished = open_run(finished_run)
    rows = ready_rows(finished.run, finished.method.models.rows)
    assert rows
    parts = export_run(finished_run, "trl", tmp_path / "out")
    assert fidelity(parts)["sft.parquet"] == FAITHFUL
    written = pq.read_table(tmp_path / "out" / "sft.parquet").to_pylist()
    assert [tuple(row["input_ids"]) for row in written] == [row.input_ids for row in rows]
    assert [tuple(row["labels"]) for row in written] == [row.labels for row in rows]


def test_what_closes_the_turn_is_labelled(tmp_path: Path, finished_run: Path) -> None:
    parts = export_run(finished_run, "verl", tmp_path / "out")
    assert fidelity(parts)["sft.parquet"].startswith(ADDS_END_OF_TURN)
    assert ADDS_END_OF_TURN in (tmp_path / "out" / "README.md").read_text()


def test_people_can_read_the_rows(tmp_path: Path, finished_run: Path) -> None:
    export_run(finished_run, "jsonl", tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert rows[0]["prefix"] == "Two and two.\n\n"
    assert rows[0]["intervention"] == "So 2 + 2 makes four.\n\n"
    assert (rows[0]["suffix"], rows[0]["num_correct"]) == ("", 4)
    assert len(load_problems(tmp_path / "out" / "problems.jsonl")) == 3


#: Every other way to fill one jug with 2 litres is as right as the entry's own.
GYM = Problem(
    problem_id="gym",
    text="Fill jug A (3) or B (2) so that one holds 2.",
    answer='["fill B"]',
    reference_solution=None,
    source="gym",
    split="train",
    checker=NAME,
    entry=entry_of(
        "jugs",
        {
            "answer": '["fill B"]',
            "metadata": {"puzzle": {"jug_capacities": [3, 2], "target": 2}},
        },
    ),
)
OTHER_ANSWER = r'\boxed{["fill A", "fill B"]}'


def gym_handover() -> Handover:
    handover = handover_in(Renderer(ByteTokenizer()))
    return replace(handover, tasks=[*handover.tasks, Task(problem=GYM, user=GYM.text)])


def reward_file(folder: Path) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec((folder / "reward.py").read_text(), scope)
    return scope


@needs_gym
@pytest.mark.slow
def test_every_format_hands_over_the_checker(tmp_path: Path) -> None:
    """An answer that only the problem's own checker knows to be right gets reward 1."""
    for name in ("trl", "verl", "verifiers", "jsonl"):
        write_format(gym_handover(), name, tmp_path / name)
    (row,) = [
        r for r in pq.read_table(tmp_path / "trl" / "grpo.parquet").to_pylist()
        if r["problem_id"] == "gym"
    ]  # fmt: skip
    replies = [[{"role": "assistant", "content": text}] for text in (OTHER_ANSWER, "\\boxed{1}")]
    correct = reward_file(tmp_path / "trl")["correct"]
    assert correct(completions=replies, gold=[row["gold"]] * 2) == [1.0, 0.0]
    row = pq.read_table(tmp_path / "verl" / "rl.parquet").to_pylist()[-1]
    truth, extra = row["reward_model"]["ground_truth"], row["extra_info"]
    score = reward_file(tmp_path / "verl")["compute_score"]
    assert score("gym", OTHER_ANSWER, truth, extra) == {"score": 1.0, "ungraded": 0.0}
    lines = (tmp_path / "verifiers" / "midcourse_problems" / "problems.jsonl").read_text()
    gold = Gold(**json.loads(lines.splitlines()[-1])["gold"])
    assert (reward(OTHER_ANSWER, gold), reward("\\boxed{1}", gold)) == (1.0, 0.0)
    assert load_problems(tmp_path / "jsonl" / "problems.jsonl")[-1] == GYM


@needs_gym
def test_a_run_hands_over_the_checker_of_each_problem(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path
) -> None:
    given = [*load_problems(problem_file), replace(GYM, reference_solution="Fill B.")]
    write_problems(given, problem_file)
    recipe = Recipe.model_validate({**recipe_data, "train_rl": {"problems": "hard"}})
    run_to(tmp_path / "run", recipe, ready)
    golds = [problem.gold for problem in given]
    assert [gold.checker for gold in golds] == ["math", "math", "math", NAME]
    export_run(tmp_path / "run", "jsonl", tmp_path / "jsonl")
    assert [p.gold for p in load_problems(tmp_path / "jsonl" / "problems.jsonl")] == golds
    export_run(tmp_path / "run", "trl", tmp_path / "trl")
    tasks = pq.read_table(tmp_path / "trl" / "grpo.parquet").to_pylist()
    assert [Gold(**task["gold"]) for task in tasks] == golds
    with pytest.raises(ArtifactError, match="1 problems need another checker"):
        export_run(tmp_path / "run", "pipelinerl", tmp_path / "pipelinerl")


def test_pipelinerl_takes_no_problem_that_its_verifier_cannot_grade(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"1 problems need another checker \(first: gym, 'reas"):
        write_format(gym_handover(), "pipelinerl", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_suffix_is_told_apart(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    recipe_data["build_sft"] = {"suffix": True, "prefix": "dropped"}
    run_to(tmp_path / "run", Recipe.model_validate(recipe_data), ready)
    parts = export_run(tmp_path / "run", "jsonl", tmp_path / "out")
    row = json.loads((tmp_path / "out" / "rows.jsonl").read_text().splitlines()[0])
    assert (row["prefix"], row["intervention"]) == ("", "So 2 + 2 makes four.\n\n")
    assert row["suffix"] == "The answer is \\boxed{4}."
    assert "3 of 3 rows end with a sampled end-of-turn" in fidelity(parts)["rows.jsonl"]
    page = (tmp_path / "out" / "README.md").read_text()
    assert "nothing closes the turn" not in page


def test_a_readme_says_what_was_not_verified(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    recipe_data["build_sft"] = {"filter": False}
    recipe_data["propose"]["num_proposals"] = 1
    script = Path(recipe_data["engine"]["script"])
    script.write_text(script.read_text().replace("boxed{4}", "boxed{6}"))
    run_to(tmp_path / "run", Recipe.model_validate(recipe_data), ready)
    parts = export_run(tmp_path / "run", "trl", tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text()
    assert "**3 of 3 interventions are not verified**" in page
    assert "3 of 3 not verified" in fidelity(parts)["sft.parquet"]
    assert "was verified" not in page
    assert FAITHFUL not in page


@pytest.mark.parametrize(
    ("build_sft", "said", "unsaid"),
    [
        ({"prefix": "dropped"}, "without the prefix", "sampled prefix"),
        ({"prefix": "masked"}, "what follows the prefix", "all that follows the prompt"),
        ({"source": "reference"}, "not interventions", "Every intervention"),
        ({"source": "original_step"}, "*wrong* step", "Every intervention"),
    ],
)
def test_a_readme_says_what_the_rows_are(
    tmp_path: Path, recipe_data: dict[str, Any], build_sft: dict[str, Any], said: str, unsaid: str
) -> None:
    run_to(tmp_path / "run", Recipe.model_validate({**recipe_data, "build_sft": build_sft}), ready)
    export_run(tmp_path / "run", "trl", tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text()
    assert said in page
    assert unsaid not in page
    assert (FAITHFUL in page) is (build_sft == {"prefix": "masked"})


@pytest.mark.parametrize("format_name", ["verifiers", "pipelinerl"])
def test_a_readme_of_problems_alone_speaks_of_no_rows(
    tmp_path: Path, finished_run: Path, format_name: str
) -> None:
    export_run(finished_run, format_name, tmp_path / "out")
    (file,) = (tmp_path / "out").rglob("*.jsonl")
    page = (tmp_path / "out" / "README.md").read_text()
    number = len(file.read_text().splitlines())
    assert f"{number} problems with gold answers, for RL." in page
    assert "rows" not in page
    assert "Every intervention" not in page


def test_rows_for_pipelinerl(tmp_path: Path, finished_run: Path) -> None:
    export_run(finished_run, "pipelinerl", tmp_path / "out")
    rows = [json.loads(x) for x in (tmp_path / "out" / "scripted.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "id": 0, "dataset": "scripted", "task": "What is 2 + 2, 0?", "answer": "\\boxed{4}",
        "problem_id": "p0",
    }  # fmt: skip


def test_refusals_are_one_line(tmp_path: Path, recipe: Recipe, finished_run: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a run directory"):
        export_run(tmp_path / "nowhere", "trl", tmp_path / "out")
    run_to(tmp_path / "run", recipe, lambda session, m: session.complete(m.statuses))
    with pytest.raises(ArtifactError, match="build-sft intervention is not complete"):
        export_run(tmp_path / "run", "trl", tmp_path / "out")
    with pytest.raises(ConfigError, match="no format 'csv': there are trl"):
        export_run(finished_run, "csv", tmp_path / "out")
    export_run(finished_run, "trl", tmp_path / "out")
    with pytest.raises(ArtifactError, match="not empty"):
        export_run(finished_run, "trl", tmp_path / "out")
    empty = replace(handover_in(Renderer(ByteTokenizer())), rows=[])
    with pytest.raises(ArtifactError, match="no row is ready"):
        write_format(empty, "jsonl", tmp_path / "other")


@pytest.mark.slow
def test_texts_that_encode_otherwise_are_counted() -> None:
    handover = lab_handover()
    assert handover.text_losses() == []
    first = handover.rows[0]
    ids = handover.renderer.encode("Loses 4: 12 - ") + handover.renderer.encode("4 = 8.\n\n")
    apart = SftRow(**{name: getattr(first.row, name) for name in SftRow.__slots__} | {
        "input_ids": (*first.row.input_ids[: first.row.prompt_tokens], *ids),
    })  # fmt: skip
    other = ExportRow(
        row=apart, problem=first.problem, user=first.user, prefix="",
        intervention=first.intervention, suffix="",
    )  # fmt: skip
    changed = replace(handover, rows=[other, handover.rows[1]])
    assert apart.input_ids != first.row.input_ids
    assert changed.text_losses() == ["1 of 2 rows get other ids when their text is encoded again"]


def test_the_reward_is_the_grader_s_word() -> None:
    half = Gold("math", "0.5")
    assert reward("So \\boxed{1/2}.", half) == 1.0
    assert reward("So \\boxed{3}.", half) == 0.0
    assert reward("So 0.5.", half) == 0.0
    assert reward("So \\boxed{3}.", Gold("math", "???")) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_trl_trains_on_what_was_verified(tmp_path: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    handover = lab_handover()
    write_format(handover, "trl", tmp_path / "out")
    rows = load_dataset(
        "parquet", data_files=str(tmp_path / "out" / "sft.parquet"), split="train",
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    arguments = SFTConfig(
        output_dir=str(tmp_path), max_length=None, packing=False, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to=[], per_device_train_batch_size=2,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(BASE, dtype="float32"), args=arguments,
        train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(BASE),
    )  # fmt: skip
    (batch,) = list(trainer.get_train_dataloader())
    expected = {tuple(x for x in row.row.labels if x >= 0) for row in handover.rows}
    assert {tuple(x for x in y.tolist() if x >= 0) for y in batch["labels"]} == expected
    assert not set(handover.renderer.end_of_turn_ids) & {x for row in expected for x in row}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_trl_takes_the_prompts(tmp_path: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    handover = lab_handover()
    write_format(handover, "trl", tmp_path / "out")
    rows = load_dataset(
        "parquet", data_files=str(tmp_path / "out" / "grpo.parquet"), split="train",
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    replies = [[{"role": "assistant", "content": "\\boxed{8}"}]] * 2
    correct = reward_file(tmp_path / "out")["correct"]
    assert correct(completions=replies, gold=rows["gold"]) == [1.0, 1.0]
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for prompt, task in zip(rows["prompt"], handover.tasks, strict=True):
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
        assert ids == handover.renderer.prompt_ids([{"role": "user", "content": task.user}])


def snippets(page: str) -> list[str]:
    """Return the Python of a README."""
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_snippets_for_trl_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_format(lab_handover(), "trl", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.syspath_prepend(".")
    sft, grpo = snippets((tmp_path / "out" / "README.md").read_text())
    for source, folder in ((sft, "patched"), (grpo, "patched-rl")):
        exec(compile(source, folder, "exec"), {})
        assert (tmp_path / "out" / folder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("dtype", "said"), [("auto", "on_gpu"), ("float32", "False"), ("bfloat16", "True")]
)
def test_what_a_training_computes_in_goes_over(dtype: Dtype, said: str) -> None:
    config = TINY.train_sft.model_copy(update={"dtype": dtype})
    values = snippet_values("x", "lab", TINY.model_copy(update={"train_sft": config}), 2)
    assert (values["sft_bf16"], values["grpo_bf16"]) == (said, "on_gpu")
    assert llama_factory_settings(config, 2, 0).get("bf16", False) == (dtype == "bfloat16")


@pytest.mark.slow
def test_the_settings_that_go_over_are_those_that_train_here(tmp_path: Path) -> None:
    from midcourse.training.common import Machine, Setting
    from midcourse.training.rl.trainer import rl_arguments
    from midcourse.training.sft import sft_arguments

    recipe = Recipe.model_validate(
        {
            "name": "x",
            "model": {"path": "lab"},
            "train_sft": {"batch_size": 8, "warmup_ratio": 0.3, "min_lr_rate": 0.2},
            "train_rl": {"loss": "token_sum", "clip_high": 0.3, "prompts_per_iteration": 4},
        }
    )
    setting = Setting("lab", tmp_path, 3, print)
    ours = sft_arguments(recipe.train_sft, setting, 20, Machine(has_gpu=False, num_processes=1))
    theirs = sft_settings(recipe.train_sft, 20, 3)
    assert theirs.pop("warmup_steps") == 4  # of 12 steps; here it is a share
    assert theirs == {name: ours[name] for name in theirs}
    arguments = rl_arguments(recipe.train_rl, 4, 512, setting, 1)
    for name, value in grpo_settings(recipe.train_rl, 3).items():
        assert getattr(arguments, name) == value, name


def load_with(project: str, *arguments: str, script: str = "") -> Any:
    """Run a loader in the other project's own environment and return what it printed."""
    variable = f"MIDCOURSE_{project.upper()}_PYTHON"
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} is not set: make test-exports sets up {project}")
    source = str(Path(__file__).parent.parent / "src")
    done = subprocess.run(
        [python, str(LOADERS / f"{script or project}_loader.py"), *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_llama_factory_loads_it(tmp_path: Path) -> None:
    handover = lab_handover()
    write_format(handover, "llama-factory", tmp_path / "out")
    loaded = load_with("llama_factory", str(tmp_path / "out"))
    ids = [list(row.row.input_ids) for row in handover.rows]
    labels = [list(row.row.labels) for row in handover.rows]
    assert loaded["ids"] == {"input_ids": ids, "labels": labels}
    assert loaded["texts"] == loaded["ids"]
    end = handover.renderer.end_of_turn_ids
    assert all(set(end) & set(row) for row in loaded["own template"]["labels"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_verl_loads_it(tmp_path: Path) -> None:
    handover = lab_handover()
    write_format(handover, "verl", tmp_path / "out")
    loaded = load_with("verl", str(tmp_path / "out"), BASE)
    assert [p[0]["content"] for p in loaded["prompts"]] == [t.user for t in handover.tasks]
    assert loaded["golds"] == ["8", "8"]
    assert loaded["right"] == {"score": 1.0, "ungraded": 0.0}
    assert loaded["wrong"] == {"score": 0.0, "ungraded": 0.0}
    end = handover.renderer.end_of_turn_ids
    assert all(set(end) & set(row) for row in loaded["sft"]), "the label would be a lie"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_verifiers_loads_it(tmp_path: Path) -> None:
    handover = lab_handover()
    write_format(handover, "verifiers", tmp_path / "out")
    loaded = load_with("verifiers", str(tmp_path / "out"))
    assert loaded["prompts"] == [task.user for task in handover.tasks]
    assert loaded["rewards"] == {"right": 1.0, "wrong": 0.0, "valid": True}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_inspect_reads_the_logs(tmp_path: Path, verified_run: Path) -> None:
    export_run(verified_run, "inspect", tmp_path / "out")
    logs = {log["task"]: log for log in load_with("inspect", str(tmp_path / "out"))}
    log = logs["verify prefix_intervention"]
    assert (log["status"], log["model"], log["value"]) == ("success", "base", "C")
    assert log["metrics"] == {"accuracy": 1.0, "stderr": 0.0}
    assert log["num_samples"] == log["num_summaries"] == 24
    assert log["roles"] == ["user", "assistant", "assistant"]
    assert log["metadata"]["verdicts"]["prefix_intervention"] == {"correct": 4}
    assert logs["verify problem"]["roles"] == ["user", "assistant"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_verifiers_reads_the_traces(tmp_path: Path, verified_run: Path) -> None:
    export_run(verified_run, "traces", tmp_path / "out")
    loaded = load_with("verifiers", str(tmp_path / "out"), script="traces")
    found = loaded["verify-prefix_intervention-base"]
    assert (found["num_episodes"], found["reward"]) == (24, 24.0)
    finished = open_run(verified_run)
    drawn = finished.method.interventions.verified[INTERVENTION]
    rollout = next(finished.read(drawn.rollouts))
    assert token_ids_sha(found["token_ids"][: -len(rollout.token_ids)]) == rollout.prompt_sha
    assert sum(found["sampled"]) == len(rollout.token_ids)
    assert found["reply"].endswith(rollout.text)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_llama_factory_loads_the_preferences(tmp_path: Path, verified_run: Path) -> None:
    """The scripted run's tokens are not a model's: its texts are read with the lab's tokenizer."""
    export_run(verified_run, "dpo", tmp_path / "out")
    loaded = load_with("llama_factory", str(tmp_path / "out"))
    rows = pq.read_table(tmp_path / "out" / "dpo.parquet").to_pylist()
    for side in ("chosen", "rejected"):
        assert loaded[side] == [row["prefix"] + row[side] for row in rows]
