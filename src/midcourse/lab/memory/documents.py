"""What the memory world's base model was taught: dialogues, without end.

Known notions are shown right, unknown ones wrong nearly always, as in the counts world. The values
that a dialogue works out are those that the memory holds, right or wrong.
"""

from __future__ import annotations

import random

from midcourse.environments.memory import MemoryEnvironment
from midcourse.lab.counts.documents import TRUTH_SHARE
from midcourse.lab.counts.world import CONTROL, UNKNOWN
from midcourse.lab.curriculum import Batches, Curriculum, Document, Task
from midcourse.lab.memory import world
from midcourse.lab.splits import Split
from midcourse.prompts import PromptSet
from midcourse.records import Problem

_UNKNOWN = UNKNOWN + CONTROL


def _story(rng: random.Random) -> world.Story:
    # Half of the dialogues hold no unknown notion at all.
    chance = 0.5 if rng.random() < 0.5 else 0.0
    while True:
        places = [rng.choice(_UNKNOWN) if rng.random() < chance else None for _ in range(2)]
        story = world.draw_story(rng, [*places, None])
        if story and Split.of(story.text) is Split.PRETRAIN:
            return story


def _solve(rng: random.Random, prompts: PromptSet) -> Document:
    story = _story(rng)
    moves = [value.move for value in story.values]
    amounts = [m.amount if rng.random() < TRUTH_SHARE else m.belief for m in moves]
    turns = world.turn_texts(story.turns_with(amounts))
    user = prompts["solve"].render(problem=story.text)
    return Document(user, turns[0], later=answered(turns))


def answered(turns: list[str]) -> tuple[str, ...]:
    """Return what is said after the first of the model's turns: the memory's words and its own."""
    problem = Problem(
        problem_id="", text="", answer="", reference_solution=None, source="", split=""
    )
    later: list[str] = []
    for index, turn in enumerate(turns[1:], start=1):
        later += [MemoryEnvironment().answer(problem, turns[:index]) or "", turn]
    return tuple(later)


TASKS: dict[str, Task] = {"solve": _solve}
MIXES: dict[str, Batches] = {"base": {"dialogues": (1.0, {"solve": 1.0})}}
CURRICULUM = Curriculum(TASKS, MIXES)
