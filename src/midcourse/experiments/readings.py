"""What experiments take from a recipe: counts and values by problem, groups of RL."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from midcourse.config import HELD_OUT_SET, TRAIN_SET
from midcourse.errors import ConfigError
from midcourse.experiments.catalogue import Row
from midcourse.experiments.data import Reading
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count, accuracy, count_of, mean
from midcourse.pipeline import Drawn, Graded, Method, Model, Session
from midcourse.records import (
    Condition,
    GroupCount,
    Problem,
    Proposal,
    Role,
    Rollout,
    Start,
)
from midcourse.report.collect import count_by_problem, tally
from midcourse.report.estimates import Clusters, Counts, grouped
from midcourse.training.rl.store import read_group_counts

BASE, PATCHED = Role(), Role(Start.PATCHED)
BASE_RL, PATCHED_RL = Role(rl=True), Role(Start.PATCHED, rl=True)


def condition_counts(session: Session, method: Method, condition: Condition) -> Counts:
    """Return the graded continuations of every hard problem under one row of Table 1."""
    drawn = method.interventions.verified[condition]
    if not isinstance(drawn, Graded):
        raise ConfigError("verify.rounds: a search has no accuracy; experiments need all samples")
    return _counts(session, drawn, method.hard.read(session))


def model_of(session: Session, method: Method, role: Role) -> Model:
    """Return the model in a role, trained; what the recipe trains by RL is trained together."""
    if role.rl:
        session.complete(*method.models.rl_trainings())
    return method.models.in_role(role)


def course_counts(session: Session, method: Method, row: Row) -> dict[int, Counts]:
    """Return the counts on held-out problems along one RL run, by iteration.

    A model without RL has its own alone, as iteration 0.
    """
    return _course_on(session, method, row.role, HELD_OUT_SET)


def hard_course_counts(session: Session, method: Method, row: Row) -> dict[int, Counts]:
    """Return the counts on the hard training problems, as `course_counts` does."""
    return _course_on(session, method, row.role, TRAIN_SET)


def late_counts_on(eval_set: str) -> Reading[dict[int, Counts]]:
    """Return the reading of the models of the plateau of a row's RL run on an evaluation set."""

    def late_counts(session: Session, method: Method, row: Row) -> dict[int, Counts]:
        return _course_on(session, method, row.role, eval_set, of=late)

    return Reading(late_counts, eval_set)


def _course_on(
    session: Session,
    method: Method,
    role: Role,
    eval_set: str,
    of: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[int, Counts]:
    """Return the counts of the models of those iterations that `of` chooses."""
    model = model_of(session, method, role)
    course = method.models.course(role.start) if role.rl else {0: model}
    problems = method.evaluation.problems(session, eval_set)
    return {
        step: _counts(session, method.evaluation.evaluate(course[step], eval_set), problems)
        for step in of(course)
    }


def role_counts(session: Session, method: Method, role: Role, eval_set: str) -> Counts:
    """Return the counts of the model in a role on an evaluation set, ``train`` the hard ones.

    Raises ConfigError if the recipe has no such set.
    """
    drawn = method.evaluation.evaluate(model_of(session, method, role), eval_set)
    return _counts(session, drawn, method.evaluation.problems(session, eval_set))


def _counts(session: Session, graded: Graded, problems: Sequence[Problem]) -> Counts:
    counts = count_by_problem(session, graded, problems)
    return {p.problem_id: [count] for p, count in zip(problems, counts, strict=True)}


def evaluated(
    runner: ExperimentRunner, models: Iterable[Row], *eval_sets: str
) -> dict[str, dict[str, dict[int, Counts]]]:
    """Return the counts of models by evaluation set, name and seed."""
    models = list(models)
    return {name: runner.read_rows(models, counts_on(name)) for name in eval_sets}


def counts_on(eval_set: str) -> Reading[Counts]:
    """Return the reading of a row's model on an evaluation set, as `role_counts` takes it."""

    def counts(session: Session, method: Method, row: Row) -> Counts:
        return role_counts(session, method, row.role, eval_set)

    return Reading(counts, eval_set)


def proposal_counts(session: Session, drawn: Drawn) -> dict[str, Count]:
    """Return the graded continuations of each proposal, by proposal id."""
    return tally(session, drawn, lambda grade: str(grade.parent_id))


def candidates_in_place(session: Session, method: Method) -> Iterator[tuple[Proposal, Rollout]]:
    """Yield what is verified with the rollout it intervenes in, in the order of the rollouts."""
    candidates = method.interventions.candidates().read(session)
    by_rollout = {proposal.rollout_id: proposal for proposal in candidates}
    for rollout in session.read(method.cases, ("token_ids",)):
        if rollout.rollout_id in by_rollout:
            yield by_rollout[rollout.rollout_id], rollout


def group_counts(session: Session, method: Method, role: Role) -> list[GroupCount]:
    """Return what the reward saw of every group of one RL run; nothing without RL."""
    model = model_of(session, method, role)
    if not role.rl or model.trained is None:
        return []
    return read_group_counts(session.path(model.trained))


def final_reward(groups: Sequence[GroupCount], decay: float = 0.9) -> float:
    """Return the mean reward of the last iteration, smoothed over the iterations before it.

    An exponential moving average, as Table 4's training reward is.
    """
    by_iteration = grouped((group.iteration, count_of(group)) for group in groups)
    smooth, *later = (accuracy(counts) for _, counts in sorted(by_iteration.items()))
    for reward in later:
        smooth = decay * smooth + (1 - decay) * reward
    return smooth


def training_reward(session: Session, method: Method, row: Row) -> float:
    """Return the mean reward on RL's own problems: after RL the smoothed last, else the first.

    The rollouts of the first iteration are drawn before any update, by the model without RL.
    """
    groups = group_counts(session, method, replace(row.role, rl=True))
    if row.role.rl:
        return final_reward(groups)
    first = min(group.iteration for group in groups)
    return accuracy([count_of(group) for group in groups if group.iteration == first])


def plateau(course: Mapping[int, float]) -> float:
    """Return the mean of a run's values, one by iteration, over those that are `late`."""
    return mean([course[iteration] for iteration in late(course)])


def late(iterations: Iterable[int]) -> list[int]:
    """Return those in the last two fifths: after three fifths of the last one, which is included.

    Of a model without RL, whose only iteration is 0, that one.
    """
    every = list(iterations)
    return [iteration for iteration in every if 5 * iteration > 3 * max(every)] or [max(every)]


def area(course: Mapping[int, float]) -> float:
    """Return the area under a run's values by iteration, by trapezoids, as a mean height."""
    steps = sorted(course)
    if len(steps) == 1:
        return course[steps[0]]
    parts = ((b - a) * (course[a] + course[b]) / 2 for a, b in pairwise(steps))
    return sum(parts) / (steps[-1] - steps[0])


class TextScore(NamedTuple):
    """One text under a model: what is kept of its `Likelihood`, to six places."""

    nll: float
    entropy: float
    mean_probability: float

    @property
    def exp_mean_logprob(self) -> float:
        """The geometric mean of the tokens' probabilities, exp(−nll)."""
        return math.exp(-self.nll)


def likelihoods(session: Session, method: Method, row: Row) -> Clusters[TextScore]:
    """Return the scores of a row's texts under its model, by problem."""
    items = session.read(method.evaluation.likelihood(model_of(session, method, row.role)))
    return grouped(
        (item.problem_id, _kept(item.nll, item.entropy, item.mean_probability))
        for item in items
        if item.what == row.text
    )


def _kept(*values: float) -> TextScore:
    return TextScore(*(round(value, 6) for value in values))
