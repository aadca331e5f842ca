"""Loads the weights of a model folder, and refuses what no one should sample or train from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from midcourse.errors import EngineError


def load_weights(folder: str | Path, dtype: torch.dtype) -> Any:
    """Load a causal language model from safetensors; neither a pickle nor code is ever run.

    Raises EngineError if there is none, if a file is damaged, if a tensor is missing (transformers
    would make one up) or holds a NaN.
    """
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"cannot load the model at {str(folder)!r}: {reason}") from error
    missing = sorted([*found["missing_keys"], *found["mismatched_keys"]])
    if missing:
        raise EngineError(
            f"the model at {str(folder)!r} is damaged: it has no weights {missing[0]}"
        )
    name = first_not_finite(model)
    if name:
        raise EngineError(
            f"the model at {str(folder)!r} is damaged: {name} holds a NaN or an infinity; get or "
            "train it again"
        )
    return model


def without_weights(folder: str | Path, dtype: torch.dtype) -> Any:
    """Return the model of a folder with weights of no set value, for them to be sent to it later.

    Buffers are right. Weights are separate tensors, but take no memory until they are written to.
    """
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty_like(weight, device="cpu")))
    model.tie_weights()
    if (Path(folder) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(str(folder))
    return model.eval()


def first_not_finite(model: nn.Module) -> str:
    """Return the name of the first weight with a NaN or an infinity, "" if there is none."""
    for name, weight in model.named_parameters():
        tensor = local(weight.detach())
        # The sum of a tensor is finite if all of it is, and takes no memory. Quantised weights,
        # of a byte or less, have no sum.
        is_plain = tensor.is_floating_point() and tensor.element_size() > 1
        if is_plain and not tensor.sum(dtype=torch.float32).isfinite():
            return name
    return ""


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of a tensor that may be spread over several."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
