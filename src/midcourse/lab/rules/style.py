"""How a step of the rules world is worded: independent slots, and styles that weigh their options.

Every slot lists its options from the usual to the rare. A style gives each rank a weight, so
that one base model has a distribution over many wordings of the same step, and a teacher's
distance from it is data.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate


class Decision(StrEnum):
    """What a move does in its context."""

    PLAIN = "plain"
    """The verb's direction and the amount as told."""
    DOUBLED = "doubled"
    """Twice the amount."""
    REVERSED = "reversed"
    """The other direction."""
    NOTHING = "nothing"
    """The count stays."""
    FIVE_MORE = "five more"
    """Five more than the amount."""


OPENINGS = ("Then", "Next", "Now", "And", "Later", "Thereupon")
BRIDGES = (":", " so", " giving", " hence", " thus", " whence")
EQUALS = ("=", "is", "makes", "gives", "equals", "yields")
OPERATORS: Mapping[str, tuple[str, ...]] = {
    "+": ("+", "plus", "and", "add", "with", "increased by"),
    "-": ("-", "minus", "less", "without", "down", "decreased by"),
}
DECISIONS: Mapping[Decision, tuple[str, ...]] = {
    Decision.PLAIN: ("plain", "simply", "as told", "normally", "literally", "unaltered"),
    Decision.DOUBLED: ("doubled", "twice", "double", "two times", "repeated", "duplicated"),
    Decision.REVERSED: ("reversed", "turned", "opposite", "inverted", "contrary", "backward"),
    Decision.NOTHING: ("nothing", "no effect", "idle", "none", "ignored", "cancelled"),
    Decision.FIVE_MORE: ("boosted", "extended", "raised", "lifted", "enlarged", "augmented"),
}


@dataclass(frozen=True, slots=True)
class Style:
    """A distribution over wordings: the weight of each rank, the same in every slot."""

    name: str
    weights: tuple[float, float, float, float, float, float]
    """Of the options of a slot, in their order; they add up to 1."""

    def pick(self, rng: random.Random, options: tuple[str, ...]) -> str:
        """Draw one of a slot's `options`."""
        (option,) = rng.choices(options, cum_weights=list(accumulate(self.weights)))
        return option

    def cross_entropy(self, told: Style) -> float:
        """Return the expected nats per slot that this style gives to a text in the style `told`."""
        pairs = zip(self.weights, told.weights, strict=True)
        return -sum(theirs * math.log(ours) for ours, theirs in pairs if theirs)


BASE = Style("base", (0.6, 0.25, 0.1, 0.03, 0.015, 0.005))
NEAR = Style("near", (0.35, 0.35, 0.2, 0.07, 0.02, 0.01))
MID = Style("mid", (0.02, 0.08, 0.3, 0.4, 0.15, 0.05))
FAR = Style("far", (0.0, 0.0, 0.05, 0.15, 0.3, 0.5))
#: How strong teachers write, from the base's own style away.
TEACHERS = (NEAR, MID, FAR)
