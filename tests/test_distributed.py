"""Training on two processes (gloo) is training on one: same losses, one writer, resumed alike."""

from __future__ import annotations

import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from midcourse.config import GradeConfig, ModelConfig, TrainSftConfig
from midcourse.engines.bundled import base_folder
from midcourse.errors import ConfigError
from midcourse.lab.world import Kind, Split, generate_stories
from midcourse.progress import SilentProgress
from midcourse.records import Gold, SftRow
from midcourse.store.stage import StageStore, read_stage
from midcourse.training.checkpoints import COMPLETE
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

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
TWO = "accelerate/cpu2"
__all__ = ["renderer"]


@pytest.fixture
def rows(tmp_path: Path, renderer: Any) -> Path:
    """A sealed stage of rows of unequal length."""
    path = tmp_path / "rows"
    texts = [f"Finds a score: {n} + 20 = {n + 20}.\n\n" * (1 + n % 3) for n in range(8)]
    with StageStore(path, SftRow) as store:
        for n, text in enumerate(texts):
            store.append(str(n), [row(renderer, text, n)])
        store.seal({})
    return path


def sft_losses(rows: Path, out: Path, accelerate: str) -> list[float]:
    config = TrainSftConfig(
        batch_size=4, micro_batch_size=2 if accelerate == "" else 1, learning_rate=1e-3,
        num_epochs=2, accelerate=accelerate,
    )  # fmt: skip
    chosen = choose_rows(rows, list(read_stage(rows, SftRow)))
    content = SftJob(config=config, model=ModelConfig(path=BASE), seed=0, rows=chosen)
    run_jobs([Job("train", out, content)], SilentProgress())
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path, rows: Path) -> None:
    one = sft_losses(rows, tmp_path / "one", "")
    two = sft_losses(rows, tmp_path / "two", TWO)
    assert len(one) == 4
    assert two == pytest.approx(one, rel=1e-3)
    ours, theirs = (weights(tmp_path / name / "final") for name in ("one", "two"))
    # Adam turns a difference in rounding into a step of up to the learning rate where the
    # gradient is nearly zero: the models agree but for such steps.
    distance = max(float((ours[k] - theirs[k]).abs().max()) for k in ours)
    moved = max(float((ours[k] - base).abs().max()) for k, base in weights(Path(BASE)).items())
    assert distance < moved / 4


@pytest.mark.slow
def test_rl_on_two_processes_is_killed_goes_on_and_counts_every_group_once(tmp_path: Path) -> None:
    # Problems that the base solves, hot enough that it errs: some groups have both.
    sampling = RL.sampling.model_copy(update={"max_tokens": 100, "temperature": 1.8})
    update = {"micro_batch_size": 2, "num_generations": 8, "accelerate": TWO, "sampling": sampling}
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
    launched = _start(job, num_threads=1)
    deadline = time.monotonic() + 120
    while not list(out.glob(f"checkpoint-*/{COMPLETE}")) and time.monotonic() < deadline:
        time.sleep(0.05)
    launched.kill()
    launched.wait()
    assert not (out / "summary.json").exists()
    # The processes of a killed launcher notice, and end by themselves.
    time.sleep(3)
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
