r"""Sets given by a condition: ``{x ∈ R : x > 3}``, ``{3k | k ∈ Z}``.

What stands before the bar may be a letter and is then no more than its name; the condition says
which numbers belong. Over the integers it is not an interval: ``{n ∈ Z : n > 3}`` is 4, 5, ….

    >>> read_builder(r"x \in \mathbb{R} : x > 3 \text{ and } x \ne 5")
    Builder(element='x', domain='R', conditions=('x > 3', 'x \\ne 5'))
    >>> read_builder(r"x \mid x = 3k, k \in \mathbb{Z}")
    Builder(element='3k', domain='', conditions=('k \\in \\mathbb{Z}',))
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from midcourse.checkers.math.brackets import outside, split

_BAR = frozenset({":", r"\colon", "|", r"\mid", r"\vert"})
_CONJUNCTION = frozenset({",", "and", ";"})
_VARIABLE = re.compile(r"[A-Za-z]")
_POINT = re.compile(r"\(\s?[a-z](?:\s?,\s?[a-z])+\s?\)")
_OVER = re.compile(r"(?P<letter>[A-Za-z])\s?\\in\s?\\mathbb\{(?P<domain>[RZNQC])\}")
#: What joins a condition to the letter that it is about.
_QUANTIFIER = re.compile(
    r",?\s*(?:\\text\s?\{\s*,?\s*(?:for (?:some|all|any|every|each)|where|with|for)\s*\}"
    r"|\\(?:exists|forall)(?![A-Za-z])|\b(?:for (?:some|all|any|every|each)|where|with)\b)\s*,?"
)
_INTEGERS = re.compile(r",?\s*(?<![A-Za-z\\])([a-z])\s?\\text\s?\{\s*(?:is )?(?:an )?integer\s*\}")
_CONDITION = re.compile(r"[<>=]|\\(?:le|ge|ne|equiv|text)(?![A-Za-z])")
_DOMAIN = re.compile(r"\\mathbb\{[A-Z]\}")
_LETTERS = re.compile(r"\\text\s?\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Builder:
    r"""A set given by a condition, e.g. ``Builder("x", "R", ("x > 3",))``."""

    element: str
    domain: str
    """R, Z, N, Q or C if the element is a letter and its domain is said."""
    conditions: tuple[str, ...]

    @property
    def of_reals(self) -> bool:
        """Whether the set is that of the real numbers of which the condition holds."""
        return _VARIABLE.fullmatch(self.element) is not None and self.domain in ("", "R")

    def may_equal(self, other: str) -> bool:
        """Whether a text that is no such set can say the same.

        Of whole numbers, a condition says what another one says, and not what an interval does.
        """
        if self.formula:
            return True
        named = _VARIABLE.fullmatch(self.element) or _POINT.fullmatch(self.element)
        return self.of_reals or (named is not None and _CONDITION.search(other) is not None)

    @property
    def formula(self) -> str:
        """The members of a set that is no more than a formula with a free letter; else ""."""
        free = all(_OVER.fullmatch(condition) for condition in self.conditions)
        return self.element if free and not _VARIABLE.fullmatch(self.element) else ""

    @property
    def condition(self) -> str:
        r"""What a text must say to equal the set: its conditions as one, or its formula."""
        return self.formula or r" \land ".join(self.conditions)


def read_builder(content: str) -> Builder | None:
    """Read what stands between the braces; None if it is not a condition."""
    bar = next((token for token in outside(content) if token[0] in _BAR), None)
    if bar is None:
        return None
    element, conditions = content[: bar.start()].strip(), content[bar.end() :].strip()
    conditions = _INTEGERS.sub(r", \1\\in\\mathbb{Z}", _QUANTIFIER.sub(", ", conditions))
    if not element or not conditions:
        return None
    alternatives = len(split(conditions, frozenset({"or"}))) > 1
    parts = [conditions] if alternatives else split(conditions, _CONJUNCTION)
    over = _OVER.fullmatch(element)
    built = _of_letter(over["letter"] if over else element, over["domain"] if over else "", parts)
    return built if built.conditions else None


def _of_letter(element: str, domain: str, conditions: list[str]) -> Builder:
    """Tell a domain from the conditions, and ``x = 3k`` from what is said of k."""
    rest = []
    for condition in conditions:
        over = _OVER.fullmatch(condition)
        defined = re.fullmatch(rf"{re.escape(element)}\s?=(.*)", condition, re.DOTALL)
        if over and over["letter"] == element and not domain:
            domain = over["domain"]
        elif defined and _VARIABLE.fullmatch(element) and len(conditions) > 1 and not domain:
            element = defined[1].strip()
        else:
            rest.append(condition)
    return Builder(element, domain, tuple(rest))


def same_set(ours: Builder, theirs: Builder, same: Callable[[str, str], bool]) -> bool:
    """Whether two sets are built alike: the same members under the same conditions.

    The letter is free. A domain that one side leaves to the problem is not compared.
    """
    old, new = (only_letter(side.element, *side.conditions) for side in (theirs, ours))
    if old and new:
        theirs = replace(
            theirs,
            element=rename(theirs.element, old, new),
            conditions=tuple(rename(condition, old, new) for condition in theirs.conditions),
        )
    if ours.domain and theirs.domain and ours.domain != theirs.domain:
        return False
    if not same(ours.element, theirs.element):
        return False
    if ours.of_reals and theirs.of_reals:
        return same(ours.condition, theirs.condition)
    if len(ours.conditions) != len(theirs.conditions):
        return False
    return all(
        any(_bare(condition) == _bare(other) or same(condition, other) for other in others)
        for conditions, others in (
            (ours.conditions, theirs.conditions),
            (theirs.conditions, ours.conditions),
        )
        for condition in conditions
    )


def only_letter(*texts: str) -> str:
    """Return the one letter that stands in texts; "" if there are several."""
    letters = {
        letter
        for text in texts
        for letter in _LETTERS.findall(_DOMAIN.sub("", text))
        if len(letter) == 1
    }
    return next(iter(letters)) if len(letters) == 1 else ""


def rename(text: str, old: str, new: str) -> str:
    """Return an expression with one variable renamed."""
    return _LETTERS.sub(lambda letter: new if letter[0] == old else letter[0], text)


def _bare(text: str) -> str:
    return "".join(text.split())
