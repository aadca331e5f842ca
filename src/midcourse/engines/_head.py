"""Logits of some columns at a time: those of a long row over a large vocabulary fill a GPU.

16,384 tokens over Qwen3's 152 thousand take 10 GB in float32, and a softmax several times that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LogitsOf = Callable[[int, slice], Tensor]
"""Returns the logits (columns, vocabulary) of some columns of a row."""


def logits_by_column(model: Any, ids: Tensor) -> LogitsOf:
    """Run a model on `ids` (rows, columns); return what gives its logits.

    Its head is applied to no more than what is asked for. A model that caps or scales what its head
    says, or has no head of its own, computes all logits at once.
    """
    head = model.get_output_embeddings()
    if head is None or not _ends_with(model, head, ids[:1, :4]):
        logits = model(input_ids=ids, use_cache=False).logits
        return lambda row, columns: logits[row, columns]
    states, _ = _run_headless(model, head, ids)
    return lambda row, columns: head(states[row : row + 1, columns])[0]


def _ends_with(model: Any, head: Any, ids: Tensor) -> bool:
    """Whether the logits of a model are what its head says."""
    states, own = _run_headless(model, head, ids)
    return states.shape[:2] == ids.shape and torch.equal(head(states[:, -1:]).to(own.dtype), own)


def _run_headless(model: Any, head: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the head is given, and the model's own logits of the last column."""
    states = [ids.new_empty(0)]

    def leave_last(module: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states[0] = given[0]
        return (given[0][:, -1:], *given[1:])

    hook = head.register_forward_pre_hook(leave_last)
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    return states[0], logits
