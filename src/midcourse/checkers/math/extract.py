r"""The final answer of a response: the content of its last balanced ``\boxed{…}``.

Nothing else counts. A right answer that is not boxed is not credited, and a final box that is
never closed is not an answer: falling back to an earlier one would credit what the model went on
from (marin#9163). One pass over the text, whatever it holds.

    >>> extract_answer(r"First \boxed{3}, but in fact \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
"""

from __future__ import annotations

import re

#: What opens a box, what is escaped and therefore no brace, and braces. A response that doubles
#: its backslashes still means a box; in ``\\\boxed{`` the first two are a line break.
_TOKEN = re.compile(r"(\\?\\(?:boxed|fbox)\s{0,8}\{)|\\.|(\{)|(\})", re.DOTALL)
_BOX, _OPEN, _CLOSE = 1, 2, 3
#: Of a longer text, only this much of the end is looked at, and the last box wherever it begins.
_MAX_TEXT_CHARS = 2_000_000
#: Boxes within a box that says nothing else; more of them, or longer ones, are a game.
_MAX_UNWRAPPED, _MAX_UNWRAPPED_CHARS = 4, 10_000

_Box = tuple[int, int, int]
"""Where a box starts, where its content starts, and where that ends (−1 while it is open)."""


def extract_answer(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{…}`` or ``\fbox{…}``; None if empty or left open."""
    text = _end_of(text)
    closed, last = _scan(text)
    if last is None or last[2] < 0:
        return None
    _, start, end = closed[-1]
    content = text[start:end].strip()
    for _ in range(_MAX_UNWRAPPED):
        if len(content) > _MAX_UNWRAPPED_CHARS or (inner := _only_box(content)) is None:
            break
        content = inner
    return content or None


def state_answer(answer: str) -> str:
    """Return the sentence in which a solution boxes its answer."""
    return f"The answer is \\boxed{{{answer}}}."


def boxed_answers(text: str) -> list[str]:
    """Return the contents of all closed boxes of `text`, in the order they close."""
    text = _end_of(text)
    closed, _ = _scan(text)
    return [text[start:end].strip() for _, start, end in closed]


def open_box_tail(context: str) -> str:
    r"""Return the end of `context` from a ``\boxed{`` left open there, else "".

    A continuation is graded as this tail followed by itself, so a box that straddles the cut
    scores and a box closed before it never does: what the context already said is not the
    continuation's. Only the last box of the context can be the open one.
    """
    context = _end_of(context)
    _, last = _scan(context)
    return context[last[0] :] if last is not None and last[2] < 0 else ""


def _only_box(content: str) -> str | None:
    """Return what the box says that `content` consists of; None if there is more to it."""
    closed, _ = _scan(content)
    whole = [box for box in closed if box[0] == 0 and box[2] == len(content) - 1]
    return content[whole[0][1] : whole[0][2]].strip() if whole else None


def _scan(text: str) -> tuple[list[_Box], _Box | None]:
    """Return the boxes that close, in closing order, and the box that was opened last."""
    closed: list[_Box] = []
    last: _Box | None = None
    # None stands for a plain brace. A brace that closes nothing is passed over.
    opened: list[_Box | None] = []
    for token in _TOKEN.finditer(text, _first_box(text)):
        kind = token.lastindex
        if kind == _OPEN:
            opened.append(None)
        elif kind == _CLOSE:
            box = opened.pop() if opened else None
            if box is not None:
                closed.append((*box[:2], token.start()))
                last = closed[-1] if box is last else last
        elif kind == _BOX:
            last = (token.start(), token.end(), -1)
            opened.append(last)
    return closed, last


def _first_box(text: str) -> int:
    """Where scanning must begin: at the first box, or at the backslashes before it."""
    starts = [at for at in (text.find("\\boxed"), text.find("\\fbox")) if at >= 0]
    start = min(starts, default=len(text))
    while start > 0 and text[start - 1] == "\\":
        start -= 1
    return start


def _end_of(text: str) -> str:
    if len(text) <= _MAX_TEXT_CHARS:
        return text
    last_box = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    cut = len(text) - _MAX_TEXT_CHARS
    return text[min(last_box, cut) if last_box >= 0 else cut :]
