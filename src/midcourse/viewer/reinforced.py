"""What RL sampled, group after group, and what online InT proposed about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from midcourse.records import Rollout
from midcourse.stages.contexts import response_texts
from midcourse.steps import whole_text
from midcourse.training.rl.store import (
    Found,
    RlMember,
    group_of,
    has_found,
    read_found,
    read_rl,
)
from midcourse.viewer.builder import PageBuilder, answer_of
from midcourse.viewer.data import Continuation, Kind
from midcourse.viewer.files import RunFiles, Step, size_of
from midcourse.viewer.proposals import Attempt, Proposals, add_proposal, continuation
from midcourse.viewer.rollouts import add_rollout, rollout_item
from midcourse.viewer.room import Shown, Size


def arms_of(files: RunFiles) -> list[Step]:
    """Return the trainings that sampled, finished or not; no two have the same label."""
    steps = [step for step in files.named("checkpoints") if (step.path / "samples").is_dir()]
    number = Counter(step.label for step in steps)
    return [
        step if number[step.label] == 1 else replace(step, label=f"{step.label} ({step.key})")
        for step in steps
    ]


def arm_size(arm: Step) -> Size:
    """Return what an arm's rollouts would take."""
    return size_of(sorted(arm.path.glob("rollouts/iteration-*.parquet")))


@dataclass(eq=False)
class Arm:
    """An RL training that is added to a page."""

    builder: PageBuilder
    step: Step
    proposals: Proposals
    """Those that groups may begin from."""
    number: int | None
    """How many rollouts there is room for; None is all. Groups are in the page whole."""

    def add(self) -> None:
        """Add its groups, evenly spread where there is no room for all."""
        members = self.builder.files.tolerant(read_rl(self.step.path, ("token_ids",)))
        before, total, place = self.builder.number(Kind.RL), 0, 0
        every = self._every()
        for iteration, sampled in groupby(members, key=lambda member: member[2].iteration):
            of_iteration = list(sampled)
            total += len(of_iteration)
            for _, group in groupby(of_iteration, key=group_of):
                if every and place % every == 0:
                    self._add_group(list(group))
                place += 1
            self._add_found(iteration, of_iteration)
        kept = self.builder.number(Kind.RL) - before
        self.builder.room.count("rollouts of RL", total, kept)

    def _every(self) -> int:
        """Return which share of the groups is in the page: every so many; 0 is none."""
        if not self.number:
            return int(self.number is None)
        return -(-arm_size(self.step).num_rollouts // self.number)

    def _add_group(self, members: Sequence[RlMember]) -> None:
        problem_id = members[0][0].problem_id
        if self.builder.room.shown is Shown.HARD and not self.builder.problems.is_hard(problem_id):
            return
        for rollout, grade, sample in members:
            item = rollout_item(self.builder, rollout, grade, model=self.step.label, eval_set="")
            placed = replace(
                item,
                kind=Kind.RL,
                trained=sample.is_trained,
                arm=self.step.label,
                iteration=sample.iteration,
                group=sample.group,
                advantage=sample.advantage,
            )
            add_rollout(self.builder, placed, rollout, grade, self._context(rollout))

    def _context(self, rollout: Rollout) -> str:
        """Return the prefix, and what was added to it, that a rollout goes on from."""
        proposal = self.proposals.by_id.get(str(rollout.parent_id))
        if proposal is None or proposal.location is None:
            return ""
        attempt = self.proposals.rollouts.get(proposal.rollout_id)
        if attempt is None:
            return ""
        rule = self.builder.files.rule
        given, *texts = response_texts(rollout.condition, proposal, attempt, rule)
        return whole_text("".join(texts), given)

    def _add_found(self, iteration: int, members: Sequence[RlMember]) -> None:
        """Add what online InT made of an iteration; groups of the next one may begin from it."""
        folder, grades = self.step.path, {one.rollout_id: grade for one, grade, _ in members}
        if not has_found(folder, iteration):
            return
        for found, rollouts in self.builder.files.tolerant(
            map(partial(read_found, folder), [iteration])
        ):
            continued = _by_parent(found)
            for proposal in found.proposals:
                rollout = rollouts[proposal.rollout_id]
                answer = answer_of(grades.get(rollout.rollout_id))
                add_proposal(
                    self.builder,
                    proposal,
                    Attempt.of(self.builder, rollout.rollout_id, rollout, answer),
                    continued[proposal.proposal_id],
                    None,
                    arm=self.step.label,
                    iteration=iteration,
                )
                self.proposals.learn(proposal, rollout)


def _by_parent(found: Found) -> defaultdict[str, list[Continuation]]:
    """Return what verified each proposal, by its id."""
    continued = defaultdict[str, list[Continuation]](list)
    for rollout, grade in zip(found.rollouts, found.grades, strict=True):
        text = whole_text(rollout.text, rollout.given)
        continued[str(rollout.parent_id)].append(continuation(rollout, text, grade))
    return continued
