"""The method, read top to bottom: which stage feeds which.

`method` composes values and runs nothing. A `Session` completes what a command asks for, inputs
first; `Method.steps` is what ``midcourse run`` asks for, in order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from midcourse.pipeline.evaluation import Evaluation
from midcourse.pipeline.interventions import Interventions, asked_about, proposals_for
from midcourse.pipeline.models import Models
from midcourse.pipeline.selection import (
    hard_statuses,
    hinted_rollouts,
    references,
    still_hard_statuses,
    train_rollouts,
)
from midcourse.pipeline.session import Setup
from midcourse.pipeline.sources import WHOLE, Sources
from midcourse.pipeline.values import Drawn, Selection, Subset
from midcourse.records import ProblemStatus, Proposal, Reference, Rollout
from midcourse.run import Stage, Step


@dataclass(frozen=True, kw_only=True)
class Method:
    """The stages of one recipe."""

    setup: Setup
    train: Drawn
    """The base's rollouts of the training problems, graded."""
    statuses: Stage[ProblemStatus, Any]
    """Which of them are hard."""
    references: Stage[Reference, Any]
    """Where the hard ones' references come from; in the flow only if some are written."""
    hinted: Drawn | None
    hinted_statuses: Stage[ProblemStatus, Any] | None
    """Which of them stay hard with a hint, where the recipe asks."""
    hard: Selection
    """The problems that interventions are for, whole, with their references."""
    cases: Stage[Rollout, Any]
    """The rollouts that the proposer is asked about."""
    proposals: Stage[Proposal, Any]
    interventions: Interventions
    """What is verified, under every row of Table 1."""
    models: Models
    """The rows, and what is trained on them."""
    evaluation: Evaluation

    def steps(self) -> list[tuple[Step, ...]]:
        """Return what ``midcourse run`` completes, in order; what a tuple holds may run together.

        Of trainings, only those whose models are compared.
        """
        order: list[tuple[Step, ...]] = [_both(self.train), (self.statuses,)]
        if self.setup.recipe.reference.write != "none":
            order.append((self.references,))
        if self.hinted is not None and self.hinted_statuses is not None:
            order += [_both(self.hinted), (self.hinted_statuses,)]
        order += [(self.cases,), (self.proposals,)]
        order += [_both(drawn) for drawn in self.interventions.verified.values()]
        order += [(self.models.step_rows,), (self.models.rows,)]
        roles = self.setup.recipe.evaluate.roles
        tuned = [self.models.in_role(role).trained for role in roles if not role.rl]
        order += [(training,) for training in tuned if training]
        if any(role.rl for role in roles):
            order.append(tuple(self.models.rl_trainings()))
        order += [_both(drawn) for role in roles for drawn in self.evaluation.drawn_by(role)]
        unseen, likelihoods = self.evaluation.unseen, self.evaluation.likelihoods
        if likelihoods and unseen is not None:
            order += [(unseen.cases,), (unseen.candidates.proposals,)]
        return [*order, *((stage,) for stage in likelihoods)]


def _both(drawn: Drawn) -> tuple[Step, ...]:
    return drawn.rollouts, drawn.grades


def method(setup: Setup) -> Method:
    """Compose the method of a recipe. Raises ConfigError if a prompt that it needs is missing."""
    s, recipe = Sources(setup), setup.recipe
    # Sample and grade; the hard problems are those that no rollout solves (§5.1).
    train = train_rollouts(s)
    statuses = hard_statuses(s, train)
    subset = Subset.of(recipe.select.subset, recipe.seed)
    unsolved = Selection(problems=s.problems(*WHOLE), statuses=statuses, subset=subset)
    # Missing references are written; a problem that its writer does not solve is left out.
    written = references(s, unsolved)
    is_written = recipe.reference.write != "none"
    referenced = replace(unsolved, references=written) if is_written else unsolved
    # With hints: only the problems that a hint does not solve either (Table 1, rows 8-10).
    hinted, still_hard, hard = None, None, referenced
    if recipe.select.condition == "hint":
        hinted = hinted_rollouts(s, referenced)
        ids = replace(referenced, problems=s.problems())
        still_hard = still_hard_statuses(s, hinted, ids)
        hard = replace(referenced, hinted=still_hard)
    # Some wrong rollouts of each are shown to the proposer (§3.1).
    ids = replace(referenced, problems=s.problems())
    cases = asked_about(s, train, ids, recipe.propose.num_rollouts, "train")
    proposals = proposals_for(s, cases, referenced, "train")
    # Interventions are verified by continuing from them (§3.2), and make rows (§4.1), …
    interventions = Interventions(s, hard, cases, proposals)
    # … rows make the patched model, and RL goes on from it and from the base (§4.2).
    models = Models(s, referenced, interventions)
    return Method(
        setup=setup, train=train, statuses=statuses, references=written, hinted=hinted,
        hinted_statuses=still_hard, hard=hard, cases=cases, proposals=proposals,
        interventions=interventions, models=models,
        evaluation=Evaluation(s, interventions, models),
    )  # fmt: skip
