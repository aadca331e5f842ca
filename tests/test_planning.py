"""The plan: shapes, memory and time by hand-made sums, and a run that is measured and predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import Recipe, load_recipe
from midcourse.errors import ArtifactError, ConfigError
from midcourse.pipeline import Pipeline
from midcourse.plan.assumptions import settle
from midcourse.plan.devices import DEVICES, TrainingProcesses
from midcourse.plan.measure import measure
from midcourse.plan.shapes import load_shape
from midcourse.plan.tables import Plan, make_plan
from midcourse.progress import SilentProgress
from midcourse.run import Run

ROOT = Path(__file__).parent.parent


def paper(*scales: str, sets: tuple[str, ...] = (), **options: Any) -> Plan:
    overlays = [f"scale/{name}" for name in ("paper", *scales)]
    return make_plan(load_recipe("paper/int", sets, overlays), **options)


def test_known_shapes_have_the_published_sizes() -> None:
    qwen, smol = load_shape("Qwen/Qwen3-4B-Instruct-2507"), load_shape("x/SmolLM2-135M-Instruct")
    assert qwen.parameters == pytest.approx(4.02e9, rel=0.01)
    assert qwen.kv_bytes(2) == 147_456  # 36 layers × 8 heads × 128 × 2 × 2 bytes
    assert smol.parameters == pytest.approx(134.5e6, rel=0.01)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", '{"problem": "a"}\n\n{"problem": "b"}\n'),
        ("p.json", '[\n{"problem": "a"},\n\n{"problem":\n"b"}\n]\n'),
        ("p.csv", 'problem,answer\n"a\nb",1\n"c",2\n'),
    ],
)
def test_problems_are_counted_as_they_are_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    sets = (f"problems.path={tmp_path / name}", "problems.limit=50")
    assert paper(sets=sets).given.num_problems == 2


def test_a_folder_s_own_config_counts(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from midcourse.engines.bundled import base_folder

    model = AutoModelForCausalLM.from_pretrained(base_folder())
    assert load_shape("lab").parameters == pytest.approx(model.num_parameters(), rel=0.01)
    given = tmp_path / "config.json"
    given.write_text((base_folder() / "config.json").read_text())
    assert load_shape("who/knows", given) == load_shape("lab")
    with pytest.raises(ConfigError, match=r"--model-config config\.json"):
        load_shape("who/knows")
    given.write_text("{}")
    with pytest.raises(ConfigError, match="no 'num_attention_heads'"):
        load_shape("who/knows", given)


def test_the_paper_fits_where_its_recipes_say() -> None:
    for scale in ("paper-1gpu", "paper-8gpu"):
        assert {part.verdict(DEVICES["h100"]) for part in paper(scale).memory} <= {"yes", "tight"}
    alone = paper(sets=("engine.kind=vllm",))
    verdicts = {part.name: part.verdict(DEVICES["h100"]) for part in alone.memory}
    assert verdicts["train sft"] == "no"  # float32 weights, gradients and moments: 64 GB at least
    sft = next(part for part in alone.memory if part.name == "train sft")
    assert sft.gradients == 4 * load_shape("qwen3-4b").parameters
    assert sft.optimiser == 2 * sft.gradients
    spread = next(part for part in paper("paper-8gpu").memory if part.name == "train sft")
    assert spread.optimiser == sft.optimiser / 8


def test_requests_follow_the_funnel() -> None:
    assume = ("hard_share=0.05", "candidate_share=0.5", "verified_share=0.25", "num_held_out=10")
    plan = paper(sets=("problems.limit=1000", "sample.rounds=[]"), assume=assume)
    works = {stage.work.name: stage.work for stage in plan.stages}
    assert works["sample train"].requests == 64_000
    assert works["propose train"].requests == 50 * 4 * 4
    assert works["verify prefix_intervention"].requests == 50 * 4 * 0.5 * 32
    assert works["train sft"].requests == 50 * 0.25 * 4
    assert works["train rl"].requests == 2 * 400 * 32 * 8
    assert works["evaluate patched"].requests == 1280
    graded = 64_000 + 3_200 + 4 * 1280
    assert works["grade"].requests == graded
    searched = paper(sets=("problems.limit=1000",), assume=assume)
    assert searched.stages[0].work.requests < 20_000
    base = 'evaluate.models=["base"]'
    assert not any("train" in s.work.kind for s in paper(sets=(base,)).stages)


def test_a_given_rate_decides_the_time() -> None:
    rates = ("sample_tokens_per_second=1000", "load_seconds=7", "rollout_tokens=100",
             "rollouts_per_problem=10")  # fmt: skip
    plan = paper("paper-8gpu", sets=("problems.limit=800",), assume=rates)
    assert plan.stages[0].seconds == pytest.approx(7 + 800 * 10 * 100 / 1000 / 8)
    slow, fast = (paper(device=device).seconds for device in ("a100-80gb", "h200"))
    assert fast < slow
    with pytest.raises(ConfigError, match="--device 'abacus': known are h200"):
        paper(device="abacus")


@pytest.mark.parametrize(
    ("text", "said"),
    [("rollout_tokens", "write key=value"), ("rollout_tokens=long", "is no number"),
     ("rollout_token=5", "did you mean 'rollout_tokens'"), ("prefix_share=2", "less than")],
)  # fmt: skip
def test_an_assumption_that_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settle([text], {})


def test_given_beats_measured_beats_default() -> None:
    settled = settle(["prompt_tokens=3"], {"prompt_tokens": 2.0, "reference_tokens": 9.0})
    assert (settled.values.prompt_tokens, settled.values.reference_tokens) == (3, 9)
    assert settled.sources == {"prompt_tokens": "given", "reference_tokens": "measured"}


def test_accelerate_configs_are_read() -> None:
    fsdp = TrainingProcesses.of("accelerate/fsdp2")
    assert (fsdp.number, fsdp.sharded) == (8, True)
    ddp = TrainingProcesses.of("accelerate/ddp.yaml")
    assert (ddp.number, ddp.sharded) == (8, False)
    with pytest.raises(ConfigError, match="no accelerate config"):
        TrainingProcesses.of("nowhere.yaml")


@pytest.fixture
def scripted_run(tmp_path: Path, recipe: Recipe) -> Path:
    """A run as far as its rows."""
    with Run(tmp_path / "run", recipe, SilentProgress()) as run, Pipeline(run) as pipeline:
        _ = pipeline.rows
    return tmp_path / "run"


def test_a_run_is_measured(scripted_run: Path, recipe: Recipe) -> None:
    found = measure(scripted_run)
    assert found.values["hard_share"] == 1.0
    assert found.values["candidate_share"] == 1.0
    assert found.values["verified_share"] == 1.0
    assert found.values["rollout_tokens"] > found.values["continuation_tokens"]
    assert found.pass_rates == [(0.0, 1.0)]
    only_base = recipe.evaluate.model_copy(update={"models": ("base",)})
    recipe = recipe.model_copy(update={"evaluate": only_base})
    config = ROOT / "src" / "midcourse" / "lab" / "base" / "config.json"
    plan = make_plan(recipe, run_dir=scripted_run, model_config=config)
    requests = {stage.work.name: stage.work.requests for stage in plan.stages}
    for stage in (scripted_run / "sample").glob("*/manifest.json"):
        made = json.loads(stage.read_text())
        name = "sample train" if made["label"] == "train" else f"verify {made['label']}"
        assert requests[name] == made["num_records"], name
    assert plan.settled.sources["verify_tokens_per_second"] == "measured"


def test_what_cannot_be_measured_is_said(tmp_path: Path, scripted_run: Path) -> None:
    with pytest.raises(ArtifactError, match="no run directory"):
        measure(tmp_path)
    for file in scripted_run.glob("build-sft/*/manifest.json"):
        file.unlink()
    with pytest.raises(ArtifactError, match="build-sft intervention is not complete there"):
        measure(scripted_run)


def test_a_resumed_stage_counts_its_last_sitting(scripted_run: Path) -> None:
    whole = measure(scripted_run).values["sample_tokens_per_second"]
    for file in (scripted_run / "sample").glob("*/manifest.json"):
        manifest = json.loads(file.read_text())
        manifest["num_resumed"] = manifest["num_records"] // 2
        file.write_text(json.dumps(manifest))
    assert measure(scripted_run).values["sample_tokens_per_second"] == pytest.approx(whole / 2)


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_a_plan_of_the_measured_recipe_gives_back_its_time(
    scripted_run: Path, recipe: Recipe, clock: Any
) -> None:
    only_base = recipe.evaluate.model_copy(update={"models": ()})
    config = ROOT / "src" / "midcourse" / "lab" / "base" / "config.json"
    plan = make_plan(
        recipe.model_copy(update={"evaluate": only_base}), run_dir=scripted_run, clock=clock,
        model_config=config,
    )  # fmt: skip
    measured = measure(scripted_run, clock).seconds
    # Stages that decide and write, select and build-sft, are in no plan.
    assert plan.seconds <= measured * 1.05
    assert plan.seconds >= 0.5 * measured
