"""What the stories of both worlds have in common: who counts what, and how an answer is stated."""

from __future__ import annotations

from midcourse.checkers import checker_named

NAMES = ("Mia", "Noor", "Ivo", "Ada", "Ken", "Lea", "Tom", "Zoe")
THINGS = ("shells", "coins", "stamps", "beads", "cards", "nuts")


def final_step(count: int) -> str:
    r"""Return the last step of a rollout, ``The answer is \boxed{28}.``."""
    return checker_named("math").state(str(count))
