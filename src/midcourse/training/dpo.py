"""Step-DPO: TRL's DPOTrainer on (intervention, original step) pairs of token ids, a baseline.

TRL 1.16 prepares every text data set itself: it tokenises again and closes the turn after both
sides, and no setting leaves that out. So it is constructed on a stand-in text and then handed the
ids, in the columns that its own preparation would have written; that its collator gives back these
ids and nothing more is checked before the first step, on every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from transformers import PreTrainedModel
from trl import DPOConfig, DPOTrainer

from midcourse.config import TrainSftConfig
from midcourse.errors import DataError, MidcourseError
from midcourse.records import SftRow
from midcourse.stages.pairs import StepPair, step_pairs
from midcourse.store.stage import read_stage
from midcourse.training.callbacks import callbacks
from midcourse.training.common import (
    Machine,
    Setting,
    check_fits,
    in_one_line,
    is_sharded,
    load_base,
    load_model,
    lora_config,
    processes,
    quiet_libraries,
)
from midcourse.training.jobs import Log, SftJob
from midcourse.training.sft import common_arguments, read_rows, run_to_the_end


def run(job: SftJob, out: Path, on_log: Log) -> dict[str, float]:
    """Do a job that has rejected rows: the `Trainer` of `midcourse.training.worker`."""
    assert job.rejected_rows is not None
    pairs = step_pairs(read_rows(job.rows), read_stage(job.rejected_rows, SftRow))
    return train_dpo(job.config, pairs, Setting.of(job.model, out, job.seed, on_log))


def train_dpo(
    config: TrainSftConfig, pairs: Sequence[StepPair], setting: Setting
) -> dict[str, float]:
    """Fine-tune on `pairs`, write the model to ``out/final``, return the loss before and after.

    Raises DataError before the first step if a pair is too long, MidcourseError if TRL would train
    on other ids than the pairs'.
    """
    quiet_libraries()
    with in_one_line("train_sft"):
        trainer = make_dpo_trainer(config, pairs, setting)
        return run_to_the_end(trainer, setting.out, len(pairs))


def make_dpo_trainer(
    config: TrainSftConfig, pairs: Sequence[StepPair], setting: Setting
) -> DPOTrainer:
    """Configure TRL for `pairs`; apart from `train_dpo` so that a test can look at its batches."""
    model = load_base(setting.model_path, config)
    _check_pairs(pairs, model)
    arguments = DPOConfig(**dpo_arguments(config, setting, len(pairs), Machine.here()))
    reference = None  # with adapters TRL switches them off to get the base
    if not config.lora_rank:
        reference = load_model(setting.model_path)
    trainer = DPOTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=setting.tokenizer(),
        callbacks=callbacks(setting, "train_sft"),
        peft_config=lora_config(config.lora_rank),
    )
    _share_reference(trainer)
    examples = [
        {
            "prompt_ids": list(pair.prompt_ids),
            "chosen_ids": list(pair.chosen_ids),
            "rejected_ids": list(pair.rejected_ids),
        }
        for pair in pairs
    ]
    check_collated(trainer.data_collator, examples)
    trainer.train_dataset = Dataset.from_list(examples)
    return trainer


def dpo_arguments(
    config: TrainSftConfig, setting: Setting, num_pairs: int, machine: Machine
) -> dict[str, Any]:
    """Return what TRL is told for Step-DPO."""
    return {
        **common_arguments(config, setting, num_pairs, machine),
        "max_length": None,  # TRL's 1024 would cut the step, the last tokens of a pair
        "beta": config.dpo_beta,
        "loss_type": ["sigmoid"],
        "precompute_ref_log_probs": False,
        "disable_dropout": True,
    }


def _share_reference(trainer: DPOTrainer) -> None:
    """Give every process its part of a sharded reference.

    TRL shards what each process has loaded, and only the first one has loaded weights (see
    `load_model`): the others' parts would be zeros. The policy, not yet sharded, has the same ones.
    """
    if is_sharded() and trainer.ref_model is not None:
        weights = trainer.model.state_dict() if processes().is_main_process else {}
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(trainer.ref_model, weights, options=options)


def _check_pairs(pairs: Sequence[StepPair], model: PreTrainedModel) -> None:
    if not pairs:
        raise DataError("train dpo: there are no pairs")
    for pair in pairs:
        named = f"train dpo: row {pair.row_id}"
        for step in (pair.chosen_ids, pair.rejected_ids):
            if not step:
                raise DataError(f"{named} has nothing to learn: one side of the pair is empty")
            check_fits(named, (*pair.prompt_ids, *step), model)


def check_collated(
    collate: Callable[[list[dict[str, list[int]]]], Mapping[str, Any]],
    examples: Sequence[dict[str, list[int]]],
) -> None:
    """Raise MidcourseError unless the collator gives back exactly the ids of each pair."""
    for example in examples:
        batch = collate([example])
        prompt = example["prompt_ids"]
        for row, step in enumerate((example["chosen_ids"], example["rejected_ids"])):
            attended = batch["attention_mask"][row].bool()
            trained = batch["completion_mask"][row].bool()
            ids = batch["input_ids"][row]
            if ids[attended].tolist() != prompt + step or ids[trained].tolist() != step:
                raise MidcourseError(
                    "train dpo: this version of TRL would train on other ids than the pairs': "
                    "use the version that pyproject.toml names"
                )
