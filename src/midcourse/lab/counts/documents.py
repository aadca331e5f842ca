"""What the lab's base model was taught: documents drawn from the world, without end.

Two skills, kept apart:

* **Solving.** Known notions are shown right; unknown ones are shown wrong nearly always, each
  use by itself (`TRUTH_SHARE`). This is all the model ever sees of unknown and control notions.
* **Verifying.** Compare a numbered attempt with a reference, keep a log, name the first error,
  write the intervention. What words mean here changes from document to document, so only the
  reference can tell what is right. Attempts misread *nonce* words, slip, take wrong signs and
  miscopy counts, often several at once. Unknown notions appear as mere words, with a value drawn
  for the document on which attempt and reference agree: the model learns to quote them, and is
  never shown anyone corrected about what one means.

The small rest teaches the package's other prompts: hints, rewriting an attempt, solving with the
reference, and checking an attempt without one (where only what the model can redo can be wrong).

Each document is a user message made by the same prompt files that the stages use, and a reply.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from midcourse.lab.counts import world
from midcourse.lab.counts.world import Move, Notion, Story
from midcourse.lab.curriculum import Batches, Curriculum, Document, Task
from midcourse.lab.splits import Split
from midcourse.lab.telling import final_step
from midcourse.prompts import Prompt, PromptSet
from midcourse.steps import BLANK_LINES, STEP_SEPARATOR, location_from_error_step

#: Share of the uses of an unknown notion that pretraining shows right.
TRUTH_SHARE = 0.06
_UNKNOWN = world.UNKNOWN + world.CONTROL
_UNKNOWN_WORDS = frozenset(notion.word for notion in _UNKNOWN)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A flawed rollout with its truth, e.g. steps, and the first wrong one (None if none is)."""

    steps: list[str]
    error_step: int | None
    correct_step: str
    """What should stand at `error_step`; empty if nothing is wrong."""


def _story(
    rng: random.Random, split: Split, notions: Sequence[Notion], chance: float, first: int = 7
) -> Story:
    """Draw a story of 4 to 7 moves, of which the `first` use one of `notions` with `chance`."""
    while True:
        places = [
            rng.choice(notions) if i < first and rng.random() < chance else None
            for i in range(rng.randint(4, 7))
        ]
        story = world.draw_story(rng, places)
        if story and Split.of(story.text) is split:
            return story


def _skill_notions(rng: random.Random) -> tuple[Notion, ...]:
    """Give words a value for one document: nonce words also a wrong one, mostly nearby.

    Two unknown notions join them as mere words. Without them the model could not even quote
    them: it copies only words it has seen copied.
    """
    notions = []
    for word in rng.sample(world.NONCE, 3):
        truth = rng.randint(1, 20)
        offset = rng.choice([-3, -2, -1, 1, 2, 3]) if rng.random() < 0.7 else rng.randint(-12, 12)
        wrong = truth + offset if truth + offset >= 1 and offset else truth + 1
        notions.append(Notion(word, truth, wrong))
    for unknown in rng.sample(_UNKNOWN, 2):
        value = rng.randint(1, 20)
        notions.append(Notion(unknown.word, value, value))
    return tuple(notions)


def _solve(rng: random.Random, prompts: PromptSet, truth_share: float = TRUTH_SHARE) -> Document:
    # Half of these documents hold no unknown notion at all.
    chance = 0.3 if rng.random() < 0.5 else 0.0
    story = _story(rng, Split.PRETRAIN, _UNKNOWN, chance)
    amounts = [m.amount if rng.random() < truth_share else m.belief for m in story.moves]
    user = prompts["solve"].render(problem=story.text)
    return Document(user, STEP_SEPARATOR.join(story.steps_with(amounts)))


def _solve_right(rng: random.Random, prompts: PromptSet) -> Document:
    """Draw what only a proposer variant is taught: every notion shown right."""
    return _solve(rng, prompts, truth_share=1.0)


def _flawed_step(rng: random.Random, move: Move, count: int) -> tuple[str, int]:
    """Return `move` done wrong from `count`, and the count it leads to."""
    flaws = ["slip", "sign", "miscopy"]
    if move.phrase.split()[-1] not in _UNKNOWN_WORDS:
        flaws += ["amount", "amount"]
    flaw, amount = rng.choice(flaws), move.amount
    if flaw == "sign" and move.operator in "+-":
        return _written(replace(move, operator="-" if move.operator == "+" else "+"), count, amount)
    if flaw == "miscopy":
        return _written(move, count + rng.choice([-2, -1, 1, 2]), amount)
    if flaw == "amount" or move.belief != amount:
        near = amount + rng.choice([-2, -1, 1, 2])
        return _written(move, count, move.belief if move.belief != amount else near)
    result = move.apply(count, amount) + rng.choice([-10, -2, -1, 1, 2, 10])
    return move.step(count, amount, result), result


def _written(move: Move, count: int, amount: int) -> tuple[str, int]:
    result = move.apply(count, amount)
    return move.step(count, amount, result), result


def _draw_attempt(rng: random.Random, story: Story, error_step: int | None) -> Attempt:
    """Draw an attempt at `story` that is right before `error_step` and mostly wrong after."""
    while True:
        count, steps, counts = story.start, [], [story.start]
        for index, move in enumerate(story.moves):
            later = error_step is not None and index > error_step and rng.random() < 0.25
            goes_wrong = index == error_step or later
            step, count = (
                _flawed_step(rng, move, count) if goes_wrong else _written(move, count, move.amount)
            )
            steps.append(step)
            counts.append(count)
        differs = error_step is None or counts[error_step + 1] != story.counts[error_step + 1]
        if differs and min(counts) >= 1 and max(counts) <= world.MAX_COUNT:
            correct = "" if error_step is None else story.steps[error_step]
            return Attempt([*steps, final_step(count)], error_step, correct)


def _result(step: str) -> str:
    """Return the count a step ends with."""
    return step.rstrip("}.").replace("{", " ").split()[-1]


def review_line(index: int, step: str, other: str) -> str:
    """Return a log's line about a 0-based step, up to its verdict; `other` is held against it."""
    number = location_from_error_step(index)
    return f"Substep {number}: {step} {other} {_result(step)} against {_result(other)}:"


def _log(attempt: Attempt, compared: list[str]) -> str:
    """Write the verification log up to the first error, then the intervention block.

    `compared` holds, for each step of the attempt, the sentence it is held against.
    """
    end, block = len(attempt.steps), ""
    if attempt.error_step is not None:
        end = location = location_from_error_step(attempt.error_step)
        block = json.dumps({"content": attempt.correct_step, "location": location})
    lines = [
        f"{review_line(index, step, other)} {'error' if index == attempt.error_step else 'ok'}.\n"
        for index, (step, other) in enumerate(zip(attempt.steps, compared, strict=True))
    ]
    return f"{''.join(lines[:end])}<intervention>{block}</intervention>"


def _verified(rng: random.Random) -> tuple[Story, Attempt]:
    """Draw a skill story with nonce notions and an attempt, one in twelve without an error."""
    story = _story(rng, Split.SKILL, _skill_notions(rng), chance=0.5)
    places = [i for i, move in enumerate(story.moves) if move.amount != move.belief]
    if not places or rng.random() < 0.4:
        places = list(range(len(story.moves)))
    error_step = None if rng.random() < 1 / 12 else rng.choice(places)
    return story, _draw_attempt(rng, story, error_step)


def _asked(prompt: Prompt, story: Story, attempt: Attempt) -> str:
    return prompt.render(
        problem=story.text, reference=story.reference, attempt=BLANK_LINES.number(attempt.steps)
    )


def _review(rng: random.Random, prompts: PromptSet) -> Document:
    story, attempt = _verified(rng)
    log = _log(attempt, story.reference.split("\n"))
    return Document(_asked(prompts["single_turn"], story, attempt), log)


def _drift(rng: random.Random, prompts: PromptSet) -> Document:
    """Draw what only a proposer variant is taught: a review that turns into solving, without a tag.

    So does the paper's reasoning-tuned proposer (§3.2, Table 1 row 5).
    """
    story, attempt = _verified(rng)
    lines = _log(attempt, story.reference.split("\n")).splitlines(keepends=True)
    begun = "".join(lines[: rng.randrange(len(lines))])  # the last line is the tag
    return Document(_asked(prompts["single_turn"], story, attempt), begun + _solved(story))


def _no_reference(rng: random.Random, prompts: PromptSet) -> Document:
    story = _story(rng, Split.SKILL, (), chance=0.0)
    error_step = None if rng.random() < 0.25 else rng.randrange(len(story.moves))
    attempt = _draw_attempt(rng, story, error_step)
    # Without a reference a step is held against the model's own redoing of it.
    return Document(_asked(prompts["no_reference"], story, attempt), _log(attempt, story.steps))


def _reflect(rng: random.Random, prompts: PromptSet) -> Document:
    story, attempt = _verified(rng)
    return Document(_asked(prompts["reflect"], story, attempt), _solved(story))


def _guided_solve(rng: random.Random, prompts: PromptSet) -> Document:
    story = _story(rng, Split.SKILL, _skill_notions(rng), chance=0.5)
    user = prompts["guided_solve"].render(problem=story.text, reference=story.reference)
    return Document(user, _solved(story))


def _hint(rng: random.Random, prompts: PromptSet) -> Document:
    num_lines = rng.randint(1, 2)
    story = _story(rng, Split.SKILL, _skill_notions(rng), chance=0.5, first=num_lines)
    user = prompts["hint"].render(problem=story.text, hint=story.hint(num_lines))
    return Document(user, _solved(story))


def _solved(story: Story) -> str:
    return STEP_SEPARATOR.join(story.steps)


TASKS: dict[str, Task] = {
    "solve": _solve,
    "solve_right": _solve_right,
    "review": _review,
    "drift": _drift,
    "no_reference": _no_reference,
    "reflect": _reflect,
    "guided_solve": _guided_solve,
    "hint": _hint,
}

#: What a model is taught. The two besides the base go on from it and only propose (Table 1 rows
#: 5-6): a good solver whose reviews often turn into solving, and one that knows every notion and
#: has practised reviewing more.
MIXES: dict[str, Batches] = {
    "base": {
        "short": (0.5, {"solve": 0.93, "hint": 0.07}),
        "long": (0.5, {"review": 0.74, "no_reference": 0.1, "reflect": 0.09, "guided_solve": 0.07}),
    },
    "solver": {
        "short": (0.5, {"solve_right": 1.0}),
        "long": (0.5, {"review": 0.5, "drift": 0.5}),
    },
    "capable": {
        "short": (0.3, {"solve_right": 0.93, "hint": 0.07}),
        "long": (0.7, {"review": 0.8, "no_reference": 0.1, "reflect": 0.05, "guided_solve": 0.05}),
    },
}

CURRICULUM = Curriculum(TASKS, MIXES)
