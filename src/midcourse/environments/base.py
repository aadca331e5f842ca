"""What an environment must be able to do: answer a turn of the model, from all its turns so far.

An `Environment` keeps no state between calls. What has happened is what was said: it plays the
model's turns again. So a dialogue can be taken up at any step, as an intervention does, and a
killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from midcourse.records import Problem

Role = Literal["user", "tool"]
"""As whom an environment speaks in the chat template."""


class Environment(Protocol):
    """Answers the turns of one kind of dialogue."""

    @property
    def name(self) -> str:
        """The name under which a recipe asks for it, e.g. ``memory``."""

    @property
    def version(self) -> str:
        """Another version may mean other answers."""

    @property
    def role(self) -> Role:
        """As whom it speaks."""

    def answer(self, problem: Problem, turns: Sequence[str]) -> str | None:
        """Return what it says to the last of the model's `turns`; None ends the dialogue.

        The same turns get the same answer. `problem` has a text and an entry, and no gold answer.
        What it raises is our failure, never the model's: what a model writes may be anything.
        """
