"""What a cell of a data set means: a wrapped value, and a value that says that there is none.

Data sets wrap one answer into a list, write JSON as text, give a problem as a conversation, and
fill a gap with ``nan``, ``N/A`` or ``not found``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from midcourse.data.rows import Number


def as_object(value: object) -> Mapping[str, Any]:
    """Return an object that may be written as JSON; an empty one for anything else."""
    read = _json(value) if isinstance(value, str) else value
    return read if isinstance(read, Mapping) else {}


def unwrapped(value: Any) -> Any:
    """Return the member of a list of one, also of ``'["2"]'`` as text; else the value itself."""
    read = _json(value) if isinstance(value, str) and value.startswith('["') else value
    if isinstance(read, list) and len(read) == 1 and isinstance(read[0], str):
        return read[0]
    return value


def asked_in(value: Any) -> Any:
    """Return what the user says last in a conversation, also in one as JSON text."""
    is_json = isinstance(value, str) and re.match(r"\s*\[\s*\{", value)
    messages = _json(value) if is_json else value
    if not isinstance(messages, list) or not all(isinstance(said, dict) for said in messages):
        return value
    said = [_content(said) for said in messages if said.get("role") == "user"]
    return said[-1] if said else value


def _content(message: Mapping[str, Any]) -> Any:
    content = message.get("content")
    if not isinstance(content, list):
        return content
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(part for part in parts if isinstance(part, str))


def _json(text: str) -> object:
    """Return what JSON says, numbers as they are written; nothing for what is not JSON."""
    try:
        return json.loads(text, parse_int=Number, parse_float=Number)
    except (ValueError, RecursionError):
        return None


# --- cells that say nothing --------------------------------------------------------------------

_LONGEST_SENTINEL = 80
_WRAPPED = re.compile(
    r"\\(?:text\w*|mathrm|mathbf|mbox|boxed)\s*\{(.*)\}|\$+(.*?)\$+|\\[(\[](.*)\\[)\]]", re.DOTALL
)
_GIVEN = (
    "(?:found|available|provided|given|applicable|known|specified|stated|included|shown|extracted"
    "|supplied|listed|needed|required)"
)
_WHERE = (
    "(?:above|below|solutions?|proofs?|explanations?|text|figures?|diagrams?|images?|graphs?"
    "|attach\\w*|answers?|answer key|details|references?|appendix|comments?|link)"
)
#: What stands in the place of a value that a data set does not have.
_SENTINEL = re.compile(
    r"nan|null|nil|n ?[/.] ?a|na|tb[ad]|todo|unknown|omitted|missing|placeholder|unspecified|idk"
    r"|unavailable|unanswered|unsolved|nat|#(?:n/a|ref!|value!|name\?|null!|div/0!)"
    rf"|(?:(?:the )?(?:answer|solution|value)(?: is| was)? )?(?:not ?|un|none ?)(?:yet )?{_GIVEN}"
    r"|to be (?:determined|announced|added|done|filled(?: in)?)"
    rf"|no (?:[a-z]+ )?(?:answer|ground truth|reference|gold|label)s?(?: {_GIVEN})?"
    rf"|no (?:[a-z]+ )?(?:solution|value)s? {_GIVEN.replace('found|', '')}"
    rf"|(?:please )?(?:see|refer to|check|given|shown)(?: in)?(?: the)? {_WHERE}.*"
    r"|(?:same )?as (?:above|below|shown.*)"
    r"|answers? (?:may|will|can) vary"
    r"|(?:(?:your|final|the|insert|correct) )*answer(?: here)?"
    r"|(?:i )?(?:do not|don'?t) know|(?:extraction|parsing|parse)(?: error| failed| failure)"
    r"|(?:a )?proof(?: (?:question|problem|based|omitted|required|by .*))?|q\.? ?e\.? ?d"
    r"|(?:the )?(?:proof|statement|claim)(?: is)? (?:complete|completed|proved|proven|shown)"
    r"|left (?:as an exercise|to the reader).*"
)
#: Marks that stand for nothing; one of them may be the answer to a question about signs.
_MARKS = re.compile(r"[-\u2013\u2014_?.\u2026\s]+")
_ASKS_FOR_A_SIGN = re.compile(r"\b(?:signs?|symbols?|operat\w+)\b|[+\u2212-] or ", re.IGNORECASE)
#: Questions that "none" may answer, and those that ask for a number.
_ASKS_FOR_ANY = re.compile(
    r"\b(?:all|any|which|exists?|solutions?|solve|roots?|(?:are|is) there|none|possible)\b"
    r"|\b(?:what|for what)\b.*\b(?:values?|integers|numbers|pairs|primes)\b",
    re.IGNORECASE | re.DOTALL,
)
_ASKS_FOR_A_COUNT = re.compile(r"\bhow (?:many|much)\b|\bthe (?:total )?number of\b", re.IGNORECASE)


def says_nothing(text: str) -> bool:
    """Whether a text is empty or says that there is none: ``nan``, ``N/A``, ``see solution``."""
    if len(text) > _LONGEST_SENTINEL:
        return False
    plain = _plain(text)
    return plain in ("", "none") or _SENTINEL.fullmatch(plain) is not None


def is_no_answer(answer: str, problem: str) -> bool:
    """Whether an answer is no answer to a problem: "None" may be one, to "Find all …"."""
    if len(answer) > _LONGEST_SENTINEL:
        return False
    plain = _plain(answer)
    if plain == "none":
        return bool(_ASKS_FOR_A_COUNT.search(problem)) or not _ASKS_FOR_ANY.search(problem)
    if not plain:
        return not _ASKS_FOR_A_SIGN.search(problem)
    return _SENTINEL.fullmatch(plain) is not None


def _plain(text: str) -> str:
    """Return the words without what they are wrapped in; marks alone are no words."""
    text = text.strip()
    while wrapped := _WRAPPED.fullmatch(text):
        text = next(inside for inside in wrapped.groups() if inside is not None).strip()
    if _MARKS.fullmatch(text):
        return ""
    if text == "Na":  # sodium
        return text
    words = re.sub(r"(?<=[a-z])[_-](?=[a-z])|[~\s]+|\\ ", " ", text.lower())
    return words.strip(" .:;,!\"'`*()[]<>") or words
