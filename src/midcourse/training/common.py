"""What all trainers share: the machine's arguments, quiet libraries, a log callback."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.utils import logging as transformers_logging

from midcourse.config import TEMPLATE_DATE, ModelConfig
from midcourse.engines import model_folder
from midcourse.training.jobs import Log


@dataclass(frozen=True, slots=True)
class Setting:
    """What a training starts from, where it writes, its seed, and whom it tells."""

    model_path: str
    out: Path
    seed: int
    on_log: Log
    template_date: date = TEMPLATE_DATE

    @classmethod
    def of(cls, model: ModelConfig, out: Path, seed: int, on_log: Log) -> Setting:
        """Return the setting of a job, with the folder that its model is loaded from."""
        folder = str(model_folder(model.path, model.revision))
        return cls(folder, out, seed, on_log, model.template_date)


def shared_arguments(setting: Setting) -> dict[str, Any]:
    """Return what every trainer is told alike: bfloat16 on a GPU, float32 on a CPU."""
    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(setting.out),
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "max_grad_norm": 1.0,
        "use_cpu": not cuda,
        "bf16": cuda,
        "fp16": False,
        "report_to": [],
        "disable_tqdm": True,
        "push_to_hub": False,
        "seed": setting.seed,
        "data_seed": setting.seed,
        "dataloader_num_workers": 0,
    }


def processes() -> PartialState:
    """Return who else trains with us; alone, we are the main process."""
    return PartialState(cpu=not torch.cuda.is_available())


def lora_config(rank: int) -> LoraConfig | None:
    """Return adapters of `rank` on every linear layer, scaled by 2; None for rank 0."""
    if not rank:
        return None
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        bias="none",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def save(trainer: Trainer, out: Path) -> None:
    """Write an ordinary model folder to ``out/final``; adapters are merged, and kept next to it."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(model, "merge_and_unload"):
        trainer.save_model(str(out / "final"))
        return
    trainer.save_model(str(out / "adapter"))
    if processes().is_main_process:
        model.merge_and_unload().save_pretrained(out / "final")
        trainer.processing_class.save_pretrained(out / "final")


def quiet_libraries() -> None:
    """Send nothing anywhere and keep library chatter off the screen; ours is shown instead."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # A CPU has no memory to pin; torch says so once per data loader.
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


class OnLog(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Hands each log entry of numbers to a function."""

    def __init__(self, on_log: Log) -> None:
        self._on_log = on_log

    def on_log(self, _: TrainingArguments, state: TrainerState, *__: Any, **kwargs: Any) -> None:
        """Pass on what is a number, with the optimiser step."""
        numbers = {k: float(v) for k, v in kwargs["logs"].items() if isinstance(v, int | float)}
        self._on_log({**numbers, "step": float(state.global_step)})
