"""What is known of the model behind a server, so that another one under its name is noticed.

A server's list of models tells where the weights come from and how long a context may be; a few
greedy tokens tell weights apart that were put in the same place. All of it stays the same where a
server is only started again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

Facts = Mapping[str, object]
"""By name, as JSON holds it; a server that does not say something leaves it out."""

Ask = Callable[[str, Any], Awaitable[Any]]
"""Gets a URL, or posts a body to it; returns the JSON of the reply."""

#: What a list of models says that a restart does not change; `meta` is llama.cpp's.
_LASTING = ("id", "root", "parent", "max_model_len", "meta")
_GREEDY_TOKENS = 8


async def facts_of(ask: Ask, url: str, model: str, prompt: Sequence[int]) -> Facts:
    """Return what the server at `url` shows of a model; without a prompt, what it says of it.

    Raises what `ask` raises; ValueError, LookupError or TypeError for a reply of another form.
    """
    listed = (await ask(f"{url}/models", None))["data"]
    (entry,) = [one for one in listed if one["id"] == model]
    facts = {name: entry[name] for name in _LASTING if entry.get(name) is not None}
    if prompt:
        asked = {"model": model, "prompt": list(prompt), "max_tokens": _GREEDY_TOKENS}
        asked |= {"temperature": 0.0, "return_token_ids": True, "add_special_tokens": False}
        choice = (await ask(f"{url}/completions", asked))["choices"][0]
        facts["greedy"] = choice.get("token_ids") or choice["text"]
    return facts


def differences(before: Sequence[Facts], now: Sequence[Facts]) -> Iterator[str]:
    """Say what a server shows now that none showed before; what only one of them says is equal."""
    for facts in now:
        each = [list(_differences(one, facts)) for one in before]
        if each and all(each):
            yield from min(each, key=len)


def _differences(before: Facts, now: Facts) -> Iterator[str]:
    for name in before:
        if name in now and before[name] != now[name]:
            yield f"{name}: {before[name]!r} → {now[name]!r}"
