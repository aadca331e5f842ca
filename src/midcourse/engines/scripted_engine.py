"""The scripted engine: replies from a function or a table. No model, no torch.

It is the engine of most tests, and from the command line (``engine.kind = "scripted"``) it drives
the whole loop with replies a person wrote. Its tokens are bytes.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
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
from midcourse.errors import ConfigError
from midcourse.records import FinishReason
from midcourse.rendering import Renderer

Script = Callable[[str, int], str]
"""From the context as text and the seed to the reply."""

#: Requests worth offering at once.
CONCURRENCY = 64

_START, _END, _PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
_CONTROL = {_START: 256, _END: 257, _PAD: 258}
_SPLIT = re.compile("|".join(map(re.escape, _CONTROL)))


class ByteTokenizer:
    """Bytes as ids 0 … 255 and three control tokens, with a ChatML template."""

    all_special_tokens: list[str]
    eos_token_id: int | None = _CONTROL[_END]
    chat_template: Any = "chatml over bytes"
    vocab_size = 259

    def __init__(self) -> None:
        self.all_special_tokens = list(_CONTROL)

    def __call__(
        self, text: str, *, split_special_tokens: bool = False, **_: Any
    ) -> dict[str, list[int]]:
        """Encode; control tokens in `text` are letters if `split_special_tokens`."""
        if split_special_tokens:
            return {"input_ids": list(text.encode())}
        ids: list[int] = []
        at = 0
        for match in _SPLIT.finditer(text):
            ids += [*text[at : match.start()].encode(), _CONTROL[match[0]]]
            at = match.end()
        return {"input_ids": [*ids, *text[at:].encode()]}

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
        if skip_special_tokens:
            return bytes([token for token in token_ids if token < 256]).decode(errors="replace")
        names = {number: name.encode() for name, number in _CONTROL.items()}
        chunks: list[bytes] = []
        for is_byte, run in groupby(token_ids, (256).__gt__):
            if is_byte:
                chunks.append(bytes(run))
            else:
                chunks += [names[token] for token in run]
        return b"".join(chunks).decode(errors="replace")


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
    return ScriptedEngine(lambda text, seed: _first_rule(rules, text, seed))


def read_script(config: ScriptedConfig) -> str:
    """Return the text of a script. Raises ConfigError."""
    try:
        return Path(config.script).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"engine.script: cannot read {config.script!r}: give a JSON file ({error})"
        ) from error


def open_renderer(model: ModelConfig, path: str) -> Renderer:
    """Return the renderer of any script: bytes."""
    return Renderer(ByteTokenizer())


class ScriptedEngine:
    """Replies with what `script` says for the context and the seed."""

    def __init__(self, script: Script, *, max_context_tokens: int = 32_768) -> None:
        self._script, self._max_context_tokens = script, max_context_tokens
        self._tokenizer = ByteTokenizer()

    @property
    def capabilities(self) -> Capabilities:
        """Token ids, seeds and (uniform) scores."""
        return Capabilities(
            token_ids=True,
            seeds=True,
            max_context_tokens=self._max_context_tokens,
            concurrency=CONCURRENCY,
        )

    @contextmanager
    def session(self) -> Iterator[_Session]:
        """Open a session."""
        yield _Session(self)

    def close(self) -> None:
        """Nothing is held."""

    def complete(self, request: Request) -> Completion:
        """Answer one request."""
        context = list(request.prompt_token_ids)
        room = self._max_context_tokens - len(context)
        limit = min(room, request.sampling.max_tokens)
        if limit < 1:
            return too_long(request)
        reply = self._script(self._tokenizer.decode(context), request.seed).encode()
        ids = [*reply, _CONTROL[_END]]
        stopped = len(ids) <= limit
        return Completion(
            request_id=request.request_id,
            token_ids=tuple(ids[:limit]),
            text=self._tokenizer.decode(ids[:limit], skip_special_tokens=True),
            finish_reason=FinishReason.STOP if stopped else FinishReason.LENGTH,
        )

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[TokenScores]:
        """Score every token as one of `ByteTokenizer.vocab_size` equally likely ones."""
        nats = log(ByteTokenizer.vocab_size)
        for request in requests:
            count = len(request.token_ids) - request.num_context
            yield TokenScores(
                request_id=request.request_id,
                logprobs=(-nats,) * count,
                entropies=(nats,) * count,
            )


class _Session:
    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self._waiting: deque[Request] = deque()
        self._cancelled: set[str] = set()

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests."""
        self._waiting.extend(requests)

    def cancel(self, request_ids: Collection[str]) -> None:
        """Drop these requests."""
        self._cancelled.update(request_ids)

    def completions(self) -> Iterator[Completion]:
        """Yield completions in the order of the requests."""
        while self._waiting:
            request = self._waiting.popleft()
            if request.request_id not in self._cancelled:
                yield self._engine.complete(request)


def _first_rule(rules: Sequence[tuple[re.Pattern[str], list[str]]], text: str, seed: int) -> str:
    for pattern, replies in rules:
        if pattern.search(text):
            return replies[seed % len(replies)]
    return ""
