"""The pass@k = 0 league: what each method gains on problems that the base never solved, per token.

Every arm has the same hard problems, the same base and the same RL; arms whose start costs more are
read at fewer iterations of it. What each takes is in its `Ledger`. The unit is a training run: an
arm at one seed gives one number, and arms are compared seed by seed. The design, written before any
run, is in ``docs/results/league.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import attrgetter
from statistics import fmean
from typing import NamedTuple

from midcourse.config import HELD_OUT_SET, TRAIN_SET
from midcourse.experiments import readings
from midcourse.experiments.catalogue import Experiment, Head, Measure, Row
from midcourse.experiments.data import Reading
from midcourse.experiments.ledger import Ledger, Spending, ledger
from midcourse.experiments.readings import counts_on
from midcourse.experiments.results import (
    Maker,
    Numbers,
    Result,
    judge_runs,
    per_run,
    run_cells,
    run_panel,
    runs_passed,
)
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Interval, accuracy, count_of
from midcourse.pipeline import Method, Session
from midcourse.report.estimates import Counts, flat
from midcourse.report.plots import Panel, Point
from midcourse.report.tables import none_correct, windows
from midcourse.table import Table

SETS = {HELD_OUT_SET: "held-out problems", TRAIN_SET: "hard training problems"}
_COURSES = {
    HELD_OUT_SET: Reading(readings.course_counts),
    TRAIN_SET: Reading(readings.hard_course_counts),
}
#: The budget is what this arm has spent at so much of its iterations: of arms whose rollouts are
#: shorter, the last iterations still reach it.
BUDGET_ARM, BUDGET_SHARE = "RL", 0.8

Cost = Callable[[Spending], float]
#: The two sums of a ledger, by what a table calls them.
COSTS: dict[str, Cost] = {
    "tokens": attrgetter("tokens"),
    "forward passes": attrgetter("passes"),
}
NOT_RUN = "not run"


class NoSuccess(NamedTuple):
    """The share of RL's groups without a correct rollout: what siblings would teach, none does."""

    first: float
    """In the first window of iterations."""
    all: float


def no_success(session: Session, method: Method, row: Row) -> NoSuccess:
    """Return how often RL had a group in which nothing succeeded."""
    groups = readings.group_counts(session, method, row.role)
    every = none_correct([count_of(group) for group in groups])
    return NoSuccess(none_correct(windows(groups)[0][1]), every)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRun:
    """One arm at one seed."""

    ledger: Ledger
    courses: Mapping[str, Mapping[int, float]]
    """pass@1 by each evaluation set asked for, and iteration; of 0, where RL started."""
    dead: NoSuccess


class Place(NamedTuple):
    """Where a run is read: the last kept model that the budget paid for."""

    iteration: int
    is_short: bool
    """Whether it is the run's last one: more training would have been paid for."""


Arms = Mapping[str, Mapping[int, ArmRun]]
"""By name of the row and seed."""


def place_at(of: Ledger, budget: float, cost: Cost) -> Place | None:
    """Return where a run is read at a budget; None if its start alone costs more."""
    costs = {iteration: cost(of.through(iteration)) for iteration in sorted(of.course)}
    paid = [iteration for iteration, spent in costs.items() if spent <= budget]
    if not paid:
        return None
    last = paid[-1]
    return Place(last, is_short=last == max(costs) and costs[last] < budget)


def budgets(
    runs: Mapping[int, ArmRun], cost: Cost, share: float = BUDGET_SHARE
) -> dict[int, float]:
    """Return the budget of each seed, what the arm that sets it spends by a share of its RL."""
    found = {}
    for seed, run in runs.items():
        kept = run.ledger.course
        iteration = max(i for i in kept if i <= share * max(kept))
        found[seed] = cost(run.ledger.through(iteration))
    return found


def gains_at(
    runs: Mapping[int, ArmRun], limits: Numbers, cost: Cost, eval_set: str, before: Numbers
) -> dict[int, float]:
    """Return each run's gain over the base where the budget puts it.

    Runs whose start it does not pay for are left out.
    """
    places = {seed: place_at(run.ledger, limits[seed], cost) for seed, run in runs.items()}
    return {
        seed: runs[seed].courses[eval_set][at.iteration] - before[seed]
        for seed, at in places.items()
        if at
    }


def gain_along(run: ArmRun, budget: float, cost: Cost, eval_set: str, before: float) -> float:
    """Return the mean gain over the base while a budget is spent: an area under the curve.

    Until its start is paid for, an arm has the base and gains nothing. Between kept models the
    gain is taken to change evenly; after the last one it stays.
    """
    course = run.courses[eval_set]
    curve = sorted((cost(run.ledger.through(step)), of - before) for step, of in course.items())
    curve.append((max(budget, curve[-1][0]), curve[-1][1]))
    total = 0.0
    for (left, low), (right, high) in pairwise(curve):
        if left < min(budget, right):
            share = min(1.0, (budget - left) / (right - left))
            total += share * (right - left) * (low + share * (high - low) / 2)
    return total / budget


def _league(runner: ExperimentRunner, experiment: Experiment) -> Result:
    base, *rows = experiment.rows
    there = [row for row in rows if runner.has(row.recipe)]
    arms = arm_runs(runner, there, SETS)
    counts = {name: runner.read_rows([base], counts_on(name))[base.name] for name in SETS}
    before = {name: per_run(runs, accuracy) for name, runs in counts.items()}
    hard, budget_head, charged_head, ledger_head = experiment.tables
    standings = [Standings(arms, before, cost, unit) for unit, cost in COSTS.items()]
    tables = [
        _out_of_reach(hard, counts[TRAIN_SET]),
        *(_budget_table(budget_head, standing) for standing in standings),
        _budget_table(
            replace(charged_head, columns=budget_head.columns), with_search(standings[0])
        ),
        _ledger_table(ledger_head, arms),
    ]
    missing = [row.name for row in rows if row not in there]
    return Result(
        tables=[tables[0], *(_with_missing(table, missing) for table in tables[1:])],
        claims=[
            line
            for eval_set, on in SETS.items()
            for line in judge_runs(experiment.claims, standings[0].judged(eval_set), on=on)
        ],
        panels=[gain_panel(arms, before[name], name) for name in SETS],
    )


def arm_runs(
    runner: ExperimentRunner, rows: Sequence[Row], sets: Iterable[str]
) -> dict[str, dict[int, ArmRun]]:
    """Return what the league asks of each arm and seed, with pass@1 on those evaluation sets.

    Each set is a minute or two of sampling a run, so only what is used is asked for.
    """
    ledgers = runner.read_rows(rows, Reading(ledger))
    courses = {name: runner.read_rows(rows, _COURSES[name]) for name in sets}
    dead = runner.read_rows(rows, Reading(no_success))
    return {
        name: {
            seed: ArmRun(
                ledger=of,
                courses={of_set: per_run(c[name][seed], accuracy) for of_set, c in courses.items()},
                dead=dead[name][seed],
            )
            for seed, of in by_seed.items()
        }
        for name, by_seed in ledgers.items()
    }


def _out_of_reach(head: Head, before: Mapping[int, Counts]) -> Table:
    """Show what the base does in fresh samples of the problems that it never solved."""
    k = min(count.num_samples for counts in before.values() for count in flat(counts))
    numbers = " / ".join(str(len(counts)) for counts in before.values())
    cells = [cell for of in (1, k) for cell in run_cells(runs_passed(before, of))]
    return head.table(("base", numbers, str(k), *cells))


@dataclass(frozen=True, slots=True)
class Standings:
    """All arms at one budget, counted in one unit."""

    arms: Arms
    before: Mapping[str, Numbers]
    """The base's pass@1 by evaluation set."""
    cost: Cost
    unit: str
    share: float = BUDGET_SHARE
    """Of the RL of the arm that sets the budget."""

    @property
    def limits(self) -> dict[int, float]:
        """The budget of each seed."""
        return budgets(self.arms[BUDGET_ARM], self.cost, self.share)

    def gains(self, eval_set: str) -> dict[Measure, dict[str, Numbers]]:
        """Return each arm's gains at the budget, if it has any, and along it."""
        limits, before, cost = self.limits, self.before[eval_set], self.cost
        ends: dict[str, Numbers] = {
            name: gains_at(runs, limits, cost, eval_set, before) for name, runs in self.arms.items()
        }
        along: dict[str, Numbers] = {
            name: {s: gain_along(r, limits[s], cost, eval_set, before[s]) for s, r in runs.items()}
            for name, runs in self.arms.items()
        }
        return {
            Measure.AT_BUDGET: {n: of for n, of in ends.items() if of},
            Measure.ALONG_BUDGET: along,
        }

    def judged(self, eval_set: str) -> dict[Measure, dict[str, Numbers]]:
        """Return the gains of arms whose start the budget pays for in any run.

        Along the budget the others gain 0 by definition: that says nothing but what they cost.
        """
        gains = self.gains(eval_set)
        paid = gains[Measure.AT_BUDGET]
        return {of: {n: arms[n] for n in arms if n in paid} for of, arms in gains.items()}


def with_search(at: Standings) -> Standings:
    """Charge finding the hard problems; the budget is then all that its arm spends."""
    arms = {
        name: {s: replace(run, ledger=run.ledger.with_search) for s, run in runs.items()}
        for name, runs in at.arms.items()
    }
    return replace(at, arms=arms, share=1.0)


def _budget_table(head: Head, at: Standings) -> Table:
    limits, found = at.limits, {name: at.judged(name) for name in SETS}
    rows = []
    for name, runs in at.arms.items():
        places = {s: place_at(run.ledger, limits[s], at.cost) for s, run in runs.items()}
        spent = [at.cost(runs[s].ledger.through(p.iteration)) for s, p in places.items() if p]
        cells: list[str] = []
        for of_set in found.values():
            cells += run_cells(of_set[Measure.AT_BUDGET].get(name, {}))
            cells += run_cells(of_set[Measure.ALONG_BUDGET].get(name, {}))[:1]
        where = " / ".join(map(_place_cell, places.values()))
        rows.append((name, str(len(spent)), where, _millions(spent), *cells))
    note = f"{head.note} Budget: {_millions(limits.values())} million, the mean over seeds."
    return replace(head, title=head.title.format(unit=at.unit), note=note).table(*rows)


def _place_cell(place: Place | None) -> str:
    return "–" if place is None else f"{place.iteration}{'*' * place.is_short}"


def _millions(values: Iterable[float]) -> str:
    found = list(values)
    return f"{fmean(found) / 1e6:.3g}" if found else "–"


def _with_missing(table: Table, missing: Iterable[str]) -> Table:
    """Return a table with a row for each arm that was not run."""
    blank = ["–"] * (len(table.columns) - 2)
    return replace(table, rows=(*table.rows, *((name, NOT_RUN, *blank) for name in missing)))


#: The parts of a ledger, in the order of its columns.
_PARTS = ("sampled", "proposed", "verified", "teacher", "trained", "tokens", "read", "scored",
          "passes")  # fmt: skip


def _ledger_table(head: Head, arms: Arms) -> Table:
    """Show each arm's ledger through the end of its RL, the mean over runs."""
    shared = [run.ledger.shared for run in arms[BUDGET_ARM].values()]
    rows = [("all: finding the hard problems", *_part_cells(shared), "–", "–", "–")]
    for name, runs in arms.items():
        ledgers = [run.ledger for run in runs.values()]
        whole = _part_cells([of.through(max(of.course)) for of in ledgers])
        starts = _thousands(of.start.tokens for of in ledgers)
        chosen = _thousands(of.choice.tokens for of in ledgers)
        rows.append((name, *whole, starts, chosen, _dead_cell([r.dead for r in runs.values()])))
    return head.table(*rows)


def _dead_cell(dead: Sequence[NoSuccess]) -> str:
    first, every = (fmean(values) for values in zip(*dead, strict=True))
    return f"{100 * first:.0f} → {100 * every:.0f}"


def _part_cells(spent: Sequence[Spending]) -> list[str]:
    return [_thousands(getattr(one, part) for one in spent) for part in _PARTS]


def _thousands(values: Iterable[float]) -> str:
    return f"{fmean(list(values)) / 1e3:,.1f}"


def gain_panel(arms: Arms, before: Numbers, eval_set: str) -> Panel:
    """Return the gain in pass@1 over the base against tokens, one curve per arm.

    A point is the mean over runs of one kept model, its interval by t; dots are the runs.
    """
    found = {name: _kept_models(runs, before, eval_set) for name, runs in arms.items()}
    curves = {
        name: {fmean(spent.values()): gains for spent, gains in models}
        for name, models in found.items()
    }
    labels = ("tokens written or trained on, millions", "gain in pass@1, points")
    made = run_panel(curves, labels, title=SETS[eval_set])
    series = (replace(one, dots=_dots(found[one.label])) for one in made.series)
    return replace(made, series=tuple(series))


def _kept_models(
    runs: Mapping[int, ArmRun], before: Numbers, eval_set: str
) -> list[tuple[Numbers, Numbers]]:
    """Return millions of tokens and gain of each model that every run kept, by seed."""
    first, *others = (run.ledger.course for run in runs.values())
    return [
        (
            {seed: run.ledger.through(step).tokens / 1e6 for seed, run in runs.items()},
            {seed: run.courses[eval_set][step] - before[seed] for seed, run in runs.items()},
        )
        for step in sorted(first)
        if all(step in course for course in others)
    ]


def _dots(models: Iterable[tuple[Numbers, Numbers]]) -> tuple[Point, ...]:
    return tuple(
        Point(spent[seed], Interval(*[100 * gain] * 3), 1)
        for spent, gains in models
        for seed, gain in gains.items()
    )


MAKERS: dict[str, Maker] = {"league": _league}
