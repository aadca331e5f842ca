r"""The rules world: a count on which verbs act by rules in context, with exact truth at every step.

A *rule* belongs to a verb: its direction, a condition on the state, and what happens when the
condition holds (else the move is plain). A step of a rollout names the decision, then computes:

    problem    Mia has 34 shells, then carts 5, hauls 3, … How many shells now?
    rollout    Then at 34 carts 5, doubled: 34 - 10 = 24.\n\nNext at 24 hauls 3, plain: 24 + 3 = …
    reference  Mia carts 5 twofold: 34 to 24.\nMia hauls 3 once: 24 to 27.\n…

The base model was taught to decide "plain" for *slippery* verbs where their condition holds (and
rightly elsewhere). Every condition, effect and sum is known to it from other verbs, so what it
lacks is neither a word's meaning nor arithmetic, but which verb does what in which context.

Every problem text belongs to one split by its hash, whatever generates it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from midcourse.checkers import checker_named
from midcourse.lab.rules.style import BRIDGES, EQUALS, OPENINGS, Decision, Style
from midcourse.lab.rules.style import DECISIONS as SAID
from midcourse.lab.rules.style import OPERATORS as OPERATOR_WORDS
from midcourse.lab.world import Split

MAX_COUNT = 99
"""Every count stays within 1 … 99 under every mix of right and wrong decisions."""
NUM_MOVES = 16
MAX_AMOUNT = 12
#: Slippery verbs of one story: slips, and others whose condition is false.
_MAX_SLIPPERY = 5
_FILLER_SHARE = 0.12


class Context(StrEnum):
    """A condition on the state before a move."""

    EVEN = "the count is even"
    HIGH_DIGIT = "the count's last digit is 5 or more"
    ABOVE_50 = "the count is above 50"
    ODD_AMOUNT = "the amount is odd"
    AFTER_LOSS = "the previous move lowered the count"


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

    def decide(self, state: State, amount: int) -> Decision:
        """Return the true decision."""
        return self.effect if self.holds(state, amount) else Decision.PLAIN


_EFFECTS = (Decision.DOUBLED, Decision.REVERSED, Decision.NOTHING, Decision.ONE_MORE)
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
#: Pairs of hard rules that no training problem holds together.
RESERVED = frozenset(
    frozenset({HARD[i].verb, HARD[j].verb}) for i, j in [(0, 4), (1, 5), (2, 6), (3, 7), (0, 5), (2, 7)]
)

NAMES = ("Mia", "Noor", "Ivo", "Ada", "Ken", "Lea", "Tom", "Zoe")
THINGS = ("shells", "coins", "stamps", "beads", "cards", "nuts")
#: How a reference states a decision.
REFERENCE_WORDS = {
    Decision.PLAIN: "once",
    Decision.DOUBLED: "twofold",
    Decision.REVERSED: "backwards",
    Decision.NOTHING: "void",
    Decision.ONE_MORE: "bonus",
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

    def act(self, state: State, decision: Decision) -> Action:
        """Return this move done from `state` with `decision`."""
        up = self.rule.gains is not (decision is Decision.REVERSED)
        operand = {Decision.DOUBLED: 2 * self.amount, Decision.NOTHING: 0}.get(
            decision, self.amount + (decision is Decision.ONE_MORE)
        )
        result = state.count + (operand if up else -operand)
        count = state.count
        return Action(
            self.rule.verb, self.amount, decision, count, count, "+" if up else "-", operand, result
        )


@dataclass(frozen=True, slots=True)
class Action:
    """What one step of a rollout says, whatever its wording."""

    verb: str
    amount: int
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
            f"{opening} at {self.at} {self.verb} {self.amount}, {decision}{bridge} "
            f"{self.left} {operator} {self.right} {equals} {self.result}."
        )

    def refer(self, name: str) -> str:
        """Return the line of a reference solution."""
        word = REFERENCE_WORDS[self.decision]
        return f"{name} {self.verb} {self.amount} {word}: {self.at} to {self.result}."


def final_step(count: int) -> str:
    r"""Return the last step of a rollout, ``The answer is \boxed{28}.``."""
    return checker_named("math").state(str(count))


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
        return f"{self.name} has {self.start} {self.thing}, then {moves}. How many {self.thing} now?"

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
            return rng.sample(HARD, 2 if rng.random() < 0.75 else 3)
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


@dataclass(frozen=True, slots=True)
class _Walker:
    """Somebody who decides slippery verbs one way or the other."""

    state: State
    has_erred: bool


def _walked(walkers: Iterable[_Walker], move: Move) -> set[_Walker]:
    """Return where walkers may stand after `move`."""
    found = set()
    for walker in walkers:
        right = decide_right(move, walker.state)
        choices = {right}
        if move.rule.familiarity is not Familiarity.KNOWN:
            choices = {Decision.PLAIN, move.rule.effect}
        for decision in choices:
            after = move.act(walker.state, decision).after
            found.add(_Walker(after, walker.has_erred or decision is not right))
    return found


def draw_story(rng: random.Random, kind: Kind, index: int) -> Story | None:
    """Try once to draw a story of `kind`.

    Counts stay within 1 … `MAX_COUNT` under every mix of plain and effect of its slippery verbs, no
    mix but the true one leads to the answer, and no count before the last equals the answer. No
    verb comes twice. None if the dice fell otherwise.
    """
    placed = _placed(rng, kind, index)
    slips = {rule.verb for rule in placed.values()}
    fillers = [rule for rule in HARD + SOFT if rule.verb not in slips]
    start = rng.randint(20, 80)
    truth, walkers, moves = State(start), {_Walker(State(start), False)}, list[Move]()
    for place in range(NUM_MOVES):
        used = {move.rule.verb for move in moves}
        for _ in range(20):
            rule = placed.get(place) or _filler(rng, fillers, used | slips)
            move = Move(rule, rng.randint(1, MAX_AMOUNT))
            is_slip = place in placed or rule.familiarity is Familiarity.KNOWN
            if not is_slip and rule.holds(truth, move.amount):
                continue
            if place in placed and not rule.holds(truth, move.amount):
                continue
            after = _walked(walkers, move)
            if all(1 <= walker.state.count <= MAX_COUNT for walker in after):
                break
        else:
            return None
        walkers, truth = after, move.act(truth, decide_right(move, truth)).after
        moves.append(move)
    story = Story(rng.choice(NAMES), rng.choice(THINGS), start, tuple(moves))
    return story if _is_sound(story, kind, walkers) else None


def _filler(rng: random.Random, slippery: Sequence[Rule], used: set[str]) -> Rule:
    """Draw an unused rule: a known one, at times a slippery one (to stand where it is plain)."""
    few = sum(BY_VERB[verb].familiarity is not Familiarity.KNOWN for verb in used) < _MAX_SLIPPERY
    among = slippery if few and rng.random() < _FILLER_SHARE else KNOWN
    free = [rule for rule in among if rule.verb not in used]
    return rng.choice(free or [rule for rule in KNOWN if rule.verb not in used])


def _is_sound(story: Story, kind: Kind, walkers: set[_Walker]) -> bool:
    """Whether only right decisions lead to the answer, and only at the end."""
    *before, last = [story.start, *(action.result for action in story.actions())]
    verbs = {move.rule.verb for move in story.moves}
    has_reserved = any(pair <= verbs for pair in RESERVED)
    gives_away = any(walker.state.count == last for walker in walkers if walker.has_erred)
    return last not in before and not gives_away and has_reserved is (kind is Kind.UNSEEN)


def generate_stories(kind: Kind, split: Split, seed: int) -> Iterator[Story]:
    """Yield distinct stories of `kind` that belong to `split`, without end, the same for a seed."""
    rng = random.Random(f"rules/{seed}/{kind}/{split}")
    seen: set[str] = set()
    while True:
        story = draw_story(rng, kind, len(seen))
        if story and story.text not in seen and Split.of(story.text) is split:
            seen.add(story.text)
            yield story
