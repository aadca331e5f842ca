"""Puts the pieces of a streamed reply together into the reply that the server would send whole.

A stream is server-sent events: each line ``data: {…}`` holds a piece of a choice, as ``text`` and
``token_ids`` or, of a chat, as ``delta``; the last one is ``data: [DONE]``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

_DONE = "[DONE]"
#: What comes in pieces, and where it stands in a whole reply.
_PIECES = {
    "text": "text",
    "token_ids": "token_ids",
    "logprobs": "logprobs",
    "delta": "message",
}


@dataclass(slots=True)
class StreamedReply:
    """The first choice of a stream, as far as it has come."""

    choice: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    """What stands beside the choices: the model's name, how much was used, an error."""
    is_whole: bool = False
    """Whether the stream has said that it ends."""

    def add(self, line: bytes) -> None:
        """Read one line. Raises ValueError for data that is not an object of JSON."""
        name, _, said = line.decode("utf-8", "replace").strip().partition(":")
        said = said.strip()
        if name != "data":  # a comment that keeps the connection alive, an event's name, a blank
            return
        if said == _DONE:
            self.is_whole = True
            return
        try:
            event = json.loads(said)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(event, dict):
            raise ValueError("an event is not an object")
        for name in ("model", "usage", "error"):
            if event.get(name):
                self.fields[name] = event[name]
        choices = event.get("choices")
        for piece in choices if isinstance(choices, list) else ():
            if isinstance(piece, dict) and piece.get("index") in (0, None):
                self._add_piece(piece)

    def _add_piece(self, piece: dict[str, Any]) -> None:
        for name, whole in _PIECES.items():
            self.choice[whole] = _joined(self.choice.get(whole), piece.get(name))
        for name in ("finish_reason", "error"):
            if piece.get(name):
                self.choice[name] = piece[name]
                self.is_whole = True

    def content(self) -> bytes:
        """Return the reply as JSON, as if it had been sent whole."""
        choices = [{"index": 0, **self.choice}] if self.choice else []
        return json.dumps({**self.fields, "choices": choices}).encode()


def _joined(before: Any, piece: Any) -> Any:
    """Return a value that goes on: texts and lists at their end, objects name by name."""
    if piece is None or before is None:
        return before if piece is None else piece
    if isinstance(before, dict) and isinstance(piece, dict):
        return before | {name: _joined(before.get(name), piece[name]) for name in piece}
    if isinstance(before, str) and isinstance(piece, str):
        return before + piece
    if isinstance(before, list) and isinstance(piece, list):
        before += piece  # in place: a long reply comes in thousands of pieces
        return before
    return piece
