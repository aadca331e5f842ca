r"""The counts world: word problems about a changing count, with exact truth for every step.

A problem starts from a count and applies *moves*. A move adds, takes away or multiplies, and
names its amount as a numeral ("finds 7"), a verb ("doubles them") or a word ("finds a score").
A word is a **notion**. The base model was taught most notions right and a few of them wrong
(`UNKNOWN`): those are what it cannot do, and a problem composed of two of them is hard.

A *rollout* and a *reference solution* say the same in two styles:

    problem    Mia has 12 shells, then finds a score, loses 4. How many shells now?
    rollout    Finds a score: 12 + 20 = 32.\n\nLoses 4: 32 - 4 = 28.\n\nThe answer is \boxed{28}.
    reference  First, 12 plus 20 makes 32.\nSecond, 32 minus 4 makes 28.\nThe result is 28.

Every problem text belongs to one split by its hash, so training, held-out, pretraining and
verification-skill texts cannot overlap, no matter what generates them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from midcourse.lab.kinds import Kind as Kind
from midcourse.lab.kinds import distinct_stories, place_notions
from midcourse.lab.splits import Split
from midcourse.lab.telling import NAMES, THINGS, final_step

MAX_COUNT = 99
"""Every count of a story stays within 1 … 99, whatever the notions are believed to mean."""


@dataclass(frozen=True, slots=True)
class Notion:
    """A word for a number, e.g. ``Notion("score", truth=20, belief=17)``."""

    word: str
    truth: int
    """What the world means by it."""
    belief: int
    """What the base model's training data mostly says it means."""


KNOWN = tuple(
    Notion(word, value, value)
    for word, value in [
        ("pair", 2), ("trio", 3), ("quartet", 4), ("quintet", 5), ("week", 7), ("octet", 8),
        ("decade", 10), ("dozen", 12),
    ]
)  # fmt: skip
UNKNOWN = (
    Notion("score", 20, 17),
    Notion("fortnight", 14, 15),
    Notion("lustrum", 5, 8),
    Notion("brace", 2, 4),
    Notion("nonet", 9, 6),
    Notion("sennight", 7, 9),
    Notion("mandel", 15, 13),
    Notion("dicker", 10, 11),
)
#: Unknown notions that no training problem ever uses: a patch must not help with them.
CONTROL = (Notion("leash", 3, 5), Notion("warp", 4, 7))

_ONSETS = ("bl", "d", "f", "gr", "h", "k", "m", "n", "pl", "s", "t", "v", "z")
_RIMES = ("ax", "ib", "omp", "und", "erg", "ost", "ilk", "arn", "epp", "ugo")
#: Meaningless words whose value changes from document to document (verification skill only).
NONCE = tuple(onset + rime for onset in _ONSETS for rime in _RIMES)

_GAINS, _LOSSES = ("finds", "buys", "wins"), ("loses", "sells", "drops")
_MULTIPLIERS = {"doubles them": 2, "triples them": 3}
_SPOKEN = {"+": "plus", "-": "minus", "*": "times"}
_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth")


@dataclass(frozen=True, slots=True)
class Move:
    """One change of the count, e.g. ``Move("finds a score", "+", 20, 17)``."""

    phrase: str
    operator: str
    amount: int
    """The true amount."""
    belief: int
    """The amount the base model believes in; the true one except for unknown notions."""

    def apply(self, count: int, amount: int) -> int:
        """Return the count after this move with `amount` in place of the true amount."""
        return {"+": count + amount, "-": count - amount, "*": count * amount}[self.operator]

    def step(self, count: int, amount: int, result: int) -> str:
        """Return this move as a rollout writes it, without the blank line after it."""
        phrase = self.phrase[0].upper() + self.phrase[1:]
        return f"{phrase}: {count} {self.operator} {amount} = {result}."


@dataclass(frozen=True, slots=True)
class Story:
    """One problem of the world with its exact solution."""

    name: str
    thing: str
    start: int
    moves: tuple[Move, ...]

    @property
    def text(self) -> str:
        """The problem statement."""
        moves, thing = ", ".join(move.phrase for move in self.moves), self.thing
        return f"{self.name} has {self.start} {thing}, then {moves}. How many {thing} now?"

    @property
    def counts(self) -> list[int]:
        """The true count before each move and after the last: ``len(moves) + 1`` values."""
        return self.counts_with([move.amount for move in self.moves])

    def counts_with(self, amounts: Sequence[int]) -> list[int]:
        """Return the counts when move i uses ``amounts[i]``."""
        counts = [self.start]
        for move, amount in zip(self.moves, amounts, strict=True):
            counts.append(move.apply(counts[-1], amount))
        return counts

    @property
    def answer(self) -> str:
        """The true final count."""
        return str(self.counts[-1])

    @property
    def steps(self) -> list[str]:
        """The correct rollout, step by step, without blank lines."""
        return self.steps_with([move.amount for move in self.moves])

    def steps_with(self, amounts: Sequence[int]) -> list[str]:
        """Return the rollout of somebody who uses ``amounts[i]`` for move i and slips nowhere."""
        counts = self.counts_with(amounts)
        changes = zip(self.moves, amounts, pairwise(counts), strict=True)
        steps = [move.step(before, amount, after) for move, amount, (before, after) in changes]
        return [*steps, final_step(counts[-1])]

    @property
    def reference(self) -> str:
        """The reference solution, in its own style."""
        changes = zip(_ORDINALS, self.moves, pairwise(self.counts), strict=False)
        lines = [
            f"{ordinal}, {before} {_SPOKEN[move.operator]} {move.amount} makes {after}."
            for ordinal, move, (before, after) in changes
        ]
        return "\n".join([*lines, f"The result is {self.answer}."])

    @property
    def entry(self) -> str:
        """Nothing: an answer is all that its checker needs."""
        return ""

    def is_step(self, place: int, text: str) -> bool:
        """Whether `text` is the right step at a 0-based place."""
        return place < len(self.steps) and text.strip() == self.steps[place]

    def hint(self, num_lines: int) -> str:
        """Return the first `num_lines` lines of the reference solution."""
        return "\n".join(self.reference.split("\n")[:num_lines])


def spoken(move: Move) -> str:
    """Return the operator of a move as a reference says it."""
    return _SPOKEN[move.operator]


def draw_move(rng: random.Random, notion: Notion | None) -> Move:
    """Draw a move: of `notion`, or one with a numeral, a multiplier or a known word."""
    if notion is None and rng.random() < 0.15:
        phrase, factor = rng.choice(list(_MULTIPLIERS.items()))
        return Move(phrase, "*", factor, factor)
    gains = rng.random() < 0.5
    verb = rng.choice(_GAINS if gains else _LOSSES)
    operator = "+" if gains else "-"
    if notion is None and rng.random() < 0.5:
        amount = rng.randint(1, 15)
        return Move(f"{verb} {amount}", operator, amount, amount)
    notion = notion or rng.choice(KNOWN)
    article = "an" if notion.word[0] in "aeiou" else "a"
    return Move(f"{verb} {article} {notion.word}", operator, notion.truth, notion.belief)


def draw_story(rng: random.Random, notions: Sequence[Notion | None]) -> Story | None:
    """Try once to draw a story whose move i uses ``notions[i]`` (None: anything known).

    Counts stay within 1 … `MAX_COUNT` under every mix of true and believed amounts, no mix but the
    true one leads to the answer (two wrong beliefs must not cancel), and no count before the last
    equals the answer, so that a correct step never gives it away. None if the dice fell otherwise.
    """
    start = rng.randint(5, 50)
    counts, moves = {start}, []  # what somebody may hold who believes this or that
    for notion in notions:
        for _ in range(20):
            move = draw_move(rng, notion)
            after = {move.apply(c, amount) for c in counts for amount in (move.amount, move.belief)}
            if min(after) >= 1 and max(after) <= MAX_COUNT:
                break
        else:
            return None
        counts = after
        moves.append(move)
    story = Story(rng.choice(NAMES), rng.choice(THINGS), start, tuple(moves))
    return story if _is_sound(story) else None


def _is_sound(story: Story) -> bool:
    """Whether only the true amounts lead to the answer, and only at the end."""
    *before, answer = story.counts
    choices = [sorted({move.amount, move.belief}) for move in story.moves]
    truth = tuple(move.amount for move in story.moves)
    mixes = (amounts for amounts in product(*choices) if amounts != truth)
    return answer not in before and all(story.counts_with(m)[-1] != answer for m in mixes)


def generate_stories(kind: Kind, split: Split, seed: int) -> Iterator[Story]:
    """Yield distinct stories of `kind` that belong to `split`, without end, the same for a seed."""
    rng = random.Random(f"{seed}/{kind}/{split}")

    def draw(index: int) -> Story | None:
        return draw_story(rng, place_notions(rng, kind, index, 7, UNKNOWN, CONTROL))

    return distinct_stories(draw, split)
