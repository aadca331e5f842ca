r"""Reads what a proposer wrote: the last closed ``<intervention>`` block, byte for byte.

The block looks like JSON and is full of LaTeX, and JSON is a lossy container for LaTeX:
``json.loads`` turns ``\frac`` and ``\times`` into control characters without complaint. So the
block is cut into members by its quotes, keys and braces, the content is read by the rules of
`midcourse.prompts.latex`, and a control character that remains is an outcome of its own.

    <intervention>{"content": "Use \\frac12.", "location": 3}</intervention>
    → outcome accepted, location 3, intervention ``Use \\frac12.``
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from midcourse.prompts.latex import is_command, unescape, unescape_code
from midcourse.prompts.location import read_location
from midcourse.records import ProposalOutcome
from midcourse.steps import error_step_from_location

#: A longer block is malformed: no step comes near, and everything below stays cheap.
_MAX_BLOCK_CHARS = 100_000

_QUOTES = "\"'\u201c\u201d\u2018\u2019"
#: What may close a quote, or a backslash and what it escapes: typography often changes one of two.
_CLOSERS = {
    quote: re.compile(rf"\\.|([{closers}])", re.DOTALL)
    for quote, closers in (
        ('"', '"\u201d'),
        ("\u201c", '\u201d"\u201c'),
        ("\u201d", '\u201d"'),
        ("'", "'\u2019"),
        ("\u2018", "\u2019'"),
        ("\u2019", "\u2019'"),
    )
}
_ERROR_KEYS = ("error_step", "error_location", "first_error")
_OURS = rf"[{_QUOTES}]?(?:content|location|{'|'.join(_ERROR_KEYS)})[{_QUOTES}]?"
_QUOTED = "|".join(
    rf"[{pair}][^{pair}\\{{}}\[\]:\n]{{1,60}}[{pair}]"
    for pair in ('"', "'", "\u201c\u201d", "\u2018\u2019")
)
#: Prose holds colons too: a key that is not ours has a value of JSON, or a bare word.
_JSON = rf"(?=\s{{0,20}}(?:[{_QUOTES}\[{{]|-?\d|[a-z_]{{1,40}}\s{{0,20}}[,}}]))"
_KEY = rf"(?:{_OURS}\s{{0,20}}:|(?:{_QUOTED}|[a-z_]\w{{0,40}})\s{{0,20}}:{_JSON})"
_MEMBER = re.compile(rf"(?<![\w\\]){_KEY}", re.IGNORECASE)
_NEXT_MEMBER = rf"\s{{0,50}}(?:,\s{{0,50}}{_KEY}|\n\s{{0,50}}(?:{_OURS}|{_QUOTED})\s{{0,20}}:)"
#: What follows the last quote of a value: another member, or the end of the block.
_AFTER_VALUE = re.compile(rf"{_NEXT_MEMBER}|[\s,]*[\s}}\]]*(?:```\s*)?\Z", re.IGNORECASE)
_AFTER_OBJECT = re.compile(r"[\s,]*\}")
#: The value of another member that a quote may close, such as ``, "why": "a sign``.
_OPEN_MEMBER = re.compile(
    rf"[,{{]\s*(?:{_QUOTED}|{_OURS})\s*:\s*[{_QUOTES}]?[^{_QUOTES}]*\Z", re.IGNORECASE
)
_BARE = re.compile(rf"(?:(?!{_NEXT_MEMBER})[^}}\n])*", re.IGNORECASE)
_BLANK = re.compile(r"\s*")
_ENTRIES = re.compile(r"\[\s*\{")

_ERROR = r"(?:errors?|mistakes?|issues?|interventions?|corrections?|changes?)"
_FOUND = r"(?:found|needed|required|necessary|detected|present|identified|proposed)"
#: The ways to say that there is nothing to say.
_NOTHING = re.compile(
    r"null|nil|nan|n ?[/.] ?a|na|not applicable|empty|no|[-\u2013\u2014]+"
    rf"|(?:none|nothing)(?: {_FOUND})?"
    rf"|(?:there (?:is|are|was|were) )?no(?: [a-z]+)? {_ERROR}(?: (?:is|are|was|were))?"
    rf"(?: {_FOUND})?(?: in (?:the|this) [a-z' ]{{1,40}})?"
    r"|(?:the (?:attempt|solution)|everything|(?:each|every) (?:sub-?)?step) is (?:correct|right)"
    r"|all(?: of)?(?: the)? (?:sub-?)?steps are (?:correct|right)|not (?:needed|required|necessary)"
    r"|\[\]|keine? fehler(?: gefunden)?|aucune erreur|(?:no hay|sin) errores|nessun errore"
    r"|нет ошибок|ошибок нет|无|(?:无|没有|未发现|没有发现)错误"
)
_LONGEST_NOTHING = 200
_CLAUSE_ENDS = re.compile(r"\s*[.;,:()!]+\s*|\s[-\u2013\u2014]\s")
_JOINED = re.compile(r"(?<=[a-z])_(?=[a-z])")
_NO_ENTRY = re.compile(r"[\[{]\s*(?:null|[\[{]\s*[\]}])?\s*[\]}]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
#: A tab where a reader of JSON has been at ``\times`` before us.
_AFTER_TAB = re.compile(r"\t([A-Za-z]+)")


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


@dataclass(frozen=True, slots=True)
class _Value:
    """A member's value as written, and the quote that it began with, if any."""

    text: str
    quote: str = ""

    @property
    def is_nothing(self) -> bool:
        """Whether it says that there is nothing to say, e.g. ``null`` or ``No errors found.``."""
        if len(self.text) > _LONGEST_NOTHING:
            return not self.text.strip()
        plain = " ".join(_JOINED.sub(" ", self.text.lower()).split())
        if not plain or _NOTHING.fullmatch(plain.rstrip(".")):
            return True
        parts = [part for part in _CLAUSE_ENDS.split(plain) if part]
        return bool(parts) and all(map(_NOTHING.fullmatch, parts))


_Members = dict[str, _Value]


def parse_proposal(raw: str, num_steps: int, *, is_code: bool = False) -> ParsedProposal:
    """Read the single variant: one object; its location is the first error.

    With `is_code` a content's backslashes are JSON's and the program's own, never LaTeX's.
    """
    objects = _objects(raw)
    if isinstance(objects, ParsedProposal):
        return objects
    parsed = _parse_object(_entries(objects)[0], num_steps, is_code)
    if parsed.location is None or parsed.outcome is ProposalOutcome.LOCATION_OUT_OF_RANGE:
        return parsed
    return replace(parsed, error_step=error_step_from_location(parsed.location))


def parse_proposals(raw: str, num_steps: int, *, is_code: bool = False) -> list[ParsedProposal]:
    """Read the list variant (Box 2): one item per entry, at least one item in all.

    Items after the first error that an entry states as ``error_step`` (1-based) are marked.
    """
    objects = _objects(raw)
    if isinstance(objects, ParsedProposal):
        return [objects]
    texts = (members[key].text for members in objects for key in _ERROR_KEYS if key in members)
    numbers = (read_location(text, num_steps) for text in texts)
    stated = next((number for number in numbers if number and number > 0), None)
    parsed = (_parse_object(entry, num_steps, is_code) for entry in _entries(objects))
    return [_place(one, stated) for one in parsed]


def _place(parsed: ParsedProposal, stated: int | None) -> ParsedProposal:
    if stated is None:
        return parsed
    after = parsed.location is not None and parsed.location > stated
    return replace(parsed, error_step=error_step_from_location(stated), after_error=after)


def last_block(raw: str, tag: str = "intervention") -> str | None:
    """Return the inside of the last closed tag.

    One in quotes or backticks is spoken of, not given, unless all are.
    """
    marks = re.finditer(rf"<\s{{0,9}}(/?)\s{{0,9}}{tag}(?:\s[^<>]{{0,200}})?>", raw, re.IGNORECASE)
    given = spoken_of = opening = None
    for mark in marks:
        if not mark[1]:
            opening = mark
        elif opening is not None:
            start, end = opening.start(), mark.end()
            around = (raw[max(0, start - 1) : start], raw[end : end + 1])
            inside = raw[opening.end() : mark.start()]
            if all(side and side in f"`{_QUOTES}" for side in around):
                spoken_of = inside
            else:
                given = inside
            opening = None
    return given if given is not None else spoken_of


def _objects(raw: str) -> list[_Members] | ParsedProposal:
    """Return the objects of the block; without any, what the reply is."""
    block = last_block(raw)
    if block is None:
        return ParsedProposal(outcome=ProposalOutcome.NO_TAG, detail="no closed tag")
    if len(block) <= _MAX_BLOCK_CHARS and (objects := _read_objects(block)):
        return objects
    bare = block.replace("```json", "").replace("```", "").strip()
    said = _Value(bare.strip(_QUOTES) or bare)
    if _NO_ENTRY.fullmatch(bare) or said.is_nothing:
        return ParsedProposal(outcome=ProposalOutcome.NO_ERROR_FOUND, detail="an empty block")
    return ParsedProposal(outcome=ProposalOutcome.MALFORMED, detail="no object in the block")


def _read_objects(block: str) -> list[_Members]:
    """Return the objects in the order in which they open, as far as their quotes close."""
    objects: list[_Members] = []
    opened: list[_Members] = []
    position = 0
    while position < len(block):
        key = _MEMBER.match(block, position) if opened else None
        if key is not None:
            value, position = _read_value(block, key.end())
            if value is not None:
                opened[-1].setdefault(_name(key[0]), value)
            continue
        if block[position] == "{":
            members: _Members = {}
            opened.append(members)
            objects.append(members)
        elif block[position] == "}" and opened:
            opened.pop()
        position += 1
    return [members for members in objects if members]


def _name(key: str) -> str:
    return key.rstrip(": \n\t").strip(_QUOTES).strip().lower()


def _read_value(block: str, start: int) -> tuple[_Value | None, int]:
    """Return the value after a colon, and where to go on; None where objects follow."""
    blank = _BLANK.match(block, start)
    start = blank.end() if blank else start
    quote = block[start : start + 1]
    if quote == "{" or _ENTRIES.match(block, start):
        return None, start
    if quote in _CLOSERS:
        end = _closing(block, start)
        if end is None:
            return _Value(block[start:]), len(block)
        return _Value(block[start + 1 : end], quote), end + 1
    bare = _BARE.match(block, start)
    end = bare.end() if bare else start
    return _Value(block[start:end].strip()), end


def _closing(block: str, start: int) -> int | None:
    """Return where the quote at `start` is closed; None if nowhere.

    Quotes inside a text are often not escaped, so that is the first one that another member or an
    end follows. If it closes the value of another member, our own is not closed.
    """
    for found in _CLOSERS[block[start]].finditer(block, start + 1):
        end = found.start()
        if found[1] is None:
            continue
        is_object = _AFTER_OBJECT.match(block, end + 1) and _is_balanced(block[start:end])
        if is_object or _AFTER_VALUE.match(block, end + 1):
            is_other = _OPEN_MEMBER.search(block[max(start + 1, end - 300) : end])
            return None if is_other else end
    return None


def _is_balanced(text: str) -> bool:
    r"""Whether a brace that follows is not the text's own; ``\{`` is a character of LaTeX."""
    plain = text.replace("\\{", "").replace("\\}", "")
    return plain.count("{") <= plain.count("}")


def _entries(objects: list[_Members]) -> list[_Members]:
    """Return the objects that propose something; the others wrap or explain them."""
    proposing = [members for members in objects if members.keys() & {"content", "location"}]
    return proposing or objects[:1]


def _parse_object(members: _Members, num_steps: int, is_code: bool) -> ParsedProposal:
    content, place = members.get("content"), members.get("location")
    location = read_location(place.text, num_steps) if place else None
    said = members.values() if content is None else [content]
    is_nothing = all(value.is_nothing for value in said)
    if is_nothing and (location is None or location < 1):
        return ParsedProposal(outcome=ProposalOutcome.NO_ERROR_FOUND, detail="nothing proposed")
    if content is None or not (content.quote or (content.text and is_nothing)):
        return ParsedProposal(outcome=ProposalOutcome.MALFORMED, detail="no content")
    if location is None:
        return ParsedProposal(outcome=ProposalOutcome.MALFORMED, detail="no location")
    read = unescape_code if is_code else unescape
    text = "" if is_nothing else read(content.text, content.quote)
    outcome, detail = _judge(text, location, num_steps, is_code)
    return ParsedProposal(outcome=outcome, detail=detail, location=location, intervention=text)


def _judge(text: str, location: int, num_steps: int, is_code: bool) -> tuple[ProposalOutcome, str]:
    """Return the outcome of a content at a location, and why it is not accepted."""
    if not text.strip():
        return ProposalOutcome.EMPTY, "empty content"
    if not 1 <= location <= num_steps:
        return ProposalOutcome.LOCATION_OUT_OF_RANGE, f"{location} of {num_steps} substeps"
    if found := _CONTROL.search(text):
        return ProposalOutcome.CONTROL_CHARACTER, f"U+{ord(found[0]):04X} in the content"
    if is_code:
        return ProposalOutcome.ACCEPTED, ""
    if broken := next((w for w in _AFTER_TAB.findall(text) if is_command(f"t{w}")), ""):
        return ProposalOutcome.CONTROL_CHARACTER, f"a tab in place of \\t in \\t{broken}"
    return ProposalOutcome.ACCEPTED, ""
