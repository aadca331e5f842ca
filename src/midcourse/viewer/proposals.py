"""Proposals with what belongs to each: the failed rollout, its answer, all continuations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from midcourse.records import Condition, Grade, Proposal, Rollout, Verdict
from midcourse.steps import whole_text
from midcourse.viewer.builder import (
    NOT_GRADED,
    PageBuilder,
    answer_of,
    title_of,
    verdict_of,
)
from midcourse.viewer.data import Continuation, Item, Kind, ProposalBody, Token
from midcourse.viewer.files import RunFiles, Step
from midcourse.viewer.room import Room, telling

#: In the place of a text that there is no room for.
NO_ROOM = "(left out for want of room: midcourse view RUN --rollouts all)"
#: Fewest texts that are shown of a proposal's continuations under a condition.
_FEWEST = 2
_INTERVENTION = str(Condition.PREFIX_INTERVENTION)
#: The interventions' own come first, then Table 1's order.
_ORDER = {name: place for place, name in enumerate((_INTERVENTION, *map(str, Condition)))}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failed rollout that proposals are about."""

    rollout_id: str
    answer: str
    steps: Sequence[str]
    num_characters: int

    @classmethod
    def of(
        cls, builder: PageBuilder, rollout_id: str, rollout: Rollout | None, answer: str
    ) -> Attempt:
        """Cut a rollout into steps; one that is not there has none."""
        if rollout is None:
            return cls(rollout_id, answer, [], 0)
        return cls(rollout_id, answer, builder.steps_of(rollout), len(rollout.text))


@dataclass(eq=False)
class Proposals:
    """What is known of proposals before their own texts are read."""

    by_id: dict[str, Proposal] = field(default_factory=dict)
    """Without turns."""
    attempts: set[str] = field(default_factory=set)
    """Ids of the rollouts that they are about."""
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    """Those rollouts themselves, by id; without token ids."""
    answers: dict[str, str] = field(default_factory=dict)
    """Of those rollouts, by id."""
    continuations: defaultdict[str, dict[str, Continuation]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """By proposal and rollout id."""

    @classmethod
    def read(cls, files: RunFiles) -> Proposals:
        """Read which proposals a run holds, and the rollouts that they are about."""
        found = cls()
        for step in _steps(files):
            for proposal in files.records(step, Proposal, ("turns",)):
                found.by_id.setdefault(proposal.proposal_id, proposal)
        found.attempts = {proposal.rollout_id for proposal in found.by_id.values()}
        for step in files.named("cases"):
            for rollout in files.rollouts(step):
                found.take(rollout)
        return found

    @property
    def has_all_texts(self) -> bool:
        """Whether no rollout that a proposal is about has to be looked for any more."""
        return self.rollouts.keys() >= self.attempts

    def take(self, rollout: Rollout) -> None:
        """Keep the text of a rollout if a proposal is about it."""
        if rollout.rollout_id in self.attempts:
            self.rollouts[rollout.rollout_id] = rollout

    def learn(self, proposal: Proposal, attempt: Rollout) -> None:
        """Keep what RL may begin a group from, besides what was read."""
        self.by_id[proposal.proposal_id] = replace(proposal, turns=())
        self.rollouts[attempt.rollout_id] = replace(attempt, token_ids=())

    def note(self, grades: Mapping[str, Grade]) -> None:
        """Keep the answers of the rollouts that proposals are about."""
        for rollout_id in self.attempts & grades.keys():
            self.answers[rollout_id] = answer_of(grades[rollout_id])

    def continued(self, files: RunFiles, step: Step, number: int | None, room: Room) -> None:
        """Keep the continuations of a stage, with so many texts; None is all of them."""
        grades, counts = files.grades_of(step), Counter[bool]()
        shown = None if number is None else _shown(grades.values(), number)
        again, num_lost = " again" if step.label.endswith(" again") else "", 0
        for rollout in files.rollouts(step):
            if rollout.parent_id not in self.by_id:
                num_lost += 1
                continue
            has_room = shown is None or rollout.rollout_id in shown
            counts[has_room] += 1
            text = whole_text(rollout.text, rollout.given) if has_room else NO_ROOM
            grade = grades.get(rollout.rollout_id)
            found = continuation(rollout, text, grade, again)
            self.continuations[rollout.parent_id][rollout.rollout_id] = found
        if num_lost:
            files.notes.append(f"{num_lost:,} continuations in {step.path}: of proposals not found")
        room.count("texts of continuations", counts.total(), counts[True])

    def attempt(self, builder: PageBuilder, rollout_id: str) -> Attempt:
        """Return a rollout that proposals are about; one that is not there has no steps."""
        rollout, answer = self.rollouts.get(rollout_id), self.answers.get(rollout_id, "")
        return Attempt.of(builder, rollout_id, rollout, answer)


def add_proposals(
    builder: PageBuilder, proposals: Proposals, strips: Mapping[str, Sequence[Token]]
) -> None:
    """Add every proposal, those about one rollout next to one another; they share its steps."""
    for step in _steps(builder.files):
        records = builder.files.records(step, Proposal)
        for rollout_id, about in groupby(records, key=lambda proposal: proposal.rollout_id):
            attempt = proposals.attempt(builder, rollout_id)
            for proposal in about:
                found = proposals.continuations.pop(proposal.proposal_id, {})
                add_proposal(
                    builder, proposal, attempt, found.values(), strips.get(proposal.proposal_id)
                )


def add_proposal(
    builder: PageBuilder,
    proposal: Proposal,
    attempt: Attempt,
    found: Iterable[Continuation],
    tokens: Sequence[Token] | None,
    *,
    arm: str = "",
    iteration: int | None = None,
) -> None:
    """Add a proposal; `arm` and `iteration` are of one that online InT made."""
    ordered = sorted(found, key=lambda one: _ORDER.get(one.condition, len(_ORDER)))
    own = [one.verdict for one in ordered if one.condition == _INTERVENTION]
    num_correct = own.count(Verdict.CORRECT)
    item = Item(
        kind=Kind.PROPOSAL,
        id=proposal.proposal_id,
        problem=builder.problems.place(proposal.problem_id),
        outcome=str(proposal.outcome),
        title=title_of(proposal.intervention, *(turn.reply for turn in proposal.turns[::-1])),
        chunk=0,
        position=0,
        model=arm or builder.names.label(proposal.proposer),
        verified=num_correct > 0 if {*own} - {NOT_GRADED} else None,
        trained=tokens is not None,
        num_correct=num_correct,
        num_continuations=len(own),
        location=proposal.location,
        arm=arm,
        iteration=iteration,
    )
    body = ProposalBody(
        rollout_id=attempt.rollout_id,
        answer=attempt.answer,
        steps=attempt.steps,
        intervention=builder.shown(proposal.intervention or ""),
        detail=proposal.detail,
        turns=[(turn.prompt, turn.reply) for turn in proposal.turns],
        continuations=ordered,
        tokens=tokens or (),
    )
    said = sum(len(text) for turn in body.turns for text in turn)
    builder.add(item, body, attempt.num_characters + said + sum(len(one.text) for one in ordered))


def continuation(rollout: Rollout, text: str, grade: Grade | None, again: str = "") -> Continuation:
    """Return a continuation as the page shows it; `again` tells fresh draws from the first ones."""
    return Continuation(
        rollout_id=rollout.rollout_id,
        condition=f"{rollout.condition}{again}",
        text=text,
        verdict=verdict_of(grade),
        answer=answer_of(grade),
        detail=grade.detail if grade else "",
    )


def _steps(files: RunFiles) -> list[Step]:
    return [*files.named("propose"), *files.named("shift")]


def _shown(grades: Iterable[Grade], number: int) -> set[str]:
    """Choose whose texts are shown: the telling ones, as many of each proposal."""
    by_parent = defaultdict[str, tuple[list[str], list[str]]](lambda: ([], []))
    for grade in grades:
        is_correct = grade.verdict is Verdict.CORRECT
        by_parent[str(grade.parent_id)][not is_correct].append(grade.rollout_id)
    each = max(_FEWEST, number // max(1, len(by_parent)))
    return {name for found in by_parent.values() for name in telling(*found, each)}
