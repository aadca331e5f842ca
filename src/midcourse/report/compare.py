"""Two or more runs side by side: what differs in their recipes, and in what came out.

A difference is paired by problem where both runs had the same problems, told by their texts; else
the two sides are independent, and the sentence says so. Runs that differ in nothing but the seed
are seeds of one recipe: a claim about training rests on them as runs, by Student's t over three or
more, paired where both sides have the seeds. The problems of all seeds pooled answer another
question, how sure we are of *these* models. Of a run that is not finished we take what is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from midcourse.config import HELD_OUT_SET, Recipe
from midcourse.errors import ConfigError
from midcourse.metrics import Count, Interval, accuracy, count_of, mean
from midcourse.pipeline import Method, open_run
from midcourse.records import Condition, content_id
from midcourse.report.collect import HARD, ReportData, collect
from midcourse.report.estimates import (
    MIN_PROBLEMS,
    Clusters,
    Statistic,
    accuracy_margins,
    accuracy_of,
    flat,
    grouped,
    mean_share,
    passes,
    pool,
    share_difference,
    unpaired_difference,
)
from midcourse.report.facts import StageCost, read_costs
from midcourse.report.figures import usable_ks
from midcourse.report.findings import Change, Finding, finding
from midcourse.report.runs import MIN_RUNS, difference_of_arms
from midcourse.report.tables import PAPER_TABLE_1, WINDOW


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A run directory as it is compared."""

    label: str
    """Unique among those that are compared: the folder's name, or its whole path."""
    recipe: Recipe
    data: ReportData
    costs: Sequence[StageCost]
    num_complete: int
    num_steps: int
    texts: Mapping[str, str]
    """A hash of each problem's text, by id: ids of two runs may be of different problems."""

    @cached_property
    def what(self) -> str:
        """The recipe without its seed: equal for seeds of one recipe."""
        identity = {key: of for key, of in self.recipe.identity().items() if key != "seed"}
        return json.dumps(identity, sort_keys=True)

    def by_problem(self, ids: Iterable[str], items: Iterable[Any]) -> dict[str, list[Any]]:
        """Return items by the texts of their problems."""
        return grouped((self.texts[one], item) for one, item in zip(ids, items, strict=True))


@dataclass(frozen=True, slots=True)
class Side:
    """What stands on one side of a comparison: a run, or the seeds of a recipe."""

    label: str
    runs: Sequence[ComparedRun]


def read_runs(directories: Sequence[Path]) -> list[ComparedRun]:
    """Read run directories. Raises MidcourseError if one is not a run, or is named twice."""
    paths = [directory.resolve() for directory in directories]
    if len(set(paths)) < len(paths):
        raise ConfigError("compare: a run directory is named twice: name two runs or more")
    names = [path.name for path in paths]
    labels = [n if names.count(n) == 1 else str(d) for n, d in zip(names, directories, strict=True)]
    return [_read(path, label) for path, label in zip(paths, labels, strict=True)]


def _read(directory: Path, label: str) -> ComparedRun:
    opened = open_run(directory)
    run, made = opened.run, opened.method
    steps = {step.key: step for steps in made.steps() for step in steps}
    return ComparedRun(
        label=label,
        recipe=run.recipe,
        data=collect(run, made, partial=True),
        costs=read_costs(directory),
        num_complete=sum(run.is_complete(step) for step in steps.values()),
        num_steps=len(steps),
        texts=_texts(made),
    )


def _texts(made: Method) -> dict[str, str]:
    problems = made.setup.problems
    every = [*problems.train, *(p for found in problems.evaluation.values() for p in found)]
    return {problem.problem_id: content_id(problem.text) for problem in every}


def sides_of(runs: Sequence[ComparedRun], seeds: bool | None) -> list[Side]:
    """Return what is compared; `seeds` None joins the seeds of a recipe where there are any.

    Raises ConfigError if seeds are asked for and there are none.
    """
    members = grouped((run.what, run) for run in runs)
    is_pooled = {
        what: len({run.recipe.seed for run in found}) == len(found) > 1
        for what, found in members.items()
    }
    if seeds and not any(is_pooled.values()):
        raise ConfigError(
            "compare --seeds: no two of these runs are seeds of one recipe: "
            "see 'Settings that differ' without --seeds"
        )
    sides = []
    for what, found in members.items():
        if seeds is not False and is_pooled[what]:
            sides.append(Side(f"{found[0].recipe.name}, {len(found)} seeds", found))
        else:
            sides += [Side(run.label, [run]) for run in found]
    return sides


# --- what is measured of a run -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number of a run, made of clusters of problems."""

    name: str
    read: Callable[[ComparedRun], Clusters[Any]]
    """Empty if the run does not have it."""
    statistic: Statistic[Any]

    def alone(self, clusters: Clusters[Any], num_resamples: int = 1000) -> Interval:
        """Return the number with its interval, problems resampled."""
        alone = accuracy_of if self.statistic is accuracy else mean_share
        return alone(clusters, num_resamples)

    def value(self, run: ComparedRun) -> float:
        """Return the number, as a share; NaN if the run does not have it."""
        return self.statistic(flat(self.read(run)))


def measures(runs: Sequence[ComparedRun]) -> list[Measure]:
    """Return everything that any of the runs has, in the order of the report."""
    found: dict[str, Measure] = {}
    for run in runs:
        for measure in (*_conditions(run.data), *_passes(run.data)):
            found.setdefault(measure.name, measure)
    return [*found.values(), *_rewards(runs)]


def _conditions(data: ReportData) -> Iterator[Measure]:
    for condition in data.conditions:

        def read(run: ComparedRun, condition: Condition = condition) -> Clusters[Count]:
            counts = run.data.conditions.get(condition, ())
            are_graded = any(count.num_samples for count in counts)
            return run.by_problem(run.data.problem_ids[HARD], counts) if are_graded else {}

        given = PAPER_TABLE_1[condition][0].removeprefix("+ ")
        name = f"accuracy on hard problems given {given}"
        yield Measure(name=name, read=read, statistic=accuracy)


def _passes(data: ReportData) -> Iterator[Measure]:
    for eval_set, models in data.evaluations.items():
        ks = usable_ks(models.values(), data.ks[eval_set])
        chosen = {*ks[:1], *(ks[-1:] if eval_set == HELD_OUT_SET else ())}
        for model in models:
            for k in sorted(chosen):

                def read(
                    run: ComparedRun, of: tuple[str, str, int] = (eval_set, model, k)
                ) -> Clusters[float]:
                    counts = run.data.evaluations.get(of[0], {}).get(of[1], ())
                    if not counts or min(c.num_samples for c in counts) < of[2]:
                        return {}
                    return passes(run.by_problem(run.data.problem_ids[of[0]], counts), of[2])

                name = f"pass@{k} on {eval_set}, {model}"
                yield Measure(name=name, read=read, statistic=mean)


def _rewards(runs: Sequence[ComparedRun]) -> Iterator[Measure]:
    """Yield the reward of the last iterations that all runs with an arm have."""
    for arm in dict.fromkeys(
        arm for run in runs for arm, groups in run.data.arms.items() if groups
    ):
        ends = [_last_iteration(run, arm) for run in runs if run.data.arms.get(arm)]
        last = min(ends)
        first = max(0, last - WINDOW + 1)

        def read(
            run: ComparedRun, of: tuple[str, int, int] = (arm, first, last)
        ) -> Clusters[Count]:
            groups = run.data.arms.get(of[0], ())
            late = [group for group in groups if of[1] <= group.iteration <= of[2]]
            return run.by_problem([group.problem_id for group in late], map(count_of, late))

        name = f"reward in iterations {first + 1}-{last + 1}, {arm}"
        yield Measure(name=name, read=read, statistic=accuracy)


def _last_iteration(run: ComparedRun, arm: str) -> int:
    return max(group.iteration for group in run.data.arms[arm])


# --- differences -------------------------------------------------------------------------------


def differences(sides: Sequence[Side]) -> list[Finding]:
    """Return the differences of every two sides in all that both have."""
    runs = [run for side in sides for run in side.runs]
    return [
        finding(_change(measure, before, after))
        for before, after in combinations(sides, 2)
        for measure in measures(runs)
        if _has(measure, before) and _has(measure, after)
    ]


def _has(measure: Measure, side: Side) -> bool:
    return all(measure.read(run) for run in side.runs)


def _change(measure: Measure, before: Side, after: Side) -> Change:
    theirs, ours = (pool(measure.read(run) for run in side.runs) for side in (before, after))
    by_seed = [{r.recipe.seed: measure.value(r) for r in side.runs} for side in (before, after)]
    found, how, n = _over_problems(measure, theirs, ours)
    sizes = measure.statistic(flat(theirs)), measure.statistic(flat(ours))
    unit, least = "problems", MIN_PROBLEMS
    if min(map(len, by_seed)) >= MIN_RUNS:
        sizes = mean([*by_seed[0].values()]), mean([*by_seed[1].values()])
        found, n, least, unit, how = difference_of_arms(by_seed[1], by_seed[0])
    elif max(map(len, by_seed)) > 1:
        how += ", seeds pooled: about these models, not about training"
    name = f"“{before.label}”"
    about = f"{after.label} against {before.label}"
    return Change(
        name=f"{about}: {measure.name}",
        about=about,
        cause=f"“{after.label}”",  # a name that no sentence may change
        measure=measure.name,
        found=found,
        n=n,
        n_unit=unit,
        least=least,
        before=sizes[0],
        after=sizes[1],
        how=how,
        verbs=(f"is above {name} in", f"is below {name} in", f"differs from {name} in"),
    )


def _over_problems(
    measure: Measure, theirs: Clusters[Any], ours: Clusters[Any]
) -> tuple[Interval, str, int]:
    """Return a difference, how it was made, and over how many problems."""
    common = len(theirs.keys() & ours.keys())
    n = min(len(theirs), len(ours))
    if not common:
        apart = unpaired_difference(measure.alone(ours), measure.alone(theirs))
        return apart, f"unpaired, {len(theirs)} and {len(ours)} problems", n
    margins = accuracy_margins(ours, theirs) if measure.statistic is accuracy else (0.0, 0.0)
    found = share_difference(ours, theirs, measure.statistic, margins)
    is_same = theirs.keys() == ours.keys()
    return found, "paired by problem" if is_same else f"{common} problems in common paired", n
