"""Trainings that diverge, run out of memory, are killed or meet damaged files: nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from trl import DPOTrainer, GRPOTrainer, SFTTrainer

from midcourse.checkers import Grader
from midcourse.config import GradeConfig, ModelConfig, Recipe, TrainRlConfig, TrainSftConfig
from midcourse.engines.transformers_engine import TransformersEngine
from midcourse.errors import ArtifactError, ConfigError, DataError, EngineError, MidcourseError
from midcourse.pipeline.session import Tools
from midcourse.pipeline.values import Model
from midcourse.processes import threads_each
from midcourse.progress import SilentProgress
from midcourse.records import Gold, SftRow
from midcourse.rendering import Renderer
from midcourse.run import Run, Training, WorkTimer
from midcourse.store.checksums import damaged_files
from midcourse.store.stage import StageStore, read_stage
from midcourse.training.checkpoints import COMPLETE, clear_unusable, newest_complete
from midcourse.training.common import Machine, Setting, save
from midcourse.training.dpo import dpo_arguments, make_dpo_trainer, train_dpo
from midcourse.training.jobs import (
    Job,
    Log,
    RlJob,
    SftJob,
    _start,
    choose_rows,
    run_jobs,
)
from midcourse.training.rl.run import train_rl
from midcourse.training.rl.store import (
    read_group_counts,
    read_group_summaries,
    read_online_proposals,
    read_rl_grades,
    read_rl_rollouts,
    read_rl_samples,
)
from midcourse.training.sft import check_rows, make_sft_trainer, sft_arguments, train_sft
from rl_problems import rl_problem
from test_checksums import flip
from test_training import CoinGrader, pairs, row
from tiny import make_random

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SFT = TrainSftConfig(
    batch_size=2, micro_batch_size=1, learning_rate=1e-3, num_epochs=3, warmup_ratio=0.0
)
RL = TrainRlConfig.model_validate(
    {
        "num_iterations": 3,
        "prompts_per_iteration": 2,
        "num_generations": 2,
        "num_updates": 2,
        "micro_batch_size": 2,
        "learning_rate": 1e-3,
        "save_every": 1,
        "sampling": {"max_tokens": 8, "temperature": 1.0},
    }
)
PROBLEMS = [rl_problem(str(n), f"Mia has {n} nuts.", Gold("math", str(n))) for n in range(3)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers, with the lab's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_random(folder, "qwen3", use_cache=True)
    return folder


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    from transformers import AutoTokenizer

    return Renderer(AutoTokenizer.from_pretrained(base))


@dataclass(frozen=True)
class Train:
    """One of the trainers, on a few rows or problems."""

    kind: str
    base: Path
    renderer: Renderer

    @property
    def section(self) -> str:
        return "train_rl" if self.kind == "rl" else "train_sft"

    def __call__(
        self, out: Path, on_log: Log = lambda numbers: None, **changes: Any
    ) -> dict[str, float]:
        """Train into a folder with changed keys, or go on there."""
        out.mkdir(exist_ok=True)
        setting = Setting(str(self.base), out, 0, on_log)
        if self.kind == "rl":
            changed = RL.model_copy(update=changes)
            return train_rl(changed, PROBLEMS, setting, "rl:k", CoinGrader())
        config = SFT.model_copy(update=changes)
        if self.kind == "dpo":
            return train_dpo(config, pairs(self.renderer, 4), setting)
        rows = [row(self.renderer, f"Finds {n} more.\n\n", n) for n in range(4)]
        return train_sft(config, rows, setting)


@pytest.fixture(params=["sft", "dpo", "rl"])
def train(request: pytest.FixtureRequest, base: Path, renderer: Renderer) -> Train:
    """Each trainer."""
    return Train(request.param, base, renderer)


@pytest.fixture(scope="module")
def train_rows(base: Path, renderer: Renderer) -> Train:
    """The trainer that most tests of what all share are about."""
    return Train("sft", base, renderer)


# --- NaN ---------------------------------------------------------------------------------------


def spoil_loss(monkeypatch: pytest.MonkeyPatch, at_step: int, factor: float) -> None:
    """Multiply the loss of one optimiser step."""
    for trainer in (SFTTrainer, DPOTrainer, GRPOTrainer):
        compute = trainer.compute_loss

        def spoiled(self: Any, *given: Any, compute: Any = compute, **named: Any) -> Any:
            loss = compute(self, *given, **named)
            return loss * factor if self.state.global_step == at_step - 1 else loss

        monkeypatch.setattr(trainer, "compute_loss", spoiled)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training_at_that_step(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    spoil_loss(monkeypatch, 3, value)
    with pytest.raises(MidcourseError, match=r"^step 3: the \w+ is not finite .*learning_rate"):
        train(tmp_path / "out", save_every=1)
    assert not (tmp_path / "out" / "final").exists()
    # What is resumed from is from before.
    steps = {int(folder.name[11:]) for folder in (tmp_path / "out").glob("checkpoint-*")}
    assert steps
    assert max(steps) < 3


@pytest.mark.parametrize("lora_rank", [0, pytest.param(2, marks=pytest.mark.faults)])
def test_a_training_that_diverges_ends_in_one_line_and_leaves_no_model(
    train: Train, tmp_path: Path, lora_rank: int
) -> None:
    with pytest.raises(MidcourseError, match=r"learning_rate") as caught:
        train(tmp_path / "out", learning_rate=1e30, lora_rank=lora_rank)
    assert "\n" not in str(caught.value)
    assert "not finite" in str(caught.value)
    assert not (tmp_path / "out" / "final").exists()
    assert not (tmp_path / "out" / "adapter").exists()


def test_a_model_with_a_nan_is_never_saved(base: Path, renderer: Renderer, tmp_path: Path) -> None:
    setting = Setting(str(base), tmp_path, 0, lambda numbers: None)
    trainer = make_sft_trainer(SFT, [row(renderer, "So 32.\n\n")] * 2, setting)
    with torch.no_grad():
        next(trainer.model.parameters())[0, 0] = float("nan")
    with pytest.raises(MidcourseError, match=r"NaN or an infinity in model.embed_tokens.weight"):
        save(trainer, tmp_path)
    assert not (tmp_path / "final").exists()


def test_large_weights_are_no_reason_to_stop(train_rows: Train, tmp_path: Path) -> None:
    train_rows(tmp_path / "out", learning_rate=10.0)
    assert (tmp_path / "out" / "final" / "model.safetensors").is_file()


# --- what a training starts from -----------------------------------------------------------------


def put_nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 10_000)


def drop_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def only_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (put_nan, "model.norm.weight holds a NaN"),
        (truncate, "cannot load the model at"),
        (drop_tensor, r"has no weights model\.layers\.1\.mlp\.up_proj\.weight"),
        (only_pickle, "cannot load the model at .*safetensors"),
    ],
)
def test_a_damaged_base_is_refused_in_one_line(
    base: Path, renderer: Renderer, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    broken = tmp_path / "base"
    shutil.copytree(base, broken)
    damage(broken)
    with pytest.raises(EngineError, match=said) as caught:
        Train("sft", broken, renderer)(tmp_path / "out")
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match=said):
        _ = TransformersEngine(broken).model


def test_rows_that_the_model_cannot_be_fed_are_named_before_the_first_step(
    base: Path, renderer: Renderer, tmp_path: Path
) -> None:
    setting = Setting(str(base), tmp_path, 0, lambda numbers: None)
    good = row(renderer, "So 32.\n\n", 1)

    def with_last(token: int) -> Any:
        ids, labels = (*good.input_ids[:-1], token), (*good.labels[:-1], token)
        return replace(good, row_id="bad", input_ids=ids, labels=labels)

    long = replace(row(renderer, "So 32.\n\n" * 400), row_id="bad")
    for bad, said in (
        (with_last(920), "row bad has the token id 920, the model's vocabulary 920 tokens"),
        (with_last(-1), "row bad has the token id -1"),
        (long, r"row bad has [\d,]+ tokens, the model takes 1,024: lower build_sft.max_tokens"),
        (replace(good, row_id="bad", labels=good.labels[1:]), "row bad has .* labels"),
        (replace(good, row_id="bad", input_ids=(), labels=()), "row bad has nothing to learn"),
    ):
        with pytest.raises(DataError, match=said):
            make_sft_trainer(SFT, [good, bad], setting)
    check_rows([good], renderer.end_of_turn_ids)
    pair = pairs(renderer, 1)[0]
    for changed, said in (
        (replace(pair, rejected_ids=(5, 5000)), "row row0 has the token id 5,000"),
        (replace(pair, chosen_ids=()), "row row0 has nothing to learn"),
        (replace(pair, prompt_ids=pair.prompt_ids * 100), "the model takes 1,024"),
    ):
        with pytest.raises(DataError, match=said):
            make_dpo_trainer(SFT, [pair, changed], setting)


def test_a_prompt_that_leaves_no_room_to_sample_is_named(base: Path, tmp_path: Path) -> None:
    setting = Setting(str(base), tmp_path, 0, lambda numbers: None)
    problems = [*PROBLEMS, rl_problem("long", "Mia has 3 nuts. " * 250, Gold("math", "3"))]
    with pytest.raises(DataError, match=r"problem long has .* 8 to sample, .*max_tokens"):
        train_rl(RL, problems, setting, "rl:k", CoinGrader())


def test_more_processes_than_rows_are_refused(base: Path, tmp_path: Path) -> None:
    setting = Setting(str(base), tmp_path, 0, lambda numbers: None)
    config, four = SFT.model_copy(update={"batch_size": 4}), Machine(False, 4)
    for arguments in (sft_arguments, dpo_arguments):
        with pytest.raises(ConfigError, match=r"4 processes are more than the 3 rows"):
            arguments(config, setting, 3, four)


# --- memory, rewards -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_out_of_memory_names_three_settings(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def exhausted(*_: Any, **__: Any) -> Any:
        raise error

    for trainer in (SFTTrainer, DPOTrainer, GRPOTrainer):
        monkeypatch.setattr(trainer, "compute_loss", exhausted)
    with pytest.raises(MidcourseError) as caught:
        train(tmp_path / "out")
    said = str(caught.value)
    assert "\n" not in said
    for key in ("micro_batch_size", "gradient_checkpointing", "lora_rank"):
        assert f"{train.section}.{key}" in said


def test_another_error_keeps_its_traceback(
    train_rows: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(SFTTrainer, "compute_loss", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train_rows(tmp_path / "out")


def test_a_reward_that_hangs_or_cannot_be_had_is_counted_and_rl_goes_on(
    base: Path, tmp_path: Path
) -> None:
    """Half of the golds never come to an end, half cannot be read; the texts all have an answer."""
    golds = [Gold("math", "9^{9^{9^{9^{9}}}}+1"), Gold("math", "\\frac{")]
    problems = [rl_problem(str(n), f"Mia has {n} nuts.", gold) for n, gold in enumerate(golds)]
    logged: list[Mapping[str, float]] = []
    setting = Setting(str(base), tmp_path, 0, logged.append)

    class Answering:
        """Grades an answer in place of each text."""

        def __init__(self, grader: Grader) -> None:
            self.grader = grader

        def grade(self, given: Any) -> Iterator[Any]:
            answered = [(f"So \\boxed{{{3 + n}x}}.", gold) for n, (_, gold) in enumerate(given)]
            return self.grader.grade(answered)

    with Grader(num_workers=2, timeout_seconds=0.3) as grader:
        config = RL.model_copy(update={"num_iterations": 1})
        train_rl(config, problems, setting, "rl:k", Answering(grader))
    counts = read_group_counts(tmp_path)
    assert [(count.num_ungraded, count.num_incorrect) for count in counts] == [(2, 0)] * 2
    ours, theirs = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "final", base)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # Every line of metrics.jsonl is JSON: no NaN is in it.
    for entry in logged:
        json.dumps(entry, allow_nan=False)
    assert [entry["loss"] for entry in logged if "loss" in entry] == [0.0]


# --- killed and resumed --------------------------------------------------------------------------


class Killed(Exception):
    pass


def kill_after(step: int) -> Log:
    """Raise once a later step than this is logged; its checkpoint is there by then."""

    def on_log(entry: Mapping[str, float]) -> None:
        if entry["step"] > step:
            raise Killed

    return on_log


def is_same(one: Path, other: Path) -> bool:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in theirs)


@pytest.mark.parametrize("lora_rank", [0, pytest.param(2, marks=pytest.mark.faults)])
def test_a_resumed_training_is_an_uninterrupted_one_to_the_bit(
    train: Train, tmp_path: Path, lora_rank: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    changes: dict[str, Any] = {"save_every": 1, "lora_rank": lora_rank}
    expected = train(whole, **changes)
    with pytest.raises(Killed):
        train(cut, kill_after(3), **changes)
    assert newest_complete(cut)
    assert not (cut / "final").exists()
    assert not list(cut.rglob("training_args.bin")), "a pickle that nothing reads"
    steps: list[float] = []
    assert train(cut, lambda entry: steps.append(entry["step"]), **changes) == expected
    assert min(steps) > 2, "what is in the checkpoint is not done again"
    assert is_same(whole / "final", cut / "final")
    assert (whole / "adapter").exists() == bool(lora_rank)
    adapter = "adapter/adapter_model.safetensors"
    if lora_rank:
        assert (whole / adapter).read_bytes() == (cut / adapter).read_bytes()
    assert list(read_rl_samples(whole)) == list(read_rl_samples(cut))
    assert list(read_rl_rollouts(whole)) == list(read_rl_rollouts(cut))
    assert list(read_rl_grades(whole)) == list(read_rl_grades(cut))


@pytest.mark.parametrize("kind", ["sft", pytest.param("rl", marks=pytest.mark.faults)])
def test_a_kill_after_the_last_step_costs_no_step(
    base: Path, renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    train = Train(kind, base, renderer)
    expected = train(tmp_path / "whole", save_every=1)

    def killed(out: Path, summary: Mapping[str, float]) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"midcourse.training.{'rl.run' if kind == 'rl' else kind}.conclude", killed)
        with pytest.raises(Killed):
            train(tmp_path / "cut", save_every=1)
    (tmp_path / "cut" / "final" / "model.safetensors").unlink()
    steps: list[Mapping[str, float]] = []
    assert train(tmp_path / "cut", steps.append, save_every=1) == expected
    assert not [entry for entry in steps if "loss" in entry]
    assert is_same(tmp_path / "whole" / "final", tmp_path / "cut" / "final")


def test_a_model_folder_holds_no_pickle(train_rows: Train, tmp_path: Path) -> None:
    train_rows(tmp_path / "out", save_every=1, lora_rank=2)
    kinds = {file.suffix for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert kinds <= {".json", ".jinja", ".safetensors", ".md"}


# --- damage --------------------------------------------------------------------------------------

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


@pytest.fixture(scope="module")
def cut(train_rows: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training killed after its fourth step, with checkpoints of the third and fourth."""
    out = tmp_path_factory.mktemp("cut")
    with pytest.raises(Killed):
        train_rows(out, kill_after(4), save_every=1)
    return out


def halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, halve, Path.unlink])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    cut: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(cut, out)
    assert list(clear_unusable(out)) == []
    assert newest_complete(out) == out / "checkpoint-4"
    damage(out / "checkpoint-4" / name)
    (line,) = clear_unusable(out)
    assert line.startswith(str(out / "checkpoint-4" / name))
    assert newest_complete(out) == out / "checkpoint-3"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": [{"file": "model.safetensors"}]}'])
def test_a_damaged_marker_is_damage_too(cut: Path, tmp_path: Path, content: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(cut, out)
    (out / "checkpoint-4" / COMPLETE).write_text(content)
    (line,) = clear_unusable(out)
    assert str(out / "checkpoint-4") in line
    assert newest_complete(out) == out / "checkpoint-3"


def test_a_checkpoint_without_a_marker_goes_without_a_word(cut: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(cut, out)
    (out / "checkpoint-4" / COMPLETE).unlink()
    assert list(clear_unusable(out)) == []
    assert not (out / "checkpoint-4").exists()


def test_after_damage_the_training_ends_as_an_uninterrupted_one(
    train_rows: Train, cut: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(cut, out)
    flip(out / "checkpoint-4" / "optimizer.pt")
    assert len(list(clear_unusable(out))) == 1
    steps: list[float] = []
    train_rows(out, lambda entry: steps.append(entry["step"]), save_every=1)
    assert steps[0] == 4
    train_rows(tmp_path / "whole")
    assert is_same(tmp_path / "whole" / "final", out / "final")


def test_a_damaged_model_is_not_evaluated(recipe: Recipe, tmp_path: Path) -> None:
    training = Training(label="patched", settings="x", job=lambda *_: None)
    with Run(tmp_path / "run", recipe, SilentProgress()) as run:
        out = run.path(training)
        (out / "final").mkdir(parents=True)
        for name in ("job.json", "worker.log", "final/model.safetensors", "final/config.json"):
            (out / name).write_text(name * 10)
        run.finish(training, WorkTimer.begin(), {})
        listed = [one["file"] for one in run.artifact(training).manifest["files"]]
        assert listed == ["final/config.json", "final/model.safetensors"]
        model = Model(
            name="sft:x",
            label="patched",
            source=recipe.model,
            engine=recipe.engine,
            trained=training,
            folder="final",
        )
        Tools(run, model, recipe.grade).engine(model)
        (out / "worker.log").unlink()
        Tools(run, model, recipe.grade).engine(model)
        flip(out / "final" / "model.safetensors")
        with pytest.raises(
            ArtifactError, match=r"model\.safetensors is not what .* repair .*/run'"
        ):
            Tools(run, model, recipe.grade).engine(model)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("samples/iteration-00000000.parquet", read_group_counts),
        ("rollouts/iteration-00000000.parquet", read_rl_rollouts),
        ("grades/iteration-00000000.parquet", read_rl_grades),
        ("rollouts/iteration-00000000.parquet", read_group_summaries),
        ("online/proposals/iteration-00000000.parquet", read_online_proposals),
    ],
)
def test_what_rl_sampled_and_counted_is_compared_with_its_checksums(
    recipe: Recipe, tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    training = Training(label="rl patched", settings="x", job=lambda *_: None)
    with Run(tmp_path / "run", recipe, SilentProgress()) as run:
        out = run.path(training)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"as it was written")
        run.finish(training, WorkTimer.begin(), {})
        flip(out / name)
        with pytest.raises(ArtifactError, match=r"is not what .* repair .*/run'"):
            read(out)


# --- training processes --------------------------------------------------------------------------


class Told(SilentProgress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def rows(tmp_path: Path, renderer: Renderer) -> Path:
    """A sealed stage of rows."""
    with StageStore(tmp_path / "rows", SftRow) as store:
        for n in range(4):
            store.append(str(n), [row(renderer, f"Finds {n} more.\n\n", n)])
        store.seal({})
    return tmp_path / "rows"


def job_of(kind: str, base: Path, rows: Path, out: Path, **changes: Any) -> Job:
    model = ModelConfig(path=str(base))
    if kind == "rl":
        return Job(
            "train rl",
            out,
            RlJob(
                config=RL.model_copy(update=changes),
                model=model,
                seed=0,
                policy="rl:k",
                grade=GradeConfig(num_workers=1),
                problems=tuple(PROBLEMS),
            ),
        )
    chosen = choose_rows(rows, list(read_stage(rows, SftRow)))
    config = SFT.model_copy(update={"method": kind, **changes})
    rejected = rows if kind == "dpo" else None
    content = SftJob(config=config, model=model, seed=0, rows=chosen, rejected_rows=rejected)
    return Job(f"train {kind}", out, content)


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "lora_rank"), [("sft", 2), ("rl", 0)])
def test_sigkill_while_a_checkpoint_is_written_changes_nothing(
    base: Path, rows: Path, tmp_path: Path, kind: str, lora_rank: int
) -> None:
    def job(out: Path) -> Job:
        return job_of(kind, base, rows, out, save_every=1, lora_rank=lora_rank)

    whole, cut = job(tmp_path / "whole"), job(tmp_path / "cut")
    run_jobs([whole], SilentProgress())
    for number in (2, 4):
        process = _start(cut, threads_each(1))  # as many as below: sums round alike
        while process.poll() is None and not (cut.out / f"checkpoint-{number}").exists():
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert not (cut.out / "summary.json").exists()
    run_jobs([cut], SilentProgress())
    assert is_same(whole.out / "final", cut.out / "final")
    logs = [(job.out / "metrics.jsonl").read_text("utf-8").splitlines() for job in (whole, cut)]
    steps, again = ({json.loads(line)["step"] for line in log} for log in logs)
    assert steps == again, "the log before the kill is kept"
    assert list(read_rl_rollouts(whole.out)) == list(read_rl_rollouts(cut.out))
    assert read_group_counts(whole.out) == read_group_counts(cut.out)


@pytest.mark.faults
def test_a_training_process_names_what_was_damaged_and_what_stopped_it(
    base: Path, rows: Path, cut: Path, tmp_path: Path
) -> None:
    out, told = tmp_path / "out", Told()
    shutil.copytree(cut, out)
    flip(out / "checkpoint-4" / "rng_state.pth")
    run_jobs([job_of("sft", base, rows, out, save_every=1)], told)
    assert [line.split(":")[0] for line in told.lines] == ["train sft"]
    assert "checkpoint-4/rng_state.pth is not what was written" in told.lines[0]
    # Done, but killed before its manifest: it is not done again, unless it is damaged.
    (out / "worker.log").unlink()
    shutil.copytree(cut / "checkpoint-3", out / "checkpoint-3")
    assert run_jobs([job_of("sft", base, rows, out)], told) == [
        json.loads((out / "summary.json").read_text())["counts"]
    ]
    assert not (out / "worker.log").exists()
    assert not list(out.glob("checkpoint-*"))
    flip(out / "final" / "model.safetensors")
    run_jobs([job_of("sft", base, rows, out)], told)
    assert (out / "worker.log").exists()
    assert damaged_files(out, "summary.json") == []


@pytest.mark.faults
@pytest.mark.parametrize("accelerate", ["", "accelerate/cpu2", "accelerate/fsdp2-cpu"])
def test_a_training_process_that_diverges_says_one_line(
    base: Path, rows: Path, tmp_path: Path, accelerate: str
) -> None:
    job = job_of("sft", base, rows, tmp_path / "out", learning_rate=1e30, accelerate=accelerate)
    with pytest.raises(
        MidcourseError, match=r"^train sft failed: step \d: .* not finite"
    ) as caught:
        run_jobs([job], SilentProgress())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "final").exists()
    assert not (tmp_path / "out" / "summary.json").exists()
