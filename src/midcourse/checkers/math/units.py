r"""Units after a value: which they are, and whether two of them measure the same thing.

Two known units are converted (2 hours are 120 minutes; 5 cm are not 5 m). A unit that only one
side gives, or that is not known, says nothing about the value and is passed over: golds often
lack the unit, and "5 apples" is a fair way to write 5.

    >>> split_unit(r"12\sqrt{3}\text{ cm}^2")
    ('12\\sqrt{3}', 'cm^2')
    >>> conversion("m", "cm"), conversion("m", "s"), conversion("m", "apples")
    (Fraction(100, 1), Fraction(0, 1), None)
"""

from __future__ import annotations

import re
from collections import defaultdict
from fractions import Fraction

#: Words that make "5 …" something else than five of a thing.
NO_UNITS = re.compile(
    r"\b(?:and|or|not|than|more|less|fewer|over|times|plus|minus|mod|if|for|when|where|with|except"
    r"|half|thirds?|quarters?|squared|cubed|factorial|infinity|pi|sqrt|sin|cos|tan|cot|sec|csc|log"
    r"|exp|lim|max|min|gcd|lcm)\b",
    re.IGNORECASE,
)
#: Words after a value that say more than what it is counted in.
_SAYS_MORE = re.compile(
    r"\b(?:at|is|are|odd|even|prime|choose|integers?|numbers?|percent|pct|percentage"
    r"|hundred|thousand|million|billion|trillion|dozen)\b",
    re.IGNORECASE,
)
_WRAPPED = (
    r"\\(?:text|mathrm|textrm|mbox|operatorname)\s?"
    r"\{[A-Za-z\u00aa-\U0010ffff .,'/~^0-9-]*[A-Za-z\u00aa-\U0010ffff]\.?[ ~]?\}"
)
_POWER = r"(?:\s?\^\s?(?:-?[0-9]|\{\s?-?[0-9]\s?\}))?"
_UNIT = re.compile(
    rf"(?<=\S)(?:[\s~]*(?P<wrapped>{_WRAPPED}{_POWER}(?:\s?(?:/|\\cdot)?\s?{_WRAPPED}{_POWER})*)"
    rf"|[\s~]+(?P<plain>[A-Za-z][A-Za-z.'-]+(?:[ /][A-Za-z.'-]+){{0,3}}{_POWER}))\Z"
)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_LETTER = re.compile(r"[A-Za-z\u00aa-\U0010ffff]")
_MACRO = re.compile(r"\\[A-Za-z]+\s?\{|[{}~]|\\")

#: By dimension: the names of a unit (singular), then its size. Inches and pounds are exact.
_TABLE: dict[str, dict[str, str]] = {
    "length": {
        "mm millimeter millimetre": "1/1000",
        "cm centimeter centimetre": "1/100",
        "dm decimeter decimetre": "1/10",
        "m meter metre": "1",
        "km kilometer kilometre": "1000",
        "in inch inche": "127/5000",
        "ft foot feet": "381/1250",
        "yd yard": "1143/1250",
        "mi mile": "201168/125",
    },
    "mass": {
        "mg milligram": "1/1000",
        "g gram": "1",
        "kg kilogram": "1000",
        "oz ounce": "45359237/1600000",
        "lb pound": "45359237/100000",
    },
    "volume": {"ml mL milliliter millilitre": "1/1000", "l L liter litre": "1"},
    "time": {
        "s sec second": "1",
        "min minute": "60",
        "h hr hour": "3600",
        "day": "86400",
        "week": "604800",
    },
    "money": {"cent": "1/100", "dollar": "1"},
}
_KNOWN: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(size))
    for dimension, units in _TABLE.items()
    for names, size in units.items()
    for name in names.split()
}
_SPOKEN_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def split_unit(text: str) -> tuple[str, str]:
    """Return the value and its unit; the unit is empty where there is none.

    Only a value without variables has a unit: the last word of ``n odd`` is none.
    """
    found = _UNIT.search(text)
    if found is None:
        return text, ""
    value = text[: found.start()].rstrip(" ~")
    unit = _MACRO.sub(" ", (found["wrapped"] or found["plain"]).replace("\\cdot", "*"))
    says_more = NO_UNITS.search(unit) or _SAYS_MORE.search(unit)
    if says_more or _LETTER.search(_COMMAND.sub("", value)) or not value:
        return text, ""
    return value, re.sub(r"\s*([/^*])\s*", r"\1", " ".join(unit.split()))


def conversion(one: str, other: str) -> Fraction | None:
    """Return how many of `other` make one of `one`: 0 of another kind, None for unknown units."""
    ours, theirs = _read(one), _read(other)
    if ours is None or theirs is None:
        return None
    return ours[1] / theirs[1] if ours[0] == theirs[0] else Fraction(0)


def _read(unit: str) -> tuple[dict[str, int], Fraction] | None:
    """Return the powers of each dimension, and the size in base units."""
    powers, size = defaultdict[str, int](int), Fraction(1)
    for position, group in enumerate(re.split(r"/|\bper\b", {"mph": "mile/hour"}.get(unit, unit))):
        spoken = 1
        for word in re.split(r"[\s*]+", group.strip(" .")):
            if word.lower() in _SPOKEN_POWERS:
                spoken = _SPOKEN_POWERS[word.lower()]
                continue
            name, _, written = word.partition("^")
            known = _known(name.rstrip("."))
            if known is None:
                return None
            power = int(written or 1) * spoken * (-1 if position else 1)
            powers[known[0]] += power
            size *= known[1] ** power
    return powers, size


def _known(name: str) -> tuple[str, Fraction] | None:
    singular = name.lower().removesuffix("s") if len(name) > 2 else name
    return _KNOWN.get(name) or _KNOWN.get(name.lower()) or _KNOWN.get(singular)
