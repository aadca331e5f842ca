"""What the base model of the programs world was taught: solving, drawn without end.

Known phrases are shown right; unknown ones are shown wrong nearly always, each use by itself
(`TRUTH_SHARE`). Verifying is not taught: interventions in this world are the world's own.
"""

from __future__ import annotations

import random

from midcourse.lab.curriculum import Batches, Curriculum, Document, Task
from midcourse.lab.programs import world
from midcourse.lab.splits import Split
from midcourse.prompts import PromptSet

#: Share of the uses of an unknown notion that pretraining shows right.
TRUTH_SHARE = 0.03
_UNKNOWN = world.UNKNOWN + world.CONTROL


def _story(rng: random.Random, chance: float) -> world.Story:
    while True:
        num_moves = rng.randint(3, world.NUM_MOVES)
        places = [rng.choice(_UNKNOWN) if rng.random() < chance else None for _ in range(num_moves)]
        story = world.draw_story(rng, places)
        if story and Split.of(story.text) is Split.PRETRAIN:
            return story


def _solve(rng: random.Random, prompts: PromptSet) -> Document:
    # Half of these documents hold no unknown notion at all.
    story = _story(rng, 0.3 if rng.random() < 0.5 else 0.0)
    notions = [move.notion for move in story.moves]
    meant = [of.truth if rng.random() < TRUTH_SHARE else of.belief for of in notions]
    return Document(prompts["solve"].render(problem=story.text), story.rollout(meant))


TASKS: dict[str, Task] = {"solve": _solve}
MIXES: dict[str, Batches] = {"base": {"short": (1.0, {"solve": 1.0})}}

CURRICULUM = Curriculum(TASKS, MIXES)
