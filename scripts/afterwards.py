"""Prints what docs/results/claims.md says was looked at afterwards, from the committed data.

    python scripts/afterwards.py

No run is opened and no verdict depends on it. Numbers are points of pass@1 on held-out problems,
one a run, seeds 1 to 10.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

from midcourse.config import HELD_OUT_SET
from midcourse.experiments import league
from midcourse.experiments.catalogue import Measure, Row, experiments
from midcourse.experiments.claims import primary_claims
from midcourse.experiments.data import Reading, RunData
from midcourse.experiments.readings import BASE, counts_on, course_counts
from midcourse.experiments.results import per_run
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import accuracy
from midcourse.progress import SilentProgress
from midcourse.report.estimates import flat
from midcourse.report.runs import compare_values

_SEEDS = range(1, 11)


def main() -> None:
    """Print claim 7 at RL's end, then claim 13's arms at all that RL alone spends."""
    lines = (last_iteration(_runner("lab")), *at_whole_budget(_runner("lab2")))
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _runner(world: str) -> ExperimentRunner:
    study = primary_claims().worlds[world].study
    return study.runner(_SEEDS, SilentProgress(), RunData(study.data_folder(), may_run=False))


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


if __name__ == "__main__":
    main()
