"""Reads what OpenAI-compatible servers reply: each says the same things in words of its own.

vLLM, SGLang, llama.cpp, Ollama, LM Studio, TGI and hosted models were looked at. A reply that says
something else than what was asked for is a ValueError that says so: it is never taken for an
answer of the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from midcourse.engines.base import Usage
from midcourse.records import FinishReason
from midcourse.rendering import Renderer

#: Parts of finish reasons, of letters alone: what broke a reply off, what used up its budget, and
#: what is the model's own end. The first one found decides.
_BROKEN_OFF = re.compile(
    "error|fail|abort|cancel|filter|safety|refus|block|prohib|recit|timeout|interrupt|overload"
    "|unavail|preempt|malform|ratelimit|quota|userstop"
)
_LENGTH = re.compile("length|limit|max|window|trunc|incomplete|budget")
_STOP = re.compile("stop|eos|eot|end|complete|finish|done|word|tool|function")
#: Where servers put what a model thought before it replied.
_THOUGHTS = (
    "reasoning_content", "reasoning", "reasoning_text", "reasoning_details", "thinking",
    "thinking_blocks",
)  # fmt: skip
#: Where a model entry or a server's properties state the length of prompt and reply together.
_LENGTH_FIELDS = (
    "max_model_len", "n_ctx", "loaded_context_length", "context_length", "max_context_length",
    "context_window", "max_total_tokens",
)  # fmt: skip

#: More tokens than any reply has: a server that says more says nothing.
_MOST_TOKENS = 10**9


@dataclass(frozen=True, slots=True)
class Answer:
    """What a choice holds: the reply's text, its ids if there are any, and how it ended."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage | None = None


def read_choice(reply: Any) -> dict[str, Any]:
    """Return the first choice by its index. Raises ValueError if there is none, or an error."""
    if not isinstance(reply, dict):
        raise ValueError("the reply is not an object")
    if reply.get("error"):
        raise ValueError(f"the server says: {reply['error']}")
    choices = reply.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError("the reply has no choices")
    first: dict[str, Any] | None = next((c for c in choices if c.get("index") in (0, None)), None)
    if first is None:
        raise ValueError("the reply has no choice with index 0")
    if first.get("error"):
        raise ValueError(f"the server says: {first['error']}")
    return first


def read_chat(reply: Any, asked: int) -> Answer:
    """Read the reply to messages; `asked` is the budget of tokens. Raises ValueError.

    Thinking is not part of the text: a reply that was cut off while thinking has none.
    """
    choice = read_choice(reply)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ValueError("the reply has no message")
    usage = reply.get("usage")
    used = usage.get("completion_tokens") if isinstance(usage, dict) else None
    finish = read_finish(choice.get("finish_reason"), used, asked)
    text = _text_of(message.get("content"))
    if text is None:
        said_otherwise = any(
            message.get(name) for name in (*_THOUGHTS, "refusal", "tool_calls", "function_call")
        )
        if finish is FinishReason.STOP and not said_otherwise:
            raise ValueError("the reply has no content")
        text = _text_of(message.get("refusal")) or ""
    return Answer(_whole_characters(text), (), finish, read_usage(usage))


def read_completion(reply: Any, asked: int, renderer: Renderer | None) -> Answer:
    """Read the reply to token ids; with a renderer its ids must be of its text.

    Raises ValueError.
    """
    choice = read_choice(reply)
    text, ids = choice.get("text"), choice.get("token_ids")
    if not isinstance(text, str):
        raise ValueError("the reply has no text")
    if not isinstance(ids, list) or not all(type(token) is int and token >= 0 for token in ids):
        raise ValueError("the reply has no list of token ids")
    if len(ids) > asked:
        raise ValueError(f"the reply has {len(ids)} tokens, {asked} were asked for")
    finish = read_finish(choice.get("finish_reason"), len(ids), asked)
    text = _whole_characters(text)
    if renderer is not None:
        if ids and max(ids) >= renderer.num_tokens:
            raise ValueError(f"token id {max(ids)} is beyond the vocabulary")
        if _letters(renderer.decode(ids)) != _letters(text):
            raise ValueError("the reply's token ids are not those of its text")
    elif text and not ids:
        raise ValueError("the reply has text, but no token ids")
    return Answer(text, tuple(ids), finish)


def read_usage(usage: Any) -> Usage | None:
    """Return what a reply says of its tokens; None where it says nothing that can be."""
    if not isinstance(usage, dict):
        return None
    asked, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (isinstance(asked, int) and isinstance(written, int)):
        return None
    is_sound = min(asked, written) >= 0 and max(asked, written) <= _MOST_TOKENS
    return Usage(int(asked), int(written)) if is_sound else None


def read_logprobs(reply: Any, count: int) -> tuple[float, ...]:
    """Return the log-probability of each of `count` sampled tokens. Raises ValueError."""
    told = read_choice(reply).get("logprobs")
    logprobs = told.get("token_logprobs") if isinstance(told, dict) else None
    if count and not isinstance(logprobs, list):
        raise ValueError("the reply has no log-probabilities")
    found = logprobs or []
    if len(found) != count:
        raise ValueError(f"the reply has {len(found)} log-probabilities for {count} tokens")
    if not all(isinstance(value, int | float) and -math.inf < value < 1e-3 for value in found):
        raise ValueError("a log-probability of the reply is none")
    return tuple(float(value) for value in found)


def read_finish(reason: Any, used: Any, asked: int) -> FinishReason:
    """Return why a reply ended; where the server does not say, by the tokens `used`.

    Raises ValueError if it was broken off, or if the reason is not known.
    """
    if isinstance(reason, dict):  # SGLang's own form
        reason = reason.get("type")
    if reason is None or reason == "":
        full = isinstance(used, int) and used >= asked
        return FinishReason.LENGTH if full else FinishReason.STOP
    letters = re.sub("[^a-z]", "", str(reason).lower())
    if _BROKEN_OFF.search(letters):
        raise ValueError(f"the reply was broken off: finish reason {reason!r}")
    if _LENGTH.search(letters):
        return FinishReason.LENGTH
    if _STOP.search(letters):
        return FinishReason.STOP
    raise ValueError(f"finish reason {reason!r} is not known")


def _text_of(content: Any) -> str | None:
    """Return the text of a content: a string, or parts of which those of text are joined."""
    if isinstance(content, str) or content is None:
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else _text_of_part(part) for part in parts]
    return "".join(texts)


def _text_of_part(part: Any) -> str:
    if not isinstance(part, dict):
        raise ValueError("a part of the content is neither text nor an object")
    if re.search("think|reason", str(part.get("type")).lower()):
        return ""
    text = part.get("text", "")
    if not isinstance(text, str):
        raise ValueError("a part of the content has a text that is not text")
    return text


def _whole_characters(text: str) -> str:
    """Return `text` with halves of surrogate pairs joined; one that is alone becomes U+FFFD.

    A budget that ends within an emoji leaves half of it.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _letters(text: str) -> str:
    """Return what two ways of decoding the same ids have in common: all but blanks and halves."""
    return "".join(text.split()).replace("\ufffd", "")


# --- lengths -----------------------------------------------------------------------------------


def _patterns(*patterns: str) -> Sequence[re.Pattern[str]]:
    """Compile patterns in which # is a number, in any case of letters."""
    return [re.compile(p.replace("#", r"\b(\d{1,9})\b"), re.IGNORECASE) for p in patterns]


#: The length of prompt and reply together, as a refusal states it.
_CONTEXT = _patterns(
    r"\bn_ctx\W{1,4}#",
    r"context (?:length|size|window)[^\d.]{0,40}#",
    r"#(?: tokens?)? (?:(?:maximum|max) context|context (?:length|size|window))",
    r"context limit: \d{1,9} \+ \d{1,9} > #",
    r"longer than the maximum model length of #",
    r"exceeds max_(?:seq|model)_len\W{1,4}#",
    r"maximum number of tokens allowed \(#\)",
    r"max_new_tokens`? must be <= #",
    r"inputs`? must have less than # tokens",
    r"prompt is too long: \d{1,9} tokens > #",
)
#: The tokens of the prompt alone.
_PROMPT = _patterns(
    r"# (?:in|from|of) the (?:messages|prompt|input)",
    r"#(?: tokens? (?:in|from) the)? (?:input|prompt) (?:tokens|messages)",
    r"# `?inputs`? tokens",
    r"(?:prompt|messages) (?:contains?|has|resulted in|is too long:) (?:at least )?#",
    r"prompt \(length #\)",
    r"(?:prompt|input) tokens?(?: count)? \(#\)",
    r"context limit: # \+ \d",
    r"(?:input|prompt|request) \(# tokens\)",
    r"tokens. given: #",
    r"n_prompt_tokens\W{1,4}#",
)
#: Prompt and asked reply together.
_TOTAL = _patterns(r"requested (?:a total of |about )?# tokens")
#: The most that a reply may be, whatever the prompt.
_MOST = _patterns(
    r"at most # (?:completion|output) tokens",
    r"max_(?:completion_)?tokens\W{1,4}\d{1,9} > #",
    r"max_(?:completion_)?tokens\W.{0,60}?less than or equal to \W?#",
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many tokens a server takes, where it has said so."""

    context: int | None = None
    """Prompt and reply together."""
    most: int | None = None
    """The reply alone."""
    prompt: int | None = None
    """Of the prompt that was refused."""


def refused_lengths(words: str, asked: int) -> Lengths:
    """Return what a refusal says of lengths: nothing, if it is about something else."""
    words = re.sub(r"(?<=\d)[,_](?=\d{3})", "", words)
    total, prompt = _number(_TOTAL, words), _number(_PROMPT, words)
    if prompt is None and total is not None:
        prompt = total - asked
    return Lengths(_number(_CONTEXT, words), _number(_MOST, words), prompt)


def stated_length(description: Any) -> int | None:
    """Return the context length that a model's entry or a server's properties state."""
    if not isinstance(description, dict):
        return None
    inner = [description.get(name) for name in ("meta", "default_generation_settings")]
    for fields in (description, *(found for found in inner if isinstance(found, dict))):
        for name in _LENGTH_FIELDS:
            length = fields.get(name)
            if type(length) is int and length > 1:
                return length
    return None


def _number(patterns: Sequence[re.Pattern[str]], words: str) -> int | None:
    found = next((match for p in patterns if (match := p.search(words))), None)
    return int(found[1]) if found else None
