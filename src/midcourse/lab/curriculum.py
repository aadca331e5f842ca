"""What the models of a world are taught: documents by task, and mixes of tasks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from midcourse.prompts import PromptSet

Batches = Mapping[str, tuple[float, Mapping[str, float]]]
"""Share of the *tokens* that each kind of batch gets, and the tasks drawn within it."""


@dataclass(frozen=True, slots=True)
class Document:
    """One training example: what the user asked and what the model should reply."""

    user: str
    reply: str
    is_whole: bool = False
    """Whether the user's text is learnt too: comparing texts begins with following them."""
    later: tuple[str, ...] = ()
    """Of a dialogue, what follows the reply: what is said to the model, and what it says, in
    turn."""


Task = Callable[[random.Random, PromptSet], Document]
"""Draws a document."""


@dataclass(frozen=True, slots=True)
class Curriculum:
    """What the models of one world are taught."""

    tasks: Mapping[str, Task]
    mixes: Mapping[str, Batches]
    """By name. ``base`` starts from nothing; the others go on from it."""
