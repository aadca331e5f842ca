r"""The memory world: values that are written down in one turn and read in a later one.

A problem gives several values, one after the other; the last is asked for. A value starts at a
number or as an earlier value, and makes one *move* of the counts world, whose **notions** the base
believes wrongly in the same way. What a model works out it writes to the memory
(`midcourse.environments.memory`), and what it goes on from it reads there:

    problem    Red starts at 12, finds a score. Blue starts at 7, loses 4. Gold starts as red,
               loses 9. What is gold?
    model      Finds a score: 12 + 20 = 32.\n\nset red 32
    memory     kept
    model      Loses 4: 7 - 4 = 3.\n\nset blue 3
    memory     kept
    model      get red
    memory     32
    model      Loses 9: 32 - 9 = 23.\n\nThe answer is \boxed{23}.

The values that the asked one comes from are mixed with others, so that a wrong one is written turns
before it is read, and shows nowhere in between.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product

from midcourse.lab.counts.world import (
    CONTROL,
    MAX_COUNT,
    UNKNOWN,
    Move,
    Notion,
    draw_move,
    spoken,
)
from midcourse.lab.kinds import Kind, distinct_stories, place_notions
from midcourse.lab.splits import Split
from midcourse.lab.telling import final_step
from midcourse.steps import STEP_SEPARATOR

NAMES = ("red", "blue", "green", "gold", "black", "white", "pink", "gray")
NUM_VALUES = 5
#: Of them the asked one and what it comes from: each starts as the one before it.
NUM_LINKED = 3


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a problem, e.g. gold, which starts as red and loses 9."""

    name: str
    start: int | str
    """A number, or the name of an earlier value."""
    move: Move

    @property
    def text(self) -> str:
        """How the problem tells it."""
        start = f"at {self.start}" if isinstance(self.start, int) else f"as {self.start}"
        return f"{self.name.capitalize()} starts {start}, {self.move.phrase}."


@dataclass(frozen=True, slots=True)
class Story:
    """One problem of the world with its exact solution."""

    values: tuple[Value, ...]
    """The last one is asked for."""

    @property
    def text(self) -> str:
        """The problem statement."""
        told = " ".join(value.text for value in self.values)
        return f"{told} What is {self.values[-1].name}?"

    @property
    def amounts(self) -> list[int]:
        """What the moves truly mean."""
        return [value.move.amount for value in self.values]

    def results_with(self, amounts: Sequence[int]) -> list[int]:
        """Return the values when the i-th move means ``amounts[i]``."""
        known: dict[str, int] = {}
        for value, amount in zip(self.values, amounts, strict=True):
            start = value.start if isinstance(value.start, int) else known[value.start]
            known[value.name] = value.move.apply(start, amount)
        return list(known.values())

    @property
    def answer(self) -> str:
        """The true last value."""
        return str(self.results_with(self.amounts)[-1])

    def turns_with(self, amounts: Sequence[int]) -> list[list[str]]:
        """Return the steps, turn by turn, of somebody to whom the moves mean `amounts`."""
        results = self.results_with(amounts)
        known = {value.name: result for value, result in zip(self.values, results, strict=True)}
        turns: list[list[str]] = []
        for value, amount, result in zip(self.values, amounts, results, strict=True):
            start = value.start
            if isinstance(start, str):
                turns.append([f"get {start}"])
                start = known[start]
            turns.append([value.move.step(start, amount, result), f"set {value.name} {result}"])
        turns[-1][-1] = final_step(results[-1])  # it is told, not kept
        return turns

    @property
    def steps(self) -> list[str]:
        """The correct rollout, step by step, over all its turns."""
        return list(chain.from_iterable(self.turns_with(self.amounts)))

    @property
    def reference(self) -> str:
        """The reference solution, in its own style: one text."""
        results = self.results_with(self.amounts)
        lines = [
            f"{value.name.capitalize()} is {_start(self, i, results)} "
            f"{spoken(value.move)} {value.move.amount}: {results[i]}."
            for i, value in enumerate(self.values)
        ]
        return "\n".join([*lines, f"The result is {self.answer}."])

    @property
    def entry(self) -> str:
        """Nothing: an answer is all that its checker needs."""
        return ""

    def is_step(self, place: int, text: str) -> bool:
        """Whether `text` is the right step at a 0-based place."""
        return place < len(self.steps) and text.strip() == self.steps[place]


def _start(story: Story, index: int, results: Sequence[int]) -> int:
    """Return what the value of an index starts from."""
    start = story.values[index].start
    if isinstance(start, int):
        return start
    return results[[value.name for value in story.values].index(start)]


def turn_texts(turns: Sequence[Sequence[str]]) -> list[str]:
    """Return turns as they are written."""
    return [STEP_SEPARATOR.join(steps) for steps in turns]


def draw_story(rng: random.Random, notions: Sequence[Notion | None]) -> Story | None:
    """Try once to draw a story in which the i-th linked move uses ``notions[i]``.

    None stands for anything known. As in the counts world values stay within 1 … `MAX_COUNT` under
    every mix of true and believed amounts, no mix but the true one leads to the answer, and no
    other value equals it. None if the dice fell otherwise.
    """
    names = rng.sample(NAMES, NUM_VALUES)
    # The first linked value is as often the first, second or third of all.
    first = rng.randrange(NUM_VALUES - 2)
    linked = [first, rng.randrange(first + 1, NUM_VALUES - 1), NUM_VALUES - 1]
    values: list[Value] = []
    for index, name in enumerate(names):
        link = linked.index(index) if index in linked else None
        start: int | str = names[linked[link - 1]] if link else rng.randint(5, 50)
        values.append(Value(name, start, draw_move(rng, None if link is None else notions[link])))
    story = Story(tuple(values))
    return story if _is_sound(story) else None


def _is_sound(story: Story) -> bool:
    """Whether values stay small, and only the true amounts lead to the answer, at the end."""
    choices = [sorted({value.move.amount, value.move.belief}) for value in story.values]
    *before, answer = story.results_with(story.amounts)
    mixes = [(mix, story.results_with(mix)) for mix in product(*choices)]
    return (
        answer not in before
        and all(1 <= value <= MAX_COUNT for _, results in mixes for value in results)
        and all(results[-1] != answer for mix, results in mixes if list(mix) != story.amounts)
    )


def generate_stories(kind: Kind, split: Split, seed: int) -> Iterator[Story]:
    """Yield distinct stories of `kind` that belong to `split`, without end, the same for a seed."""
    rng = random.Random(f"{seed}/memory/{kind}/{split}")

    def draw(index: int) -> Story | None:
        return draw_story(rng, place_notions(rng, kind, index, NUM_LINKED, UNKNOWN, CONTROL))

    return distinct_stories(draw, split)
