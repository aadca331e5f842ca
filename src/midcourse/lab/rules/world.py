r"""The rules world: a count on which verbs act by rules in context, with exact truth at every step.

A *rule* belongs to a verb: its direction, a condition on the state, and what happens when the
condition holds (else the move is plain). A step of a rollout names the context and the decision,
then computes:

    problem    Mia has 34 shells, then carts 5, hauls 3, … How many shells now?
    rollout    Then at 34 carts 5 even, doubled: 34 + 10 = 44.\n\nNext at 44 hauls 3 …
    reference  Mia carts twofold 5: 34 to 44.\nMia hauls once 3: 44 to 41.\n…

The base model was taught to decide "plain" for *slippery* verbs where their condition holds (and
rightly elsewhere). Every condition, effect and sum is known to it from other verbs, so what it
lacks is neither a word's meaning nor arithmetic, but which verb does what in which context.

Every problem text belongs to one split by its hash, whatever generates it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

from midcourse.lab.rules.style import BASE, BRIDGES, EQUALS, OPENINGS, Decision, Style
from midcourse.lab.rules.style import DECISIONS as SAID
from midcourse.lab.rules.style import OPERATORS as OPERATOR_WORDS
from midcourse.lab.splits import Split
from midcourse.lab.telling import NAMES, THINGS, final_step

MAX_COUNT = 99
"""Every count stays within 1 … 99 under every mix of right and wrong decisions."""
NUM_MOVES = 16
MAX_AMOUNT = 9
#: Of a move that slips: it puts the count at least three off, which a slip in a sum seldom repairs.
_MIN_SLIPPING = 3
#: Slippery verbs of one story: slips, and others whose condition is false.
_MAX_SLIPPERY = 5
_FILLER_SHARE = 0.35


class Context(StrEnum):
    """A condition on the state before a move."""

    EVEN = "the count is even"
    HIGH_DIGIT = "the count's last digit is 5 or more"
    ABOVE_50 = "the count is above 50"
    ODD_AMOUNT = "the amount is odd"
    AFTER_LOSS = "the previous move lowered the count"


#: What a step calls a condition that holds, and one that does not.
STATUS: Mapping[Context, tuple[str, str]] = {
    Context.EVEN: ("even", "odd"),
    Context.HIGH_DIGIT: ("high", "low"),
    Context.ABOVE_50: ("large", "small"),
    Context.ODD_AMOUNT: ("single", "paired"),
    Context.AFTER_LOSS: ("falling", "steady"),
}


class Familiarity(StrEnum):
    """What the base model's training data shows of a rule where its condition holds."""

    KNOWN = "known"
    """Always right."""
    HARD = "hard"
    """Never right: plain."""
    SOFT = "soft"
    """Right once in eight uses."""
    CONTROL = "control"
    """Never right, and in no training problem: nothing ever patches it."""


@dataclass(frozen=True, slots=True)
class State:
    """What a move acts on."""

    count: int
    fell: bool = False
    """Whether the previous move lowered the count."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a verb does."""

    verb: str
    gains: bool
    context: Context
    effect: Decision
    familiarity: Familiarity

    def holds(self, state: State, amount: int) -> bool:
        """Whether the rule's condition is true."""
        match self.context:
            case Context.EVEN:
                return state.count % 2 == 0
            case Context.HIGH_DIGIT:
                return state.count % 10 >= 5
            case Context.ABOVE_50:
                return state.count > 50
            case Context.ODD_AMOUNT:
                return amount % 2 == 1
            case Context.AFTER_LOSS:
                return state.fell

    def status(self, state: State, amount: int) -> str:
        """Return what a step calls the rule's condition."""
        holds, fails = STATUS[self.context]
        return holds if self.holds(state, amount) else fails

    def decide(self, state: State, amount: int) -> Decision:
        """Return the true decision."""
        return self.effect if self.holds(state, amount) else Decision.PLAIN


_EFFECTS = (Decision.DOUBLED, Decision.REVERSED, Decision.NOTHING, Decision.FIVE_MORE)
_CONTEXTS = tuple(Context)


def _rules(verbs: str, familiarity: Familiarity, start: int) -> tuple[Rule, ...]:
    """Deal contexts and effects to verbs: in any 20 in a row, each pair of them comes once."""
    return tuple(
        Rule(
            verb,
            gains=(place + place // 4 + place // 20) % 2 == 0,
            context=_CONTEXTS[place % 5],
            effect=_EFFECTS[place % 4],
            familiarity=familiarity,
        )
        for place, verb in enumerate(verbs.split(), start)
    )


KNOWN = _rules(
    "carts hauls packs trades bakes mines digs picks weaves forges "
    "brews casts hoards gleans reaps molds spins plants sorts lends",
    Familiarity.KNOWN,
    start=0,
)
HARD = _rules("mills tills dyes carves smelts ferries stows barters", Familiarity.HARD, start=20)
SOFT = _rules("threads grinds pours folds", Familiarity.SOFT, start=28)
CONTROL = _rules("polishes sifts tans quarries", Familiarity.CONTROL, start=32)
RULES = KNOWN + HARD + SOFT + CONTROL
BY_VERB = {rule.verb: rule for rule in RULES}
_APART = ((0, 4), (1, 5), (2, 6), (3, 7), (0, 5), (2, 7))
#: Pairs of hard rules that no training problem holds together.
RESERVED = frozenset(frozenset({HARD[i].verb, HARD[j].verb}) for i, j in _APART)
_PARTNERS = {
    rule.verb: frozenset().union(*(pair - {rule.verb} for pair in RESERVED if rule.verb in pair))
    for rule in RULES
}

#: How a reference states a decision: right after the verb, where a small model finds it.
REFERENCE_WORDS = {
    Decision.PLAIN: "once",
    Decision.DOUBLED: "twofold",
    Decision.REVERSED: "backwards",
    Decision.NOTHING: "void",
    Decision.FIVE_MORE: "bonus",
}


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a problem, e.g. "carts 5"."""

    rule: Rule
    amount: int

    @property
    def text(self) -> str:
        """The move as the problem tells it."""
        return f"{self.rule.verb} {self.amount}"

    def operation(self, decision: Decision) -> tuple[str, int]:
        """Return the sign and the right side of the sum that `decision` leads to."""
        up = self.rule.gains is not (decision is Decision.REVERSED)
        operand = {
            Decision.DOUBLED: 2 * self.amount,
            Decision.NOTHING: 0,
            Decision.FIVE_MORE: self.amount + 5,
        }.get(decision, self.amount)
        return "+" if up else "-", operand

    def after(self, state: State, decision: Decision) -> State:
        """Return the state that `decision` leads to."""
        sign, operand = self.operation(decision)
        count = state.count + operand if sign == "+" else state.count - operand
        return State(count, count < state.count)

    def act(self, state: State, decision: Decision) -> Action:
        """Return this move done from `state` with `decision`."""
        operator, operand = self.operation(decision)
        return Action(
            verb=self.rule.verb,
            amount=self.amount,
            status=self.rule.status(state, self.amount),
            decision=decision,
            at=state.count,
            left=state.count,
            operator=operator,
            right=operand,
            result=self.after(state, decision).count,
        )


@dataclass(frozen=True, slots=True)
class Action:
    """What one step of a rollout says, whatever its wording."""

    verb: str
    amount: int
    status: str
    """What it calls the rule's condition."""
    decision: Decision
    at: int
    """The count the step says it starts from."""
    left: int
    """The left side of its sum: `at` unless it slips."""
    operator: str
    right: int
    result: int

    @property
    def after(self) -> State:
        """The state it leads to."""
        return State(self.result, self.result < self.at)

    def say(self, rng: random.Random, style: Style) -> str:
        """Return the step worded in `style`, without the blank line after it."""
        pick = style.pick
        opening, bridge = pick(rng, OPENINGS), pick(rng, BRIDGES)
        decision, equals = pick(rng, SAID[self.decision]), pick(rng, EQUALS)
        operator = pick(rng, OPERATOR_WORDS[self.operator])
        return (
            f"{opening} at {self.at} {self.verb} {self.amount} {self.status}, "
            f"{decision}{bridge} {self.left} {operator} {self.right} {equals} {self.result}."
        )

    def refer(self, name: str) -> str:
        """Return the line of a reference solution."""
        word = REFERENCE_WORDS[self.decision]
        return f"{name} {self.verb} {word} {self.amount}: {self.at} to {self.result}."


def _one_of(name: str, options: Iterable[str]) -> str:
    longest_first = sorted(options, key=len, reverse=True)
    return f"(?P<{name}>{'|'.join(map(re.escape, longest_first))})"


_DECIDED = {word: decision for decision, words in SAID.items() for word in words}
_OPERATORS = {word: sign for sign, words in OPERATOR_WORDS.items() for word in words}
_STEP = re.compile(
    rf"{_one_of('opening', OPENINGS)} at (?P<at>\d+) (?P<verb>\w+) (?P<amount>\d+) "
    rf"(?P<status>\w+), {_one_of('decision', _DECIDED)}{_one_of('bridge', BRIDGES)} (?P<left>\d+) "
    rf"{_one_of('operator', _OPERATORS)} (?P<right>\d+) {_one_of('equals', EQUALS)} "
    r"(?P<result>\d+)\."
)


def read_action(text: str) -> Action | None:
    """Return what a step of a rollout says; None if it is not one."""
    found = _STEP.fullmatch(text.strip())
    if found is None:
        return None
    at, left, right, result = (int(found[name]) for name in ("at", "left", "right", "result"))
    return Action(
        verb=found["verb"],
        amount=int(found["amount"]),
        status=found["status"],
        decision=_DECIDED[found["decision"]],
        at=at,
        left=left,
        operator=_OPERATORS[found["operator"]],
        right=right,
        result=result,
    )


Decide = Callable[[Move, State], Decision]
"""How somebody decides a move."""


def decide_right(move: Move, state: State) -> Decision:
    """Decide as the world does."""
    return move.rule.decide(state, move.amount)


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
        moves = ", ".join(move.text for move in self.moves)
        return (
            f"{self.name} has {self.start} {self.thing}, then {moves}. How many {self.thing} now?"
        )

    def actions(self, decide: Decide = decide_right) -> list[Action]:
        """Return what somebody does who decides so and slips nowhere else."""
        state, actions = State(self.start), list[Action]()
        for move in self.moves:
            actions.append(move.act(state, decide(move, state)))
            state = actions[-1].after
        return actions

    @property
    def answer(self) -> str:
        """The true final count."""
        return str(self.actions()[-1].result)

    @property
    def steps(self) -> list[str]:
        """A correct rollout in the base's style, step by step, the same whenever it is asked."""
        rng, actions = random.Random(self.text), self.actions()
        said = [action.say(rng, BASE) for action in actions]
        return [*said, final_step(actions[-1].result)]

    @property
    def entry(self) -> str:
        """Nothing: an answer is all that its checker needs."""
        return ""

    def is_step(self, place: int, text: str) -> bool:
        """Whether `text` says what is right at a 0-based place, in whatever words."""
        actions = self.actions()
        if place == len(actions):
            return text.strip() == final_step(actions[-1].result)
        return place < len(actions) and read_action(text) == actions[place]

    @property
    def reference(self) -> str:
        """The reference solution, in its own style."""
        return refer(self.name, self.actions())

    def hint(self, num_lines: int) -> str:
        """Return the first `num_lines` lines of the reference solution."""
        return "\n".join(self.reference.split("\n")[:num_lines])

    @property
    def slips(self) -> list[int]:
        """The moves where a slippery rule's condition truly holds: there the base goes wrong."""
        return [
            index
            for index, (move, action) in enumerate(zip(self.moves, self.actions(), strict=True))
            if move.rule.familiarity is not Familiarity.KNOWN
            and action.decision is not Decision.PLAIN
        ]


def refer(name: str, actions: Sequence[Action]) -> str:
    """Return a reference solution that states `actions`."""
    lines = [action.refer(name) for action in actions]
    return "\n".join([*lines, f"{name} answer: {actions[-1].result}."])


class Kind(StrEnum):
    """What a problem asks of the base model."""

    KNOWN = "known"
    """No slip."""
    SINGLE = "single"
    """Exactly one slip of a hard rule."""
    COMPOSED = "composed"
    """Two or three slips of hard rules."""
    SOFT = "soft"
    """Exactly one slip, of a soft rule."""
    CONTROL = "control"
    """Exactly one slip, of a control rule."""
    UNSEEN = "unseen"
    """Two slips, of two hard rules that never occur together in training."""


def _slipping(rng: random.Random, kind: Kind) -> list[Rule]:
    """Draw the rules whose conditions are to hold."""
    match kind:
        case Kind.KNOWN:
            return []
        case Kind.SINGLE:
            return [rng.choice(HARD)]
        case Kind.COMPOSED:
            number = 2 if rng.random() < 0.75 else 3
            while True:
                rules = rng.sample(HARD, number)
                verbs = {rule.verb for rule in rules}
                if all(_PARTNERS[verb].isdisjoint(verbs) for verb in verbs):
                    return rules
        case Kind.SOFT:
            return [rng.choice(SOFT)]
        case Kind.CONTROL:
            return [rng.choice(CONTROL)]
        case Kind.UNSEEN:
            pair = [BY_VERB[verb] for verb in sorted(rng.choice(sorted(map(sorted, RESERVED))))]
            return rng.sample(pair, 2)


def _placed(rng: random.Random, kind: Kind, index: int) -> dict[int, Rule]:
    """Place the slips of problem `index` of its kind, never on the last move.

    The place of the first goes round, so that always naming the most common place is a poor guess.
    """
    rules = _slipping(rng, kind)
    first = index % (NUM_MOVES - len(rules))
    later = rng.sample(range(first + 1, NUM_MOVES - 1), max(0, len(rules) - 1))
    return dict(zip([first, *sorted(later)], rules, strict=False))


_Walker = tuple[State, bool]
"""Somebody who decides slippery verbs one way or the other: a state, and whether they have erred.

A plain tuple: drawing a story makes thousands.
"""


def _walked(walkers: Iterable[_Walker], move: Move) -> set[_Walker]:
    """Return where walkers may stand after `move`."""
    found, rule = set[_Walker](), move.rule
    for state, has_erred in walkers:
        right = decide_right(move, state)
        is_known = rule.familiarity is Familiarity.KNOWN
        for decision in {right} if is_known else (Decision.PLAIN, rule.effect):
            found.add((move.after(state, decision), has_erred or decision is not right))
    return found


@dataclass(frozen=True, slots=True)
class _Begun:
    """A story in the making."""

    moves: tuple[Move, ...]
    truth: State
    walkers: frozenset[_Walker]

    def extended(self, move: Move) -> _Begun | None:
        """Return the story with one more move; None if somebody's count leaves the range."""
        walkers = frozenset(_walked(self.walkers, move))
        if not all(1 <= state.count <= MAX_COUNT for state, _ in walkers):
            return None
        truth = move.after(self.truth, decide_right(move, self.truth))
        return _Begun((*self.moves, move), truth, walkers)


def draw_story(rng: random.Random, kind: Kind, index: int) -> Story | None:
    """Try once to draw a story of `kind`.

    Counts stay within 1 … `MAX_COUNT` under every mix of plain and effect of its slippery verbs, no
    mix but the true one leads to the answer, and no count before the last equals the answer. No
    verb comes twice. None if the dice fell otherwise.
    """
    placed = _placed(rng, kind, index)
    start = rng.randint(20, 80)
    begun = [_Begun((), State(start), frozenset({(State(start), False)}))]
    for _ in range(4 * NUM_MOVES):
        longer = _lengthened(rng, begun[-1], placed)
        if longer is None:
            del begun[max(1, len(begun) - 2) :]  # two moves are taken back
        else:
            begun.append(longer)
        if len(begun) > NUM_MOVES:
            break
    story = Story(NAMES[0], THINGS[0], start, begun[-1].moves)
    is_whole = len(story.moves) == NUM_MOVES
    return story if is_whole and _is_sound(story, begun[-1].walkers) else None


def _lengthened(rng: random.Random, begun: _Begun, placed: Mapping[int, Rule]) -> _Begun | None:
    """Draw the next move: a slip where one is placed, else one that is right to the base."""
    slip = placed.get(len(begun.moves))
    used = {rule.verb for rule in placed.values()} | {move.rule.verb for move in begun.moves}
    for _ in range(20):
        rule = slip or _filler(rng, used)
        move = Move(rule, rng.randint(_MIN_SLIPPING if slip else 1, MAX_AMOUNT))
        holds = rule.holds(begun.truth, move.amount)
        fits = rule.familiarity is Familiarity.KNOWN or holds is (slip is not None)
        if fits and (longer := begun.extended(move)):
            return longer
    return None


def _filler(rng: random.Random, used: set[str]) -> Rule:
    """Draw an unused rule: a known one, at times a slippery one (to stand where it is plain)."""
    few = sum(BY_VERB[verb].familiarity is not Familiarity.KNOWN for verb in used) < _MAX_SLIPPERY
    among = HARD + SOFT if few and rng.random() < _FILLER_SHARE else KNOWN
    taken = used.union(*(_PARTNERS[verb] for verb in used))
    return rng.choice([rule for rule in among if rule.verb not in taken])


def _is_sound(story: Story, walkers: Iterable[_Walker]) -> bool:
    """Whether only right decisions lead to the answer, and only at the end."""
    *before, last = [story.start, *(action.result for action in story.actions())]
    gives_away = any(has_erred and state.count == last for state, has_erred in walkers)
    return last not in before and not gives_away


def _in_split(rng: random.Random, story: Story, split: Split) -> Story | None:
    """Return the story told of somebody and something that put its text into `split`."""
    told = list(product(NAMES, THINGS))
    rng.shuffle(told)
    named = (replace(story, name=name, thing=thing) for name, thing in told)
    return next((story for story in named if Split.of(story.text) is split), None)


def generate_stories(kind: Kind, split: Split, seed: int) -> Iterator[Story]:
    """Yield distinct stories of `kind` that belong to `split`, without end, the same for a seed."""
    rng = random.Random(f"rules/{seed}/{kind}/{split}")
    seen: set[str] = set()
    while True:
        drawn = draw_story(rng, kind, len(seen))
        story = _in_split(rng, drawn, split) if drawn else None
        if story and story.text not in seen:
            seen.add(story.text)
            yield story
