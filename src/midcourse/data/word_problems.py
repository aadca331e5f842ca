r"""Generated word problems of one to three calculations, each with a worked reference solution.

``word-problems:two-step,three-step-large@7`` is two thousand problems of each kind (or `limit` in
all), in turn, drawn with seed 7. A kind says how many calculations a problem takes and, with
``-large``, that its numbers are larger. One line of the reference is one calculation:

    Ada has 12 shells. She finds 5 more. How many shells does Ada have now?
    Ada now has 12 + 5 = 17 shells.

A text belongs to one split by its hash: what is drawn for training is never drawn for another
split, whatever the seeds. A problem's id does not depend on the seed.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice

from midcourse.data.worked import Calculation, number_text, work_out
from midcourse.errors import DataError
from midcourse.records import Problem, content_id

NAME = "word-problems"
KINDS = {
    f"{word}-step{suffix}": (depth, bool(suffix))
    for suffix in ("", "-large")
    for depth, word in enumerate(("one", "two", "three"), start=1)
}
"""By name: how many calculations, and whether the numbers are large."""
#: Share of all texts that training never draws.
HELD_OUT = 0.2
_PER_KIND = 2000
_SPEC = re.compile(rf"{NAME}:(?P<kinds>[a-z-]+(?:,[a-z-]+)*)(?:@(?P<seed>[0-9]{{1,9}}))?")
_NAMES = "Ada Ben Clara Dan Eva Finn Greta Hugo Ida Jon Kate Leo".split()  # noqa: SIM905
_THINGS = "apples beads buttons cards coins marbles nuts pencils shells stamps stickers stones"
#: From … to, for small and for large numbers: starts, multipliers, addends, divisors, totals.
_RANGES = {
    "s": ((5, 30), (30, 200)),
    "m": ((2, 6), (4, 15)),
    "k": ((2, 6), (4, 15)),
    "n": ((2, 20), (15, 90)),
    "p": ((2, 20), (15, 90)),
    "q": ((2, 5), (3, 9)),
    "w": ((60, 200), (400, 2000)),
}


@dataclass(frozen=True, slots=True)
class _Stage:
    """What one more calculation adds to a story."""

    told: str
    question: str
    line: str
    """The step of the reference; ``{r}`` stands for the calculation."""
    formula: tuple[str, str, str]
    """Left number, operator, right number; ``1`` and ``2`` are earlier results."""


_STORIES = (
    (
        _Stage("{who} has {s} {things}. Then {who} finds {n} more.",
               "How many {things} does {who} have now?",
               "{who} now has {r} {things}.", ("s", "+", "n")),
        _Stage("{other} has {m} times as many {things} as {who} has now.",
               "How many {things} does {other} have?",
               "{other} has {r} {things}.", ("1", "*", "m")),
        _Stage("{other} gives {p} of them away.",
               "How many {things} does {other} have left?",
               "{other} has {r} {things} left.", ("2", "-", "p")),
    ),
    (
        _Stage("{who} buys {m} bags at {s} dollars each.",
               "How many dollars do the bags cost?",
               "The bags cost {r} dollars.", ("m", "*", "s")),
        _Stage("{who} also buys a hat for {n} dollars.",
               "How many dollars does {who} spend in all?",
               "In all {who} spends {r} dollars.", ("1", "+", "n")),
        _Stage("{who} started with {w} dollars.",
               "How many dollars does {who} have left?",
               "{who} has {r} dollars left.", ("w", "-", "2")),
    ),
    (
        _Stage("{m} classes of {s} pupils each go on a trip.",
               "How many pupils go on the trip?",
               "There are {r} pupils.", ("m", "*", "s")),
        _Stage("{n} teachers come along.",
               "How many people go on the trip?",
               "There are {r} people.", ("1", "+", "n")),
        _Stage("They ride in vans that hold {q} people each.",
               "How many vans do they need?",
               "They need {r} vans.", ("2", "/", "q")),
    ),
    (
        _Stage("A farm has {s} hens, and each hen lays {m} eggs.",
               "How many eggs do the hens lay?",
               "The hens lay {r} eggs.", ("s", "*", "m")),
        _Stage("{n} of the eggs break.",
               "How many eggs are left?",
               "There are {r} eggs left.", ("1", "-", "n")),
        _Stage("{who} puts the eggs that are left into boxes of {q}.",
               "How many boxes does {who} fill?",
               "{who} fills {r} boxes.", ("2", "/", "q")),
    ),
    (
        _Stage("{who} reads {s} pages a day for {m} days.",
               "How many pages does {who} read?",
               "{who} reads {r} pages.", ("s", "*", "m")),
        _Stage("The book has {w} pages.",
               "How many pages are left after that?",
               "There are {r} pages left.", ("w", "-", "1")),
        _Stage("{who} reads what is left in {q} days, the same number of pages each day.",
               "How many pages does {who} read on each of those days?",
               "{who} reads {r} pages on each of those days.", ("2", "/", "q")),
    ),
    (
        _Stage("{who} has {s} {things}, and {other} has {n} fewer than {who}.",
               "How many {things} does {other} have?",
               "{other} has {r} {things}.", ("s", "-", "n")),
        _Stage("They put all their {things} together.",
               "How many {things} do they have together?",
               "Together they have {r} {things}.", ("s", "+", "1")),
        _Stage("They share them equally among {q} friends.",
               "How many {things} does each friend get?",
               "Each friend gets {r} {things}.", ("2", "/", "q")),
    ),
    (
        _Stage("A baker makes {m} trays with {s} rolls each.",
               "How many rolls does the baker make?",
               "The baker makes {r} rolls.", ("m", "*", "s")),
        _Stage("The baker eats none, but {n} rolls burn.",
               "How many rolls are good?",
               "There are {r} good rolls.", ("1", "-", "n")),
        _Stage("Each good roll is sold for {k} dollars.",
               "How many dollars does the baker get?",
               "The baker gets {r} dollars.", ("2", "*", "k")),
    ),
    (
        _Stage("{who} saves {s} dollars a week for {m} weeks.",
               "How many dollars does {who} save?",
               "{who} saves {r} dollars.", ("s", "*", "m")),
        _Stage("{who} had {n} dollars before that.",
               "How many dollars does {who} have then?",
               "Then {who} has {r} dollars.", ("1", "+", "n")),
        _Stage("A bicycle costs {w} dollars.",
               "How many dollars are missing?",
               "There are {r} dollars missing.", ("w", "-", "2")),
    ),
)  # fmt: skip


def generate_word_problems(spec: str, split: str, limit: int | None = None) -> Iterator[Problem]:
    """Yield the problems of a specification, kind by kind in turn; the same for a seed.

    Raises DataError for an unknown kind.
    """
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise DataError(f"{spec}: write {NAME}:KIND, {NAME}:KIND,KIND@SEED")
    kinds, seed = found["kinds"].split(","), int(found["seed"] or 0)
    for kind in kinds:
        if kind not in KINDS:
            raise DataError(f"{NAME}:{kind}: no such kind: choose from {', '.join(KINDS)}")
    share = _PER_KIND if limit is None else -(-limit // len(kinds))
    drawn = [islice(_draw(kind, seed, split), share) for kind in kinds]
    yield from islice(chain.from_iterable(zip(*drawn, strict=True)), limit)


def _draw(kind: str, seed: int, split: str) -> Iterator[Problem]:
    """Yield different problems of a kind without end."""
    rng, seen = random.Random(f"{NAME}/{kind}/{seed}"), set[str]()
    while True:
        problem = _problem(rng, kind, split)
        is_ours = (_place(problem.text) < HELD_OUT) == (split != "train")
        if is_ours and problem.text not in seen:
            seen.add(problem.text)
            yield problem


def _place(text: str) -> float:
    """Return a text's place in 0 … 1: not that of `data.parts`, so that parts cut both splits."""
    return int(hashlib.sha256(f"{NAME}/{text}".encode()).hexdigest()[:12], 16) / 16**12


def _problem(rng: random.Random, kind: str, split: str) -> Problem:
    depth, is_large = KINDS[kind]
    stages = rng.choice(_STORIES)[:depth]
    while (drawn := _worked(rng, stages, is_large)) is None:
        pass
    numbers, worked = drawn
    who, other = rng.sample(_NAMES, 2)
    words = {"who": who, "other": other, "things": rng.choice(_THINGS.split())}
    values = words | {name: str(number) for name, number in numbers.items()}
    told = [stage.told.format(**values) for stage in stages]
    text = " ".join([*told, stages[-1].question.format(**values)])
    lines = (s.line.format(**words, r=c.text) for s, c in zip(stages, worked, strict=True))
    return Problem(
        problem_id=content_id(NAME, text),
        text=text,
        answer=number_text(worked[-1].result),
        reference_solution="\n".join(lines),
        source=f"{NAME}/{kind}",
        split=split,
    )


def _worked(
    rng: random.Random, stages: tuple[_Stage, ...], is_large: bool
) -> tuple[dict[str, int], list[Calculation]] | None:
    """Draw the numbers and work them out; None where a result is not whole, or below 1."""
    numbers = {name: rng.randint(*ranges[is_large]) for name, ranges in _RANGES.items()}
    known, worked = {name: Fraction(number) for name, number in numbers.items()}, []
    for index, stage in enumerate(stages, start=1):
        left, operator, right = stage.formula
        made = work_out((known[left], known[right]), operator)
        if made is None or made.result < 1 or made.result.denominator != 1:
            return None
        known[str(index)] = made.result
        worked.append(made)
    return numbers, worked
