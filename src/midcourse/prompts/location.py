"""Reads which substep a model names: ``14``, ``Step 2, Substep 14``, ``the third step``.

What the text leaves open is not guessed: ``3.7`` and ``after Substep 4`` name none.
"""

from __future__ import annotations

import re

_CARDINALS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINAL_TENS = _TENS.replace("ty", "tieth")
_UNITS = {word: n for words in (_CARDINALS, _ORDINALS) for n, word in enumerate(words.split(), 1)}
_DECADES = {
    word: 10 * n for words in (_TENS, _ORDINAL_TENS) for n, word in enumerate(words.split(), 2)
}
_IN_WORDS = re.compile(
    rf"\b(?:(?P<tens>{'|'.join(_DECADES)})(?:[- ](?P<more>{'|'.join(_UNITS)}))?"
    rf"|(?P<units>{'|'.join(_UNITS)}))\b"
)

#: A whole number: no part of a decimal, and no other sign than its own.
_NUMBER = r"(?<![\d.])(\d{1,6})(?!\d|\.\d|e\d)"
_LEADING = re.compile(rf"[\s\"'(\[#]*(-?{_NUMBER})(?:st|nd|rd|th)?\s*(?:[^\w\s]|$)")
_DECIMAL = re.compile(r"\d\.\d")
#: With these the number that is written is not the one that is meant.
_RELATIVE = re.compile(r"\b(?:after|between|last|past)\b")
_ANY_NUMBER = re.compile(rf"(?<!-)(?<!\de){_NUMBER}")
_RANGE = re.compile(r"\W*[a-z]?\d+\s*(?:[-\u2013\u2014]|(?:to|of|and|or|through)\b)")
_LAST = re.compile(
    r"\W*(?:the )?(?:(?P<before>(?:2(?:nd)?|next)[- ]to[- ](?:the[- ])?last|penultimate)"
    r"|(?:very )?(?:last|final)) (?:sub[- ]?)?step\W*"
)
#: A number that belongs to a word: behind it, or as an ordinal in front of it.
_SUBSTEP, _STEP = (
    (
        re.compile(
            rf"(?<!after )(?<!after the )(?<!between )\b{word}s?[\W_]{{0,3}}"
            rf"(?:(?:no|number|nr|is|index|id)\b\W{{0,3}})?(?<![\s(]-){_NUMBER}"
        ),
        re.compile(rf"(?<!after )(?<!after the ){_NUMBER}(?:st|nd|rd|th)?\s+{word}\b"),
    )
    for word in ("sub[- ]?step", r"(?<!sub)(?<!sub[- ])step")
)


def read_location(text: str, num_steps: int) -> int | None:
    """Return the 1-based substep that `text` names, in or out of range; None if it names none."""
    text = _IN_WORDS.sub(_in_digits, text[:200].lower())
    text = re.sub(r"(\d)\.0+(?![\d.])", r"\1", text)
    if last := _LAST.fullmatch(text):
        return num_steps - bool(last["before"])
    leading = _LEADING.match(text)
    first = int(leading[1]) if leading else None
    if substep := _SUBSTEP[0].search(text) or _SUBSTEP[1].search(text):
        return int(substep[1]) if first in (None, int(substep[1])) else None
    if first is not None:
        return first
    step = _STEP[0].search(text) or _STEP[1].search(text)
    return int(step[1]) if step else _only_number(text)


def _in_digits(words: re.Match[str]) -> str:
    tens, units = _DECADES.get(words["tens"], 0), words["more"] or words["units"]
    return str(tens + _UNITS.get(units, 0))


def _only_number(text: str) -> int | None:
    """Return the number of a text that holds one, or a range or a count of a total."""
    if _DECIMAL.search(text) or _RELATIVE.search(text):
        return None
    numbers = _ANY_NUMBER.findall(text)
    is_settled = len(set(numbers)) == 1 or (numbers and _RANGE.match(text))
    return int(numbers[0]) if is_settled else None
