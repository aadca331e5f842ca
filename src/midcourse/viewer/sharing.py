"""A text that stands in several bodies of a chunk is written once.

Proposals about one rollout share its steps, and what the proposer was shown; continuations are
often the same. Compression alone does not see what is further apart than 32 kB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from midcourse.viewer.data import Continuation, ProposalBody, RolloutBody, Token

#: Shorter texts are written where they stand.
_SHORTEST = 40


def shared(bodies: Sequence[ProposalBody | RolloutBody]) -> dict[str, object]:
    """Return ``texts`` that stand in several places, and ``bodies`` with their places for them."""
    seen: Counter[str] = Counter()
    for body in bodies:
        _with_texts(body, lambda text: seen.update([text]))
    often = (text for text, count in seen.items() if count > 1 and len(text) >= _SHORTEST)
    places = {text: place for place, text in enumerate(often)}
    written = [_with_texts(body, lambda text: places.get(text, text)) for body in bodies]
    return {"texts": list(places), "bodies": written}


def unshared(chunk: Mapping[str, Any]) -> list[ProposalBody | RolloutBody]:
    """Return the bodies of a chunk as `shared` wrote it, read from JSON."""
    texts = chunk["texts"]
    return [
        _read(plain, lambda text: texts[text] if isinstance(text, int) else text)
        for plain in chunk["bodies"]
    ]


def _with_texts(
    body: ProposalBody | RolloutBody, put: Callable[[str], object]
) -> dict[str, object]:
    """Return a body's fields with what `put` makes of every text that may be shared."""
    found = {**members(body), "steps": [put(step) for step in body.steps]}
    if isinstance(body, ProposalBody):
        found["turns"] = [[put(text) for text in turn] for turn in body.turns]
        found["continuations"] = [
            {**members(one), "text": put(one.text)} for one in body.continuations
        ]
    return found


def _read(plain: Mapping[str, Any], told: Callable[[Any], str]) -> ProposalBody | RolloutBody:
    """Return a body of its fields; `told` returns what `put` was given."""
    found = {**plain, "steps": [told(step) for step in plain["steps"]]}
    if "continuations" not in plain:
        return RolloutBody(**found)
    found["turns"] = [(told(prompt), told(reply)) for prompt, reply in plain["turns"]]
    found["continuations"] = [
        Continuation(**{**one, "text": told(one["text"])}) for one in plain["continuations"]
    ]
    found["tokens"] = [Token(**one) for one in plain["tokens"]]
    return ProposalBody(**found)


def members(record: Any) -> dict[str, object]:
    """Return a record's fields by name, not deeper."""
    return {field.name: getattr(record, field.name) for field in fields(record)}
