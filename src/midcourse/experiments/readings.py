"""What experiments take from a pipeline: counts by problem, groups of RL, likelihoods, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from midcourse.errors import ConfigError
from midcourse.metrics import Count, accuracy
from midcourse.pipeline import Drawn, Graded, Model, Pipeline
from midcourse.records import Condition, Grade, GroupCount, Likelihood, Verdict
from midcourse.report.collect import count_by_problem
from midcourse.training.rewards import read_group_counts

T = TypeVar("T")


def condition_counts(pipeline: Pipeline, condition: Condition) -> dict[str, Count]:
    """Return the graded continuations of every hard problem under one row of Table 1."""
    hard = pipeline.hard_problems
    drawn = pipeline.verified[condition]
    if not isinstance(drawn, Graded):
        raise ConfigError("verify.rounds: a search has no accuracy; experiments need all samples")
    counts = count_by_problem(drawn, hard)
    return {p.problem_id: count for p, count in zip(hard, counts, strict=True)}


def evaluation_counts(pipeline: Pipeline, role: str, eval_set: str) -> dict[str, Count]:
    """Return the counts of the model in a role, e.g. ``patched + RL``, on an evaluation set."""
    return model_counts(pipeline, pipeline.in_role(role), eval_set)


def model_counts(pipeline: Pipeline, model: Model, eval_set: str) -> dict[str, Count]:
    """Return one model's counts on an evaluation set, ``train`` being the hard problems."""
    is_train = eval_set == "train"
    problems = pipeline.hard_problems if is_train else pipeline.problems.evaluation[eval_set]
    graded = pipeline.evaluate(model, eval_set)
    counts = count_by_problem(graded, problems)
    return {p.problem_id: count for p, count in zip(problems, counts, strict=True)}


def proposal_counts(drawn: Drawn) -> dict[str, Count]:
    """Return the graded continuations of each proposal, by proposal id."""
    samples: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    for grade in drawn.grades.read(Grade):
        if grade.verdict is not Verdict.UNGRADED:
            samples[str(grade.parent_id)] += 1
            correct[str(grade.parent_id)] += grade.verdict is Verdict.CORRECT
    return {parent_id: Count(samples[parent_id], correct[parent_id]) for parent_id in samples}


def group_counts(pipeline: Pipeline, role: str) -> list[GroupCount]:
    """Return what the reward saw of every group of one RL run."""
    return read_group_counts(pipeline.in_role(role).made_by[0].path / "groups.jsonl")


def final_reward(groups: Sequence[GroupCount], decay: float = 0.9) -> float:
    """Return the mean reward of the last iteration, smoothed over the iterations before it.

    An exponential moving average, as Table 4's training reward is.
    """
    by_iteration: dict[int, list[Count]] = {}
    for group in groups:
        count = Count(group.num_correct + group.num_incorrect, group.num_correct)
        by_iteration.setdefault(group.iteration, []).append(count)
    rewards = [accuracy(counts) for _, counts in sorted(by_iteration.items())]
    smooth = rewards[0]
    for reward in rewards[1:]:
        smooth = decay * smooth + (1 - decay) * reward
    return smooth


def likelihood_values(
    pipeline: Pipeline, role: str, what: str, value: Callable[[Likelihood], float]
) -> dict[str, list[float]]:
    """Return a value of each text of kind `what` under the model in a role, by problem."""
    found: dict[str, list[float]] = {}
    for item in pipeline.likelihood(pipeline.in_role(role)).read(Likelihood):
        if item.what == what:
            found.setdefault(item.problem_id, []).append(value(item))
    return found


def joined(runs: Iterable[Mapping[str, Sequence[T]]]) -> dict[str, list[T]]:
    """Join the lists of several seeds by problem."""
    found: dict[str, list[T]] = {}
    for run in runs:
        for problem_id, values in run.items():
            found.setdefault(problem_id, []).extend(values)
    return found
