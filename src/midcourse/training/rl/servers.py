"""Samples from vLLM servers of ours, on devices that the training leaves free.

Before each iteration the policy is written into a fresh folder, as an ordinary model: whole where
it is sharded, merged where adapters are trained. The servers then take it over. A folder works with
every version of vLLM and however many processes train; TRL's own server mode (``trl vllm-serve``)
would send the weights by NCCL, but samples without a seed of each rollout.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from peft import PeftModel
from torch import Tensor

from midcourse.config import TrainRlConfig, logprobs_mode
from midcourse.engines.base import Completion
from midcourse.engines.vllm_engine import VllmEngine
from midcourse.rendering import Renderer
from midcourse.stages.sample import Ask
from midcourse.training.common import computed_dtype, processes, whole_weights
from midcourse.training.rl.samplers import Sampler

#: In the folder of a training: the policy that the servers have.
FOLDER = "served"
_BASE, _INNER, _DOWN, _UP = "base_model.model.", ".base_layer", ".lora_A.default", ".lora_B.default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSampler:
    """Has the main process sample for all: it alone has servers."""

    engine: VllmEngine
    inner: Sampler
    """Samples from `engine`."""
    model: Any
    """The model as it is trained: sharded, with adapters."""
    tokenizer: Any
    folder: Path
    dtype: torch.dtype
    """Of the weights that are served."""

    def refresh(self, iteration: int) -> None:
        """Write the weights, and have the servers take them over."""
        folder = self.folder / f"iteration-{iteration:06d}"
        earlier = [path for path in self.folder.glob("*") if path != folder]
        write_policy(self.model, self.tokenizer, folder, self.dtype)
        if processes().is_main_process:
            self.engine.serve(str(folder))
            for path in earlier:
                shutil.rmtree(path)

    def sample(self, asks: Sequence[Ask]) -> list[Completion]:
        """Return the completions of this process's asks. Raises EngineError."""
        every = gather_object(list(asks))
        drawn = [self.inner.sample(every) if processes().is_main_process else []]
        broadcast_object_list(drawn)
        found = {completion.request_id: completion for completion in drawn[0]}
        return [found[ask.rollout_id] for ask in asks]

    def close(self) -> None:
        """Take the servers down and remove what they loaded."""
        if processes().is_main_process:
            self.engine.close()
            shutil.rmtree(self.folder, ignore_errors=True)


def open_servers(
    config: TrainRlConfig,
    model: Any,
    renderer: Renderer,
    stop_ids: Sequence[int],
    max_tokens: int | None,
) -> VllmEngine:
    """Make servers of a model that is trained, for contexts of `max_tokens`, or of its own length.

    Weights have the dtype that training computes in. vLLM's build for CPUs keeps its copy of a tied
    embedding when it loads another one in place: there servers start again.
    """
    cuda, servers = torch.cuda.is_available(), config.servers
    arguments = [
        *("--dtype", str(computed_dtype(config.dtype)).removeprefix("torch.")),
        *("--logprobs-mode", logprobs_mode(config.sampling)),
        *servers.server_arguments,
    ]
    changes = {
        "server_arguments": tuple(arguments),
        "max_context_tokens": servers.max_context_tokens or max_tokens,
    }
    return VllmEngine(
        servers.model_copy(update=changes),
        "",  # there is none before the first refresh
        renderer,
        tuple(stop_ids),
        tells_logprobs=True,
        reloads=cuda or not model.config.tie_word_embeddings,
    )


def write_policy(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a model as it is now, without changing it; every process has to call it."""
    weights = {n: w.cpu() for n, w in whole_weights(model) if processes().is_main_process}
    if not processes().is_main_process:
        return
    adapts = isinstance(model, PeftModel)
    found = _merged(model, weights) if adapts else weights
    inner = model.get_base_model() if adapts else model
    inner.save_pretrained(folder, state_dict={n: w.to(dtype) for n, w in found.items()})
    tokenizer.save_pretrained(folder)


def _merged(model: PeftModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the model below the adapters, with what these add to them."""
    found = {
        name.removeprefix(_BASE).replace(_INNER, ""): weight
        for name, weight in weights.items()
        if "lora_" not in name
    }
    for name, up in weights.items():
        if _UP not in name:
            continue
        layer, down = name.partition(_UP)[0], weights[name.replace(_UP, _DOWN)]
        scaling = model.get_submodule(layer).scaling["default"]
        own = f"{layer.removeprefix(_BASE)}.weight"
        found[own] = found[own] + scaling * (up @ down)
    return found
