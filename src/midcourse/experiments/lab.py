"""The lab's controls: notions that are not taught, and methods that must gain nothing.

A statement is that one side is at most a margin above the other, run against run: it holds if the
whole interval lies below the margin. "Not different" would be no statement.
"""

from __future__ import annotations

from collections.abc import Mapping

from midcourse.experiments.catalogue import Claim, Experiment
from midcourse.experiments.readings import counts_on
from midcourse.experiments.results import Maker, Result
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import accuracy
from midcourse.report.estimates import MARGIN, Counts, ShapeLine, flat, over_runs
from midcourse.report.runs import compare_runs
from midcourse.report.shape import points
from midcourse.table import Table, share


def _controls(runner: ExperimentRunner, experiment: Experiment) -> Result:
    tables, lines = [], []
    eval_sets = dict.fromkeys(claim.only for claim in experiment.claims)
    for head, eval_set in zip(experiment.tables, eval_sets, strict=True):
        found = runner.read_rows(experiment.rows, counts_on(eval_set))
        tables.append(_table(head.title, found))
        about = (claim for claim in experiment.claims if claim.only == eval_set)
        lines += [_at_most(claim, found) for claim in about]
    return Result(tables=tables, claims=lines)


def _table(title: str, found: Mapping[str, Mapping[int, Counts]]) -> Table:
    rows = []
    for name, runs in found.items():
        values = [accuracy(flat(counts)) for counts in runs.values()]
        by_run = " ".join(f"{100 * value:.1f}" for value in values)
        rows.append((name, share(over_runs(values), 1).replace(" [nan, nan]", ""), by_run))
    columns = ("model", "pass@1 %", "by run, %")
    note = "Mean over runs with the 95 % interval by t."
    return Table(title, columns, tuple(rows), note)


def _at_most(claim: Claim, found: Mapping[str, Mapping[int, Counts]]) -> ShapeLine:
    """Judge that `ours` is at most the margin above `theirs`."""
    compared = compare_runs(found[claim.ours], found[claim.theirs], accuracy)
    apart = compared.difference
    holds = True if apart.high < MARGIN else False if apart.low > MARGIN else None
    ours, theirs = (sum(runs) / len(runs) for runs in (compared.ours, compared.theirs))
    by_run = " ".join(f"{100 * value:+.1f}" for value in compared.differences)
    change = points(apart).replace("[+nan, +nan]", "(too few runs for an interval)")
    figures = f"{100 * ours:.1f} against {100 * theirs:.1f} %; {change} points; by run {by_run}"
    return ShapeLine(claim.words, holds, figures)


MAKERS: dict[str, Maker] = {"lab": _controls, "controls": _controls}
