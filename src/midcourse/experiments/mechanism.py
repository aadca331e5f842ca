"""Why it works, where it does: how far a teacher's traces are, and what else the patch moves.

They ask what a primary claim of lab 2 cannot tell. ``distance``: whether InT's lead over
distillation grows with the NLL of the teacher's traces under the base, as the paper explains it;
a slope over three teachers is taken within a run. ``transfer``: whether RL after the patch also
gains on combinations that it never saw, on rules that nothing trains on (which would be practice of
the task alone), and what it costs on rules that the base knows. ``reach``: whether what is gained
is gained on problems that the base never solves, however often it may try.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from midcourse.config import HELD_OUT_SET, UNSEEN_SET
from midcourse.experiments import readings
from midcourse.experiments.catalogue import Experiment, Measure
from midcourse.experiments.data import Reading
from midcourse.experiments.readings import BASE
from midcourse.experiments.results import (
    Maker,
    Numbers,
    Result,
    at_most,
    judge_runs,
    per_run,
    run_cells,
    run_columns,
    run_panel,
)
from midcourse.experiments.rl import Course, along
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import mean
from midcourse.report.estimates import Counts, ShapeLine, flat
from midcourse.report.runs import over_runs

#: A slope that is surely smaller explains nothing: share of problems per nat.
LEAST_SLOPE = 0.05
#: A gain on unseen combinations that is surely smaller counts as none.
LEAST_GAIN = 0.02


def _distance(runner: ExperimentRunner, experiment: Experiment) -> Result:
    ours, *teachers = (row for row in experiment.rows if runner.has(row.recipe))
    courses = runner.read_rows([ours, *teachers], Reading(readings.course_counts))
    plateaus = along(courses, readings.plateau)
    texts = runner.read_rows(
        [replace(row, role=BASE) for row in teachers], Reading(readings.likelihoods)
    )
    nll = {
        name: per_run(runs, lambda of: mean([text.nll for text in of]))
        for name, runs in texts.items()
    }
    leads = {
        row.name: {s: plateaus[ours.name][s] - value for s, value in plateaus[row.name].items()}
        for row in teachers
    }
    slopes = {s: slope([(nll[name][s], leads[name][s]) for name in leads]) for s in runner.seeds}
    own: tuple[str, ...] = (ours.name, "–", "–", *run_cells(plateaus[ours.name]), "–", "–")
    rows = [
        (name, *run_cells(nll[name], 3, 1), *run_cells(plateaus[name]), *run_cells(leads[name]))
        for name in leads
    ]
    (claim,), curve = experiment.claims, {mean([*nll[n].values()]): leads[n] for n in leads}
    labels = ("NLL of the traces under the base, nats per token", "InT + RL ahead, points")
    return Result(
        tables=[experiment.tables[0].table(own, *rows)],
        claims=[judge_slope(claim.words, slopes)] if len(leads) > 1 else [],
        panels=[run_panel({"lead": curve}, labels)],
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line through points (x, y); NaN if all x agree."""
    middle_x, middle_y = (mean([point[axis] for point in points]) for axis in (0, 1))
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    rise = sum((x - middle_x) * (y - middle_y) for x, y in points)
    return rise / spread if spread else math.nan


def judge_slope(words: str, slopes: Numbers) -> ShapeLine:
    """Judge that a slope, in shares per nat by seed, is above 0.

    It is not if it is below, or surely less than `LEAST_SLOPE`.
    """
    found = over_runs([*slopes.values()])
    shown, by_seed = run_cells(slopes)
    is_small = found.high < LEAST_SLOPE
    holds = True if found.low > 0 else False if is_small else None
    return ShapeLine(words, holds, f"{shown} points per nat; by seed {by_seed}")


def _transfer(runner: ExperimentRunner, experiment: Experiment) -> Result:
    sets: dict[str, Reading[dict[int, Counts]]] = {HELD_OUT_SET: Reading(readings.course_counts)}
    if runner.recipe("int", runner.seeds[0]).problems.world == "rules":
        sets[UNSEEN_SET] = readings.late_counts_on(UNSEEN_SET)
    sets |= {name: readings.late_counts_on(name) for name in ("control", "known")}
    found: dict[str, dict[str, dict[int, float]]] = {}
    for eval_set, reading in sets.items():
        courses = runner.read_rows(experiment.rows, reading)
        for k in (1, 8) if eval_set in (HELD_OUT_SET, UNSEEN_SET) else (1,):
            found[f"{eval_set.replace('_', ' ')} pass@{k} %"] = along(courses, readings.plateau, k)
    columns = ("model", *(name for title in found for name in run_columns(title)))
    rows = [
        (row.name, *(cell for of in found.values() for cell in run_cells(of[row.name])))
        for row in experiment.rows
    ]
    table = replace(experiment.tables[0], columns=columns).table(*rows)
    return Result(tables=[table], claims=judge_transfer(experiment, found))


def judge_transfer(
    experiment: Experiment, found: Mapping[str, Mapping[str, Numbers]]
) -> list[ShapeLine]:
    """Judge the statements by heading and model: pass@k at the plateau of each run."""
    unseen, practice, *untaught = experiment.claims
    lines = [
        _not_within(line, found["unseen pass@8 %"], unseen.ours, unseen.theirs[0])
        for line in judge_runs([unseen], {Measure.PLATEAU: found.get("unseen pass@8 %", {})})
    ]
    gains = {
        name: {s: of[practice.ours][s] - value for s, value in of[practice.theirs[0]].items()}
        for name, of in ((n, found[f"{n} pass@1 %"]) for n in ("held out", "control"))
    }
    named = replace(practice, ours="held out", theirs=("control",))
    lines += judge_runs([named], {Measure.PLATEAU: gains})
    return lines + [
        at_most(c, other, found["control pass@1 %"]) for c in untaught for other in c.theirs
    ]


def _not_within(
    line: ShapeLine, models: Mapping[str, Numbers], ours: str, theirs: str
) -> ShapeLine:
    """Say no as well where the difference is surely too small to count."""
    difference = over_runs([models[ours][s] - value for s, value in models[theirs].items()])
    is_none = difference.low > -LEAST_GAIN and difference.high < LEAST_GAIN
    return replace(line, holds=False) if is_none else line


def _reach(runner: ExperimentRunner, experiment: Experiment) -> Result:
    (head,), (tried, *models) = experiment.tables, experiment.rows
    (counts,) = runner.read_rows([tried], readings.counts_on(HELD_OUT_SET)).values()
    courses = runner.read_rows(models, Reading(readings.course_counts))
    found = {
        words: along(_course_of(courses, counts, is_solved), readings.plateau)
        for words, is_solved in (("never solved", False), ("solved", True))
    }
    columns = ("model", *(name for part in found for name in run_columns(f"{part} pass@1 %")))
    rows = [
        (row.name, *(cell for of in found.values() for cell in run_cells(of[row.name])))
        for row in models
    ]
    never = "/".join(str(sum(not c.is_solved for c in flat(of))) for of in counts.values())
    tries = max(count.num_samples for of in counts.values() for count in flat(of))
    note = f"{head.note} In {tries} samples the base solved none of {never} problems, by seed."
    return Result(
        tables=[replace(head, columns=columns, note=note).table(*rows)],
        claims=judge_runs(experiment.claims, {Measure.PLATEAU: found["never solved"]}),
    )


def _course_of(
    courses: Mapping[str, Mapping[int, Course]], tried: Mapping[int, Counts], is_solved: bool
) -> dict[str, dict[int, Course]]:
    """Return courses on the problems that were solved, or not; a run without any is left out."""
    chosen = {
        seed: {p for p, found in of.items() if any(c.is_solved for c in found) is is_solved}
        for seed, of in tried.items()
    }
    return {
        name: {
            seed: {
                step: {p: found for p, found in counts.items() if p in chosen[seed]}
                for step, counts in course.items()
            }
            for seed, course in runs.items()
            if chosen[seed]
        }
        for name, runs in courses.items()
    }


MAKERS: dict[str, Maker] = {"distance": _distance, "transfer": _transfer, "reach": _reach}
