"""Hints: the beginning of a reference solution, shown in the user's turn (§3.2, Table 1 row 8).

A hint is a prefix of the reference's steps, its length uniform in (0, 1/3] of them, so that it
cannot give the solution away; the draw is seeded per problem, so that one problem has one hint in
every rollout, condition and RL iteration. A step is whatever the reference is written in: blocks
between blank lines, else lines, else sentences, else words; the coarsest unit of which a third is
at least one is taken.
"""

from __future__ import annotations

import random
import re

from midcourse.records import Problem
from midcourse.rendering import Renderer

#: From coarse to fine: each cuts a text into units that join to the text again.
_UNITS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (r".*?(?:\n\n+|\Z)", r".*?(?:\n|\Z)", r".*?(?:[.!?]\s+|\Z)", r"\s*\S+\s*")
)


def hint_of(problem: Problem, seed: int) -> str:
    """Return the hint of a problem; "" if its reference has fewer than three words.

    Raises ValueError if there is no reference.
    """
    units = _units(_reference(problem))
    most = len(units) // 3
    if not most:
        return ""
    number = random.Random(f"{seed}/hint/{problem.problem_id}").randint(1, most)
    return "".join(units[:number]).rstrip()


def hint_of_share(problem: Problem, share: float) -> str:
    """Return the first steps of the reference, e.g. half of them: as many as come closest, or one.

    Raises ValueError if there is no reference.
    """
    units = _units(_reference(problem))
    return "".join(units[: max(1, round(share * len(units)))]).rstrip()


def hint_of_tokens(problem: Problem, num_tokens: int, renderer: Renderer) -> str:
    """Return the reference's first `num_tokens` tokens, or all of it: a hint of a given length."""
    return renderer.decode(renderer.encode(_reference(problem))[:num_tokens])


def _reference(problem: Problem) -> str:
    if not problem.reference_solution:
        raise ValueError(f"problem {problem.problem_id} has no reference solution to hint from")
    return problem.reference_solution.strip()


def _units(text: str) -> list[str]:
    """Cut `text` into its coarsest units of which there are at least three, else into words."""
    units: list[str] = []
    for pattern in _UNITS:
        units = [unit for unit in pattern.findall(text) if unit.strip()]
        if len(units) >= 3:
            break
    return units
