"""Rows over one key-value buffer: shared contexts are stored once, rows join and leave at any time.

It asks of a model that all its layers attend through transformers' attention interface, to
everything before them. `adopt` finds out.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from midcourse.engines._decoder import FAILURES, Context, Decoder, repeated
from midcourse.engines._kv_buffer import KvBuffer, register_attention
from midcourse.engines._session import PASS_TOKENS, PROBE, Row, strays

#: Columns added to the key-value buffer at a time.
_SPARE_COLUMNS = 64
#: Columns that a step must save for a context to be stored once: below, the products of its own
#: cost more. On two CPU cores it breaks even at 1,200 to 1,500; a GPU reads faster and starts a
#: product no faster (not measured).
_WORTH_SHARING = {"cpu": 1500, "cuda": 15_000}
#: Arguments of attention that ask for nothing more: a window is seen in the mask, too.
_HARMLESS = frozenset({"dropout", "is_causal", "position_ids", "sliding_window", "use_cache"})
#: Relative difference that rounding makes at most; a wrong attention makes more.
_ROUNDING = {torch.float32: 0.001, torch.bfloat16: 0.1, torch.float16: 0.02}


class FastBatch:
    """Rows of a model that was adopted, within `cache_bytes`."""

    in_order = True

    def __init__(self, decoder: Decoder, cache_bytes: int) -> None:
        self._decoder = decoder
        self._cache_tokens = cache_bytes // decoder.sizes[1]
        self.buffer = KvBuffer(self._cache_tokens)
        self._shared, self._counted = set[Context](), set[Context]()
        self._rows = self._own = self._to_come = self._shared_columns = self._longest = 0

    def begin(self, rows: Sequence[Row], upcoming: Sequence[Context]) -> bool:
        """Count what the running rows will have taken by their end; anyone may join."""
        least = _WORTH_SHARING.get(self._decoder.device.type, _WORTH_SHARING["cuda"])
        counts = Counter(upcoming).items()
        self._shared = {context for context, n in counts if (n - 1) * len(context) >= least}
        self._counted = set()
        self._rows = len(rows)
        self._own = self.buffer.column - self.buffer.first
        self._to_come = max((row.max_tokens - len(row.token_ids) for row in rows), default=0)
        self._shared_columns = self.buffer.shared_columns
        self._longest = max(self.buffer.lengths, default=sys.maxsize)
        return True

    def fits(self, context: Context, max_tokens: int) -> bool:
        """Whether the cache holds one more row; a longer context waits until the batch is as long.

        One row alone always runs.
        """
        if len(context) > self._longest:
            return False
        is_shared = context in self._shared
        own = self._own if is_shared else max(self._own, len(context))
        to_come = max(self._to_come, max_tokens)
        shared = self._shared_columns
        if is_shared and context not in self._counted:
            shared += len(context)
        tokens = (self._rows + 1) * (own + to_come + _SPARE_COLUMNS) + shared
        if self._rows and tokens > self._cache_tokens:
            return False
        self._rows += 1
        self._own, self._to_come, self._shared_columns = own, to_come, shared
        self._counted.add(context)
        return True

    def join(self, counts: Mapping[Context, int]) -> Tensor:
        """Prefill each context once, in passes of bounded size, and lay rows down."""
        contexts = list(counts)
        per_pass = max(1, PASS_TOKENS // len(contexts[0]))
        logits = []
        for start in range(0, len(contexts), per_pass):
            chunk = contexts[start : start + per_pass]
            # Told of the model, the cache would forget what a sliding window has left.
            cache = DynamicCache()
            last, _ = self._decoder.prefill(chunk, cache)
            joining = [(len(c), counts[c], c in self._shared) for c in chunk]
            self.buffer.join(cache, joining, _SPARE_COLUMNS)
            logits.append(last[repeated([counts[c] for c in chunk]).to(last.device)])
        return torch.cat(logits)

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token per row; return the logits that follow."""
        buffer = self.buffer
        buffer.make_room(_SPARE_COLUMNS)
        positions = torch.tensor(buffer.lengths, device=tokens.device)[:, None]
        logits = self._decoder.run(tokens[:, None], buffer.mask(), positions, buffer, buffer=buffer)
        buffer.column += 1
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        if rows:
            self.buffer.keep(rows)
        else:
            self.buffer = KvBuffer(self._cache_tokens)


def adopt(decoder: Decoder, max_tokens: int) -> bool:
    """Have a model attend our way if all it wants is a softmax over what precedes.

    What it wants is found out by running it, not by names in its config: any argument of attention
    that is not known to be harmless keeps it off, and so does a mask that hides something from a
    row of `max_tokens`, or that transformers does not make. Then two rows must get its own logits.
    A model that is kept off has the attention it had, or ``eager``, which alone heeds every
    argument.
    """
    model, own = decoder.model, decoder.model.config._attn_implementation
    if not model._can_set_attn_implementation():
        return False
    wishes, sees_all, dtype = _wishes(decoder, max_tokens)
    model.set_attn_implementation("eager" if wishes else own)
    if wishes or not sees_all or decoder.keeps_state or "position_ids" not in decoder.parameters:
        return False
    agrees = False
    with suppress(*FAILURES):
        agrees = _agrees(decoder, _ROUNDING[dtype])
    if not agrees:
        model.set_attn_implementation(own)
    return agrees


@torch.no_grad()
def _wishes(decoder: Decoder, max_tokens: int) -> tuple[set[str], bool, torch.dtype]:
    """Run a model on three tokens, attending for it, and note what it asks of attention.

    Returns the arguments that no step of ours heeds (soft caps, sinks, biases), whether the last
    token of a row of `max_tokens` sees all of it, and the dtype that is computed in: of a model in
    training autocast's, which neither weights nor logits tell.
    """
    wishes, windows, masks = set[str](), list[bool](), list[bool]()
    dtypes: list[torch.dtype] = [decoder.model.dtype]

    def attend(module: Any, *states: Any, scaling: float | None = None, **asked: Any) -> Any:
        given = {name for name, value in asked.items() if torch.is_tensor(value) or value}
        wishes.update(given - _HARMLESS)
        if torch.is_autocast_enabled(decoder.device.type):
            dtypes.append(torch.get_autocast_dtype(decoder.device.type))
        windows.append((asked.get("sliding_window") or max_tokens) >= max_tokens)
        return sdpa_attention_forward(module, *states, scaling=scaling)

    def mask(*args: Any, **asked: Any) -> Any:
        before = torch.arange(max_tokens, device=asked.get("device"))
        seen = torch.as_tensor(asked["mask_function"](0, 0, before[-1], before))
        masks.append(bool(seen.all()))
        return sdpa_mask(*args, **asked)

    AttentionInterface.register("midcourse-wishes", attend)
    AttentionMaskInterface.register("midcourse-wishes", mask)
    try:
        decoder.model.set_attn_implementation("midcourse-wishes")
        decoder.prefill([(0, 1, 2)], decoder.new_cache())
    except FAILURES:
        wishes.add("unknown")
    return wishes, bool(masks) and all(masks + windows), dtypes[-1]


def _agrees(decoder: Decoder, rounding: float) -> bool:
    """Have the model attend our way; return whether its logits are those of before, but rounded.

    Of two rows of different lengths, one with a shared context, the other with its own.
    """
    shared, own = tuple(range(16)), (16,)
    expected = decoder.logits_of([(*shared, PROBE), (*own, PROBE)])
    decoder.model.set_attn_implementation(register_attention())
    batch = FastBatch(decoder, cache_bytes=0)
    batch._shared = {shared}
    return not strays(batch, {shared: 1, own: 1}, expected, rounding).any()
