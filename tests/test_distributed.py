"""Training on two processes (gloo) is training on one: same losses, one writer, resumed alike.

So it is where FSDP2 spreads the model over the two, with adapters and without.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from midcourse.config import GradeConfig, ModelConfig, TrainSftConfig
from midcourse.engines.bundled import base_folder
from midcourse.engines.weights import without_weights
from midcourse.errors import ConfigError
from midcourse.lab.counts.world import Kind, generate_stories
from midcourse.lab.splits import Split
from midcourse.progress import SilentProgress
from midcourse.recipes import find_accelerate
from midcourse.records import Gold, RowSource, SftRow
from midcourse.store.stage import StageStore, read_stage
from midcourse.training.checkpoints import COMPLETE, newest_complete, optimiser_step
from midcourse.training.common import check_sharding, load_model, whole_weights
from midcourse.training.jobs import (
    Job,
    RlJob,
    SftJob,
    _start,
    choose_rows,
    run_jobs,
)
from midcourse.training.rl.store import read_group_counts, read_rl_rollouts
from midcourse.training.sft import train_sft
from rl_problems import rl_problem
from test_training import BASE, RL, groups_of_rollouts, renderer, row, setting, sft_job, weights
from tiny import make_random

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
TWO = "accelerate/cpu2"
SHARDED = "accelerate/fsdp2-cpu"
__all__ = ["renderer"]


@pytest.fixture
def rows(tmp_path: Path, renderer: Any) -> Path:
    """A sealed stage of rows of unequal length; next to it, the rows that Step-DPO rejects."""
    texts = [f"Finds a score: {n} + 20 = {n + 20}.\n\n" * (1 + n % 3) for n in range(8)]
    worse = [f"Loses {n}: 20 - {n} = 3.\n\n" for n in range(8)]
    for name, source, said in (
        ("rows", RowSource.INTERVENTION, texts),
        ("rejected", RowSource.ORIGINAL_STEP, worse),
    ):
        with StageStore(tmp_path / name, SftRow) as store:
            for n, text in enumerate(said):
                store.append(str(n), [replace(row(renderer, text, n), source=source)])
            store.seal({})
    return tmp_path / "rows"


CONFIG = TrainSftConfig(batch_size=4, micro_batch_size=1, learning_rate=1e-3, num_epochs=2)


def make_job(rows: Path, out: Path, **changes: Any) -> Job:
    """A job on `rows`; with ``method="dpo"`` against the rejected ones."""
    chosen = choose_rows(rows, list(read_stage(rows, SftRow)))
    config = CONFIG.model_copy(update=changes)
    rejected = rows.with_name("rejected") if config.method == "dpo" else None
    model = ModelConfig(path=BASE)
    content = SftJob(config=config, model=model, seed=0, rows=chosen, rejected_rows=rejected)
    return Job("train", out, content)


def losses(out: Path) -> list[float]:
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry]


def check_is_the_same_model(ours: Path, theirs: Path) -> None:
    """Two trainings of the base ended alike, up to rounding, in folders that transformers loads.

    Adam turns a difference in rounding into a step of up to the learning rate where the gradient
    is nearly zero: the models agree but for such steps.
    """
    base, one, two = (weights(folder) for folder in (Path(BASE), theirs / "final", ours / "final"))
    assert {k: v.shape for k, v in two.items()} == {k: v.shape for k, v in base.items()}
    distance = max(float((one[k] - two[k]).abs().max()) for k in base)
    moved = max(float((one[k] - base[k]).abs().max()) for k in base)
    assert distance < moved / 4
    _, found = AutoModelForCausalLM.from_pretrained(ours / "final", output_loading_info=True)
    assert not any(found.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accelerate", "lora_rank", "method"),
    [
        (TWO, 0, "sft"),
        pytest.param(SHARDED, 0, "sft", marks=pytest.mark.nightly),
        (SHARDED, 4, "sft"),
        pytest.param(SHARDED, 0, "dpo", marks=pytest.mark.nightly),
    ],
)
def test_two_processes_learn_what_one_learns(
    tmp_path: Path, rows: Path, accelerate: str, lora_rank: int, method: str
) -> None:
    changes = {"lora_rank": lora_rank, "method": method}
    one, two = tmp_path / "one", tmp_path / "two"
    run_jobs([make_job(rows, one, micro_batch_size=2, **changes)], SilentProgress())
    run_jobs([make_job(rows, two, accelerate=accelerate, **changes)], SilentProgress())
    assert len(losses(one)) == 4
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    check_is_the_same_model(two, one)
    if method == "dpo":
        assert losses(two)[0] == pytest.approx(math.log(2), abs=1e-4)  # policy is reference
    if lora_rank:
        ours, theirs = (
            load_file(out / "adapter" / "adapter_model.safetensors") for out in (one, two)
        )
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.nightly
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_killed_sharded_training_goes_on(tmp_path: Path, rows: Path, lora_rank: int) -> None:
    changes = {"accelerate": SHARDED, "lora_rank": lora_rank, "save_every": 1}
    whole, cut = (make_job(rows, tmp_path / name, **changes) for name in ("whole", "cut"))
    run_jobs([whole], SilentProgress())
    kill_after_a_checkpoint(cut)
    checkpoint = newest_complete(cut.out)
    assert checkpoint is not None
    before = len(losses(cut.out))
    run_jobs([cut], SilentProgress())
    assert before >= optimiser_step(checkpoint)
    again = losses(cut.out)[before:]
    assert again == pytest.approx(losses(whole.out)[optimiser_step(checkpoint) :])
    check_is_the_same_model(cut.out, whole.out)
    assert not list(cut.out.glob("checkpoint-*"))


def kill_after_a_checkpoint(job: Job) -> None:
    """Kill a training as soon as there is something to go on from."""
    launched = _start(job, num_threads=1)
    deadline = time.monotonic() + 120
    while not list(job.out.glob(f"checkpoint-*/{COMPLETE}")) and time.monotonic() < deadline:
        time.sleep(0.05)
    launched.kill()
    launched.wait()
    assert not (job.out / "summary.json").exists()
    # The processes of a killed launcher notice, and end by themselves.
    time.sleep(3)


@pytest.mark.slow
@pytest.mark.parametrize("accelerate", [TWO, pytest.param(SHARDED, marks=pytest.mark.nightly)])
def test_rl_on_two_processes_is_killed_goes_on_and_counts_every_group_once(
    tmp_path: Path, accelerate: str
) -> None:
    # Problems that the base solves, hot enough that it errs: some groups have both.
    sampling = RL.sampling.model_copy(update={"max_tokens": 100, "temperature": 1.8})
    update = {
        "micro_batch_size": 2, "num_generations": 8, "accelerate": accelerate, "sampling": sampling,
        # The engine needs the whole model in every process.
        "sampler": "generate" if accelerate == SHARDED else "engine",
    }  # fmt: skip
    stories = islice(generate_stories(Kind.KNOWN, Split.TRAIN, seed=0), 3)
    content = RlJob(
        config=RL.model_copy(update=update),
        model=ModelConfig(path=BASE),
        seed=0,
        policy="rl:k",
        grade=GradeConfig(num_workers=1),
        problems=tuple(
            rl_problem(story.text, story.text, Gold("math", story.answer)) for story in stories
        ),
    )
    out = tmp_path / "rl"
    job = Job("train rl", out, content)
    kill_after_a_checkpoint(job)
    run_jobs([job], SilentProgress())
    counts = read_group_counts(out)
    assert [c.iteration for c in counts] == [0, 0, 1, 1, 2, 2]
    assert all(c.num_correct + c.num_incorrect + c.num_ungraded == 8 for c in counts)
    assert len({c.problem_id for c in counts[:2]}) == 2
    assert groups_of_rollouts(out, 8) == counts
    assert len({r.rollout_id for r in read_rl_rollouts(out)}) == 48
    assert not list(out.glob("checkpoint-*"))
    assert any(0 < c.num_correct < 8 for c in counts), "nothing to learn from: pick other problems"
    trained, base = weights(out / "final"), weights(Path(BASE))
    assert any(not torch.equal(trained[name], base[name]) for name in base)


@pytest.mark.slow
def test_where_the_model_is_sharded_one_process_loads_it_and_each_holds_its_part(
    tmp_path: Path,
) -> None:
    make_random(tmp_path / "model", "llama", hidden_size=512, intermediate_size=4096)
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    script = str(Path(__file__).with_name("shards.py"))
    command = [*launcher, "--config_file", str(find_accelerate(SHARDED)), script]
    subprocess.run([*command, str(tmp_path / "model"), str(tmp_path)], check=True)
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in range(2))
    weights = first["weights"]
    assert first["loading"] > 0.9 * weights
    assert second["loading"] < 0.2 * weights, "both processes hold the weights"
    assert first["held"] + second["held"] == pytest.approx(first["trained"], rel=0.01)
    assert second["held"] == pytest.approx(first["trained"] / 2, rel=0.1)


def test_a_way_to_shard_that_is_not_ours_is_refused() -> None:
    good = {
        "FSDP_VERSION": "2",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    }
    check_sharding(good)
    for wrong in (
        {**good, "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"},
        {**good, "FSDP_VERSION": "1"},
        {**good, "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"},
        {"FSDP_VERSION": "2"},
    ):
        with pytest.raises(ConfigError, match=r"set fsdp_\w+ to (2|FULL_STATE_DICT|true) in"):
            check_sharding(wrong)


def test_whole_weights_are_the_model_s_with_tied_ones_once() -> None:
    model = load_model(BASE)
    whole = dict(whole_weights(model))
    assert whole.keys() == {name for name, _ in model.named_parameters()}
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert all(torch.equal(whole[name], weight) for name, weight in model.named_parameters())
    assert not any(weight.requires_grad for weight in whole.values())


def test_a_model_without_weights_is_ready_for_them() -> None:
    ours, theirs = without_weights(BASE, torch.float32), load_model(BASE)
    assert ours.lm_head.weight is ours.get_input_embeddings().weight
    weights = {name: weight.data_ptr() for name, weight in ours.named_parameters()}
    assert len(set(weights.values())) == len(weights), "accelerate tells weights by their place"
    buffers = dict(ours.named_buffers())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in theirs.named_buffers())
    ours.load_state_dict(theirs.state_dict())
    ids = torch.arange(1, 9)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()
    assert ours.name_or_path == theirs.name_or_path


def test_a_missing_accelerate_config_is_named(tmp_path: Path) -> None:
    content = sft_job(tmp_path, TrainSftConfig(accelerate="nowhere.yaml"))
    with pytest.raises(ConfigError, match=r"no accelerate config at nowhere\.yaml"):
        run_jobs([Job("train x", tmp_path / "x", content)], SilentProgress())


def test_adapters_are_merged_into_an_ordinary_model(tmp_path: Path, renderer: Any) -> None:
    config = TrainSftConfig(batch_size=2, micro_batch_size=2, learning_rate=1e-2, lora_rank=4)
    texts = [row(renderer, "Finds a score: 12 + 20 = 32.\n\n", n) for n in range(4)]
    summary = train_sft(config, texts, setting(tmp_path))
    assert summary["last_loss"] < summary["first_loss"]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    merged, base = weights(tmp_path / "final"), weights(base_folder())
    assert merged.keys() == base.keys()
    moved = {name for name in base if not torch.allclose(merged[name], base[name], atol=1e-6)}
    assert moved
    assert all("proj" in name for name in moved)
    assert (tmp_path / "final" / "tokenizer.json").is_file()
