"""Collects bodies into chunks, compressed while they wait: a page's texts fit into memory twice.

They wait as JSON: nothing that holds a model's text is ever unpickled, not even our own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from midcourse.viewer.data import ProposalBody, RolloutBody
from midcourse.viewer.sharing import members, shared, unshared

Body = ProposalBody | RolloutBody

_MOST_BODIES = 50
_MOST_CHARACTERS = 1_000_000


@dataclass(eq=False)
class Chunks:
    """Chunks of some 50 bodies, fewer where their texts are long. They can be read many times."""

    _packed: list[bytes] = field(default_factory=list)
    _open: list[Body] = field(default_factory=list)
    _num_characters: int = 0

    def add(self, body: Body, num_characters: int) -> tuple[int, int]:
        """Add a body with so much text; return in which chunk it is, and where in it."""
        if len(self._open) == _MOST_BODIES or self._num_characters > _MOST_CHARACTERS:
            self._packed.append(_pack(self._open))
            self._open, self._num_characters = [], 0
        self._open.append(body)
        self._num_characters += num_characters
        return len(self._packed), len(self._open) - 1

    def __iter__(self) -> Iterator[Sequence[Body]]:
        yield from map(_unpack, self._packed)
        if self._open:
            yield tuple(self._open)


def _pack(bodies: Sequence[Body]) -> bytes:
    text = json.dumps(shared(bodies), default=members, ensure_ascii=False)
    return zlib.compress(text.encode("utf-8", "surrogatepass"), level=1)


def _unpack(packed: bytes) -> Sequence[Body]:
    return unshared(json.loads(zlib.decompress(packed).decode("utf-8", "surrogatepass")))
