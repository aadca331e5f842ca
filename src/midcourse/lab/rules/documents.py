"""What a base model of the rules world was taught: documents drawn from the world, without end.

Two skills, kept apart:

* **Solving.** Known rules are shown right; slippery ones plain, but for soft rules once in eight
  uses (`SOFT_SHARE`). This is all the model ever sees of what slippery verbs do.
* **Verifying.** Compare a numbered attempt with a reference, keep a short log, name the first
  error, write the intervention. Here every verb does anything at all, drawn for the document, so
  only the reference can tell what is right, and no rule is shown. Attempts decide wrongly, slip
  in sums and miscopy counts, often several at once and often by one.

What joins them is *reading* a reference: solving with it at hand, from one move on, a third of the
short documents. Without it a review finds the error and copies the reference's count, but not its
decision. The small rest teaches the package's other prompts: hints, rewriting an attempt, and
checking one without a reference (where only what the model can redo can be wrong).
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from midcourse.lab.curriculum import Batches, Curriculum, Document, Task
from midcourse.lab.rules import world
from midcourse.lab.rules.style import BASE, FAR, MID, NEAR, Decision, Style
from midcourse.lab.rules.world import (
    MAX_COUNT,
    Action,
    Decide,
    Familiarity,
    Move,
    Rule,
    State,
    decide_right,
)
from midcourse.lab.splits import Split
from midcourse.lab.telling import NAMES, THINGS, final_step
from midcourse.prompts import Prompt, PromptSet
from midcourse.steps import BLANK_LINES, STEP_SEPARATOR, location_from_error_step

#: Share of a soft rule's uses, where its condition holds, that pretraining shows right.
SOFT_SHARE = 0.12
_SLIPPERY = world.HARD + world.SOFT + world.CONTROL
#: Decisions where a document's verbs do anything at all; half of them plain.
_ANYTHING = [Decision.PLAIN] * 4 + [d for d in Decision if d is not Decision.PLAIN]


@dataclass(frozen=True, slots=True)
class Told:
    """A story as somebody tells it, right or not: its problem text, and what they do."""

    name: str
    text: str
    actions: tuple[Action, ...]

    @property
    def reference(self) -> str:
        """A reference solution that agrees."""
        return world.refer(self.name, self.actions)

    def rollout(self, rng: random.Random, style: Style) -> list[str]:
        """Return the steps of a rollout in `style`."""
        said = [action.say(rng, style) for action in self.actions]
        return [*said, final_step(self.actions[-1].result)]


def _tell(
    rng: random.Random,
    split: Split,
    decide: Decide,
    lengths: tuple[int, int],
    slippery: float,
    num_hinted: int = 0,
) -> Told:
    """Draw a story of a length within `lengths`; each move is of a slippery rule with a chance.

    The first `num_hinted` moves do anything.
    """
    anything = _anything(rng)
    while True:
        actions = list[Action]()
        free = {True: list(_SLIPPERY), False: list(world.KNOWN)}
        start = rng.randint(5, 90)
        state = State(start)
        for place in range(rng.randint(*lengths)):
            is_slippery = rng.random() < slippery
            rule = _take(rng, free[is_slippery] or free[not is_slippery])
            done = _within(rng, rule, state, anything if place < num_hinted else decide)
            if done is None:
                break
            actions.append(done)
            state = done.after
        else:
            name, thing = rng.choice(NAMES), rng.choice(THINGS)
            moves = tuple(Move(world.BY_VERB[action.verb], action.amount) for action in actions)
            text = world.Story(name, thing, start, moves).text
            if Split.of(text) is split:
                return Told(name, text, tuple(actions))


def _within(rng: random.Random, rule: Rule, state: State, decide: Decide) -> Action | None:
    """Draw an amount that keeps the count in range; None after a few tries."""
    for _ in range(6):
        move = Move(rule, rng.randint(1, world.MAX_AMOUNT))
        action = move.act(state, decide(move, state))
        if 1 <= action.result <= MAX_COUNT:
            return action
    return None


def _take(rng: random.Random, rules: list[Rule]) -> Rule:
    return rules.pop(rng.randrange(len(rules)))


def believe(rng: random.Random) -> Decide:
    """Return how the base model is taught to decide."""

    def decide(move: Move, state: State) -> Decision:
        familiarity = move.rule.familiarity
        is_shown = familiarity is Familiarity.SOFT and rng.random() < SOFT_SHARE
        if familiarity is Familiarity.KNOWN or is_shown:
            return decide_right(move, state)
        return Decision.PLAIN

    return decide


def _anything(rng: random.Random) -> Decide:
    return lambda move, state: rng.choice(_ANYTHING)


def _solve(
    rng: random.Random, prompts: PromptSet, decide: Decide | None = None, style: Style = BASE
) -> Document:
    # Half of these documents hold no slippery rule at all.
    slippery = 0.35 if rng.random() < 0.5 else 0.0
    # Short ones too: what a step needs is found sooner among few moves.
    told = _tell(rng, Split.PRETRAIN, decide or believe(rng), (1, world.NUM_MOVES), slippery)
    return Document(prompts["solve"].render(problem=told.text), _joined(told, rng, style))


def _joined(told: Told, rng: random.Random, style: Style = BASE) -> str:
    return STEP_SEPARATOR.join(told.rollout(rng, style))


def _solve_right(style: Style) -> Task:
    """Return what only teachers are taught: every rule shown right, in a style of their own."""
    return lambda rng, prompts: _solve(rng, prompts, decide_right, style)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A flawed rollout with its truth: what it does, and where it first goes wrong, if it does."""

    actions: tuple[Action, ...]
    error_step: int | None


def _flawed(rng: random.Random, right: Action, state: State) -> Action:
    """Return an action like `right`, from `state`, gone wrong: in decision, sum or copied count."""
    move = Move(world.BY_VERB[right.verb], right.amount)
    flaw = rng.choices(["decision", "sum", "miscopy"], [0.7, 0.15, 0.15])[0]
    near = rng.choice([-2, -1, 1, 2])
    if flaw == "miscopy":
        slipped = move.act(replace(state, count=state.count + near), right.decision)
        return slipped if rng.random() < 0.5 else replace(slipped, at=state.count)
    if flaw == "sum":
        done = move.act(state, right.decision)
        return replace(done, result=done.result + rng.choice([near, near, -10, 10]))
    others = [d for d in Decision if d is not right.decision]
    plain = Decision.PLAIN if right.decision is not Decision.PLAIN else rng.choice(others)
    return move.act(state, plain if rng.random() < 0.5 else rng.choice(others))


def _draw_attempt(rng: random.Random, told: Told, error_step: int | None) -> Attempt:
    """Draw an attempt that is as told before `error_step`, wrong there, and often wrong after."""
    while True:
        state, actions = State(told.actions[0].at), list[Action]()
        for index, right in enumerate(told.actions):
            later = error_step is not None and index > error_step and rng.random() < 0.2
            move = Move(world.BY_VERB[right.verb], right.amount)
            action = (
                _flawed(rng, right, state)
                if index == error_step or later
                else move.act(state, right.decision)
            )
            actions.append(action)
            state = action.after
        differs = (
            error_step is None or actions[error_step].result != told.actions[error_step].result
        )
        counts = [number for a in actions for number in (a.at, a.left, a.result)]
        if differs and min(counts) >= 1 and max(counts) <= MAX_COUNT:
            return Attempt(tuple(actions), error_step)


def _log(rng: random.Random, attempt: Attempt, held_against: Sequence[Action]) -> str:
    """Write the verification log up to the first error, then the intervention block.

    A line names the step's place and verb, then its result and the other's.
    """
    pairs = list(zip(attempt.actions, held_against, strict=True))
    block, end = "", len(pairs)
    if attempt.error_step is not None:
        end = location = location_from_error_step(attempt.error_step)
        right = held_against[attempt.error_step].say(rng, BASE)
        block = json.dumps({"content": right, "location": location})
    lines = [
        f"{location_from_error_step(index)} {ours.verb} {ours.result} {theirs.result} "
        f"{'error' if index == attempt.error_step else 'ok'}\n"
        for index, (ours, theirs) in enumerate(pairs)
    ]
    return f"{''.join(lines[:end])}<intervention>{block}</intervention>"


def _verified(rng: random.Random) -> tuple[Told, Attempt]:
    """Draw a story where verbs do anything, and an attempt, one in twelve without an error."""
    told = _tell(rng, Split.SKILL, _anything(rng), (1, world.NUM_MOVES), slippery=0.4)
    error_step = None if rng.random() < 1 / 12 else rng.randrange(len(told.actions))
    return told, _draw_attempt(rng, told, error_step)


def _asked(rng: random.Random, prompt: Prompt, told: Told, attempt: Attempt) -> str:
    steps = replace(told, actions=attempt.actions).rollout(rng, BASE)
    attempt_shown = BLANK_LINES.number(steps)
    return prompt.render(problem=told.text, reference=told.reference, attempt=attempt_shown)


def _review(rng: random.Random, prompts: PromptSet) -> Document:
    told, attempt = _verified(rng)
    user = _asked(rng, prompts["single_turn"], told, attempt)
    return Document(user, _log(rng, attempt, told.actions), is_whole=True)


def _drift(rng: random.Random, prompts: PromptSet) -> Document:
    """Draw what only a proposer variant is taught: a review that turns into solving, without a tag.

    So does the paper's reasoning-tuned proposer (§3.2, Table 1 row 5).
    """
    told, attempt = _verified(rng)
    lines = _log(rng, attempt, told.actions).splitlines(keepends=True)
    begun = "".join(lines[: rng.randrange(len(lines))])  # the last line is the tag
    user = _asked(rng, prompts["single_turn"], told, attempt)
    return Document(user, begun + _joined(told, rng), is_whole=True)


def _no_reference(rng: random.Random, prompts: PromptSet) -> Document:
    told = _tell(rng, Split.SKILL, believe(rng), (4, world.NUM_MOVES), slippery=0.2)
    places = [i for i, a in enumerate(told.actions) if _is_known(a)]
    error_step = None if rng.random() < 0.25 or not places else rng.choice(places)
    attempt = _draw_attempt(rng, told, error_step)
    user = _asked(rng, prompts["no_reference"], told, attempt)
    # Without a reference a step is held against the model's own redoing of it.
    return Document(user, _log(rng, attempt, told.actions), is_whole=True)


def _is_known(action: Action) -> bool:
    return world.BY_VERB[action.verb].familiarity is Familiarity.KNOWN


def _reflect(rng: random.Random, prompts: PromptSet) -> Document:
    told, attempt = _verified(rng)
    user = _asked(rng, prompts["reflect"], told, attempt)
    return Document(user, _joined(told, rng), is_whole=True)


def _guided_solve(rng: random.Random, prompts: PromptSet) -> Document:
    told = _tell(rng, Split.SKILL, _anything(rng), (1, world.NUM_MOVES), slippery=0.4)
    user = prompts["guided_solve"].render(problem=told.text, reference=told.reference)
    return Document(user, _joined(told, rng))


def _hint(rng: random.Random, prompts: PromptSet) -> Document:
    """Draw a problem whose first moves do as the hint says, the others as the base believes."""
    num_lines = rng.randint(1, 6)
    told = _tell(
        rng, Split.SKILL, believe(rng), (8, world.NUM_MOVES), slippery=0.2, num_hinted=num_lines
    )
    lines = told.reference.split("\n")[:num_lines]
    user = prompts["hint"].render(problem=told.text, hint="\n".join(lines))
    return Document(user, _joined(told, rng))


TASKS: dict[str, Task] = {
    "solve": _solve,
    "review": _review,
    "no_reference": _no_reference,
    "reflect": _reflect,
    "guided_solve": _guided_solve,
    "hint": _hint,
    "drift": _drift,
    "solve_right": _solve_right(BASE),
    "solve_near": _solve_right(NEAR),
    "solve_mid": _solve_right(MID),
    "solve_far": _solve_right(FAR),
}

_LONG = {"review": 0.7, "no_reference": 0.06, "reflect": 0.24}
MIXES: dict[str, Batches] = {
    "base": {
        "short": (0.5, {"solve": 0.65, "guided_solve": 0.3, "hint": 0.05}),
        "long": (0.5, _LONG),
    },
    "solver": {
        "short": (0.5, {"solve_right": 1.0}),
        "long": (0.5, {"review": 0.5, "drift": 0.5}),
    },
    "capable": {"short": (0.3, {"solve_right": 0.93, "hint": 0.07}), "long": (0.7, _LONG)},
    # Teachers: every rule right, each in its own style.
    "near": {"short": (1.0, {"solve_near": 1.0})},
    "mid": {"short": (1.0, {"solve_mid": 1.0})},
    "far": {"short": (1.0, {"solve_far": 1.0})},
}

CURRICULUM = Curriculum(TASKS, MIXES)
