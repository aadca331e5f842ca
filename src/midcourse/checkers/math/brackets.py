r"""Brackets: what stands outside of them, and what one pair of them encloses.

An environment is a bracket too: what stands between ``\begin{cases}`` and ``\end{cases}`` is
one piece to everything outside of it.

    >>> split(r"f(x, y), \{1, 2\}", frozenset({","}))
    ['f(x, y)', '\\{1, 2\\}']
    >>> partition_last("S = \\sum_{k=1}^{n} k", "=")
    ('S ', ' \\sum_{k=1}^{n} k')
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

_TOKEN = re.compile(r"\\(?:begin|end)\s?\{[A-Za-z]*\*?\}|\\[A-Za-z]+|\\.|[A-Za-z]+|.", re.DOTALL)
_OPENING, _CLOSING = {"(", "[", "{", r"\{"}, {")", "]", "}", r"\}"}


def _step(token: str) -> int:
    """How much deeper a token leads: 1, 0 or −1."""
    opens = token in _OPENING or token.startswith(r"\begin")
    closes = token in _CLOSING or token.startswith(r"\end")
    return opens - closes


def outside(text: str) -> Iterator[re.Match[str]]:
    """Yield the tokens that stand outside of all brackets, in order."""
    depth = 0
    for token in _TOKEN.finditer(text):
        step = _step(token[0])
        depth += step
        if depth == step == 0:
            yield token


def split(text: str, separators: frozenset[str]) -> list[str]:
    """Split outside of all brackets; what is empty between two separators is not a part."""
    parts, start = [], 0
    for token in outside(text):
        if token[0] in separators:
            parts.append(text[start : token.start()])
            start = token.end()
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def partition_last(text: str, separator: str) -> tuple[str, str]:
    """Return what stands before and after the last separator; before it nothing if none is."""
    places = [token for token in outside(text) if token[0] == separator]
    return (text[: places[-1].start()], text[places[-1].end() :]) if places else ("", text)


def bracketed(text: str) -> tuple[str, tuple[str, str] | tuple[()]]:
    """Return the content and the brackets of a text that one pair of brackets encloses."""
    tokens, depth = list(_TOKEN.finditer(text)), 0
    for index, token in enumerate(tokens):
        depth += _step(token[0])
        if depth == 0:
            if index == 0 or index < len(tokens) - 1:
                break
            return text[tokens[0].end() : token.start()], (tokens[0][0], token[0])
    return text, ()


def closing(text: str, start: int) -> int:
    """Return where the bracket closes that opened just before `start`; −1 if it does not."""
    depth = 1
    for token in _TOKEN.finditer(text, start):
        depth += _step(token[0])
        if depth == 0:
            return token.start()
    return -1


def balanced(text: str) -> bool:
    """Whether every bracket closes; which kind closes which is not asked (intervals)."""
    depths = list(accumulate((_step(token[0]) for token in _TOKEN.finditer(text)), initial=0))
    return min(depths) == depths[-1] == 0
