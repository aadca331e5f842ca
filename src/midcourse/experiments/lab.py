"""The lab's controls: notions that are not taught, and methods that must gain nothing.

A statement is that one side is at most a margin above the other, run against run: it holds if the
whole interval lies below the margin. "Not different" would be no statement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from midcourse.experiments import results
from midcourse.experiments.catalogue import Claim, Experiment
from midcourse.experiments.readings import counts_on
from midcourse.experiments.results import Maker, Numbers, Result
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import accuracy, mean
from midcourse.report.estimates import MARGIN, ShapeLine
from midcourse.report.runs import compare_values
from midcourse.report.shape import points


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
        lines += [at_most(claim, other, found) for claim in about for other in claim.theirs]
    return Result(tables=tables, claims=lines)


def at_most(claim: Claim, other: str, found: Mapping[str, Numbers]) -> ShapeLine:
    """Judge by runs that `ours` is at most the margin above another; values are shares."""
    made = compare_values(found[claim.ours], found[other])
    low, high = made.difference.low, made.difference.high
    holds = True if high < MARGIN else False if low > MARGIN else None
    ours, theirs = (f"{100 * mean(runs):.1f}" for runs in (made.ours, made.theirs))
    change = points(made.difference).replace("[+nan, +nan]", "(no interval)")
    by_seed = " / ".join(f"{100 * value:+.1f}" for value in made.differences)
    figures = f"{ours} against {theirs} %; difference {change} points; by seed {by_seed}"
    return ShapeLine(claim.words, holds, figures)


MAKERS: dict[str, Maker] = {"lab": _controls, "controls": _controls}
