"""What experiments take from a pipeline: counts by problem, groups of RL, likelihoods, lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from midcourse.errors import ConfigError
from midcourse.metrics import Count, accuracy
from midcourse.pipeline import Graded, Model, Pipeline
from midcourse.records import Condition, GroupCount, Likelihood
from midcourse.report.collect import count_by_problem
from midcourse.training.rewards import read_group_counts

__all__ = [
    "condition_counts",
    "evaluation_counts",
    "final_reward",
    "group_counts",
    "joined",
    "likelihood_values",
    "model",
]

T = TypeVar("T")


def model(pipeline: Pipeline, label: str) -> Model:
    """Return the model that people call `label`, made if it is missing."""
    if label == "base":
        return pipeline.base
    return pipeline.patched if label == "patched" else pipeline.rl_models[label]


def condition_counts(pipeline: Pipeline, condition: Condition) -> dict[str, Count]:
    """Return the graded continuations of every hard problem under one row of Table 1."""
    hard = pipeline.hard_problems
    drawn = pipeline.verified[condition]
    if not isinstance(drawn, Graded):
        raise ConfigError("verify.rounds: a search has no accuracy; experiments need all samples")
    counts = count_by_problem(drawn, hard)
    return {p.problem_id: count for p, count in zip(hard, counts, strict=True)}


def evaluation_counts(pipeline: Pipeline, label: str, eval_set: str) -> dict[str, Count]:
    """Return one model's counts on an evaluation set, ``train`` being the hard problems."""
    is_train = eval_set == "train"
    problems = pipeline.hard_problems if is_train else pipeline.problems.evaluation[eval_set]
    graded = pipeline.evaluate(model(pipeline, label), eval_set)
    counts = count_by_problem(graded, problems)
    return {p.problem_id: count for p, count in zip(problems, counts, strict=True)}


def group_counts(pipeline: Pipeline, label: str) -> list[GroupCount]:
    """Return what the reward saw of every group of one RL run."""
    return read_group_counts(model(pipeline, label).made_by[0].path / "groups.jsonl")


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
    pipeline: Pipeline, label: str, what: str, value: Callable[[Likelihood], float]
) -> dict[str, list[float]]:
    """Return a value of each text of kind `what` under one model, by problem."""
    found: dict[str, list[float]] = {}
    for item in pipeline.likelihood(model(pipeline, label)).read(Likelihood):
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
