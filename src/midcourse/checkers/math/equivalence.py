r"""Whether an answer equals the gold one: as text or as plain numbers.

The fast path settles what needs no algebra and only that: the same text, or two plain numbers.
It never calls a doubtful pair different. Everything else takes reading its form and algebra
(`midcourse.checkers.math.symbolic`), in a worker process only.

    >>> compare_quickly(gold="0.5", answer=r"\frac{1}{2}")
    <Comparison.EQUAL: 'equal'>
    >>> compare_quickly(gold="0.5", answer=r"\sin\frac{\pi}{6}") is None
    True
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

from midcourse.checkers.base import Comparison
from midcourse.checkers.math.units import NO_UNITS

# --- how an answer looks, and not what it says -------------------------------------------------

_CHARACTERS = {
    **dict.fromkeys([0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F)]),
    **dict.fromkeys([*range(0x2060, 0x206A), 0xFEFF]),
    **dict.fromkeys([*range(0x20), 0x7F, 0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000], " "),
    **dict.fromkeys([0x2010, 0x2011, 0x2012, 0x2013, 0x2212, 0xFF0D], "-"),
    **dict.fromkeys([0xBA, 0x2DA], "°"),
    0x2218: r"\circ ",
    0xFF05: "%",
    0xFF0C: ",",
    0xFF0E: ".",
}
#: Digits of other scripts and of full width.
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")
#: What stands between groups of digits: "1\\,234", "11,\\! 111", "1{\\,}000", thin spaces.
_THIN = r"(?:,?\s?\\!\s?,?(?:\\!)?\s?|\s?\\[,;:]\s?|\{\s?\\[,;:]\s?\}|[\u2009\u202f'’])"
_GROUPED = [
    re.compile(rf"(?<![0-9.,])(?<![0-9] )[1-9][0-9]{{0,2}}(?:{_THIN}[0-9]{{3}})+(?![0-9])"),
    re.compile(rf"(?<=[0-9])\.[0-9]{{3}}(?:{_THIN}[0-9]{{3}})*{_THIN}[0-9]{{1,3}}(?![0-9])"),
]
_NO_DIGIT = re.compile(r"[^0-9.]")
_UPRIGHT = r"\\(?:text(?:rm|it)?|math(?:rm|it|sf)|mbox|operatorname)\s?"
#: What is looked for where a sign stands in a text, and what it becomes.
_REWRITES = [
    (sign, re.compile(pattern), replacement)
    for sign, pattern, replacement in [
        # "\\$" is a currency sign, "$" a delimiter: neither says anything about the value.
        ("$", r"\\?\$", ""),
        # After a second backslash, which breaks a line of a matrix, nothing is a delimiter.
        ("\\", r"\\(?<!\\\\)[()\[\]!]", ""),
        ("%", r"\\%", "%"),
        # Degrees, spelled otherwise.
        ("°}", rf"\^?\s?{_UPRIGHT}\{{\s?°\s?\}}|\^\s?\{{\s?°\s?\}}", "°"),
        ("^", r"\^\s?°", "°"),
        ("\\circ", r"(?<=[0-9}])\s?\\circ(?![A-Za-z])", r"^\\circ"),
        ("{°", rf"({_UPRIGHT}\{{)°\s?(?=[A-Za-z])", r"°\1"),
        ("\\deg", r"(?<=[0-9}])\s?\^?\s?\{?\s?\\deg(?:ree)?s?(?![A-Za-z])\s?\}?", r"^\\circ"),
        ("{o", rf"(?<=[0-9])\s?\^\s?\{{?\s?{_UPRIGHT}\{{o\s?\}}\s?\}}?", r"^\\circ"),
        ("o", r"(?<=[0-9])\s?\^\s?\{?\s?o(?![A-Za-z])\s?\}?", r"^\\circ"),
        ("{E}", rf"(?<=[0-9])\s?{_UPRIGHT}\{{E\}}(?=[+-]?[0-9])", "e"),
        # Upright letters that are no unit: the imaginary unit, Euler's number, variables.
        ("\\", rf"(?<=[A-Za-z^_])\s?{_UPRIGHT}\{{[\s~]*([abeijknopqruvwxyz])\s?\}}", r"{\1}"),
        ("\\", rf"{_UPRIGHT}\{{[\s~]*([abeijknopqruvwxyz]|\\pi)\s?\}}", r"\1"),
        ("{,}", r"\{,\}", ","),
        ("\\", r"\\(?:(?<!\\\\)[,;: ]|q?quad(?![A-Za-z])|displaystyle(?![A-Za-z]))", " "),
        ("~", r"~", " "),
        ("frac", r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (" ", r" +", " "),
    ]
]
#: "1 234 567" is one number; "1 4" is none, though math-verify reads it as 1 + 4.
_SPACED_GROUPS = re.compile(
    r"(?<![0-9.,])(?<![0-9] )[1-9][0-9]{0,2}(?: [0-9]{3})+(?! ?[0-9])"
    r"|(?<=[0-9])\.[0-9]{3}(?: [0-9]{3})+(?! ?[0-9])"
)


_MONEY = re.compile(
    r"\s*\$?\s?(?P<sign>\\\$|€|\\euro(?![A-Za-z])|£|\\pounds(?![A-Za-z])|¥|₹)\s?"
    r"(?P<number>[0-9][0-9,]*(?:\.[0-9]+)?)\s?\$?\s*"
)
_CURRENCIES = {"\\$": "dollars", "£": "sterling", "\\pounds": "sterling", "¥": "yen", "₹": "rupees"}


def plain(answer: str) -> str:
    r"""Return `answer` tidied, and ``\$3.50`` as 3.50 dollars: the sign is a unit."""
    if money := _MONEY.fullmatch(answer):
        return f"{money['number']} {_CURRENCIES.get(money['sign'], 'euros')}"
    return tidy(answer)


@lru_cache(maxsize=4096)
def tidy(answer: str) -> str:
    """Return `answer` without what changes only how it looks; never joins two numbers."""
    text = answer
    if not text.isascii():
        text = _OTHER_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
    if not text.isascii() or "\\" in text or "'" in text:
        for groups in _GROUPED:
            text = groups.sub(lambda number: _NO_DIGIT.sub("", number[0]), text)
    text = text.translate(_CHARACTERS)
    for sign, pattern, replacement in _REWRITES:
        if sign in text:
            text = pattern.sub(replacement, text)
    text = _SPACED_GROUPS.sub(lambda match: match[0].replace(" ", ""), text.strip())
    text = text.removeprefix("**").removesuffix("**").strip()
    text = text.removesuffix(".").rstrip()
    while text.startswith("{") and _closes_at_end(text):
        text = text[1:-1].strip()
    return text


def _closes_at_end(text: str) -> bool:
    depths = accumulate((character == "{") - (character == "}") for character in text)
    return next((index for index, depth in enumerate(depths) if not depth), -1) == len(text) - 1


# --- plain numbers -----------------------------------------------------------------------------

_POWER = r"(?:\{\s?[+-]?[0-9]{1,4}\s?\}|\(\s?[+-]?[0-9]{1,4}\s?\)|[+-]?[0-9]{1,4})"
_NUMBER = re.compile(
    rf"""(?P<sign>[+-]?)\s?
    (?:
        (?:(?P<whole>[0-9]{{1,30}})\s?)? (?:\\frac\s?(?:
            \{{\s?(?P<top>-?[0-9]{{1,100}})\s?\}}\s?\{{\s?(?P<bottom>-?[0-9]{{1,100}})\s?\}}
            | (?P<top1>[0-9])\s?(?P<bottom1>[0-9]) ))
      | (?:(?P<whole2>[0-9]{{1,30}})\s)?
        (?P<top2>[0-9]{{1,100}})\s?/\s?(?P<bottom2>[0-9]{{1,100}})
      | (?P<decimal>(?:[1-9][0-9]{{0,2}}(?:,[0-9]{{3}})+|[0-9]{{1,300}})(?:\.[0-9]{{0,300}})?
          | \.[0-9]{{1,300}})
        (?:[eE](?P<power>[+-]?[0-9]{{1,4}})
          | \s?(?:\\times|\\cdot|[x×·*])\s?10\s?\^\s?(?P<times>{_POWER}))?
      | 10\s?\^\s?(?P<ten>{_POWER})
    )
    (?P<rest>(?:(?:\s?%|\s?\^\s?\\circ|\s?\^\s?\{{\s?\\circ\s?\}}|\s?°
        | \s?\\(?:text|mathrm|textrm|mbox)\s?\{{[A-Za-z .,'-]{{1,60}}\}}
        | \s[A-Za-z][A-Za-z '-]{{2,60}} | \s?(?:cm|mm|km|kg|mg|ml))
        (?:\^\s?(?:[23]|\{{[23]\}}))?)? )""",
    re.VERBOSE,
)
_NO_SIGN_OR_DIGIT = re.compile(r"[^0-9+-]")
_WORDS = re.compile(r"(?<![A-Za-z\\])[A-Za-z]+")
_PERCENT_WORDS = {"percent", "pct", "percentage"}
_SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}


@dataclass(frozen=True, slots=True)
class _Number:
    """A plain number, e.g. ``12.50 %`` is 25/2 with two decimals and `percent`."""

    value: Fraction
    decimals: int | None
    """Digits after the point; None for a fraction and for a power of ten."""
    digits: int
    """Significant digits as written, 0 where `decimals` is None."""
    percent: bool
    unit: str


@lru_cache(maxsize=4096)
def _read_number(text: str) -> _Number | None:
    """Return the plain number that `text`, tidied, stands for; None for anything else."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    value, power = _value(match), match["power"] or match["times"]
    decimal = "" if power else match["decimal"]
    if value is None or NO_UNITS.search(match["rest"]):
        return None
    # The first word of a unit, whether in \text{…} or not.
    word, *more = _WORDS.findall(match["rest"].lower()) or [""]
    percent = "%" in match["rest"] or word in _PERCENT_WORDS
    if percent and more:  # a decrease is not an increase
        return None
    value *= _SCALES.get(word, 1)
    return _Number(
        value=-value if match["sign"] == "-" else value,
        decimals=len(decimal.partition(".")[2]) if decimal else None,
        digits=len(re.sub(r"[.,]", "", decimal).lstrip("0")) if decimal else 0,
        percent=percent,
        unit="" if percent else match["rest"].strip(),
    )


def _value(match: re.Match[str]) -> Fraction | None:
    power = _NO_SIGN_OR_DIGIT.sub("", match["power"] or match["times"] or match["ten"] or "0")
    if match["decimal"] or match["ten"]:
        return Fraction((match["decimal"] or "1").replace(",", "")) * Fraction(10) ** int(power)
    top = int(match["top"] or match["top1"] or match["top2"])
    bottom = int(match["bottom"] or match["bottom1"] or match["bottom2"])
    return int(match["whole"] or match["whole2"] or 0) + Fraction(top, bottom) if bottom else None


def _same_value(gold: _Number, answer: _Number) -> bool:
    if gold.percent == answer.percent:
        return gold.value == answer.value or _rounds_to(gold, answer)
    percent, plain = (gold, answer) if gold.percent else (answer, gold)
    # "50" is a fair way to write 50 %, "0.5" a share: a number below 1 is read as a share.
    named_without_sign = percent.value == plain.value and (abs(plain.value) >= 1)
    return percent.value / 100 == plain.value or named_without_sign


def _rounds_to(one: _Number, other: _Number) -> bool:
    """Whether the decimal with fewer digits is the other one, rounded to six places or more."""
    decimals = [n for n in (one, other) if n.decimals is not None and n.decimals >= 6]
    if not decimals:
        return False
    rounded = min(decimals, key=lambda number: number.decimals or 0)
    exact = other if rounded is one else one
    if rounded.digits < 5 or (exact.decimals is not None and exact not in decimals):
        return False
    return abs(exact.value - rounded.value) * 2 <= Fraction(1, 10 ** (rounded.decimals or 0))


def approximation(text: str) -> tuple[Fraction, Fraction] | None:
    """Return a tidied decimal of six places or more, and how far what it rounds may be off.

    Five significant digits are needed, as for plain numbers: 0.000001 rounds nothing. One cut off
    after the seventh place or later is as good as one that is rounded there.
    """
    number = _read_number(text)
    if number is None or number.decimals is None or number.percent or number.unit:
        return None
    if number.decimals < 6 or number.digits < 5:
        return None
    last_place = Fraction(1, 10**number.decimals)
    return number.value, last_place / 2 if number.decimals == 6 else last_place


# --- the comparison -----------------------------------------------------------------------

_TEXT = re.compile(r"\\(?:text|mathrm|textbf|textrm|mbox)\s?\{\s?([A-Za-z][A-Za-z ]+?)\s?\.?\s?\}")
_PROSE = re.compile(r"[A-Za-z][A-Za-z ]+")


def compare_quickly(*, gold: str, answer: str, by_text: bool = True) -> Comparison | None:
    """Compare where it is plain to see; None where it takes algebra. See `base.Checker`."""
    gold, answer = plain(gold), plain(answer)
    if not gold:
        return Comparison.GOLD_UNPARSEABLE
    if by_text and _as_text(gold) == _as_text(answer):
        return Comparison.EQUAL
    ours, theirs = _read_number(gold), _read_number(answer)
    if ours is None or theirs is None or (ours.unit and theirs.unit and ours.unit != theirs.unit):
        return None
    return Comparison.EQUAL if _same_value(ours, theirs) else Comparison.DIFFERENT


def _as_text(answer: str) -> str:
    r"""Words are compared without case and ``\text``; anything else as it stands."""
    wrapped = _TEXT.fullmatch(answer)
    prose = wrapped[1] if wrapped else answer
    return prose.casefold() if _PROSE.fullmatch(prose) else answer
