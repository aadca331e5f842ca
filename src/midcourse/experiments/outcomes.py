"""What the primary claims came to: a verdict where all planned runs are there, and only there.

The unit is a run. A claim rests on an exact sign-flip test over pairs of runs; p-values are
corrected by Holm over all claims, where one whose runs are not all there counts as p = 1. So the
family never shrinks, and runs that come later can only make the verdicts of others firmer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from midcourse.experiments import league, readings, rl
from midcourse.experiments.catalogue import Experiment, Measure, Row
from midcourse.experiments.claims import Primary, PrimaryClaim, World, primary_claims
from midcourse.experiments.data import MissingDataError, Reading, RunData
from midcourse.experiments.interventions import continuations
from midcourse.experiments.readings import BASE, BASE_RL, counts_on
from midcourse.experiments.results import Maker, Result, per_run
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count, accuracy, mean
from midcourse.progress import SilentProgress
from midcourse.report.estimates import Clusters, Statistic, passes
from midcourse.report.runs import Comparison, Judged, compare_runs, holm, judge_all
from midcourse.report.tables import none_correct

#: A corrected p-value up to this settles a claim.
LEVEL = 0.05

Runs = Mapping[str, Mapping[int, Clusters[Any]]]
"""By name of the row and seed, what one run came to."""
Read = Callable[[ExperimentRunner, PrimaryClaim], Runs]


# --- measures ----------------------------------------------------------------------------------


def _continued(runner: ExperimentRunner, claim: PrimaryClaim) -> Runs:
    return runner.read_rows(claim.rows, Reading(continuations))


def _passed(runner: ExperimentRunner, claim: PrimaryClaim) -> Runs:
    found = runner.read_rows(claim.rows, counts_on(claim.on))
    return {name: {s: passes(c, 1) for s, c in runs.items()} for name, runs in found.items()}


def _along(
    of: Callable[[Mapping[int, float]], float], runner: ExperimentRunner, claim: PrimaryClaim
) -> Runs:
    """Return what pass@1 along RL comes to, by problem: its mean is that of the whole curve."""
    courses = runner.read_rows(claim.rows, Reading(readings.course_counts))
    return {
        name: {
            seed: {
                problem: [of({step: accuracy(counts[problem]) for step, counts in course.items()})]
                for problem in next(iter(course.values()))
            }
            for seed, course in runs.items()
        }
        for name, runs in courses.items()
    }


def _groups(runner: ExperimentRunner, claim: PrimaryClaim) -> Runs:
    """Return the groups of RL; what both arms saw together is an iteration, not a problem."""
    found = runner.read_rows(claim.rows, Reading(rl.reward_groups))
    return {
        name: {
            seed: {f"{i:06}": [Count(*group) for group in groups] for i, groups in course.items()}
            for seed, course in runs.items()
        }
        for name, runs in found.items()
    }


def _gains(runner: ExperimentRunner, claim: PrimaryClaim) -> Runs:
    budget = Row(name=league.BUDGET_ARM, role=BASE_RL)
    arms = league.arm_runs(runner, [budget, *claim.rows], [claim.on])
    base = runner.read_rows([Row(name="base", role=BASE)], counts_on(claim.on))["base"]
    before = {claim.on: per_run(base, accuracy)}
    cost = league.COSTS["tokens"]
    gains = league.Standings(arms, before, cost, "tokens").gains(claim.on)[Measure.ALONG_BUDGET]
    return {
        row.name: {seed: {"run": [gain]} for seed, gain in gains[row.name].items()}
        for row in claim.rows
    }


@dataclass(frozen=True, slots=True)
class How:
    """How a measure is read, what a run comes to, and what the page calls it."""

    words: str
    read: Read
    level: str
    """What the hierarchical bootstrap draws again within a run; empty: a run is one number."""
    statistic: Statistic[Any] = mean


#: What a primary claim may measure.
MEASURES: Mapping[Measure, How] = {
    Measure.ACCURACY: How("accuracy of continuations", _continued, "problems", accuracy),
    Measure.PASS_AT_K: How("pass@1", _passed, "problems"),
    Measure.PLATEAU: How(
        "plateau: mean pass@1 of the models kept in the last two fifths of RL, its end included",
        partial(_along, readings.plateau),
        "problems",
    ),
    Measure.AREA: How(
        "area under pass@1 over the iterations of RL, by trapezoids, divided by their number",
        partial(_along, readings.area),
        "problems",
    ),
    Measure.ZERO_ADVANTAGE: How(
        "share of groups without a correct rollout, over all of RL",
        _groups,
        "iterations",
        none_correct,
    ),
    Measure.ALONG_BUDGET: How(
        "mean gain in pass@1 over the base while a budget of tokens is spent (see the league)",
        _gains,
        "",
    ),
}


# --- outcomes ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the runs of one claim came to."""

    claim: PrimaryClaim
    comparisons: Mapping[str, Comparison]
    """By the row that ours is compared with, on the seeds of which everything is there."""

    @property
    def made(self) -> int:
        """How many of the planned runs are there."""
        return min((len(of.seeds) for of in self.comparisons.values()), default=0)

    @property
    def is_whole(self) -> bool:
        """Whether there is a verdict."""
        return self.made == self.claim.runs

    @property
    def judged(self) -> Judged:
        """Which way it points and its p-value: 1 before all runs are there."""
        if not self.is_whole:
            return Judged(True, 1.0)
        return judge_all([of.differences for of in self.comparisons.values()], self.claim.within)

    def verdict(self, corrected: float) -> str:
        """Return one of three answers, or how many runs there are yet."""
        if not self.is_whole:
            return f"not yet: {self.made} of {self.claim.runs} runs"
        if corrected > LEVEL:
            return "cannot tell"
        return "holds" if self.judged.supports else "does not hold"


def outcomes(primary: Primary, results: Path) -> list[tuple[Outcome, float]]:
    """Return the outcome of every claim from the data in `results`, with its corrected p-value."""
    found = [_outcome(claim, primary.worlds[claim.world], results) for claim in primary.claims]
    return list(zip(found, holm([one.judged.p_value for one in found]), strict=True))


def _outcome(claim: PrimaryClaim, world: World, results: Path) -> Outcome:
    runs = _read(claim, world, results) if world.is_there else {}
    compared = {
        row.name: compare_runs(
            runs[claim.ours.name], runs[row.name], MEASURES[claim.measure].statistic
        )
        for row in claim.theirs
        if runs
    }
    return Outcome(claim=claim, comparisons=compared)


def _read(claim: PrimaryClaim, world: World, results: Path) -> dict[str, dict[int, Clusters[Any]]]:
    """Return what each arm came to at the seeds of which everything is kept."""
    data = RunData(world.study.data_folder(results), may_run=False)
    found: dict[str, dict[int, Clusters[Any]]] = {}
    for seed in range(1, claim.runs + 1):
        runner = world.study.runner((seed,), SilentProgress(), data)
        if not all(runner.has(row.recipe) for row in claim.rows):
            return {}
        try:
            arms = MEASURES[claim.measure].read(runner, claim)
        except MissingDataError:
            continue
        for name, runs in arms.items():
            found.setdefault(name, {}).update(runs)
    return found


def _claims(runner: ExperimentRunner, experiment: Experiment) -> Result:
    """Read what the claims at this scale are about; they are judged together, on their page."""
    worlds, claims = primary_claims()
    for claim in claims:
        if worlds[claim.world].is_at(runner.scale_name):
            MEASURES[claim.measure].read(runner, claim)
    return Result(tables=[])


MAKERS: dict[str, Maker] = {"claims": _claims}
