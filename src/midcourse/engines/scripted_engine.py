"""The scripted engine: replies from a function or a table. No model, no torch.

It is the engine of most tests, and from the command line (``engine.kind = "scripted"``) it drives
the whole loop with replies a person wrote. Its tokens are bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

from midcourse.config import ModelConfig, ScriptedConfig
from midcourse.engines.base import (
    Capabilities,
    Completion,
    Request,
    ScoreRequest,
    TokenScores,
    too_long,
)
from midcourse.engines.stream import Stream
from midcourse.errors import ConfigError
from midcourse.records import FinishReason

Script = Callable[[str, int], str]
"""From the context as text and the seed to the reply."""

_START, _END, _PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
_CONTROL = {_START: 256, _END: 257, _PAD: 258}
_SPLIT = re.compile(f"({'|'.join(map(re.escape, _CONTROL))})")
#: What each id stands for.
_TOKENS = [bytes([byte]) for byte in range(256)] + [name.encode() for name in _CONTROL]


@dataclass(frozen=True, slots=True)
class _ControlToken:
    content: str
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False


class ByteTokenizer:
    """Bytes as ids 0 … 255 and three control tokens, with a ChatML template."""

    eos_token_id: int | None = _CONTROL[_END]
    unk_token_id: int | None = None
    chat_template: Any = "chatml over bytes"
    vocab_size = 259

    def __len__(self) -> int:
        """Return how many ids there are."""
        return self.vocab_size

    @property
    def added_tokens_decoder(self) -> dict[int, _ControlToken]:
        """The control tokens."""
        return {token: _ControlToken(name) for name, token in _CONTROL.items()}

    def __call__(
        self, text: str, *, split_special_tokens: bool = False, **_: Any
    ) -> dict[str, list[int]]:
        """Encode; control tokens in `text` are letters if `split_special_tokens`."""
        if split_special_tokens:
            return {"input_ids": list(text.encode())}
        ids: list[int] = []
        for part in _SPLIT.split(text):
            ids += [_CONTROL[part]] if part in _CONTROL else part.encode()
        return {"input_ids": ids}

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool = False,
        **_: Any,
    ) -> str:
        """Return the conversation as ChatML text."""
        turns = [f"{_START}{m['role']}\n{m['content']}{_END}\n" for m in conversation]
        return "".join(turns) + (f"{_START}assistant\n" if add_generation_prompt else "")

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False, **_: Any) -> str:
        """Decode; a part of a character becomes U+FFFD."""
        kept = [token for token in token_ids if token < 256 or not skip_special_tokens]
        return b"".join(_TOKENS[token] for token in kept).decode(errors="replace")


def from_config(config: ScriptedConfig, model: ModelConfig, path: str) -> ScriptedEngine:
    """Read the rules of a script, a JSON list of ``[pattern, reply, …]``. Raises ConfigError.

    The first pattern found in the context answers, and the seed picks among its replies.
    """
    try:
        rules = [(re.compile(rule[0]), list(rule[1:])) for rule in json.loads(read_script(config))]
    except (ValueError, TypeError, IndexError, KeyError, re.error) as error:
        raise ConfigError(
            f"engine.script: {config.script} is not a list of [pattern, reply, …]: {error}"
        ) from error

    def script(text: str, seed: int) -> str:
        found = (replies for pattern, replies in rules if pattern.search(text))
        replies = next(found, [""])
        return replies[seed % len(replies)]

    return ScriptedEngine(script)


def read_script(config: ScriptedConfig) -> str:
    """Return the text of a script. Raises ConfigError."""
    try:
        return Path(config.script).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"engine.script: cannot read {config.script!r}: give a JSON file ({error})"
        ) from error


class ScriptedEngine:
    """Replies with what `script` says for the context and the seed."""

    def __init__(self, script: Script, *, max_context_tokens: int = 32_768) -> None:
        self._script, self._max_context_tokens = script, max_context_tokens
        self._tokenizer = ByteTokenizer()

    @property
    def capabilities(self) -> Capabilities:
        """Token ids, seeds and (uniform) scores."""
        length = self._max_context_tokens
        return Capabilities(token_ids=True, seeds=True, max_context_tokens=length, concurrency=64)

    @contextmanager
    def session(self) -> Iterator[Stream]:
        """Open a session; it answers in the order of the requests."""
        yield Stream(lambda stream: map(self.complete, stream.take()))

    def close(self) -> None:
        """Nothing is held."""

    def complete(self, request: Request) -> Completion:
        """Answer one request."""
        limit = request.limit(self._max_context_tokens)
        if limit < 1:
            return too_long(request)
        context = self._tokenizer.decode(request.prompt_token_ids)
        ids = [*self._script(context, request.seed).encode(), _CONTROL[_END]]
        return Completion(
            request_id=request.request_id,
            token_ids=tuple(ids[:limit]),
            text=self._tokenizer.decode(ids[:limit], skip_special_tokens=True),
            finish_reason=FinishReason.STOP if len(ids) <= limit else FinishReason.LENGTH,
        )

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[TokenScores]:
        """Score every token as one of `ByteTokenizer.vocab_size` equally likely ones."""
        nats = log(ByteTokenizer.vocab_size)
        for asked in requests:
            count = len(asked.token_ids) - asked.num_context
            others = ((-nats,) * len(asked.alternatives),) * count if asked.alternatives else ()
            yield TokenScores(
                request_id=asked.request_id,
                logprobs=(-nats,) * count,
                entropies=(nats,) * count,
                alternatives=others,
            )
