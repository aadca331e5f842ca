"""One forward of a causal language model, whatever it calls its arguments, and what it keeps.

Both kinds of batch run models through `Decoder`.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache

from midcourse.errors import EngineError

Context = tuple[int, ...]

#: What an architecture raises where a kind of batch does not suit it.
FAILURES = (EngineError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

#: What models call their cache; transformers 5.24 renamed it. A wrong name would be taken, ignored.
_CACHE_NAMES = ("cache", "past_key_values", "cache_params")
#: Types of layers that padding leaves alone: it is masked.
_ATTENTION = frozenset({"full_attention", "sliding_attention"})


class Decoder:
    """A model that runs on from a cache. Raises EngineError if none of transformers' holds it all.

    State is what a layer keeps besides keys that a mask can hide: of a convolution or a recurrence.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device: torch.device = model.device
        self.parameters: Collection[str] = inspect.signature(model.forward).parameters.keys()
        self._cache_name = next((name for name in _CACHE_NAMES if name in self.parameters), "")
        layers = self.new_cache().layers
        holds_state = any(hasattr(layer, "conv_states") for layer in layers)
        if not self._cache_name or (model._is_stateful and not holds_state):
            raise self.refusal()
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
        self.keeps_state = bool(holds_state or kinds - _ATTENTION)

    def refusal(self) -> EngineError:
        """Return the error of a model that no batch can run."""
        return EngineError(
            f"{self.model.config.model_type} keeps its state outside transformers' cache, so it "
            "cannot be sampled in process: use another model, or engine.kind = 'vllm'"
        )

    @torch.no_grad()  # in inference mode, autocast would cast a trained model again at every token
    def run(
        self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Any, **more: Any
    ) -> Tensor:
        """Run `ids` on from `cache`, which grows; return the logits after the last column."""
        known = {"attention_mask": mask, "position_ids": positions, "logits_to_keep": 1}
        output = self.model(
            input_ids=ids,
            use_cache=True,
            **{name: value for name, value in known.items() if name in self.parameters},
            **{self._cache_name: cache},
            **more,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def new_cache(self) -> DynamicCache:
        """Return a cache that holds all that the model keeps, of a window no more than it sees."""
        return DynamicCache(config=self.model.config)

    def prefill(self, contexts: Sequence[Context], cache: DynamicCache) -> tuple[Tensor, Tensor]:
        """Run contexts into an empty cache; return the last logits, and the mask of padding.

        They are padded on the left; where padding would enter a state, they have one length.
        """
        rows = [torch.tensor(context) for context in contexts]
        pad = partial(pad_sequence, batch_first=True, padding_side="left")
        ids = pad(rows).to(self.device)
        mask = pad([torch.ones_like(row) for row in rows]).to(self.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        return self.run(ids, None if self.keeps_state else mask, positions, cache), mask

    def logits_of(self, contexts: Sequence[Context]) -> Tensor:
        """Return what follows each context, computed alone and at once."""
        return torch.cat([self.prefill([context], self.new_cache())[0] for context in contexts])

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Bytes of the cache, measured, for a row and for each of its tokens while all are kept."""
        caches = self.new_cache(), self.new_cache()
        for count, cache in enumerate(caches, start=1):
            self.prefill([(0,) * count], cache)
        one, two = (sum(tensor.nbytes for tensor in _held(cache)) for cache in caches)
        return max(0, 2 * one - two), two - one


def _held(cache: Any) -> Iterator[Tensor]:
    """Yield the tensors of a cache: keys and values, and what of a state there is."""
    for layer in cache.layers:
        for value in vars(layer).values():
            held = value.values() if isinstance(value, dict) else (value,)
            yield from (tensor for tensor in held if isinstance(tensor, Tensor))


def half_of_free(device: torch.device) -> int:
    """Return half the bytes of a GPU's memory that this process can still use.

    Those that torch keeps for reuse are among them, though for the driver they are taken: after a
    training step, or an earlier session, that may be nearly all.
    """
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + kept) // 2


def repeated(counts: Sequence[int]) -> Tensor:
    """Return the index that repeats item i ``counts[i]`` times."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
