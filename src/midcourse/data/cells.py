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


def value_at(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column, ``answer.final`` also of an object in ``answer``; else None."""
    if name in row:
        return row[name]
    outer, _, inner = name.partition(".")
    return value_at(as_object(row.get(outer)), inner) if inner else None


def unwrapped(value: Any) -> Any:
    """Return the member of a list of one, also of ``'["2"]'`` as text; else the value itself."""
    read = _json(value) if isinstance(value, str) and value.lstrip().startswith('["') else value
    if isinstance(read, list) and len(read) == 1 and isinstance(read[0], str):
        return read[0]
    return value


def asked_in(value: Any) -> Any:
    """Return what the user says last in a conversation, also in one as JSON text."""
    is_json = isinstance(value, str) and re.match(r"\s*\[\s*\{", value)
    messages = _json(value) if is_json else value
    if not isinstance(messages, list) or not all(isinstance(said, dict) for said in messages):
        return value
    said = [_content(said) for said in messages if _speaker(said) in ("user", "human")]
    return said[-1] if said else value


def _speaker(message: Mapping[str, Any]) -> str:
    return str(message.get("role", message.get("from"))).lower()


def _content(message: Mapping[str, Any]) -> Any:
    content = message.get("content", message.get("value"))
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
_SUBJECT = "(?:(?:final |correct )?answer|solution|value|result|proof|ground truth|reference|label)"
_GIVEN = (
    "(?:found|available|provided|given|applicable|known|specified|stated|extracted|supplied"
    "|answered|solved|extractable)"
)
_STATE = (
    r"(?:unknown|omitted|missing|unspecified|unavailable|unanswered|unsolved|pending|blank|t\.?b\.?[ad]"
    rf"|n ?[/.] ?a|(?:not|none) ?(?:yet )?{_GIVEN}"
    r"|to be (?:determined|announced|added|done|filled(?: in)?))"
)
_WHERE = (
    rf"(?:above|below|{_SUBJECT}s?|explanations?|text|figures?|diagrams?|images?|graphs?|attach\w*"
    r"|answer key|details|appendix|comments?|link)"
)
#: What stands in the place of a value that a data set does not have.
_SENTINEL = re.compile(
    r"[-+]?nan|null?|nil|na|nat|\\n|unk|todo|fixme|idk|skip(?:ped)?|error|no data"
    r"|not a number|empty string|open[- ]ended|placeholder|not sure"
    r"|#(?:n/a|ref|value|name\??|null|div/0)"
    rf"|(?:(?:the )?{_SUBJECT}(?: is| was)? )?{_STATE}(?: {_SUBJECT})?"
    r"(?: (?:yet|here|in|for|from|by|due to)\b.*)?"
    rf"|(?:no|without|null) ?(?:[a-z]+ )?(?:answer|ground truth|reference|label)s?"
    rf"(?: (?:{_GIVEN}|needed|required))?"
    rf"|no (?:[a-z]+ )?(?:solution|value)s? {_GIVEN.replace('found|', '')}"
    rf"|(?:please )?(?:see|refer to|check|given|shown)(?: in)?(?: the)? {_WHERE}.*"
    r"|(?:same )?as (?:above|below|shown.*)|answers? (?:(?:may|will|can) )?var(?:y|ies)"
    rf"|(?:(?:your|the|insert) )*{_SUBJECT}(?: here)?"
    r"|(?:i )?(?:do not|don'?t) know|"
    r"(?:(?:unable|failed) to|could ?n[o']t|can ?not|can't) (?:answer|solve|extract|parse)"
    r"(?: (?:the |an? )?answer)?|(?:unable|failed) to find"
    r"|(?:extraction|parsing|parse)(?: error| failed| failure)"
    r"|(?:to |it is |(?:hence|thus|therefore),? )?(?:prove|proved|proven)"
    r"|(?:证明|过程)?(?:从?略|见(?:解析|解答|证明))|无(?:答案)?|暂无(?:答案)?"
    r"|(?:a )?proof(?: (?:question|problem|based|required|by .*))?"
    r"|(?:the )?(?:proof|statement|claim)(?: is)? (?:complete|completed|proved|proven|shown)"
    r"|q\.? ?e\.? ?d|left (?:as an exercise|to (?:the )?reader).*"
)
_CLAUSES = re.compile(r"\s*[:;()]+\s*|\s[-\u2013\u2014]\s")
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
        return not text.strip()
    return _say_nothing(_parts(text))


def is_no_answer(answer: str, problem: str) -> bool:
    """Whether an answer is no answer to a problem: "None" may be one, to "Find all …"."""
    if len(answer) > _LONGEST_SENTINEL:
        return False
    parts = _parts(answer)
    if parts == ["none"]:
        return bool(_ASKS_FOR_A_COUNT.search(problem)) or not _ASKS_FOR_ANY.search(problem)
    if parts == [""]:
        return not _ASKS_FOR_A_SIGN.search(problem)
    return _say_nothing(parts)


def _say_nothing(parts: list[str]) -> bool:
    return all(part in ("", "none") or _SENTINEL.fullmatch(part) for part in parts)


def _parts(text: str) -> list[str]:
    """Return the clauses of a text, e.g. "n/a" and "proof" of ``N/A (proof)``; or it as a whole."""
    plain = _plain(text)
    if _SENTINEL.fullmatch(plain):
        return [plain]
    return [part for part in _CLAUSES.split(plain) if part] or [plain]


def _plain(text: str) -> str:
    """Return the words without what they are wrapped in; marks alone are no words."""
    text = text.strip("\u200b\ufeff \t\r\n\xa0")
    while wrapped := _WRAPPED.fullmatch(text):
        text = next(inside for inside in wrapped.groups() if inside is not None).strip()
    if _MARKS.fullmatch(text):
        return ""
    if text == "Na":  # sodium
        return text
    words = re.sub(r"(?<=[a-z])[_-](?=[a-z])|[~\s]+|\\ ", " ", text.lower())
    return words.strip(" .:;,!\"'`*()[]<>") or words
