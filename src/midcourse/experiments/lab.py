"""The lab's controls: notions that are not taught, and methods that must gain nothing.

A statement is that one side is at most a margin above the other, run against run: it holds if the
whole interval lies below the margin. "Not different" would be no statement.
"""

from __future__ import annotations

from dataclasses import replace

from midcourse.experiments import results
from midcourse.experiments.catalogue import Experiment
from midcourse.experiments.readings import counts_on
from midcourse.experiments.results import Maker, Result
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import accuracy


def _controls(runner: ExperimentRunner, experiment: Experiment) -> Result:
    tables, lines = [], []
    eval_sets = dict.fromkeys(claim.only for claim in experiment.claims)
    for head, eval_set in zip(experiment.tables, eval_sets, strict=True):
        counts = runner.read_rows(experiment.rows, counts_on(eval_set))
        found = {name: results.per_run(runs, accuracy) for name, runs in counts.items()}
        rows = [(name, *results.run_cells(runs)) for name, runs in found.items()]
        columns = ("model", *results.run_columns("pass@1 %"))
        tables.append(replace(head, columns=columns).table(*rows))
        about = (claim for claim in experiment.claims if claim.only == eval_set)
        lines += [results.at_most(claim, other, found) for claim in about for other in claim.theirs]
    return Result(tables=tables, claims=lines)


MAKERS: dict[str, Maker] = {"lab": _controls, "controls": _controls}
