"""Counts of tokens: who was asked, how many went in and came out, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Asked(StrEnum):
    """Who was asked: tokens are counted, and priced, for each apart."""

    POLICY = "policy"
    """The base, and what is trained from it."""
    PROPOSER = "proposer"
    TEACHER = "teacher"
    REFERENCE = "reference"
    """The writer of missing reference solutions."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Requests that were answered, with their tokens, e.g. 84 requests, 40,000 in, 12,000 out.

    `tokens_in` has the prompt once per request, as a server bills it: rollouts of one problem that
    share a prefill count it once each.
    """

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    estimated: int = 0
    """Requests whose tokens are an estimate: a server of texts that did not say."""

    def __add__(self, other: TokenCount) -> TokenCount:
        return TokenCount(
            self.requests + other.requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.estimated + other.estimated,
        )

    def at_least(self, other: TokenCount) -> TokenCount:
        """Return the larger of two counts of the same requests, each of which may lack some."""
        return other if other.requests > self.requests else self

    def plain(self) -> dict[str, int]:
        """Return it as a manifest holds it."""
        found = {"requests": self.requests, "in": self.tokens_in, "out": self.tokens_out}
        return found | ({"estimated": self.estimated} if self.estimated else {})

    @classmethod
    def of(cls, plain: Mapping[str, int]) -> TokenCount:
        """Read what `plain` wrote."""
        names = ("requests", "in", "out", "estimated")
        return cls(*(int(plain.get(name, 0)) for name in names))


Tokens = Mapping[str, TokenCount]
"""By who was asked."""


def plain_tokens(tokens: Tokens) -> dict[str, dict[str, int]]:
    """Return counts as a manifest holds them; who was not asked is left out."""
    return {str(name): count.plain() for name, count in tokens.items() if count.requests}


def read_tokens(plain: Mapping[str, Mapping[str, int]]) -> dict[str, TokenCount]:
    """Read what `plain_tokens` wrote."""
    return {name: TokenCount.of(count) for name, count in plain.items()}


def add_tokens(one: Tokens, other: Tokens) -> dict[str, TokenCount]:
    """Return the sums, by who was asked."""
    names = dict.fromkeys([*one, *other])
    return {n: one.get(n, TokenCount()) + other.get(n, TokenCount()) for n in names}


def total_of(tokens: Tokens) -> TokenCount:
    """Return the sum of all."""
    return sum(tokens.values(), TokenCount())


def number(value: float) -> str:
    """Return a number in three digits or so: ``9,120``, ``64.2 k``, ``1.23 M``.

    >>> [number(n) for n in (9120, 64_200, 1_234_000, 2.5e9)]
    ['9,120', '64.2 k', '1.23 M', '2.50 G']
    """
    if value < 10_000:
        return f"{value:,.0f}"
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        scaled = value / factor
        if scaled >= 0.9995:
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {unit}"
    raise AssertionError(value)


def duration(seconds: float) -> str:
    """Return a span of time: ``8 s``, ``3 min 20 s``, ``2 h 5 min``.

    >>> [duration(s) for s in (8.4, 200, 7500)]
    ['8 s', '3 min 20 s', '2 h 5 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def usd(cost: float) -> str:
    """Return a price in dollars; small ones keep two digits: ``$12.50``, ``$0.0032``."""
    return f"${cost:,.2f}" if cost >= 0.1 or not cost else f"${cost:.2g}"
