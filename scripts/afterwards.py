"""Prints what pages of results say was looked at afterwards, from the committed data.

    python scripts/afterwards.py

No run is opened and no verdict depends on it. Figures of claims 7, 10 and 13
(docs/results/claims.md) are points of pass@1 on held-out problems, one a run, seeds 1 to 10; those
of base B (docs/results/lab2-base-b.md) are one figure a run, seeds 1 to 3: correct rollouts, and
points by which the lead of InT + RL over RL is larger from base A. Intervals are 95 %, by t.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from midcourse.config import HELD_OUT_SET
from midcourse.experiments import league
from midcourse.experiments.catalogue import Measure, Row, experiments
from midcourse.experiments.claims import primary_claims
from midcourse.experiments.data import Reading, RunData
from midcourse.experiments.readings import (
    BASE,
    PATCHED_RL,
    counts_on,
    course_counts,
    plateau,
)
from midcourse.experiments.results import per_run
from midcourse.experiments.runner import ExperimentRunner
from midcourse.experiments.studies import Study, studies
from midcourse.metrics import accuracy
from midcourse.progress import SilentProgress
from midcourse.report.estimates import Counts, flat
from midcourse.report.runs import compare_values

_SEEDS, _BASE_B_SEEDS = range(1, 11), range(1, 4)


def main() -> None:
    """Print claims 7 and 10 at RL's end, 13 at all that RL alone spends, base B beside A."""
    lab, lab2 = (primary_claims().worlds[world].study for world in ("lab", "lab2"))
    lines = [*at_the_end(_runner(lab), 7), *at_the_end(_runner(lab2), 10)]
    lines += at_whole_budget(_runner(lab2))
    a = _runner(lab2, _BASE_B_SEEDS)
    b = _runner(studies()["lab2-base-b"], _BASE_B_SEEDS)
    lines += [along_rl("A", a), along_rl("B", b), leads(a, b)]
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _runner(study: Study, seeds: Sequence[int] = _SEEDS) -> ExperimentRunner:
    return study.runner(seeds, SilentProgress(), RunData(study.data_folder(), may_run=False))


def at_the_end(runner: ExperimentRunner, number: int) -> Iterator[str]:
    """Yield a claim's difference at the last iteration, and what each arm still gained by it."""
    claim = primary_claims().claims[number - 1]
    courses = runner.read_rows(claim.rows, Reading(course_counts))
    ours, theirs = (courses[row.name] for row in (claim.ours, claim.theirs[0]))
    before, last = sorted(next(iter(ours.values())))[-2:]
    yield f"claim {number}, iteration {last}: {_apart(_at(ours, last), _at(theirs, last))}"
    for row, course in ((claim.ours, ours), (claim.theirs[0], theirs)):
        gained = _apart(_at(course, last), _at(course, before))
        yield f"claim {number}, {row.name}, iteration {last} above {before}: {gained}"


def _at(courses: Mapping[int, Mapping[int, Counts]], iteration: int) -> dict[int, float]:
    """Return pass@1 at an iteration, by seed."""
    return per_run({seed: course[iteration] for seed, course in courses.items()}, accuracy)


def _apart(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    made = compare_values(ours, theirs)
    found = made.difference
    mean, *ends = (f"{100 * value:.1f}" for value in (found.estimate, found.low, found.high))
    return f"{mean} [{', '.join(ends)}]; {_by_seed(made.differences)}"


def _by_seed(values: Iterable[float]) -> str:
    return " / ".join(f"{100 * value:.1f}" for value in values)


def at_whole_budget(runner: ExperimentRunner) -> Iterator[str]:
    """Yield the gains of claim 13's arms at all that RL alone spends, the search charged or not."""
    budget = next(r for r in experiments()["league"].rows if r.name == league.BUDGET_ARM)
    rows = [budget, *primary_claims().claims[12].rows]
    arms = league.arm_runs(runner, rows, [HELD_OUT_SET])
    base = runner.read_rows([Row(name="base", role=BASE)], counts_on(HELD_OUT_SET))["base"]
    before = {HELD_OUT_SET: per_run(base, accuracy)}
    at = league.Standings(arms, before, league.COSTS["tokens"], "tokens")
    both = {"charged": league.with_search(at), "not charged": replace(at, share=1.0)}
    for words, standing in both.items():
        for name, runs in standing.gains(HELD_OUT_SET)[Measure.AT_BUDGET].items():
            yield f"claim 13, search {words}: {name}: {_by_seed(runs.values())}"


def along_rl(base: str, runner: ExperimentRunner) -> str:
    """Return how many held-out rollouts of InT + RL are right before RL and after, run by run."""
    row = Row(name="InT + RL", recipe="int", role=PATCHED_RL)
    (courses,) = runner.read_rows([row], Reading(course_counts)).values()
    made = list[str]()
    for course in courses.values():
        (first, _), (last, samples) = (_right(course[at]) for at in (min(course), max(course)))
        made.append(f"{first} to {last} of {samples}")
    return f"base {base}, InT + RL, right before RL and after: {' / '.join(made)}"


def leads(a: ExperimentRunner, b: ExperimentRunner) -> str:
    """Return by how much InT + RL's lead over RL alone is larger from base A than from B."""
    claim = primary_claims().claims[7]
    ahead = list[dict[int, float]]()
    for runner in (a, b):
        found = runner.read_rows(claim.rows, Reading(course_counts))
        ours, theirs = (plateaus(found[row.name]) for row in (claim.ours, claim.theirs[0]))
        ahead.append({seed: ours[seed] - theirs[seed] for seed in ours})
    return f"InT + RL above RL, plateau, base A above base B: {_apart(*ahead)}"


def plateaus(courses: Mapping[int, Mapping[int, Counts]]) -> dict[int, float]:
    """Return mean pass@1 of the models of the plateau, by seed."""
    values = {seed: per_run(course, accuracy) for seed, course in courses.items()}
    return {seed: plateau(course) for seed, course in values.items()}


def _right(counts: Counts) -> tuple[int, int]:
    every = flat(counts)
    return sum(c.num_correct for c in every), sum(c.num_samples for c in every)


if __name__ == "__main__":
    main()
