r"""Reads what a proposer wrote: the last closed ``<intervention>`` block, byte for byte.

The block looks like JSON and is full of LaTeX, and JSON is a lossy container for LaTeX:
``json.loads`` turns ``\frac`` and ``\times`` into control characters without complaint. So the
content is read from the raw text by the rules of `unescape`, and a control character that remains
is an outcome of its own.

    <intervention>{"content": "Use \\frac12.", "location": 3}</intervention>
    → outcome accepted, location 3, intervention ``Use \\frac12.``
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

from midcourse.records import ProposalOutcome
from midcourse.steps import error_step_from_location

#: A longer block is malformed: no step comes near, and everything below stays cheap.
_MAX_BLOCK_CHARS = 100_000
_QUOTES = "\"'\u201c\u201d\u2018\u2019"

#: LaTeX commands that begin with a letter JSON knows as an escape.
_COMMANDS = frozenset(
    """
    nabla natural ncong ne nearrow neg neq nexists ngeq ni nleq nleqslant nmid noindent nolimits
    nonumber not notin nparallel nprec nrightarrow nsim nsubseteq nsucc nu num nwarrow newline
    tan tanh tau tbinom text textbf textit textrm textsf texttt textstyle textup tfrac therefore
    theta thickapprox thicksim thinspace tilde times to top triangle triangleleft triangleright
    triangleq twoheadrightarrow tag tiny
    backslash bar bbox because begin beta beth between bf bfseries big bigcap bigcup bigg bigl bigm
    bigoplus bigotimes bigr bigsqcup bigvee bigwedge binom blacksquare bm bmod bmatrix boldsymbol
    bot bowtie box boxed boxplus breve bullet bumpeq
    fbox flat floor forall frac frown fallingdotseq
    rangle rbrace rbrack rceil restriction rfloor rgroup rho right rightarrow rightharpoonup
    rightleftharpoons rightsquigarrow rm rmathrm root rule rvert rVert rtimes
    ulcorner underbrace underline underset unlhd uparrow updownarrow uplus upsilon upuparrows
    urcorner
    """.split()  # noqa: SIM905 - a table of words reads better as text
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([A-Za-z]+)|(.)|$)", re.DOTALL)

_OPEN, _CLOSE = "[\"'\u201c\u2018]?", "[\"'\u201d\u2019]?"
_COLON, _VALUE = r"\s{0,20}:\s{0,20}", r"([^,}\n]{0,200})"
_ERROR_KEYS = "error_step|error_location|first_error"
_LOCATION = re.compile(rf"{_OPEN}location{_CLOSE}{_COLON}{_VALUE}", re.IGNORECASE)
_ERROR_STEP = re.compile(rf"{_OPEN}(?:{_ERROR_KEYS}){_CLOSE}{_COLON}{_VALUE}", re.IGNORECASE)
_CONTENT = re.compile(rf"{_OPEN}content{_CLOSE}{_COLON}", re.IGNORECASE)
#: What may follow the end of the content: another key, or the end of the object.
_AFTER_CONTENT = re.compile(
    rf"\s*(?:,\s*{_OPEN}(?:location|{_ERROR_KEYS}){_CLOSE}\s*:|,?\s*\}}|,?\s*$)", re.IGNORECASE
)
_OBJECT = re.compile(
    rf"\{{\s{{0,200}}[{_QUOTES}]?(?:content|location|{_ERROR_KEYS})[{_QUOTES}]?\s{{0,20}}:",
    re.IGNORECASE,
)
_ESCAPED_OR_QUOTE = re.compile(rf"\\.|([{_QUOTES}])", re.DOTALL)
#: The value of another key that a quote may close, such as ``"location": "14"``.
_OPEN_VALUE = re.compile(
    rf"[,{{]\s*[{_QUOTES}]?location[{_QUOTES}]?\s*:\s*[{_QUOTES}]?[^{_QUOTES}]*$", re.IGNORECASE
)
_NUMBER = re.compile(r"-?\d{1,6}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedProposal:
    """What one block says, e.g. outcome ``accepted``, location 3, a sentence."""

    outcome: ProposalOutcome
    detail: str = ""
    """Why, in a few words, where the outcome is not ``accepted``."""
    location: int | None = None
    """1-based substep, as written."""
    intervention: str | None = None
    error_step: int | None = None
    """0-based first error, null if the reply does not say."""
    after_error: bool = False
    """Located after the stated error (list variant only)."""


def parse_proposal(raw: str, num_steps: int) -> ParsedProposal:
    """Read the single variant: one object; its location is the first error."""
    objects = _objects(raw)
    if isinstance(objects, ParsedProposal):
        return objects
    parsed = _parse_object(objects[0], num_steps)
    if parsed.location is None or parsed.outcome is ProposalOutcome.LOCATION_OUT_OF_RANGE:
        return parsed
    return replace(parsed, error_step=error_step_from_location(parsed.location))


def parse_proposals(raw: str, num_steps: int) -> list[ParsedProposal]:
    """Read the list variant (Box 2): one item per entry, at least one item in all.

    Items after the first error that an entry states as ``error_step`` (1-based) are marked.
    """
    objects = _objects(raw)
    if isinstance(objects, ParsedProposal):
        return [objects]
    numbers = (_number_of(_ERROR_STEP, text) for text in objects)
    stated = next((number for number in numbers if number and number > 0), None)
    return [_place(_parse_object(text, num_steps), stated) for text in objects]


def _place(parsed: ParsedProposal, stated: int | None) -> ParsedProposal:
    if stated is None:
        return parsed
    after = parsed.location is not None and parsed.location > stated
    return replace(parsed, error_step=error_step_from_location(stated), after_error=after)


def _number_of(key: re.Pattern[str], text: str) -> int | None:
    match = key.search(text)
    number = _NUMBER.search(match[1]) if match else None
    return int(number[0]) if number else None


def last_block(raw: str, tag: str = "intervention") -> str | None:
    """Return the inside of the last closed tag."""
    opening = f"<{tag}>"
    end = raw.rfind(f"</{tag}>")
    start = raw.rfind(opening, 0, end) if end >= 0 else -1
    return raw[start + len(opening) : end] if start >= 0 else None


def _objects(raw: str) -> list[str] | ParsedProposal:
    """Cut the block at braces that a known key follows; without any, say what the reply is."""
    block = last_block(raw)
    if block is None:
        return ParsedProposal(outcome=ProposalOutcome.NO_TAG, detail="no closed tag")
    found = _OBJECT.finditer(block) if len(block) <= _MAX_BLOCK_CHARS else ()
    if starts := [brace.start() for brace in found]:
        return [block[a:b] for a, b in pairwise([*starts, len(block)])]
    bare = block.replace("```json", "").replace("```", "").strip()
    if bare in ("", "[]", "{}", "null", "none", "None", "N/A"):
        return ParsedProposal(outcome=ProposalOutcome.NO_ERROR_FOUND, detail="an empty block")
    return ParsedProposal(outcome=ProposalOutcome.MALFORMED, detail="no object in the block")


def _parse_object(text: str, num_steps: int) -> ParsedProposal:
    raw_content, rest = _split_content(text)
    location = _number_of(_LOCATION, rest)
    nothing = raw_content is not None and raw_content.strip() in ("", "null")
    if nothing and location in (None, 0):
        return ParsedProposal(outcome=ProposalOutcome.NO_ERROR_FOUND, detail="nothing proposed")
    if raw_content is None or location is None:
        missing = "content" if raw_content is None else "location"
        return ParsedProposal(outcome=ProposalOutcome.MALFORMED, detail=f"no {missing}")
    content = unescape(raw_content)
    parsed = ParsedProposal(
        outcome=ProposalOutcome.ACCEPTED, location=location, intervention=content
    )
    if not content.strip():
        return replace(parsed, outcome=ProposalOutcome.EMPTY, detail="empty content")
    if not 1 <= location <= num_steps:
        detail = f"{location} of {num_steps} substeps"
        return replace(parsed, outcome=ProposalOutcome.LOCATION_OUT_OF_RANGE, detail=detail)
    if match := _CONTROL.search(content):
        detail = f"U+{ord(match[0]):04X} in the content"
        return replace(parsed, outcome=ProposalOutcome.CONTROL_CHARACTER, detail=detail)
    return parsed


def _split_content(text: str) -> tuple[str | None, str]:
    """Return the raw content, up to its last quote that may end it, and the object without it."""
    match = _CONTENT.search(text)
    if match is None:
        return None, text
    start = match.end()
    if start >= len(text) or text[start] not in _QUOTES:
        bare = re.match(r"\s*(null)\b", text[start:])
        return (bare[1] if bare else None), text
    # A location ahead of the content is outside it; one behind must be looked for from the back.
    ends = [found.start() for found in _ESCAPED_OR_QUOTE.finditer(text, start + 1) if found[1]]
    for end in reversed(ends):
        closes_another = _OPEN_VALUE.search(text[max(0, end - 300) : end])
        if _AFTER_CONTENT.match(text, end + 1) and not closes_another:
            return text[start + 1 : end], text[: match.start()] + text[end + 1 :]
    return None, text


def unescape(raw: str) -> str:
    r"""Undo JSON's escapes where they are escapes, and leave LaTeX alone.

    ``\\`` is one backslash and ``\"``, ``\/`` lose theirs. ``\n`` is a newline unless it begins a
    LaTeX command, i.e. the whole run of letters is one (``\neq``, ``\nu``; ``\nThen`` is a
    newline); likewise ``\t``, ``\b``, ``\f``, ``\r``, ``\u``. Every other backslash stays.
    """
    return _ESCAPE.sub(_unescape_one, raw)


def _unescape_one(match: re.Match[str]) -> str:
    code, letters, other = match[1], match[2], match[3]
    if code is not None:
        return chr(int(code, 16)) if not 0xD800 <= int(code, 16) <= 0xDFFF else match[0]
    if letters is not None:
        if letters in _COMMANDS or letters[0] not in _ESCAPES:
            return match[0]
        return _ESCAPES[letters[0]] + letters[1:]
    return other if other in ("\\", '"', "/") else match[0]
