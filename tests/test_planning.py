"""The plan: shapes, memory and time by hand-made sums, and a run that is measured and predicted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import Recipe, load_recipe
from midcourse.data.parts import place
from midcourse.errors import ArtifactError, ConfigError
from midcourse.pipeline import method, open_session
from midcourse.plan.assumptions import settle
from midcourse.plan.devices import TrainingProcesses
from midcourse.plan.hardware import Timed
from midcourse.plan.measure import measure
from midcourse.plan.shapes import load_shape
from midcourse.plan.tables import Plan, make_plan
from midcourse.plan.work import Kind
from midcourse.progress import SilentProgress
from midcourse.recipes import list_recipes
from midcourse.run import Training
from midcourse.store.stage import read_manifest, write_manifest
from test_cli import midcourse

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parent.parent / "src" / "midcourse" / "lab" / "base" / "config.json"


def paper(*scales: str, sets: tuple[str, ...] = (), **options: Any) -> Plan:
    overlays = [f"scale/{name}" for name in ("paper", *scales)]
    return make_plan(load_recipe("paper/int", sets, overlays), **options)


def by_name(plan: Plan) -> dict[tuple[str, str], Timed]:
    return {(timed.step.name, timed.step.label): timed for timed in plan.steps}


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


def fits(plan: Plan) -> dict[str, str]:
    return {fit.memory.name: fit.memory.verdict(plan.device) for fit in plan.memory}


def test_the_paper_fits_where_its_recipes_say() -> None:
    for scale in ("paper-1gpu", "paper-8gpu"):
        assert set(fits(paper(scale)).values()) == {"yes"}
    alone = paper(sets=("engine.kind=vllm",))
    assert fits(alone)["train sft"] == "no"  # float32 weights, gradients and moments: 64 GB
    sft = next(fit for fit in alone.memory if fit.memory.name == "train sft")
    assert "train_sft.gradient_checkpointing = true" in sft.remedy
    assert 'train_sft.accelerate = "accelerate/fsdp2"' in sft.remedy
    assert sft.remedy in alone.tables()[-1].note
    spread = next(f for f in paper("paper-8gpu").memory if f.memory.name == "train sft")
    assert spread.memory.parts.optimiser == sft.memory.parts.optimiser / 8


def test_every_model_that_a_server_samples_has_its_own_length() -> None:
    recipe = load_recipe(
        "paper/proposer-weak", (), ["scale/paper", "scale/paper-1gpu", "scale/paper/proposer-weak"]
    )
    lengths = {}
    for fit in make_plan(recipe).memory:
        if fit.memory.name.startswith("sampling") and fit.memory.longest:
            lengths[fit.memory.name] = fit.memory.longest.tokens
    assert lengths == {"sampling (vllm)": 49_152, "sampling (vllm) Qwen/Qwen3-4B": 40_960}


def test_replies_that_outlast_the_time_out_are_told() -> None:
    rates = ("sample_tokens_per_second=1000", "rollout_tokens=2000")
    slow = by_name(paper("paper-1gpu", sets=("engine.concurrency=400",), assume=rates))
    latency = slow["sample", "train"].latency
    assert latency is not None
    assert latency.reply == pytest.approx(400 * 2000 / 1000)  # Little's law
    assert 0 < latency.queued < latency.reply  # the cache does not hold 400 rollouts
    few = by_name(paper("paper-1gpu", sets=("engine.concurrency=20",), assume=rates))
    latency = few["sample", "train"].latency
    assert latency is not None
    assert latency.reply == pytest.approx(40)
    assert latency.queued == 0
    told = paper("paper-1gpu", sets=("engine.timeout_seconds=3",), assume=rates).tables()[3]
    assert told.title == "Waiting"
    assert {row[-2:] for row in told.rows} == {("of silence", "yes")}, "a busy server is not silent"
    mute = ("engine.kind=openai", 'engine.urls=["http://a/v1"]', 'evaluate.models=["base"]')
    crowded = (*mute, 'engine.parameters={"stream": ""}', "engine.concurrency=1000")
    assert "no" in {row[-1] for row in paper(sets=crowded, assume=rates).tables()[3].rows}
    assert by_name(paper())["sample", "train"].latency is None  # in this process nothing waits


def test_a_server_of_somebody_else_takes_no_memory_of_ours() -> None:
    sets = ("engine.kind=openai", 'engine.urls=["http://a/v1"]', 'evaluate.models=["base"]')
    plan = paper(sets=(*sets, "engine.served_model=x"))
    assert [table.title for table in plan.tables()][3:] == ["Waiting"]


def test_replaced_groups_cost_sampling_alone() -> None:
    plain, refilled = (
        by_name(paper("paper-1gpu", assume=(f"rl_sampled_share={share}",))) for share in (1, 2)
    )
    name = ("checkpoints", "base + RL")
    assert refilled[name].work.tokens == 2 * plain[name].work.tokens
    assert plain[name].seconds < refilled[name].seconds < 2 * plain[name].seconds


SHEET = """
memory_gb = 16
bandwidth_gb_per_second = 500
tflops = { bfloat16 = 100, float32 = 25 }
"""


def test_a_data_sheet_of_one_s_own_is_a_device(tmp_path: Path) -> None:
    sheet = tmp_path / "mine.toml"
    sheet.write_text(SHEET)
    plan = paper(device=str(sheet))
    assert (plan.device.name, plan.device.memory_bytes) == ("mine", 16e9)
    assert (plan.device.operations("bfloat16"), plan.device.operations("float32")) == (1e14, 2.5e13)
    assert fits(plan)["train sft"] == "no"
    sheet.write_text(SHEET.replace("memory_gb", "memory"))
    with pytest.raises(
        ConfigError, match=r"mine\.toml: memory_gb: is missing|unknown key 'memory'"
    ):
        paper(device=str(sheet))
    with pytest.raises(ConfigError, match="cannot read the data sheet"):
        paper(device=str(tmp_path / "gone.toml"))


def test_requests_follow_the_funnel() -> None:
    assume = ("hard_share=0.05", "candidate_share=0.5", "verified_share=0.25", "num_held_out=10")
    sets = ("problems.limit=1000", "sample.rounds=[]", 'evaluate.on=["held_out"]')
    plan = paper(sets=sets, assume=assume)
    works = {name: timed.work for name, timed in by_name(plan).items()}
    assert works["sample", "train"].requests == 64_000
    assert works["propose", "train"].requests == 50 * 4 * 4
    assert works["sample", "prefix_intervention"].requests == 50 * 4 * 0.5 * 32
    assert works["checkpoints", "patched"].requests == 50 * 0.25 * 4
    assert works["checkpoints", "patched + RL"].requests == 400 * 32 * 8
    assert works["sample", "held_out patched"].requests == 1280
    graded = sum(work.requests for (name, _), work in works.items() if name == "grade")
    own = 2 * 10 * 2  # at temperature 1: two models before RL, two rollouts of each problem
    assert graded == 64_000 + 3_200 + 4 * 1280 + own
    searched = paper(sets=("problems.limit=1000",), assume=assume)
    assert searched.steps[0].work.requests < 20_000
    base = paper(sets=('evaluate.models=["base"]',))
    assert not any(isinstance(timed.step, Training) for timed in base.steps)


def test_a_shared_solution_is_counted_once_per_rollout() -> None:
    assume = ("hard_share=0.05", "guided_tokens=3000", "review_tokens=1000", "num_held_out=10")
    works = {
        guided: by_name(
            paper(sets=("problems.limit=1000", f"propose.guided={guided}"), assume=assume)
        )["propose", "train"].work
        for guided in ("each", "shared")
    }
    rollouts = 50 * 4
    assert works["each"].tokens == pytest.approx(rollouts * 4 * (3000 + 1000))
    assert works["shared"].tokens == pytest.approx(rollouts * (3000 + 4 * 1000))
    assert works["shared"].prefill_tokens == pytest.approx(works["each"].prefill_tokens / 4)
    single = paper(sets=("propose.turns=single", "propose.guided=shared"), assume=assume)
    assert by_name(single)["propose", "train"].work.tokens == pytest.approx(
        single.given.review_tokens * by_name(single)["propose", "train"].work.requests
    )


def test_a_given_rate_decides_the_time() -> None:
    rates = ("sample_tokens_per_second=1000", "load_seconds=7", "rollout_tokens=100",
             "rollouts_per_problem=10")  # fmt: skip
    plan = paper("paper-8gpu", sets=("problems.limit=800",), assume=rates)
    assert plan.steps[0].seconds == pytest.approx(7 + 800 * 10 * 100 / 1000 / 8)
    slow, fast = (paper(device=device).seconds for device in ("a100-80gb", "h200"))
    assert fast < slow
    with pytest.raises(ConfigError, match="--device 'abacus': known are h200"):
        paper(device="abacus")


@pytest.mark.parametrize(
    ("text", "said"),
    [("rollout_tokens", "write key=value"), ("rollout_tokens=long", "is not a number"),
     ("rollout_token=5", "did you mean 'rollout_tokens'"), ("prefix_share=2", "from 0 to 1")],
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
    with open_session(recipe, tmp_path / "run", SilentProgress()) as session:
        made = method(session.setup)
        for steps in made.steps():
            session.complete(*steps)
            if steps == (made.models.rows,):
                break
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
    plan = make_plan(recipe, run_dir=scripted_run, model_config=CONFIG)
    planned = by_name(plan)
    for file in scripted_run.glob("*/*/manifest.json"):
        made = json.loads(file.read_text())
        name = (made["stage"], made["label"])
        assert planned[name].work.requests == made["num_records"], name
    assert plan.settled.sources["verify_tokens_per_second"] == "measured"


def test_what_cannot_be_measured_is_said(tmp_path: Path, scripted_run: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a run directory"):
        measure(tmp_path)
    for file in scripted_run.glob("build-sft/*/manifest.json"):
        file.unlink()
    with pytest.raises(ArtifactError, match="build-sft intervention is not complete there"):
        measure(scripted_run)


def test_a_resumed_stage_counts_its_last_sitting(scripted_run: Path) -> None:
    whole = measure(scripted_run).values["sample_tokens_per_second"]
    for file in (scripted_run / "sample").glob("*/manifest.json"):
        manifest = read_manifest(file.parent)
        write_manifest(file.parent, {**manifest, "num_resumed": manifest["num_records"] // 2})
    assert measure(scripted_run).values["sample_tokens_per_second"] == pytest.approx(whole / 2)


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_a_plan_of_the_measured_recipe_gives_back_its_time(
    scripted_run: Path, recipe: Recipe, clock: Any
) -> None:
    only_base = recipe.evaluate.model_copy(update={"models": ()})
    plan = make_plan(
        recipe.model_copy(update={"evaluate": only_base}), run_dir=scripted_run, clock=clock,
        model_config=CONFIG,
    )  # fmt: skip
    measured = measure(scripted_run, clock).seconds
    # Stages that decide and write, select and build-sft, are in no plan.
    assert plan.seconds <= measured * 1.05
    assert plan.seconds >= 0.5 * measured


def test_every_step_of_a_finished_run_is_planned_with_its_records(
    tmp_path: Path, recipe_data: dict[str, Any], held_out_file: Path
) -> None:
    recipe_data["problems"]["held_out_path"] = str(held_out_file)
    recipe_data["evaluate"] = {"models": ["base"], "num_rollouts": 2, "ks": [1]}
    recipe = Recipe.model_validate(recipe_data)
    with open_session(recipe, tmp_path / "run", SilentProgress()) as session:
        for steps in method(session.setup).steps():
            session.complete(*steps)
    planned = by_name(make_plan(recipe, run_dir=tmp_path / "run"))
    made = {}
    for file in (tmp_path / "run").glob("*/*/manifest.json"):
        manifest = json.loads(file.read_text())
        made[manifest["stage"], manifest["label"]] = manifest["num_records"]
    assert {name: timed.work.requests for name, timed in planned.items()} == made
    assert {("propose", "held_out"), ("likelihood", "base"), ("grade", "prefix")} <= made.keys()


NAMES = [info.name for info in list_recipes()]
MACHINES = {
    "paper": ["scale/paper"],
    "paper-1gpu": ["scale/paper", "scale/paper-1gpu"],
    "paper-8gpu": ["scale/paper", "scale/paper-8gpu"],
    "gpu-small": ["scale/gpu-small"],
    "lab": ["scale/lab"],
}
PLANNED = [(name, scale) for name in NAMES if name.startswith("paper/") for scale in MACHINES]
# A recipe of `midcourse warmup` has no prompts for the method.
PLANNED += [(name, "") for name in NAMES if "/" not in name and not name.endswith("-warmup")]
#: What a recipe may lack at a scale: then it is refused before it is planned.
LACKING = "needs build_sft.teacher or teacher_engine"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), PLANNED)
def test_every_packaged_recipe_is_planned_at_every_scale(
    name: str, scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no problems and no models are there
    overlays = MACHINES.get(scale, [])
    own = f"{overlays[0]}/{name.removeprefix('paper/')}" if overlays else ""
    try:
        recipe = load_recipe(name, (), overlays + [own] * (own in NAMES))
    except ConfigError as error:
        assert re.search(LACKING, str(error))
        return
    plan = make_plan(recipe, model_config=CONFIG if name.startswith("gsm8k") else None)
    assert len(by_name(plan)) == len(plan.steps)  # a name is enough to tell a step
    assert plan.seconds > plan.given.other_seconds
    assert all(timed.seconds > 0 for timed in plan.steps if timed.work.tokens)
    assert plan.tables()[-1].title == "Memory"


def test_what_stages_read_is_planned_though_no_step_asks_for_it() -> None:
    overlays = ["scale/paper", "scale/paper/sft-distillation"]
    taught = make_plan(load_recipe("paper/sft-distillation", (), overlays))
    assert by_name(taught)["sample", "teacher"].work.kind is Kind.HELP
    assert taught.unknown == ("deepseek-ai/DeepSeek-R1",)
    assert "timed as the base: deepseek-ai/DeepSeek-R1" in taught.tables()[2].note
    assert not any("DeepSeek" in name for name in fits(taught))
    assert "so not counted: deepseek-ai/DeepSeek-R1" in taught.tables()[-1].note
    rewritten = make_plan(load_recipe("paper/sft-self-reflection", (), ["scale/paper"]))
    rows = by_name(rewritten)["build-sft", "self_reflection"].work.requests
    assert by_name(rewritten)["sample", "reflection"].work.requests == 4 * rows
    written = paper(sets=("reference.write=missing",), assume=("missing_share=0.5",))
    hard = by_name(written)["reference", "train"].work.requests
    assert by_name(written)["sample", "reference"].work.requests == hard / 2
    assert by_name(written)["propose", "held_out"].work.requests == 200 * 4


def test_hinted_problems_that_are_solved_leave_the_funnel() -> None:
    hinted = make_plan(
        load_recipe("paper/hints", (), ["scale/paper"]), assume=("hinted_share=0.25",)
    )
    works = {name: timed.work.requests for name, timed in by_name(hinted).items()}
    assert works["sample", "train hint"] == 16 * works["select", "train hint"]
    whole = by_name(make_plan(load_recipe("paper/hints", (), ["scale/paper"])))
    name = ("sample", "prefix_intervention")
    assert works[name] == pytest.approx(0.25 * whole[name].work.requests)


def test_engines_open_one_at_a_time_and_trainings_start_together() -> None:
    def opened(*scales: str, sampler: str) -> list[tuple[str, str]]:
        plan = paper(*scales, sets=(f"train_rl.sampler={sampler}",))
        return [name for name, timed in by_name(plan).items() if timed.work.opens]

    base, patched = ("sample", "held_out base"), ("sample", "held_out patched")
    rl = [("checkpoints", "base + RL"), ("checkpoints", "patched + RL")]
    after = [
        ("sample", "held_out base + RL"),
        ("sample", "held_out patched + RL"),
        ("propose", "held_out"),
        ("likelihood", "base"),
        ("likelihood", "patched"),
    ]
    first = [("sample", "train"), ("checkpoints", "patched")]
    assert opened(sampler="engine") == [*first, rl[0], base, patched, *after]
    # TRL's vLLM takes every device of the training's, so that RL runs one after the other.
    assert opened(sampler="vllm") == [*first, *rl, base, patched, *after]
    assert opened("paper-8gpu", sampler="engine") == [*first, *rl, base, patched, *after]


def test_a_part_of_the_problems_and_a_limit_of_the_held_out_ones_are_counted(
    tmp_path: Path,
) -> None:
    texts = [f"What is {i} + 1?" for i in range(20)]
    rows = [json.dumps({"q": text, "answer": "1"}) + "\n" for text in texts]
    file = tmp_path / "p.jsonl"
    file.write_text("".join(rows))
    sets = (
        f"problems.path={file}",
        f"problems.held_out_path={file}",
        "problems.held_out_limit=7",
        "problems.part=[0.25, 0.75]",
        'problems.columns={"problem": "q"}',
    )
    given = paper(sets=sets).given
    within = sum(0.25 <= place(text) < 0.75 for text in texts)
    assert 0 < within < 20
    assert (given.num_problems, given.num_held_out) == (within, 7)
    assert paper(sets=("problems.held_out_limit=7",)).given.num_held_out == 7


def test_a_script_that_is_gone_is_one_line(tmp_path: Path) -> None:
    sets = ("--set", "engine.kind=scripted", "--set", "engine.script=gone.json")
    done = midcourse("plan", "lab", *sets, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("midcourse: engine.script: cannot read 'gone.json'")
    assert done.stderr.count("\n") == 1
