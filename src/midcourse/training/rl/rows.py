"""Leaves out of a pass what cannot move a weight: rows of no advantage, and columns of padding.

A row that self-distillation has a lesson for moves weights too.

In the regime that InT is for, most groups have no gradient, and TRL pads every pass to the longest
rollout of the whole iteration. The gradient is the same without either, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

#: Losses that TRL divides by the rows of a pass; the others know the whole batch.
_BY_ROWS = frozenset({"grpo", "dr_grpo", "luspo"})
#: What stands left of the completions, padded on the left, by the mask that says where it begins.
_PROMPTS = {
    "prompt_ids": "prompt_mask", "prompt_mask": "prompt_mask",
    "teacher_ids": "teacher_mask", "teacher_mask": "teacher_mask",
}  # fmt: skip


def without_idle_rows(
    inputs: dict[str, Any], loss_type: str, most: Callable[[int], int]
) -> tuple[dict[str, Any], float]:
    """Return TRL's inputs of one pass without idle rows and columns, and what its loss is worth.

    `most` takes this process's number of rows that are not idle and returns the largest one of all
    processes. Each keeps so many, because TRL gathers a number for each row; short idle rows fill
    up. One row stays where all are idle: every process has to make its pass, and weights without a
    gradient would not be what weights with a gradient of zero are to an optimiser.
    """
    advantages: Tensor = inputs["advantages"]
    is_idle = (advantages.reshape(len(advantages), -1) == 0).all(-1)
    if "is_taught" in inputs:  # self-distillation
        is_idle &= ~inputs["is_taught"]
    length = inputs["completion_mask"].sum(-1)
    order = torch.where(is_idle, 1 + length, 0).argsort(stable=True)
    kept = order[: max(1, most(int((~is_idle).sum())))]
    share = len(kept) / len(advantages) if loss_type in _BY_ROWS else 1.0
    rows = {name: _select(value, kept, len(advantages)) for name, value in inputs.items()}
    end = int(rows["completion_mask"].sum(-1).max())
    return {name: _cut(name, value, rows, end) for name, value in rows.items()}, share


def _select(value: Any, kept: Tensor, num_rows: int) -> Any:
    is_by_row = isinstance(value, Tensor) and value.dim() > 0 and len(value) == num_rows
    return value[kept] if is_by_row else value


def _cut(name: str, value: Any, rows: Mapping[str, Any], end: int) -> Any:
    """Drop what is left of every prompt, or right of every completion."""
    if not isinstance(value, Tensor) or value.dim() < 2:
        return value
    if name in _PROMPTS:
        return value[:, int(rows[_PROMPTS[name]].any(0).to(torch.uint8).argmax()) :]
    return value[:, :end] if value.shape[1] > 1 else value
