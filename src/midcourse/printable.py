"""Makes foreign text inert on a terminal: what a model, a file or a server wrote drives nothing."""

from __future__ import annotations

from unicodedata import category


def printable(text: str, keep: str = "\n\t") -> str:
    r"""Return `text` with every character that is not seen as itself written as an escape.

    Those are controls (ESC, BEL, carriage return, the C1 range), invisible and direction-changing
    characters, halves of surrogate pairs and unassigned ones; `keep` are left alone. Give
    ``keep=""`` where the text is a part of one line.

        >>> printable("\x1b[31mred\x07")
        '\\x1b[31mred\\x07'
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or _is_seen(c) else _escape(c) for c in text)


def _is_seen(character: str) -> bool:
    """Whether a character is drawn as itself; the spaces of typography are."""
    return character.isprintable() or category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
