"""Prints what pages of results say was looked at afterwards, from the committed data.

    python scripts/afterwards.py

No run is opened and no verdict depends on it. Figures of claims 7 and 13 (docs/results/claims.md)
are points of pass@1 on held-out problems, one a run, seeds 1 to 10; those of base B
(docs/results/lab2-base-b.md) are correct rollouts, one figure a run, seeds 1 to 3.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from midcourse.config import HELD_OUT_SET
from midcourse.experiments import league
from midcourse.experiments.catalogue import Measure, Row, experiments
from midcourse.experiments.claims import primary_claims
from midcourse.experiments.data import Reading, RunData
from midcourse.experiments.readings import BASE, PATCHED_RL, counts_on, course_counts
from midcourse.experiments.results import per_run
from midcourse.experiments.runner import ExperimentRunner
from midcourse.experiments.studies import Study, studies
from midcourse.metrics import accuracy
from midcourse.progress import SilentProgress
from midcourse.report.estimates import Counts, flat
from midcourse.report.runs import compare_values

_SEEDS, _BASE_B_SEEDS = range(1, 11), range(1, 4)


def main() -> None:
    """Print claim 7 at RL's end, claim 13's arms at all that RL alone spends, base B along RL."""
    lab, lab2 = (primary_claims().worlds[world].study for world in ("lab", "lab2"))
    lines = [last_iteration(_runner(lab)), *at_whole_budget(_runner(lab2))]
    lines += [along_rl("A", _runner(lab2, _BASE_B_SEEDS))]
    lines += [along_rl("B", _runner(studies()["lab2-base-b"], _BASE_B_SEEDS))]
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _runner(study: Study, seeds: Sequence[int] = _SEEDS) -> ExperimentRunner:
    return study.runner(seeds, SilentProgress(), RunData(study.data_folder(), may_run=False))


def last_iteration(runner: ExperimentRunner) -> str:
    """Return InT + RL minus RL alone at the last iteration of the first lab."""
    claim = primary_claims().claims[6]
    courses = runner.read_rows(claim.rows, Reading(course_counts))
    last = {
        name: {seed: accuracy(flat(course[max(course)])) for seed, course in runs.items()}
        for name, runs in courses.items()
    }
    made = compare_values(last[claim.ours.name], last[claim.theirs[0].name])
    found = made.difference
    mean, *ends = (f"{100 * value:.1f}" for value in (found.estimate, found.low, found.high))
    return f"claim 7, last iteration: {mean} [{', '.join(ends)}]; {_by_seed(made.differences)}"


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


def _right(counts: Counts) -> tuple[int, int]:
    every = flat(counts)
    return sum(c.num_correct for c in every), sum(c.num_samples for c in every)


if __name__ == "__main__":
    main()
