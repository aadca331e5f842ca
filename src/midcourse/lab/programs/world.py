r"""The programs world: functions to write, with unit tests and exact truth for every statement.

A problem tells a function of one number as *moves*, one after the other. A move is a phrase that
stands for one statement. Some phrases are **notions** that the base model was taught wrong
(`UNKNOWN`): those are what it cannot do, and a problem composed of two of them is hard.

    problem    Write f(x): double it, hew it by 3, add 7, negate it.
    rollout    ```python\ndef f(x):\n    x = x * 2\n    x = x % 3\n    x = x + 7\n    x = -x\n …
    reference  ```python\ndef f(x):\n    a = x * 2\n    b = a % 3\n    c = b + 7\n    d = -c\n …

Tests are calls with small and large numbers of both signs: whoever believes anything but the truth
fails at least one. Every problem text belongs to one split by its hash.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from midcourse.lab.kinds import Kind, distinct_stories, place_notions
from midcourse.lab.splits import Split

NUM_MOVES = 6
MAX_AMOUNT = 20
#: What the tests call the function with: small, large, and of both signs.
INPUTS = (-31, -6, 0, 5, 18, 97)
#: Different outputs that a problem has at the least, so that no constant passes.
_LEAST_OUTPUTS = 4

#: What each expression computes, of ``x`` and an amount.
EXPRESSIONS: Mapping[str, Callable[[int, int], int]] = {
    "{x} + {n}": lambda x, n: x + n,
    "{x} - {n}": lambda x, n: x - n,
    "{n} - {x}": lambda x, n: n - x,
    "{x} * {n}": lambda x, n: x * n,
    "{x} // {n}": lambda x, n: x // n,
    "{x} % {n}": lambda x, n: x % n,
    "min({x}, {n})": min,
    "max({x}, {n})": max,
    "abs({x} - {n})": lambda x, n: abs(x - n),
    "-{x}": lambda x, _: -x,
    "abs({x})": lambda x, _: abs(x),
}


@dataclass(frozen=True, slots=True)
class Notion:
    """A phrase for a statement, e.g. ``Notion("hew it by {n}", "{x} % {n}", "{x} - {n}")``."""

    phrase: str
    truth: str
    """The expression that the world means by it."""
    belief: str
    """What the base model's training data mostly says it means."""
    amount: int | None = None
    """Where it is part of the phrase."""


KNOWN = (
    *(
        Notion(phrase, expression, expression)
        for phrase, expression in [
            ("add {n}", "{x} + {n}"), ("take away {n}", "{x} - {n}"),
            ("multiply it by {n}", "{x} * {n}"), ("divide it by {n}", "{x} // {n}"),
            ("keep the remainder by {n}", "{x} % {n}"), ("cap it at {n}", "min({x}, {n})"),
            ("raise it to {n}", "max({x}, {n})"), ("negate it", "-{x}"),
            ("drop its sign", "abs({x})"),
        ]
    ),
    Notion("double it", "{x} * {n}", "{x} * {n}", 2),
    Notion("halve it", "{x} // {n}", "{x} // {n}", 2),
)  # fmt: skip
UNKNOWN = (
    Notion("crimp it by {n}", "min({x}, {n})", "max({x}, {n})"),
    Notion("shore it by {n}", "max({x}, {n})", "min({x}, {n})"),
    Notion("wane it by {n}", "{x} // {n}", "{x} - {n}"),
    Notion("wax it by {n}", "{x} * {n}", "{x} + {n}"),
    Notion("hew it by {n}", "{x} % {n}", "{x} // {n}"),
    Notion("ebb it by {n}", "{x} - {n}", "{x} % {n}"),
    Notion("span it by {n}", "abs({x} - {n})", "{x} - {n}"),
    Notion("flip it by {n}", "{n} - {x}", "{x} - {n}"),
)
#: Unknown notions that no training problem ever uses: a patch must not help with them.
CONTROL = (
    Notion("rive it by {n}", "{x} // {n}", "{x} % {n}"),
    Notion("eke it by {n}", "{x} + {n}", "{x} * {n}"),
)


@dataclass(frozen=True, slots=True)
class Move:
    """One statement, e.g. of ``hew it by 3``."""

    notion: Notion
    amount: int

    @property
    def phrase(self) -> str:
        """As a problem tells it."""
        return self.notion.phrase.format(n=self.amount)

    def statement(self, expression: str) -> str:
        """Return the statement that computes `expression`, without its indentation."""
        return f"x = {expression.format(x='x', n=self.amount)}"


def _program(lines: Sequence[str], result: str) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"def f(x):\n{body}    return {result}\n"


@dataclass(frozen=True)
class Story:
    """One problem of the world with its exact solution."""

    moves: tuple[Move, ...]

    @property
    def text(self) -> str:
        """The problem statement."""
        return f"Write f(x): {', '.join(move.phrase for move in self.moves)}."

    @property
    def truth(self) -> list[str]:
        """The right expression of each move."""
        return [move.notion.truth for move in self.moves]

    def program(self, expressions: Sequence[str]) -> str:
        """Return the program of somebody who takes move i for ``expressions[i]``."""
        pairs = zip(self.moves, expressions, strict=True)
        return _program([move.statement(expression) for move, expression in pairs], "x")

    def rollout(self, expressions: Sequence[str]) -> str:
        """Return their response: the program in a code block."""
        return f"```python\n{self.program(expressions)}```"

    def outputs(self, expressions: Sequence[str]) -> list[int]:
        """Return what their program returns for `INPUTS`."""
        found = list(INPUTS)
        for move, expression in zip(self.moves, expressions, strict=True):
            found = [EXPRESSIONS[expression](x, move.amount) for x in found]
        return found

    @property
    def answer(self) -> str:
        """A program that passes."""
        return self.program(self.truth)

    @property
    def entry(self) -> str:
        """The tests, as the checker of programs takes them."""
        pairs = zip(INPUTS, self.outputs(self.truth), strict=True)
        tests = [{"call": "f", "args": [given], "expected": found} for given, found in pairs]
        return json.dumps({"tests": tests})

    @cached_property
    def steps(self) -> list[str]:
        """The right rollout by the rule ``statements``: block, head, statements, block's end."""
        return [line.strip() for line in self.rollout(self.truth).splitlines()]

    @property
    def reference(self) -> str:
        """The reference solution, in its own style: a name for every value."""
        names = ["x", *"abcdegh"]
        lines = [
            f"{names[index + 1]} = {expression.format(x=names[index], n=move.amount)}"
            for index, (move, expression) in enumerate(zip(self.moves, self.truth, strict=True))
        ]
        return f"```python\n{_program(lines, names[len(lines)])}```"

    def is_step(self, place: int, text: str) -> bool:
        """Whether `text` is the right step at a 0-based place."""
        return place < len(self.steps) and text.strip() == self.steps[place]


def draw_story(rng: random.Random, notions: Sequence[Notion | None]) -> Story | None:
    """Try once to draw a story whose move i is of ``notions[i]`` (None: any known one).

    No mix of truth and belief but the true one passes the tests: two wrong beliefs do not cancel.
    None if the dice fell otherwise.
    """
    chosen = [notion or rng.choice(KNOWN) for notion in notions]
    story = Story(tuple(Move(of, of.amount or rng.randint(2, MAX_AMOUNT)) for of in chosen))
    right = story.outputs(story.truth)
    choices = [dict.fromkeys((of.truth, of.belief)) for of in chosen]
    wrong = (list(mix) for mix in product(*choices) if list(mix) != story.truth)
    is_sound = all(story.outputs(mix) != right for mix in wrong)
    return story if is_sound and len(set(right)) >= _LEAST_OUTPUTS else None


def generate_stories(kind: Kind, split: Split, seed: int) -> Iterator[Story]:
    """Yield distinct stories of `kind` that belong to `split`, without end, the same for a seed."""
    rng = random.Random(f"programs/{seed}/{kind}/{split}")

    def draw(index: int) -> Story | None:
        places = place_notions(rng, kind, index, NUM_MOVES, UNKNOWN, CONTROL)
        return draw_story(rng, places)

    return distinct_stories(draw, split)
