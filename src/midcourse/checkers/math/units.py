r"""Units after a value: which they are, and whether two of them measure the same thing.

Two units that `pint` knows are converted (2 hours are 120 minutes; 5 cm are not 5 m). A unit that
only one side gives says nothing about the value and is passed over: golds often lack the unit, and
"5 apples" is a fair way to write 5. Where both sides say something after the value, one must say
what the other says: 7 AM is not 7 PM, 5 km north not 5 km south.

    >>> split_unit(r"12\sqrt{3}\text{ cm}^2")
    ('12\\sqrt{3}', 'cm^2')
    >>> restate("2", "hours", "minutes"), restate("2", "hours", "meters")
    ('(2)\\cdot\\frac{60}{1}', None)
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

#: Words that make "5 …" something else than five of a thing.
NO_UNITS = re.compile(
    r"\b(?:and|or|not|than|more|less|fewer|over|times|plus|minus|mod|if|for|when|where|with|except"
    r"|about|almost|approx|approximately|around|nearly|roughly|half|thirds?|quarters?|factorial"
    r"|infinity|pi|sqrt|sin|cos|tan|cot|sec|csc|log|exp|lim|max|gcd|lcm)\b",
    re.IGNORECASE,
)
#: Words after a value that say more than what it is counted in.
_SAYS_MORE = re.compile(
    r"\b(?:at|is|are|odd|even|prime|choose|integers?|numbers?|percent|pct|percentage"
    r"|hundred|thousand|million|billion|trillion|dozen)\b",
    re.IGNORECASE,
)
_TEXT = r"\\(?:text|mathrm|textrm|mbox|operatorname)\s?\{"
# Letters, and what else a unit in text may hold, as what they are not: to compile a range of all
# of Unicode takes milliseconds.
_ANY_LETTER = r"[^\x00-@\[-`{-\xa9]"
_IN_UNIT = r"[^\x00-\x1f!-&(-+:-@\[-\]_`{-}\x7f-\xa9]"
_WRAPPED = rf"{_TEXT}{_IN_UNIT}*{_ANY_LETTER}(?:\^-?[0-9])?\.?[ ~]?\}}"
_POWER = r"(?:\s?\^\s?(?:-?[0-9]|\{\s?-?[0-9]\s?\}))?"
_UNIT = re.compile(
    rf"(?<=\S)(?:[\s~]*(?P<wrapped>{_WRAPPED}{_POWER}(?:\s?(?:/|\\cdot)?\s?{_WRAPPED}{_POWER})*)"
    rf"|[\s~]+(?P<plain>[A-Za-z][A-Za-z.'-]+(?:[ /][A-Za-z.'-]+){{0,3}}{_POWER}))\Z"
)
#: A fraction of two units.
UNIT_FRACTION = rf"\\frac\s?\{{\s?({_WRAPPED}{_POWER})\s?\}}\s?\{{\s?({_WRAPPED}{_POWER})\s?\}}"
_COMMAND = re.compile(r"\\[A-Za-z]+")
_LETTER = re.compile(_ANY_LETTER)
_MACRO = re.compile(r"\\[A-Za-z]+\s?\{|[{}~]|\\")

#: Degrees, at the end of a value.
DEGREES = re.compile(r"\s?\^\s?\{?\s?\\circ\s?\}?\Z")
_SQUARED = [(re.compile(r" squared\b"), "^2"), (re.compile(r" cubed\b"), "^3")]
_NAME = r"([A-Za-z]+)\.?,?"
_AROUND_WORDS = re.compile(rf"{_TEXT}|[}}~]")
_TWO_UNITS = re.compile(rf"([0-9]+) ?{_NAME} ([0-9]+(?:\.[0-9]+)?) ?{_NAME}")
#: What pint lacks or has under another name: how many of which unit.
_MORE_UNITS = {
    "acre": (43560, "ft^2"),
    "au": (1, "astronomical_unit"),
    "buck": (100, "cent"),
    "cc": (1, "cm^3"),
    "decade": (10, "year"),
    "dime": (10, "cent"),
    "dollar": (100, "cent"),
    "eur": (1, "euro"),
    "gbp": (1, "sterling"),
    "inr": (1, "rupee"),
    "kmh": (1, "km/hour"),
    "kmph": (1, "km/hour"),
    "mpg": (1, "mile/gallon"),
    "mph": (1, "mile/hour"),
    "nickel": (5, "cent"),
    "pennie": (1, "cent"),
    "penny": (1, "cent"),
    "usd": (100, "cent"),
}
#: Of no fixed size in anything else. A cent is one of a dollar.
_CURRENCIES = frozenset(
    ["cent", "euro", "franc", "peso", "ruble", "rupee", "sterling", "yen", "yuan"]
)
#: Degrees above absolute zero: a value times the first plus the second.
_TEMPERATURES = {
    "celsius": (Fraction(1), Fraction("273.15")),
    "fahrenheit": (Fraction(5, 9), Fraction("459.67") * Fraction(5, 9)),
    "kelvin": (Fraction(1), Fraction(0)),
    "K": (Fraction(1), Fraction(0)),
}
_SCALE = re.compile(r"(?:deg(?:ree)?s?\.? ?)?(?:(c)(?:elsius)?|(f)(?:ahrenheit)?)", re.IGNORECASE)
#: Words that pint takes for a unit: attometre, petametre, micronit.
_NO_NAMES = frozenset(["am", "pm", "as", "at", "ad", "pt", "pts", "unit", "units"])
_TWO_WORDS = re.compile(
    r"\b(light|metric|fluid|troy|short|long|nautical|astronomical) (?=(?:year|ton|ounce|mile|unit))"
)
_FLUID = re.compile(r"\bfl\.? ?oz\b", re.IGNORECASE)
_HYPHEN = re.compile(r"(?<=[A-Za-z])-(?=[A-Za-z])")
_UNITS = re.compile(r"\bunits?\b", re.IGNORECASE)
_WITH_POWER = re.compile(r"([^^]+?)\.?(?:\^(-?[0-9]))?")
_SPOKEN_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_SILENT = frozenset(["a", "an", "the", "of", "in", "to"])


@dataclass(frozen=True, slots=True)
class _Measure:
    """What a unit measures, and how large it is: a kilometre is 1000 metres."""

    powers: dict[str, Fraction]
    size: Fraction
    zero: Fraction = Fraction(0)
    """The value of 0 on a scale of temperature, in kelvin."""


def split_unit(text: str) -> tuple[str, str]:
    """Return the value and its unit; the unit is empty where there is none.

    Only a value without variables has a unit: the last word of ``n odd`` is none.
    """
    if (two := _TWO_UNITS.fullmatch(" ".join(_AROUND_WORDS.sub(" ", text).split()))) and (
        total := _in_smaller_unit(*two.groups())
    ):
        return total
    found = _UNIT.search(text)
    if found is None:
        return text, ""
    value = text[: found.start()].rstrip(" ~")
    unit = _MACRO.sub(" ", (found["wrapped"] or found["plain"]).replace("\\cdot", "*"))
    for spoken, power in _SQUARED:
        unit = spoken.sub(power, unit)
    says_more = NO_UNITS.search(unit) or _SAYS_MORE.search(unit)
    if says_more or _LETTER.search(_COMMAND.sub("", value)) or not value:
        return text, ""
    return _with_degrees(value, re.sub(r"\s*([/^*])\s*", r"\1", " ".join(unit.split())))


def _in_smaller_unit(large: str, unit: str, small: str, other: str) -> tuple[str, str] | None:
    """Return 3 hours 30 minutes in minutes; None if the second unit is not the smaller one."""
    ours, theirs = _measure(unit), _measure(other)
    if not ours or not theirs or ours.powers != theirs.powers or ours.size <= theirs.size:
        return None
    return _latex(int(large) * ours.size / theirs.size + Fraction(small)), other


def _with_degrees(value: str, unit: str) -> tuple[str, str]:
    """Tell degrees of an angle, which belong to the value, from those of a temperature."""
    if scale := _SCALE.fullmatch(unit):
        number = DEGREES.sub("", value)
        if number != value or len(unit) > 1:
            return number, "celsius" if scale[1] else "fahrenheit"
    if unit.lower().rstrip(".") in {"degree", "degrees", "deg"} and not DEGREES.search(value):
        return rf"{value}^\circ", ""
    return value, unit


def restate(value: str, unit: str, other: str) -> str | None:
    """Return a value in another unit; None if the two units, or words, contradict each other."""
    if unit == other:
        return value
    ours, theirs = _measure(unit), _measure(other)
    if ours is None or theirs is None:
        return value if _says_the_same(unit, other) else None
    if ours.powers != theirs.powers:
        return None
    factor, more = ours.size / theirs.size, (ours.zero - theirs.zero) / theirs.size
    if more:
        value = rf"({value})\cdot{_latex(factor)}+{_latex(more)}"
    elif factor != 1:
        value = rf"({value})\cdot{_latex(factor)}"
    return value


def is_no_angle(unit: str) -> bool:
    """Whether a unit is known and cannot stand for degrees: 90 gradians, 5 cm."""
    measure = _measure(unit) if unit else None
    return measure is not None and "temperature" not in measure.powers


def _latex(number: Fraction) -> str:
    return rf"\frac{{{number.numerator}}}{{{number.denominator}}}"


def _says_the_same(unit: str, other: str) -> bool:
    """Whether one says what the other says, or less: "red apples" are apples.

    "Units" are of any length: 3 square units may be square centimetres, and not centimetres.
    """
    if _UNITS.search(unit) or _UNITS.search(other):
        length, another = _measure(_UNITS.sub("m", unit)), _measure(_UNITS.sub("m", other))
        if length and another and {*length.powers, *another.powers} == {"meter"}:
            return length.powers == another.powers
    ours, theirs = _words(_UNITS.sub("", unit)), _words(_UNITS.sub("", other))
    return ours <= theirs or theirs <= ours


def _words(unit: str) -> set[str]:
    words = re.split(r"[\s/*]+", unit.lower().replace(".", ""))
    said = {word.removesuffix("s") if len(word) > 3 else word for word in words if word}
    return said - _SILENT


# --- sizes -------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _measure(unit: str) -> _Measure | None:
    """Return what a unit measures; None for what is not known as one."""
    powers, size = defaultdict[str, Fraction](Fraction), Fraction(1)
    if scale := _TEMPERATURES.get(unit) or _TEMPERATURES.get(unit.lower().removesuffix("s")):
        return _Measure({"temperature": Fraction(1)}, *scale)
    unit = _TWO_WORDS.sub(r"\1_", _FLUID.sub("fluid_ounce", _HYPHEN.sub(" ", unit)))
    for position, group in enumerate(re.split(r"/|\bper\b", unit)):
        spoken = 1
        for word in re.split(r"[\s*]+", group.strip(" .")):
            if power := _SPOKEN_POWERS.get(word.lower().rstrip(".")):
                spoken = power
                continue
            found = _WITH_POWER.fullmatch(word)
            known = _named(found[1]) if found else None
            if found is None or known is None:
                return None
            exponent = int(found[2] or 1) * spoken * (-1 if position else 1)
            for base, times in known.powers.items():
                powers[base] += times * exponent
            size *= known.size**exponent
    return _Measure({base: power for base, power in powers.items() if power}, size)


def _named(name: str) -> _Measure | None:
    """Return what a single name measures: as it is written, then without case, then of one."""
    lower = name.lower()
    if lower in _NO_NAMES:
        return None
    singular = lower.removesuffix("s") if len(lower) > 2 else lower
    if singular in _CURRENCIES:
        return _Measure({singular: Fraction(1)}, Fraction(1))
    if singular in _MORE_UNITS:
        count, of = _MORE_UNITS[singular]
        measure = _measure(of)
        return measure and _Measure(measure.powers, measure.size * count)
    return next((known for each in (name, lower, singular) if (known := _in_pint(each))), None)


def _in_pint(name: str) -> _Measure | None:
    from pint import UndefinedUnitError

    registry = _registry()
    try:
        unit = registry.get_name(name)
    except UndefinedUnitError:
        return None
    if not unit:
        return None
    size, base = registry.get_root_units(registry.UnitsContainer({unit: 1}))
    powers = {key: Fraction(power) for key, power in base._units.items()}
    return _Measure(powers, Fraction(size))


@cache
def _registry() -> Any:
    """Return the table of units, with exact sizes."""
    from pint import UnitRegistry

    return UnitRegistry(non_int_type=Fraction)
