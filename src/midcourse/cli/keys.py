"""The keys of a recipe as a terminal shows them: a line with the default, the meaning below."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from midcourse.config import Key


def key_list(keys: Sequence[Key]) -> Group:
    """Return keys for a terminal, each with default, what it takes, and meaning."""
    lines: list[RenderableType] = []
    for key in keys:
        head = Text(key.name, "bold").append(f" = {key.default}", "not bold cyan")
        lines += [head, Padding(Text(_said(key)), (0, 0, 1, 4))]
    return Group(*lines)


def _said(key: Key) -> str:
    takes = f"{key.takes}{'; may change at a resume' if key.tunable else ''}"
    return f"{takes}\n{key.meaning.replace('``', '`')}"
