"""Where the keys of a TOML text stand: tomllib reads values, and tells no lines."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

#: Lines of one statement up to which its end is looked for: each of them is tried.
_LONGEST = 500


@lru_cache(maxsize=8)
def key_lines(text: str) -> Mapping[tuple[str, ...], int]:
    """Return the line, counted from 1, at which each key and each section first stands.

    A statement is a header or ``key = value``; it ends at the first line at which tomllib can
    read it on its own, so quoted keys, inline tables, lists and texts over lines are read by
    tomllib and not a second time here. What stands after a statement of more than 500 lines, or
    in a text that is not TOML, has no line.
    """
    lines = text.split("\n")
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    start = 0
    while start < len(lines):
        end, data = _statement(lines, start)
        if data is None:
            break
        is_header = lines[start].lstrip().startswith("[")
        paths = list(_paths(data))
        if is_header:
            section = paths[-1]
        for path in paths:
            found.setdefault(path if is_header else (*section, *path), start + 1)
        start = end
    return found


def _statement(lines: list[str], start: int) -> tuple[int, dict[str, Any] | None]:
    """Return where the statement ends that begins at `start`, and what it says, None if nothing."""
    for end in range(start + 1, min(len(lines), start + _LONGEST) + 1):
        try:
            return end, tomllib.loads("\n".join(lines[start:end]))
        except tomllib.TOMLDecodeError:
            continue
    return len(lines), None


def _paths(data: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield every key of nested tables, outer ones first; those in lists have no name."""
    for key, value in data.items():
        yield (key,)
        # ``[[header]]`` is a list of one table.
        inner = value[0] if isinstance(value, list) and value == [{}] else value
        if isinstance(inner, dict):
            yield from ((key, *path) for path in _paths(inner))
