"""The paper's recipes at the paper's scale, whole, with a random tiny model in Qwen3-4B's place.

What stays of the recipe is everything but sizes: stages, prompts, sampling parameters, trainers. A
random model proposes nothing, so a script does, and rows are built unfiltered.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from midcourse.config import TransformersConfig, load_recipe
from midcourse.pipeline import method, open_session
from midcourse.plan.tables import make_plan
from midcourse.progress import SilentProgress
from midcourse.records import RowOutcome
from midcourse.report.write import is_reported, write_report

PROPOSAL = '<intervention>{"content": "I name what is asked.", "location": 1}</intervention>'

TINY = """
[problems]
path = "{problems}"
held_out_path = "{held_out}"

[model]
path = "{model}"
dtype = "float32"

[engine]
kind = "transformers"
max_context_tokens = 8192

[proposer_engine]
kind = "scripted"
script = "{script}"

[grade]
num_workers = 1

[sample]
num_rollouts = 4
rounds = [1, 3]
sampling = {{ max_tokens = 16 }}

[propose]
num_rollouts = 1
num_proposals = 1

[verify]
num_continuations = 2
sampling = {{ max_tokens = 48 }}

[build_sft]
filter = false

[train_sft]
batch_size = 2
micro_batch_size = 2
num_epochs = 1

[train_rl]
problems = "hard"
num_iterations = 1
prompts_per_iteration = 2
num_generations = 2
num_updates = 2
micro_batch_size = 2
sampler = "engine"
sampling = {{ max_tokens = 8 }}

[evaluate]
on = ["held_out"]
num_rollouts = 2
ks = [1, 2]
sampling = {{ max_tokens = 16 }}

[evaluate.sets.held_out]
ks = [1, 2]

[likelihood]
max_items = 2
"""


@pytest.fixture
def tiny(tmp_path: Path, problem_file: Path, held_out_file: Path) -> Path:
    """A scale: three problems, a random Qwen3, a script that proposes."""
    from tiny import make_tiny_qwen3

    model, script = tmp_path / "qwen3-tiny", tmp_path / "proposals.json"
    make_tiny_qwen3(model)
    script.write_text(json.dumps([[".", PROPOSAL]]))
    scale = tmp_path / "tiny.toml"
    scale.write_text(
        TINY.format(problems=problem_file, held_out=held_out_file, model=model, script=script)
    )
    return scale


@pytest.mark.slow
@pytest.mark.timeout(900)  # seconds of work, but a busy machine may take long
@pytest.mark.parametrize(
    "machine",
    [
        pytest.param([], id="paper"),
        pytest.param(["paper-1gpu"], id="paper-1gpu", marks=pytest.mark.nightly),
    ],
)
def test_the_method_runs_whole_at_the_paper_s_scale(
    machine: list[str], tiny: Path, tmp_path: Path
) -> None:
    scales = [f"scale/{name}" for name in ("paper", *machine)]
    recipe = load_recipe("paper/int", (), [*scales, tiny])
    assert recipe.propose.turns == "two"
    assert bool(recipe.train_sft.lora_rank) == bool(machine)
    with open_session(recipe, tmp_path / "run", SilentProgress()) as session:
        made = method(session.setup)
        for steps in made.steps():
            session.complete(*steps)
        write_report(session, made)
        rows = list(session.read(made.models.rows))
        folders = {model.label: session.tools.path(model) for model in made.models.compared}
    assert is_reported(tmp_path / "run")
    plan = make_plan(recipe, run_dir=tmp_path / "run")
    assert {"sft_tokens_per_second", "rl_tokens_per_second"} <= plan.settled.sources.keys()
    assert plan.measured_seconds is not None
    assert plan.seconds == pytest.approx(plan.measured_seconds, rel=0.35)
    planned = {(timed.step.name, timed.step.label): timed.work for timed in plan.steps}
    for file in (tmp_path / "run").glob("*/*/manifest.json"):
        manifest = json.loads(file.read_text())
        work = planned.pop((manifest["stage"], manifest["label"]))
        assert work.requests == pytest.approx(manifest.get("num_records", work.requests))
        if isinstance(work.engine, TransformersConfig):
            assert bool(work.opens) == bool(manifest["loading_seconds"]), manifest["label"]
    assert not planned
    assert [row.outcome for row in rows] == [RowOutcome.READY] * 3
    assert list(folders) == ["base", "patched", "base + RL", "patched + RL"]
    for label, folder in folders.items():
        assert (Path(folder) / "model.safetensors").is_file(), label


def test_the_tiny_model_is_of_the_large_one_s_kind(tiny: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    from midcourse.rendering import Renderer

    folder = load_recipe("paper/int", (), [tiny]).model.path
    assert AutoConfig.from_pretrained(folder).architectures == ["Qwen3ForCausalLM"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    renderer = Renderer(tokenizer)
    text = "Let α = ½.\n\nThen 2α = 1."
    assert renderer.decode(renderer.encode(text)) == text
    assert renderer.end_of_turn_ids == [tokenizer.eos_token_id]
