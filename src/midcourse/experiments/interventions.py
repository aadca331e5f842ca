"""Interventions and what continuing from them is worth: Tables 1 and 7, Figs 2, 4 and 10.

Coverage counts problems with a correct continuation, accuracy counts continuations. Every row of a
set of problems gets the same number of samples: one set of continuations per attempt, the naive
row too, each again from the problem. Beyond the paper: ``shift``, the right step at a wrong place;
``localisation``, does naming the first error matter; ``equal-hints``, hints of as many tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from operator import eq
from statistics import median
from typing import NamedTuple

from midcourse.experiments import results
from midcourse.experiments.catalogue import Experiment, Head, Row
from midcourse.experiments.data import Reading
from midcourse.experiments.readings import candidates_in_place, condition_counts, proposal_counts
from midcourse.experiments.results import Maker, Result, judge, num_items
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count, accuracy, mean
from midcourse.pipeline import Method, Session
from midcourse.pipeline.contexts import ready_rows
from midcourse.records import Condition
from midcourse.report import estimates
from midcourse.report.estimates import Clusters, Counts, each, flat, grouped, only, pool
from midcourse.report.figures import histogram_panel, panel
from midcourse.report.plots import Panel
from midcourse.steps import insert_step
from midcourse.table import Table


def continuations(session: Session, method: Method, row: Row) -> Counts:
    """Return the graded continuations of every hard problem under a row of Table 1."""
    if row.condition is None:
        return _kept(session, method, row.is_fresh)
    return condition_counts(session, method, row.condition)


def _kept(session: Session, method: Method, is_fresh: bool) -> Counts:
    """Return, per hard problem, the continuations of the intervention kept for training."""
    rows = ready_rows(session, method.models.rows)
    kept = {row.problem_id: Count(row.num_continuations, row.num_correct) for row in rows}
    if is_fresh:
        again = proposal_counts(session, method.interventions.reestimated)
        kept = {r.problem_id: again[str(r.proposal_id)] for r in rows if r.proposal_id in again}
    hard = method.hard.read(session)
    return {p.problem_id: [kept.get(p.problem_id, Count(0, 0))] for p in hard}


def _compared(runner: ExperimentRunner, experiment: Experiment) -> Result:
    """Tables 1 and 7, and hints of equal length."""
    counts = runner.pooled(experiment.rows, Reading(continuations))
    there = [row for row in experiment.rows if row.name in counts]
    missing = [row.name for row in experiment.rows if row not in there]
    (head,) = experiment.tables
    left_out = " Row {} is left out: the scale names no proposer for it, or its model is not here."
    of_rows = [f" {text}" for name, text in experiment.row_notes.items() if name in counts]
    note = head.note + "".join([*of_rows, *map(left_out.format, missing)])
    rows = [((row.name, *row.cells), counts[row.name]) for row in there]
    table = results.accuracy_table(replace(head, note=note), rows)
    return Result(tables=[table], claims=judge(experiment.claims, counts))


def _figure4(runner: ExperimentRunner, experiment: Experiment) -> Result:
    _, *others = rows = experiment.rows[:4]
    counts = runner.pooled(rows, Reading(continuations))
    bars = {row.cells[1].removeprefix("+ "): counts[row.name] for row in others}
    solved = {name: estimates.covered(found) for name, found in bars.items()}
    y = partial(estimates.estimate, statistic=accuracy)
    panels = [
        panel({title: found}, y, ("continued from", label), title=title, kind="bar")
        for title, label, found in (
            ("accuracy", "correct continuations, %", bars),
            ("coverage", "problems solved, %", solved),
        )
    ]
    return Result(panels=panels)


class Located(NamedTuple):
    """One accepted intervention, e.g. at step 2 of 6, 11 tokens for a rollout of 70."""

    error_step: int
    num_steps: int
    intervention_tokens: float
    rollout_tokens: float


def _located(session: Session, method: Method, _: Row) -> Clusters[Located]:
    """Return every verified candidate, by problem."""
    renderer, found = session.tools.renderer(method.setup.base), []
    for proposal, rollout in candidates_in_place(session, method):
        num_tokens = float(len(renderer.encode(proposal.intervention or "")))
        num_steps, step = len(method.setup.steps.of(rollout)), insert_step(proposal)
        place = Located(step, num_steps, num_tokens, float(rollout.num_tokens))
        found.append((rollout.problem_id, place))
    return grouped(found)


def _figure2(runner: ExperimentRunner, experiment: Experiment) -> Result:
    found = pool(runner.read("int", _located).values())
    places, late = flat(found), each(found, lambda x: float(x.error_step >= 1))
    middle = each(found, lambda x: float(2 * x.error_step >= x.num_steps))
    table = experiment.tables[0].table(
        ("after at least one correct step", str(len(places)), results.mean_cell(late)),
        ("in the second half of the rollout", str(len(places)), results.mean_cell(middle)),
    )
    sides = {"late": late, "half": each(late, lambda _: 0.5)}
    steps = [x.error_step + 1 for x in places]
    tenths = [min(9, 10 * x.error_step // x.num_steps) + 1 for x in places]
    panels = [
        histogram_panel(found, (label, "interventions, %"), title, least=least)
        for found, label, title, least in (
            (steps, "step of the first error", "position", ()),
            (tenths, "tenth of the rollout's steps", "relative position", (1, 10)),
        )
    ]
    return Result(tables=[table], claims=judge(experiment.claims, sides), panels=panels)


def _figure10(runner: ExperimentRunner, experiment: Experiment) -> Result:
    found = pool(runner.read("int", _located).values())
    lengths = {
        "intervention": each(found, lambda x: x.intervention_tokens),
        "full rollout": each(found, lambda x: x.rollout_tokens),
    }
    rows = []
    for name, values in lengths.items():
        middle, longest = f"{median(flat(values)):g}", f"{max(flat(values)):g}"
        rows.append((name, *results.text_cells(values, digits=1), middle, longest))
    return Result(
        tables=[experiment.tables[0].table(*rows)],
        claims=judge(experiment.claims, lengths),
        panels=[_length_panel(name, values) for name, values in lengths.items()],
    )


def _length_panel(name: str, lengths: Clusters[float]) -> Panel:
    """Return a histogram of at most 20 bins, the bin's lower end as its tick."""
    width = max(1, -(-int(max(flat(lengths), default=1) + 1) // 20))
    bins = each(lengths, lambda value: int(value) // width * width)
    low, high = min(flat(bins), default=0), max(flat(bins), default=-1)
    bars = {low: each(bins, partial(eq, low)) for low in range(low, high + 1, width)}
    y = partial(estimates.estimate, statistic=mean, num_resamples=300)
    labels = (f"tokens (bins of {width})", "texts, %")
    return panel({name: bars}, y, labels, title=name, kind="bar", units=num_items)


def _shifted(session: Session, method: Method, row: Row) -> Counts:
    """Return the counts of every candidate that can be moved so far, by problem."""
    candidates = method.interventions.candidates(row.shift).read(session)
    problems = {proposal.proposal_id: proposal.problem_id for proposal in candidates}
    drawn = method.interventions.verify(Condition.PREFIX_INTERVENTION, row.shift)
    counts = proposal_counts(session, drawn)
    return grouped((problems[proposal_id], count) for proposal_id, count in counts.items())


def _shift(runner: ExperimentRunner, experiment: Experiment) -> Result:
    counts = runner.pooled(experiment.rows, Reading(_shifted))
    curve = {row.shift: counts[row.name] for row in experiment.rows}
    y = partial(estimates.estimate, statistic=accuracy)
    labels = ("intervention moved by, steps", "correct continuations, %")
    return Result(
        tables=[_by_candidate(experiment.tables[0], counts)],
        claims=judge(experiment.claims, counts),
        panels=[panel({"accuracy": curve}, y, labels)],
    )


def _by_candidate(head: Head, counts: Mapping[str, Counts]) -> Table:
    """Return how many candidates there are, and their continuations, added up by problem."""
    rows = [((name, str(num_items(c))), _summed(c)) for name, c in counts.items()]
    return results.accuracy_table(head, rows)


def _summed(found: Counts) -> Counts:
    return {
        problem_id: [Count(sum(c.num_samples for c in counts), sum(c.num_correct for c in counts))]
        for problem_id, counts in found.items()
    }


def _offsets(session: Session, method: Method, _: Row) -> Clusters[tuple[int, Count]]:
    """Return (location − true first error, counts) of each candidate, by problem."""
    from midcourse.lab.problems import lab_problems
    from midcourse.lab.truth import first_wrong

    recipe = method.setup.recipe
    stories = lab_problems(recipe.problems, recipe.seed).stories
    verified = method.interventions.verified[Condition.PREFIX_INTERVENTION]
    counts, found = proposal_counts(session, verified), []
    in_order = sorted(candidates_in_place(session, method), key=lambda pair: pair[1].rollout_id)
    for proposal, rollout in in_order:
        truth = first_wrong(method.setup.steps.of(rollout), stories[proposal.problem_id])
        if truth is not None and proposal.proposal_id in counts:
            place = (insert_step(proposal) - truth, counts[proposal.proposal_id])
            found.append((proposal.problem_id, place))
    return grouped(found)


def _localisation(runner: ExperimentRunner, experiment: Experiment) -> Result:
    found = pool(runner.read("int", _offsets).values())
    places = {
        "at the first error": only(found, lambda place: place[0] == 0),
        "earlier": only(found, lambda place: place[0] < 0),
        "later": only(found, lambda place: place[0] > 0),
    }
    counts = {name: each(there, lambda place: place[1]) for name, there in places.items()}
    right = results.mean_cell(each(found, lambda place: float(place[0] == 0)))
    (head,) = experiment.tables
    head = replace(head, note=head.note.format(number=num_items(found), right=right))
    sides = {**counts, "elsewhere": pool([counts["earlier"], counts["later"]])}
    claims = judge(experiment.claims, sides)
    return Result(tables=[_by_candidate(head, counts)], claims=claims)


MAKERS: dict[str, Maker] = {
    "table1": _compared,
    "table7": _compared,
    "equal-hints": _compared,
    "fig2": _figure2,
    "fig4": _figure4,
    "fig10": _figure10,
    "shift": _shift,
    "localisation": _localisation,
}
