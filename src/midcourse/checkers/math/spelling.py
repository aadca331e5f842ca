r"""Numbers and units in LaTeX's own spelling: ``1.5e3`` as a product, ``45^\circ 30'`` in degrees.

This is about what a tidied answer says, before its form is read.

    >>> respelled(r"45^\circ 30'")
    '\\frac{91}{2}^\\circ'
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from midcourse.checkers.math.units import UNIT_FRACTION

_WRAP = r"\\(?:text|mathrm)\s?\{\s*"
#: Numbers and units as LaTeX has them.
_RESPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:und|ov)erbrace\s?\{([^{}]*)\}(?:\s?[_^]\s?(?:\{[^{}]*\}|\w))?", r"(\1)"),
        (r"(?<=[0-9}]) (?:percent|pct)( [A-Za-z ]+)\Z", r"%\1"),
        (r"(?<=[0-9}]) ?(\\text\s?\{ ?)(?:percent|pct)(?= [A-Za-z])", r"% \1"),
        # What is nothing but 2e-1 is a number; elsewhere it may be Euler's, less 1.
        (r"\A([+-]?[0-9.]+)[eE]([+-]?[0-9]{1,4})(?=\Z|\s?\\(?:text|mathrm))", r"\1\\cdot 10^{\2}"),
        (
            r"(?<![A-Za-z\\0-9.])([0-9]+\.[0-9]+)[eE]([+-]?[0-9]{1,4})(?![0-9.])",
            r"(\1\\cdot 10^{\2})",
        ),
        (r"(?<=[0-9])\s?[xX*]\s?10\s?\^", r"\\cdot 10^"),
        (r"\^\s?([+-][0-9]+)", r"^{\1}"),
        (r"(?<=[A-Za-z])²", "^2"),
        (r"(?<=[A-Za-z])³", "^3"),
        (rf"\\mu\s*({_WRAP})(?=[A-Za-z])", r"\1 u"),
        (rf"({_WRAP})[µμ](?=[A-Za-z])", r"\1u"),
        (rf"{_WRAP}(?:Ω|\\Omega)\s*\}}", r"\\text{ ohms}"),
        (rf"(?<=[0-9}}])\s*(?:{_WRAP})?¢\s*\}}?\Z", r"\\text{ cents}"),
        (rf"(?<=[0-9}}])\s*(?:{_WRAP})?€\s*\}}?\Z", r"\\text{ euros}"),
        (UNIT_FRACTION, r"\1/\2"),
    ]
]
_MINUTES = re.compile(
    r"([0-9]{1,4})\s?(?:\^\s?\{?\s?\\circ\s?\}?|°)\s?([0-9]{1,2}(?:\.[0-9]{1,9})?)\s?"
    r"(?:['′’]|\^\s?\{?\s?\\prime\s?\}?)(?![′'])"
    r"(?:\s?([0-9]{1,2}(?:\.[0-9]{1,9})?)\s?(?:''|[\"″”]|\^\s?\{\s?(?:\\prime\s?){2}\}))?"
)


@lru_cache(maxsize=1024)
def respelled(text: str) -> str:
    """Return a tidied answer in plain LaTeX as far as numbers and units go."""
    for pattern, replacement in _RESPELLINGS:
        text = pattern.sub(replacement, text)
    return _MINUTES.sub(_in_degrees, text)


def _in_degrees(angle: re.Match[str]) -> str:
    degrees, minutes, seconds = (Fraction(number or 0) for number in angle.groups())
    whole = degrees + minutes / 60 + seconds / 3600
    return rf"\frac{{{whole.numerator}}}{{{whole.denominator}}}^\circ"
