"""Online InT: interventions that RL makes for itself. Beyond the paper, and off by default.

Where all rollouts of a group are wrong, nothing is learned from it. The policy as it is then looks
at one of them with the reference, proposes an intervention, and verifies it by continuing from
prefix and intervention, as InT does before RL. In the next iteration a verified intervention is
what a further group begins from: it takes the place of one of the last scheduled groups, because an
iteration has a fixed size.

What is found is kept as records, before the iteration is trained on, and read back from them when
the next one begins: nothing else has to survive a kill. The main process does this for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate.utils import broadcast_object_list

from midcourse.checkers import Grader, checker_named
from midcourse.config import TrainRlConfig
from midcourse.engines.base import Engine
from midcourse.engines.metered import Meter, MeteredEngine
from midcourse.progress import Failures
from midcourse.records import (
    Condition,
    Grade,
    Proposal,
    ProposalOutcome,
    Rollout,
    Verdict,
)
from midcourse.rendering import Renderer
from midcourse.stages.contexts import Context, continuation_context, opening_context
from midcourse.stages.dialogue import Talk
from midcourse.stages.grade import grade
from midcourse.stages.propose import Case, Proposer, first_accepted, propose
from midcourse.stages.sample import SampleSpec, sample
from midcourse.steps import rule_named
from midcourse.tokens import TokenCount
from midcourse.training.common import processes
from midcourse.training.jobs import Reviews, RlContext, RlProblem
from midcourse.training.rl.groups import Group
from midcourse.training.rl.schedule import Slot
from midcourse.training.rl.store import Found, read_found, write_found


@dataclass(frozen=True, slots=True, kw_only=True)
class Guided:
    """What a group begins from: a problem, and the context of its verified intervention."""

    problem: RlProblem
    context: RlContext


@dataclass(kw_only=True, eq=False)
class OnlineInT:
    """Finds interventions after each iteration's sampling, and places them in the next one."""

    config: TrainRlConfig
    reviews: Reviews
    problems: Sequence[RlProblem]
    engine: Engine
    """Samples from the policy as it is; only the main process uses it."""
    grader: Grader
    renderer: Renderer
    policy: str
    seed: int
    out: Path
    talk: Talk | None = None
    """Where an environment answers the policy's turns."""
    numbers: dict[str, float] = field(default_factory=dict)
    """What the log shows of the iteration; the main process's."""
    _placed: dict[int, list[Guided]] = field(default_factory=dict)
    """Of the iteration that is sampled now."""

    def place(self, slots: Sequence[Slot]) -> list[Slot]:
        """Return the groups of an iteration, the last scheduled ones replaced by guided ones."""
        iteration = slots[0].iteration
        if iteration not in self._placed:
            given = [self._kept(iteration) if processes().is_main_process else []]
            broadcast_object_list(given)
            self._placed = {iteration: given[0]}
        return [self._replaced(slot) for slot in slots]

    def find(self, iteration: int, groups: Sequence[Group]) -> None:
        """Propose and verify for the groups of an iteration, and keep it: in the main process."""
        if not processes().is_main_process:
            return
        found, meter = Found(), Meter()
        if iteration + 1 < self.config.num_iterations:
            cases = self._cases(groups)
            proposer = self._proposer(iteration, meter)
            proposals = tuple(
                proposal
                for _, made in propose(cases, proposer, (), Failures())
                for proposal in made
            )
            rollouts = tuple(self._verify(iteration, proposals, cases))
            by_id = {case.problem.problem_id: case.problem for case in cases}
            grades = tuple(grade(rollouts, by_id, self.grader, ()))
            found = Found(proposals=proposals, rollouts=rollouts, grades=grades)
        write_found(self.out, iteration, found)
        self._count(iteration, found, meter.count)

    def _kept(self, iteration: int) -> list[Guided]:
        """Return what was found in the iteration before, as far as there is room for it."""
        if iteration == 0:
            return []
        found, rollouts = read_found(self.out, iteration - 1)
        by_id = {problem.problem_id: problem for problem in self.problems}
        kept = []
        for proposal in found.verified()[: self.config.most_online]:
            problem = by_id[proposal.problem_id]
            context = self._context(proposal, rollouts[proposal.rollout_id], problem)
            kept.append(Guided(problem=problem, context=context))
        return kept

    def _replaced(self, slot: Slot) -> Slot:
        guided = self._placed[slot.iteration]
        number = self.config.prompts_per_iteration - 1 - slot.index
        if not 0 <= number < len(guided):
            return slot
        given = guided[number]
        return replace(
            slot,
            problem=given.problem,
            context=given.context,
            occurrence=0,
            wanted=given.context.condition,
        )

    def _cases(self, groups: Sequence[Group]) -> list[Case]:
        """Return one wrong rollout of each group that is all wrong, in the order of the groups."""
        by_id = {problem.problem_id: problem for problem in self.reviews.problems}
        cases: dict[str, Case] = {}
        for group in groups:
            problem = by_id.get(group.rollouts[0].problem_id)
            if problem is not None and _is_all_wrong(group):
                reference = problem.reference_solution or ""
                rollout, graded = _example(group)
                case = Case(problem, rollout, reference, graded.detail)
                cases.setdefault(problem.problem_id, case)
        return list(cases.values())[: self.config.online.max_cases]

    def _proposer(self, iteration: int, meter: Meter) -> Proposer:
        return Proposer(
            engine=MeteredEngine(self.engine, meter, len),  # of ids: nothing is estimated
            renderer=self.renderer,
            policy=self.renderer,
            review=self.reviews.review,
            guided=self.reviews.guided,
            grader=self.grader,
            config=self.reviews.config,
            name=f"{self.policy}@{iteration}",
            run_seed=self.seed,
            steps=rule_named(self.reviews.steps),
        )

    def _verify(
        self, iteration: int, proposals: Sequence[Proposal], cases: Sequence[Case]
    ) -> Iterator[Rollout]:
        """Yield the continuations of the first accepted proposal about each rollout."""
        rollouts = {case.rollout.rollout_id: case.rollout for case in cases}
        by_id = {problem.problem_id: problem for problem in self.problems}
        contexts = [
            self._continuation(p, rollouts[p.rollout_id], by_id[p.problem_id])
            for p in first_accepted(proposals)
        ]
        spec = SampleSpec(
            num_rollouts=self.config.online.num_continuations,
            sampling=self.config.sampling.record(),
            budget="total",
            model=f"{self.policy}@{iteration}",
            run_seed=self.seed,
            stage="rl/verify",
        )
        engine = self.talk.through(self.engine, self.renderer) if self.talk else self.engine
        return sample(contexts, spec, engine, (), Failures())

    def _continuation(self, proposal: Proposal, rollout: Rollout, problem: RlProblem) -> Context:
        opening = opening_context(
            problem.problem_id, Condition.PROBLEM, _message(problem), self.renderer
        )
        checker = checker_named(problem.gold.checker)
        condition = Condition.PREFIX_INTERVENTION
        rule = rule_named(self.reviews.steps)
        given = (opening, self.renderer, checker, rule)
        return continuation_context(condition, proposal, rollout, *given)

    def _context(self, proposal: Proposal, rollout: Rollout, problem: RlProblem) -> RlContext:
        made = self._continuation(proposal, rollout, problem)
        return RlContext(
            condition=made.condition,
            message=_message(problem),
            prefix_ids=tuple(made.response.prefix),
            addition_ids=tuple(made.response.addition),
            open_box=made.open_box,
            parent_id=made.parent_id,
            said=made.said,
            given=made.given,
        )

    def _count(self, iteration: int, found: Found, asked: TokenCount) -> None:
        """Note what the log shows; of the proposer's replies only the texts are kept."""
        replies = (turn.reply for proposal in found.proposals for turn in proposal.turns)
        written = sum(len(self.renderer.encode(reply)) for reply in replies)
        accepted = [p for p in found.proposals if p.outcome is ProposalOutcome.ACCEPTED]
        self.numbers = {
            "online/asked": float(len({(p.rollout_id, p.index) for p in found.proposals})),
            "online/accepted": float(len(accepted)),
            "online/verified": float(len(found.verified())),
            "online/used": float(len(self._placed.get(iteration, ()))),
            "online/tokens": float(written + sum(r.num_tokens for r in found.rollouts)),
            "online/proposer_requests": float(asked.requests),
            "online/proposer_in": float(asked.tokens_in),
            "online/proposer_out": float(asked.tokens_out),
        }


def _is_all_wrong(group: Group) -> bool:
    """Whether a problem alone was asked, none is correct, and at least half could be graded."""
    graded = [reward for reward in group.rewards if reward is not None]
    is_plain = group.rollouts[0].condition is Condition.PROBLEM
    return is_plain and not any(graded) and 2 * len(graded) >= len(group.rollouts)


def _example(group: Group) -> tuple[Rollout, Grade]:
    """Return the first wrong rollout with its grade, one that came to an end if there is any."""
    wrong = [
        (rollout, graded)
        for rollout, graded in zip(group.rollouts, group.grades, strict=True)
        if graded.verdict is not Verdict.UNGRADED
    ]
    return min(wrong, key=lambda one: (one[1].truncated, one[0].index))


def _message(problem: RlProblem) -> str:
    """Return how a problem is asked without any help."""
    return next(c.message for c in problem.contexts if c.condition is Condition.PROBLEM)
