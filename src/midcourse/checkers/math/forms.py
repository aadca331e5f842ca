r"""The form of an answer: one expression, a list, a set, a tuple, named values, residues.

math-verify compares expressions; what stands around them it guesses at. So the form is read
here, from the text and without algebra, and expressions are compared member by member. Order
counts in a tuple and in nothing else; ``x = 1, y = 2`` is a tuple that names its members.

    >>> read_form(r"x=1 \text{ and } y=2")
    Form(shape=<Shape.NAMED: 'named'>, parts=('1', '2'), names=('x', 'y'))
    >>> read_form(r"f(n) = 2n+1")
    Form(shape=<Shape.ONE: 'one'>, parts=('2n+1',), names=('n',))
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import product

from midcourse.checkers.math.brackets import bracketed, outside, partition_last, split
from midcourse.checkers.math.equivalence import tidy
from midcourse.checkers.math.layouts import Kind, Layout, read_layout
from midcourse.checkers.math.notation import standard
from midcourse.checkers.math.sets import Builder, read_builder
from midcourse.checkers.math.spelling import respelled
from midcourse.checkers.math.typography import plain
from midcourse.checkers.math.wording import joined, meaning, without_presentation


class Shape(StrEnum):
    """What kind of thing an answer is."""

    ONE = "one"
    LIST = "list"
    """Several answers, written one after the other: the order says nothing."""
    SET = "set"
    TUPLE = "tuple"
    NAMED = "named"
    """Values by name: ``x = 1, y = 2`` or ``(x, y) = (1, 2)``."""
    RESIDUES = "residues"
    RATIO = "ratio"
    """Three or more numbers: ``1:2:3``."""
    MATRIX = "matrix"
    CASES = "cases"
    """A function given case by case."""
    BUILT = "built"
    """A set given by a condition, but for one of real numbers: that is its condition."""


@dataclass(frozen=True, slots=True)
class Form:
    """An answer taken apart, e.g. ``Form(TUPLE, ("1", "2"), ("(", ")"))``."""

    shape: Shape
    parts: tuple[str, ...]
    """The members, each to be read in its turn; of `one`, the expression alone."""
    names: tuple[str, ...] = ()
    """NAMED: the names. TUPLE: its brackets. RESIDUES: the modulus. ONE: x of ``f(x) =``.

    MATRIX: its numbers of rows and columns. CASES: when each of its values holds."""


@lru_cache(maxsize=1024)
def normalise(answer: str) -> str:
    """Return a tidied answer in plain LaTeX, without the words that only present it."""
    return meaning(without_presentation(standard(joined(respelled(tidy(plain(answer)))))))


# --- taking apart ------------------------------------------------------------------------------

ALTERNATIVES = frozenset({";", "or"})
CONJUNCTIONS = frozenset({"and", "&", r"\land"})
MEMBERS = CONJUNCTIONS | {","}
#: ", " between numbers whose own thousands have a comma without a space.
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_THOUSANDS_LIST = re.compile(
    rf"(?:{_THOUSANDS.pattern}|[0-9]{{1,3}})(?:, (?:{_THOUSANDS.pattern}|[0-9]{{1,3}}))+"
)
_COLON = frozenset({":", r"\colon"})
_SPELLED = r"\\(?:text|mathrm|operatorname)\s?\{[^{}]*\}"
_SUBSCRIPT = r"(?:_(?:[A-Za-z0-9]|\{[^{}]*\}))?(?:'*|\^\{?\*\}?)"
_NAME = re.compile(
    rf"\s*(?P<name>(?:\\?[A-Za-z]{{1,20}}{_SUBSCRIPT}|{_SPELLED})"
    r"(?:\s?\(\s?(?P<bound>[A-Za-z])\s?\)|\s?\([^()=<>]*\))?"
    r"|\((?P<several>[^()=<>]*)\))\s?(?P<sign>=|:=|\\in(?![A-Za-z])|\\equiv(?![A-Za-z]))"
)
#: ``6 = x``
_NAME_LAST = re.compile(r"([^A-Za-z=]+)=\s?[A-Za-z]")
_TRANSPOSED = re.compile(r"(?<=[)\]])\s?\^\s?\{?\s?(?:T|\\top|\\intercal)\s?\}?\Z")
#: The name of a point, before its coordinates.
_POINT = re.compile(r"(?:\\(?:text|mathrm)\{[A-Z]\}|[A-Z])(?:_\{?[0-9]\}?|'{1,3})?\s?(?=\()")
#: What has a value and is not an unknown.
_QUANTITY = re.compile(
    r"\\(?:Pr|max|min|sup|inf|lim(?:sup|inf)?|sum|prod|i{1,3}nt|oint|binom|det|dim|deg|gcd|angle"
    r"|measuredangle|triangle|overline|overrightarrow|vec|widehat|log|ln|sin|cos|tan|cot|sec|csc"
    r"|arc(?:sin|cos|tan)|l[Vv]ert|lfloor|lceil|operatorname|mathrm|text|mathbb\{[EP]\})(?![A-Za-z])"
    r"|\\(?:left)?\||\||m\s?\\angle|(?:E|P|Var|Cov)\s?[\[(]|\\frac\{(?:[A-Z]{2}|d[a-z]?)\}\{(?:[A-Z]{2}|d[a-z])\}"
)
_NO_NAME = frozenset({"+", "-", "<", ">", ",", r"\le", r"\ge", r"\ne", r"\approx"})
_ANGLE = re.compile(r"\\angle\s?([A-Z]{3})")
#: As many signs of one expression are told apart.
_MAX_SIGNS = 4
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])\s?")
_MINUS_PLUS = re.compile(r"\\mp(?![A-Za-z])\s?")
_MODULUS = re.compile(
    r"(?<![\s,])[\s,]*(?:\(\s?)?(?:\\(?:pmod|bmod|mod|pod)|(?:\\(?:text|mathrm)\{)?\s?\bmod\b\s?\}?)"
    r"\s?(?:\{(?P<braced>[^{}]*)\}|(?P<plain>[A-Za-z0-9]+))\s?\)?\Z"
)


@lru_cache(maxsize=1024)
def read_form(text: str) -> Form:
    """Take a normalised answer apart, one level."""
    if modulus := _MODULUS.search(text):
        return _residues(text[: modulus.start()], modulus["braced"] or modulus["plain"])
    if _THOUSANDS_LIST.fullmatch(text) and _THOUSANDS.search(text):
        return Form(Shape.LIST, tuple(part.replace(",", "") for part in text.split(", ")))
    if _THOUSANDS.fullmatch(text):
        return Form(Shape.ONE, (text,))
    for separators in (ALTERNATIVES, MEMBERS):
        parts = split(text, separators)
        if len(parts) > 1:
            named = _named(parts) if separators is MEMBERS else None
            return named or Form(Shape.LIST, tuple(signs(*parts)))
    return _read_one(text)


def _read_one(text: str) -> Form:
    if layout := read_layout(text):
        return _laid_out(layout)
    name = _NAME.match(text)
    if name and (rest := partition_last(text[name.end() :], name["sign"].strip(":"))[1].strip()):
        return _after_name(name, partition_last(rest, "=")[1].strip() or rest)
    if reversed_name := _NAME_LAST.fullmatch(text):
        return read_form(reversed_name[1])
    if quantity_of(text):
        return read_form(partition_last(text, "=")[1].strip())
    content, brackets = bracketed(text)
    if brackets == (r"\{", r"\}"):
        return _braced(text, content)
    point = _POINT.match(text)
    vector = _TRANSPOSED.sub("", text)
    around = bracketed(vector[point.end() if point else 0 :])
    if around[1] and around[1][0] in "([" and len(parts := split(around[0], MEMBERS)) > 1:
        return Form(Shape.TUPLE, tuple(parts), around[1])
    if len(ratio := split(text, _COLON)) > 2:
        return Form(Shape.RATIO, tuple(ratio))
    signed = signs(text)
    return Form(Shape.LIST if len(signed) > 1 else Shape.ONE, tuple(signed))


def _laid_out(layout: Layout) -> Form:
    rows = layout.rows
    if layout.kind is Kind.SYSTEM:
        return read_form(", ".join(row[0] for row in rows))
    if layout.kind is Kind.CASES:
        return Form(Shape.CASES, tuple(row[0] for row in rows), tuple(row[1] for row in rows))
    cells = tuple(cell for row in rows for cell in row)
    return Form(Shape.MATRIX, cells, (str(len(rows)), str(len(rows[0]))))


def _braced(text: str, content: str) -> Form:
    if (builder := read_builder(content)) is not None:
        return Form(Shape.BUILT, (builder.element, *builder.conditions))
    parts = signs(*split(content, MEMBERS))
    if not parts or len(split(content, _COLON | {"|", r"\mid", r"\vert"})) > 1:
        return Form(Shape.ONE, (text if parts else r"\emptyset",))
    if parts == [r"\emptyset"]:  # the set of it
        return Form(Shape.ONE, (text,))
    return read_form(parts[0]) if len(parts) == 1 else Form(Shape.SET, tuple(parts))


def builder_of(text: str) -> Builder | None:
    """Return the condition by which a set is given, with or without a name; else None."""
    name = _NAME.match(text)
    content, brackets = bracketed(text[name.end() :].strip() if name else text)
    return read_builder(content) if brackets == (r"\{", r"\}") else None


def quantity_of(text: str) -> str:
    r"""Return what an equation gives the value of, if a command names it: ``\angle ABC``.

    A sum of several, or an unknown, is the left side of an equation like any other.
    """
    equals = next((token for token in outside(text) if token[0] == "="), None)
    left = text[: equals.start()].strip() if equals else ""
    if not _QUANTITY.match(left) or any(token[0] in _NO_NAME for token in outside(left)):
        return ""
    return _ANGLE.sub(lambda angle: r"\angle " + min(angle[1], angle[1][::-1]), left)


def _after_name(name: re.Match[str], rest: str) -> Form:
    r"""Read what follows ``x =``, ``f(x) =``, ``(x, y) =`` or ``x \in``."""
    inner = read_form(rest)
    if name["several"]:
        names = tuple(split(name["several"], MEMBERS))
        if inner.shape is Shape.TUPLE and len(names) == len(inner.parts) == len(set(names)):
            return Form(Shape.NAMED, inner.parts, names)
    elif inner.shape is Shape.ONE and name["bound"]:
        return Form(Shape.ONE, inner.parts, (name["bound"],))
    return inner


def _named(parts: list[str]) -> Form | None:
    """Return ``x = 1``, ``y = 2`` as named values if every part is one, of another name."""
    sides = [part.partition("=") for part in parts]
    found = [_NAME.fullmatch(left + sign) for left, sign, _ in sides]
    names = tuple("".join(name["name"].split()) for name in found if name)
    if len(set(names)) < len(parts):
        return None
    return Form(Shape.NAMED, tuple(right.strip() for _, _, right in sides), names)


def _residues(text: str, modulus: str) -> Form:
    residues = partition_last(partition_last(text, r"\equiv")[1], "=")[1]
    parts = signs(*split(residues, ALTERNATIVES | MEMBERS))
    return Form(Shape.RESIDUES, tuple(parts), (modulus.strip(),))


def signs(*parts: str) -> list[str]:
    r"""Return the parts, and for each ``\pm`` its two signs: ``\mp`` has the other one."""
    return [signed for part in parts for signed in _signed(part)]


def _signed(part: str) -> list[str]:
    pieces = _PLUS_MINUS.split(part)
    places = len(pieces) - 1
    if places == 0:
        return [part]
    if _MINUS_PLUS.search(part) or bracketed(part)[1] or places > _MAX_SIGNS:
        choices = [["+"] * places, ["-"] * places]
    else:
        choices = [list(choice) for choice in product("+-", repeat=places)]
    written = []
    for choice in choices:
        text = "".join(piece + sign for piece, sign in zip(pieces, [*choice, ""], strict=True))
        written.append(_MINUS_PLUS.sub("-" if choice[0] == "+" else "+", text).removeprefix("+"))
    return written
