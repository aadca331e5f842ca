"""Verification without references (the paper's first open question): before and after, in the lab.

A proposer is trained on its own verified proposals, with the reference in its question or without.
It is asked both ways about wrong rollouts of problems that nothing was trained on. The control set
holds notions that no training problem uses: what is gained there is a way to verify, not knowledge
of what the notions mean. The unit is a training run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from midcourse.config import HELD_OUT_SET
from midcourse.experiments.catalogue import Experiment, Head, Measure, Row
from midcourse.experiments.data import Reading
from midcourse.experiments.results import (
    Maker,
    Numbers,
    Result,
    judge_runs,
    per_run,
    run_cells,
    run_columns,
)
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import mean
from midcourse.pipeline import Method, Session
from midcourse.pipeline.proposer import Shown, proposers
from midcourse.records import Start
from midcourse.report.estimates import Clusters
from midcourse.report.proposer import Judged, judged
from midcourse.table import Table

#: The sets that are asked about, in the order of the tables.
SETS = (HELD_OUT_SET, "control")
#: By the text of a row, whether its question shows the reference.
_QUESTIONS: dict[str, Shown] = {"asked with": "given", "asked without": "none"}
#: What is counted of an answer, and what the table calls it.
_SHARES: dict[str, Callable[[Judged], float]] = {
    "first error named %": lambda one: float(bool(one.is_located)),
    "accepted %": lambda one: float(one.is_accepted),
    "succeeded %": lambda one: float(one.is_success),
    "continuations right %": lambda one: one.share_right,
}
_JUDGED = {Measure.ACCURACY: "first error named %", Measure.COVERAGE: "succeeded %"}

Runs = Mapping[int, Clusters[Judged]]
"""What came of the questions, by seed."""


def answers_on(eval_set: str) -> Reading[Clusters[Judged]]:
    """Return the reading of what a row's proposer says of an evaluation set, asked in its way."""

    def answers(session: Session, method: Method, row: Row) -> Clusters[Judged]:
        found = proposers(method)
        model = found.trained if row.role.start is Start.PATCHED else found.before
        asked = found.answers(model, _QUESTIONS[row.text], eval_set)
        session.complete(*asked.steps)
        return judged(session.run, asked, session.recipe)

    return Reading(answers, eval_set)


def _verification(runner: ExperimentRunner, experiment: Experiment) -> Result:
    tables, lines = [], []
    for head, eval_set in zip(experiment.tables, SETS, strict=True):
        found = runner.read_rows(experiment.rows, answers_on(eval_set))
        tables.append(_table(head, experiment.rows, found))
        measures = {
            measure: {row: _share(runs, name) for row, runs in found.items()}
            for measure, name in _JUDGED.items()
        }
        claims = [claim for claim in experiment.claims if claim.only == eval_set]
        lines += judge_runs(claims, measures)
    return Result(tables=tables, claims=lines)


def _share(runs: Runs, name: str) -> Numbers:
    take = _SHARES[name]
    shares = {s: {p: [*map(take, of)] for p, of in found.items()} for s, found in runs.items()}
    return per_run(shares, mean)


def _table(head: Head, asked: Sequence[Row], found: Mapping[str, Runs]) -> Table:
    rows = [
        (*row.cells, *(cell for name in _SHARES for cell in run_cells(_share(runs, name))))
        for row in asked
        if (runs := found.get(row.name))
    ]
    names = (column for name in _SHARES for column in run_columns(name))
    return replace(head, columns=("proposer", "reference", *names)).table(*rows)


MAKERS: dict[str, Maker] = {"verification": _verification}
