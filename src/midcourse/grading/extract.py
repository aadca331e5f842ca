r"""The final answer of a response: the content of its last balanced ``\boxed{…}``.

Nothing else counts. A right answer that is not boxed is not credited, and a final box that is
never closed is no answer: falling back to an earlier one would credit what the model went on
from (marin#9163). One pass over the text, whatever it holds.

    >>> extract_answer(r"First \boxed{3}, but in fact \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["boxed_answers", "extract_answer", "open_box_tail"]

#: What opens a box, what is escaped and therefore no brace, and braces. A response that doubles
#: its backslashes still means a box; in ``\\\boxed{`` the first two are a line break.
_TOKEN = re.compile(r"(\\?\\(?:boxed|fbox)\s{0,8}\{)|\\.|\{|\}", re.DOTALL)
#: Boxes within a box that says nothing else: more would be a game.
_MAX_UNWRAPPED = 4


@dataclass(frozen=True, slots=True)
class _Box:
    """Where one box stands in a text; `end` is None while it is open."""

    start: int
    content: int
    end: int | None = None


def extract_answer(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{…}`` or ``\fbox{…}`` of `text`.

    None where there is no box, where the last one opened is never closed, and where the last
    one is empty. A box that encloses the last one wins over it.
    """
    return _content(text, *_scan(text))


def boxed_answers(text: str) -> list[str]:
    """Return the contents of all closed boxes of `text`, in the order they close."""
    closed, _ = _scan(text)
    return [text[box.content : box.end].strip() for box in closed]


def open_box_tail(context: str) -> str:
    r"""Return the end of `context` from a ``\boxed{`` left open there, else "".

    A continuation is graded as this tail followed by itself (spec: what is graded), so a box
    that straddles the cut scores and a box closed before it never does: only the last box of
    the context can be the open one.
    """
    _, last = _scan(context)
    return context[last.start :] if last is not None and last.end is None else ""


def _content(text: str, closed: list[_Box], last: _Box | None) -> str | None:
    if last is None or last.end is None:
        return None
    outermost = closed[-1]
    content = text[outermost.content : outermost.end].strip()
    for _ in range(_MAX_UNWRAPPED):
        inner = _TOKEN.match(content)
        if inner is None or inner[1] is None or not _is_one_box(content):
            break
        content = content[inner.end() : -1].strip()
    return content or None


def _is_one_box(content: str) -> bool:
    closed, _ = _scan(content)
    return any(box.start == 0 and box.end == len(content) - 1 for box in closed)


def _scan(text: str) -> tuple[list[_Box], _Box | None]:
    """Return the boxes that close, in closing order, and the box that was opened last."""
    closed: list[_Box] = []
    last: _Box | None = None
    # None stands for a plain brace. A brace that closes nothing is passed over.
    open_braces: list[_Box | None] = []
    for token in _TOKEN.finditer(text, _first_box(text)):
        if token[1] is not None:
            last = _Box(token.start(), token.end())
            open_braces.append(last)
        elif token[0] == "{":
            open_braces.append(None)
        elif token[0] == "}" and open_braces:
            box = open_braces.pop()
            if box is not None:
                closed.append(_Box(box.start, box.content, token.start()))
                last = closed[-1] if box is last else last
    return closed, last


def _first_box(text: str) -> int:
    """Where scanning must begin: at the first box, or one backslash before it."""
    starts = [at for at in (text.find("\\boxed"), text.find("\\fbox")) if at >= 0]
    if not starts:
        return len(text)
    start = min(starts)
    while start > 0 and text[start - 1] == "\\":
        start -= 1
    return start
