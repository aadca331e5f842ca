"""What we do within a trainer's loop: pass on numbers, mark checkpoints, stop at a NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerState, TrainingArguments

from midcourse.errors import MidcourseError
from midcourse.training.checkpoints import mark_complete
from midcourse.training.common import Setting, processes
from midcourse.training.jobs import Log


def callbacks(setting: Setting, section: str) -> list[TrainerCallback]:
    """Return the callbacks of every trainer; `section` is the recipe's that sets it."""
    return [StopAtNan(section), OnLog(setting.on_log), MarkComplete()]


class StopAtNan(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Ends a training at the step whose loss, gradient or weights are not finite.

    Before that step's checkpoint is written: what is resumed from is never spoilt.
    """

    def __init__(self, section: str) -> None:
        self._section = section

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, *_: Any, model: nn.Module, **__: Any
    ) -> None:
        """Look at gradient and weights; one number of each leaves the device."""
        trained = [one for one in model.parameters() if one.requires_grad]
        gradients = [one.grad for one in trained if one.grad is not None]
        for name, tensors in (("gradient", gradients), ("model", trained)):
            if not _are_finite(tensors):
                raise MidcourseError(self._complaint(args, state.global_step + 1, name))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, *_: Any, logs: dict[str, Any], **__: Any
    ) -> None:
        """Look at the loss, and at the gradient before it was clipped."""
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise MidcourseError(self._complaint(args, state.global_step, name))

    def _complaint(self, args: TrainingArguments, step: int, name: str) -> str:
        dtype = "bfloat16" if args.bf16 else "float32"
        return (
            f"step {step}: the {name.replace('_', ' ')} is not finite (NaN or infinite); lower "
            f"{self._section}.learning_rate (now {args.learning_rate:g}), or start from a model "
            f"that {dtype} can hold"
        )


class OnLog(TrainerCallback):  # type: ignore[misc]
    """Hands each log entry of numbers to a function."""

    def __init__(self, on_log: Log) -> None:
        self._on_log = on_log

    def on_log(self, _: TrainingArguments, state: TrainerState, *__: Any, **kwargs: Any) -> None:
        """Pass on what is a number, with the optimiser step."""
        found = {k: float(v) for k, v in kwargs["logs"].items() if isinstance(v, int | float)}
        # TRL logs NaN for the mean of no reward at all, which JSON cannot hold.
        numbers = {name: value for name, value in found.items() if math.isfinite(value)}
        self._on_log({**numbers, "step": float(state.global_step)})


class MarkComplete(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint after everything in it was written."""

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Write the marker, once every process has written its part."""
        processes().wait_for_everyone()
        if state.is_world_process_zero:
            mark_complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


def _are_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity; every process is told the same."""
    norm = nn.utils.get_total_norm(tensors)
    return bool((norm.full_tensor() if isinstance(norm, DTensor) else norm).isfinite())
