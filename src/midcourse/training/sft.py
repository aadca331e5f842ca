"""Patching: TRL's SFTTrainer on rows of token ids and labels (§4.1, Table 6).

Rows are handed over as ids, because every mainstream trainer closes the turn when given text, and
an intervention row must not end. What would be a library's default is written out. A patch takes
minutes: a killed one starts over unless `train_sft.save_every` says otherwise, and nothing looks
complete before it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import Trainer
from trl import SFTConfig, SFTTrainer

from midcourse.config import TrainSftConfig
from midcourse.errors import ConfigError, DataError
from midcourse.records import RowSource, SftRow
from midcourse.stages.build_sft import IGNORED
from midcourse.store.stage import read_stage
from midcourse.training.callbacks import callbacks
from midcourse.training.checkpoints import newest_complete
from midcourse.training.common import (
    Machine,
    Setting,
    check_fits,
    in_one_line,
    load_base,
    lora_config,
    processes,
    quiet_libraries,
    save,
    shared_arguments,
    without_casts,
)
from midcourse.training.jobs import ChosenRows, Log, SftJob, conclude


def run(job: SftJob, out: Path, on_log: Log) -> dict[str, float]:
    """Do a job: the `Trainer` of `midcourse.training.worker`."""
    setting = Setting.of(job.model, out, job.seed, on_log)
    return train_sft(job.config, read_rows(job.rows), setting)


def read_rows(chosen: ChosenRows) -> list[SftRow]:
    """Return the rows that a job trains on."""
    wanted = set(chosen.row_ids)
    return [row for row in read_stage(chosen.path, SftRow) if row.row_id in wanted]


def train_sft(config: TrainSftConfig, rows: Sequence[SftRow], setting: Setting) -> dict[str, float]:
    """Fine-tune on `rows`, write the model to ``out/final``, return the loss before and after.

    Raises DataError before the first step if a row is not fit to train on.
    """
    quiet_libraries()
    with in_one_line("train_sft"):
        trainer = make_sft_trainer(config, rows, setting)
        return run_to_the_end(trainer, setting.out, len(rows))


def make_sft_trainer(
    config: TrainSftConfig, rows: Sequence[SftRow], setting: Setting
) -> SFTTrainer:
    """Configure TRL for `rows`; apart from `train_sft` so that a test can look at its batches."""
    tokenizer = setting.tokenizer()
    check_rows(rows, setting.renderer(tokenizer).end_of_turn_ids)
    model = load_base(setting.model_path, config)
    for row in rows:
        check_fits(f"train sft: row {row.row_id}", row.input_ids, model)
    arguments = SFTConfig(**sft_arguments(config, setting, len(rows), Machine.here()))
    data = Dataset.from_dict(
        {"input_ids": [list(r.input_ids) for r in rows], "labels": [list(r.labels) for r in rows]}
    )
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=callbacks(setting, "train_sft"),
        peft_config=lora_config(config.lora_rank),
    )


def sft_arguments(
    config: TrainSftConfig, setting: Setting, num_rows: int, machine: Machine
) -> dict[str, Any]:
    """Return what TRL is told for SFT."""
    return {
        **common_arguments(config, setting, num_rows, machine),
        "max_length": None,  # TRL's 1024 would cut the intervention, the last tokens of a row
        "packing": False,
        "shuffle_dataset": True,
    }


def common_arguments(
    config: TrainSftConfig, setting: Setting, num_rows: int, machine: Machine
) -> dict[str, Any]:
    """Return what SFT and DPO tell TRL alike, every value that matters written out (Table 6)."""
    num_processes = machine.num_processes
    if num_rows < num_processes:
        raise ConfigError(
            f"train_sft.accelerate: {num_processes} processes are more than the {num_rows} rows to "
            'train on: use fewer, or accelerate = ""'
        )
    return {
        "num_train_epochs": config.num_epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": _accumulation(config, num_processes),
        **rate_arguments(config),
        "gradient_checkpointing": config.gradient_checkpointing,
        "save_strategy": "steps" if config.save_every else "no",
        "save_steps": config.save_every or 1,
        "save_total_limit": 2,  # the older one stands until the newer one has its marker
        "logging_steps": 1,
        **shared_arguments(setting, config.dtype, machine),
    }


def rate_arguments(config: TrainSftConfig) -> dict[str, Any]:
    """Return what trainers of patches are told of the learning rate."""
    return {
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": config.min_lr_rate},
        "warmup_steps": config.warmup_ratio,  # below 1 it is a ratio of the steps
        "weight_decay": config.weight_decay,
    }


def run_to_the_end(trainer: Trainer, out: Path, num_rows: int) -> dict[str, float]:
    """Train, or go on; write the model to ``out/final``, return the loss before and after."""
    checkpoint = newest_complete(out)
    with without_casts(trainer):
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    save(trainer, out)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    summary = {
        "num_rows": float(num_rows),
        "num_steps": float(result.global_step),
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }
    if processes().is_main_process:
        conclude(out, summary)
    return summary


def _accumulation(config: TrainSftConfig, num_processes: int) -> int:
    """Return the micro-batches of one optimiser step. Raises ConfigError if they do not divide."""
    accumulation, rest = divmod(config.batch_size, config.micro_batch_size * num_processes)
    if rest or not accumulation:
        raise ConfigError(
            f"train_sft: batch_size={config.batch_size} is not a multiple of micro_batch_size="
            f"{config.micro_batch_size} times {num_processes} processes"
        )
    return accumulation


def check_rows(rows: Sequence[SftRow], end_of_turn_ids: Sequence[int]) -> None:
    """Raise DataError unless every row is what the method trains on."""
    if not rows:
        raise DataError("train sft: there are no rows")
    for row in rows:
        problem = _row_problem(row, end_of_turn_ids)
        if problem:
            raise DataError(f"train sft: row {row.row_id} {problem}")


def _row_problem(row: SftRow, end_of_turn_ids: Sequence[int]) -> str:
    if len(row.input_ids) != len(row.labels):
        return f"has {len(row.input_ids)} tokens and {len(row.labels)} labels"
    pairs = list(zip(row.input_ids, row.labels, strict=True))
    learned = [label for _, label in pairs if label != IGNORED]
    if not learned:
        return "has nothing to learn: every label is masked"
    if any(label not in (IGNORED, token) for token, label in pairs):
        return "has a label that is not its token"
    if any(label != IGNORED for label in row.labels[: row.prompt_tokens]):
        return "would train on the prompt"
    if row.labels[-1] != row.input_ids[-1]:
        return "does not train on its last token"
    intervenes = row.source in (RowSource.INTERVENTION, RowSource.ORIGINAL_STEP)
    if intervenes and not row.closes_turn and end_of_turn_ids[-1] in _last_turn(row):
        return "would teach an end-of-turn after the intervention"
    return ""


def _last_turn(row: SftRow) -> Sequence[int]:
    """Return what is learned of the turn that a row ends in: earlier turns did close."""
    masked = [place for place, label in enumerate(row.labels) if label == IGNORED]
    return row.labels[masked[-1] + 1 :] if masked else row.labels
