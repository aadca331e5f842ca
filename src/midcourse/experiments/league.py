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
from midcourse.experiments.catalogue import Claim, Experiment, Head, Row
from midcourse.experiments.data import Reading
from midcourse.experiments.ledger import Ledger, Spending, ledger
from midcourse.experiments.readings import counts_on
from midcourse.experiments.results import Maker, Result
from midcourse.experiments.runner import WHOLE_METHOD, ExperimentRunner
from midcourse.metrics import Interval, accuracy, count_of
from midcourse.pipeline import Method, Session
from midcourse.report.estimates import (
    Counts,
    ShapeLine,
    flat,
    over_runs,
    passes,
)
from midcourse.report.plots import Panel, Point, Series
from midcourse.report.runs import Comparison, compare_runs
from midcourse.report.tables import none_correct, windows
from midcourse.table import Table

SETS = {HELD_OUT_SET: "held-out problems", TRAIN_SET: "hard training problems"}
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
#: Arms of other recipes than the primary pair's are read at so many of the seeds, the first ones.
_MOST_RUNS = 3


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
    courses: Mapping[str, Mapping[int, Counts]]
    """By evaluation set and iteration; of 0 iterations, where RL started."""
    dead: NoSuccess


class Place(NamedTuple):
    """Where a run is read: the last kept model that the budget paid for."""

    iteration: int
    is_short: bool
    """Whether it is the run's last one: more training would have been paid for."""


Arms = Mapping[str, Mapping[int, ArmRun]]
"""By name of the row and seed."""
Budgets = Mapping[int, float]
"""By seed."""


def place_at(of: Ledger, budget: float, cost: Cost) -> Place | None:
    """Return where a run is read at a budget; None if its start alone costs more."""
    costs = {iteration: cost(of.through(iteration)) for iteration in sorted(of.course)}
    paid = [iteration for iteration, spent in costs.items() if spent <= budget]
    if not paid:
        return None
    last = paid[-1]
    return Place(last, is_short=last == max(costs) and costs[last] < budget)


def budgets(runs: Mapping[int, ArmRun], cost: Cost) -> dict[int, float]:
    """Return the budget of each seed, of the runs of the arm that sets it."""
    found = {}
    for seed, run in runs.items():
        kept = run.ledger.course
        iteration = max(i for i in kept if i <= BUDGET_SHARE * max(kept))
        found[seed] = cost(run.ledger.through(iteration))
    return found


def at_budget(
    runs: Mapping[int, ArmRun], budget: Budgets, cost: Cost, eval_set: str
) -> dict[int, Counts]:
    """Return the counts of each run where the budget puts it; runs that it does not pay are out."""
    places = {seed: place_at(run.ledger, budget[seed], cost) for seed, run in runs.items()}
    return {s: runs[s].courses[eval_set][at.iteration] for s, at in places.items() if at}


def mean_gain(run: ArmRun, budget: float, cost: Cost, eval_set: str, before: Counts) -> float:
    """Return the gain over the base while a budget is spent, in points: an area under the curve.

    Until its start is paid for, an arm has the base and gains nothing. Between kept models the
    gain is taken to change evenly; after the last one it stays.
    """
    gains = _gains(run.courses[eval_set], dict.fromkeys(run.courses[eval_set], before))
    spent = [cost(run.ledger.through(step)) for step in run.courses[eval_set]]
    curve = sorted(zip(spent, gains, strict=True))
    curve.append((max(budget, curve[-1][0]), curve[-1][1]))
    area = 0.0
    for (left, low), (right, high) in pairwise(curve):
        if left < budget and right > left:
            share = min(1.0, (budget - left) / (right - left))
            area += share * (right - left) * (low + share * (high - low) / 2)
    return area / budget


def _league(runner: ExperimentRunner, experiment: Experiment) -> Result:
    base, *rows = experiment.rows
    there = [row for row in rows if not row.is_planned and runner.has(row.recipe)]
    arms = _arms(runner, [row for row in there if row.recipe == WHOLE_METHOD])
    fewer = replace(runner, seeds=runner.seeds[:_MOST_RUNS])
    others = _arms(fewer, [row for row in there if row.recipe != WHOLE_METHOD])
    arms = {row.name: (arms | others)[row.name] for row in there}
    before = {name: runner.read_rows([base], counts_on(name))[base.name] for name in SETS}
    missing = [row.name for row in rows if row not in there]
    hard, budget_head, ledger_head = experiment.tables
    tables = [_out_of_reach(hard, before[TRAIN_SET])]
    for unit, cost in COSTS.items():
        limits = budgets(arms[BUDGET_ARM], cost)
        head = replace(budget_head, title=budget_head.title.format(unit=unit))
        tables.append(_budget_table(head, arms, before, limits, cost, missing))
    tables.append(_ledger_table(ledger_head, arms, missing))
    cost = COSTS["tokens"]
    limits = budgets(arms[BUDGET_ARM], cost)
    return Result(
        tables=tables,
        claims=list(_claims(experiment.claims, arms, limits, cost)),
        panels=[gain_panel(arms, before[name], name) for name in SETS],
    )


def _arms(runner: ExperimentRunner, rows: Sequence[Row]) -> dict[str, dict[int, ArmRun]]:
    ledgers = runner.read_rows(rows, Reading(ledger))
    held_out = runner.read_rows(rows, Reading(readings.course_counts))
    hard = runner.read_rows(rows, Reading(readings.hard_course_counts))
    dead = runner.read_rows(rows, Reading(no_success))
    return {
        name: {
            seed: ArmRun(
                ledger=of,
                courses={HELD_OUT_SET: held_out[name][seed], TRAIN_SET: hard[name][seed]},
                dead=dead[name][seed],
            )
            for seed, of in by_seed.items()
        }
        for name, by_seed in ledgers.items()
    }


def _out_of_reach(head: Head, before: Mapping[int, Counts]) -> Table:
    """Show, by seed, what the base does in fresh samples of the problems it never solved."""
    rows = []
    for seed, counts in before.items():
        k = min(count.num_samples for count in flat(counts))
        values = (passes(counts, of) for of in (1, k))
        cells = (f"{100 * fmean(flat(value)):.1f}" for value in values)
        rows.append((f"seed {seed}", str(len(counts)), str(k), *cells))
    return head.table(*rows)


def _budget_table(
    head: Head,
    arms: Arms,
    before: Mapping[str, Mapping[int, Counts]],
    limits: Budgets,
    cost: Cost,
    missing: Iterable[str],
) -> Table:
    rows = []
    for name, runs in arms.items():
        where = {s: place_at(run.ledger, limits[s], cost) for s, run in runs.items()}
        spent = [cost(runs[s].ledger.through(at.iteration)) for s, at in where.items() if at]
        gains: list[str] = []
        for eval_set in SETS:
            values = at_budget(runs, limits, cost, eval_set)
            gained = _gains(values, before[eval_set])
            along = [
                mean_gain(run, limits[seed], cost, eval_set, before[eval_set][seed])
                for seed, run in runs.items()
            ]
            gains += [_mean_cell(gained), _each(gained), _mean_cell(along)]
        places = "/".join(_place_cell(at) for at in where.values())
        rows.append((name, str(len(spent)), places, _millions(spent), *gains))
    rows += [_not_run(name, head) for name in missing]
    budget = f" Budget: {_millions(limits.values())} million, the mean over seeds."
    return replace(head, note=head.note + budget).table(*rows)


def _gains(values: Mapping[int, Counts], before: Mapping[int, Counts]) -> list[float]:
    """Return what each run is above the base of its seed, in points."""
    return [
        100 * (accuracy(flat(counts)) - accuracy(flat(before[seed])))
        for seed, counts in values.items()
    ]


def _place_cell(place: Place | None) -> str:
    return "–" if place is None else f"{place.iteration}{'*' * place.is_short}"


def _millions(values: Iterable[float]) -> str:
    found = list(values)
    return f"{fmean(found) / 1e6:.3g}" if found else "–"


def _mean_cell(values: Sequence[float]) -> str:
    """Return a mean over runs with its interval by t, where there are enough runs for one."""
    if not values:
        return "–"
    found = over_runs(values)
    ends = f" [{found.low:.1f}, {found.high:.1f}]" if found.low == found.low else ""
    return f"{found.estimate:.1f}{ends}"


def _each(values: Iterable[float]) -> str:
    return "/".join(f"{value:.1f}" for value in values) or "–"


def _not_run(name: str, head: Head) -> tuple[str, ...]:
    return (name, NOT_RUN, *["–"] * (len(head.columns) - 2))


#: The parts of a ledger, in the order of its columns.
_PARTS = ("sampled", "proposed", "verified", "teacher", "trained", "tokens", "read", "scored",
          "passes")  # fmt: skip


def _ledger_table(head: Head, arms: Arms, missing: Iterable[str]) -> Table:
    """Show each arm's ledger through the end of its RL, the mean over runs."""
    shared = [run.ledger.shared for run in arms[BUDGET_ARM].values()]
    rows = [("all: finding the hard problems", *_part_cells(shared), "–", "–", "–")]
    for name, runs in arms.items():
        ledgers = [run.ledger for run in runs.values()]
        whole = _part_cells([of.through(max(of.course)) for of in ledgers])
        starts = _thousands(of.start.tokens for of in ledgers)
        chosen = _thousands(of.choice.tokens for of in ledgers)
        rows.append((name, *whole, starts, chosen, _dead_cell([r.dead for r in runs.values()])))
    rows += [_not_run(name, head) for name in missing]
    return head.table(*rows)


def _dead_cell(dead: Sequence[NoSuccess]) -> str:
    first, every = (fmean(values) for values in zip(*dead, strict=True))
    return f"{100 * first:.0f} → {100 * every:.0f}"


def _part_cells(spent: Sequence[Spending]) -> list[str]:
    return [_thousands(getattr(one, part) for one in spent) for part in _PARTS]


def _thousands(values: Iterable[float]) -> str:
    found = list(values)
    return f"{fmean(found) / 1e3:,.1f}" if found else "–"


def gain_panel(arms: Arms, before: Mapping[int, Counts], eval_set: str) -> Panel:
    """Return the gain in pass@1 over the base against tokens, one curve per arm.

    A point is the mean over runs of one kept model, its interval by t; dots are the runs.
    """
    return Panel(
        title=SETS[eval_set],
        x_label="tokens written or trained on, millions",
        y_label="gain in pass@1, points",
        series=tuple(_curve(name, runs, before, eval_set) for name, runs in arms.items()),
    )


def _curve(
    name: str, runs: Mapping[int, ArmRun], before: Mapping[int, Counts], eval_set: str
) -> Series:
    points, dots = [], []
    first, *others = runs.values()
    for step in sorted(first.ledger.course):
        if not all(step in run.ledger.course for run in others):
            continue
        spent = [run.ledger.through(step).tokens / 1e6 for run in runs.values()]
        at_step = {seed: run.courses[eval_set][step] for seed, run in runs.items()}
        gained = _gains(at_step, before)
        points.append(Point(fmean(spent), over_runs(gained), len(gained)))
        dots += [Point(x, Interval(y, y, y), 1) for x, y in zip(spent, gained, strict=True)]
    return Series(name, tuple(points), tuple(dots))


def _claims(
    claims: Iterable[Claim], arms: Arms, limits: Budgets, cost: Cost
) -> Iterable[ShapeLine]:
    """Yield the verdict on each claim, on each set, against each other arm that was run."""
    for claim in claims:
        for eval_set, on in SETS.items():
            found = {name: at_budget(runs, limits, cost, eval_set) for name, runs in arms.items()}
            for other in [claim.theirs] if claim.theirs else arms:
                if other != claim.ours and {claim.ours, other} <= found.keys():
                    words = claim.words.format(other=other, on=on)
                    yield _line(words, compare_runs(found[claim.ours], found[other], accuracy))


def _line(words: str, found: Comparison) -> ShapeLine:
    """Return a verdict by the interval over runs; with too few of them, none."""
    if not found.seeds:
        return ShapeLine(words, None, "no seed has both within the budget")
    low, high = found.difference.low, found.difference.high
    holds = True if low > 0 else False if high < 0 else None
    apart = _mean_cell([100 * value for value in found.differences])
    each = _each(100 * value for value in found.differences)
    return ShapeLine(
        words, holds, f"difference {apart} points; by run {each}; p = {found.p_value:.3g}"
    )


MAKERS: dict[str, Maker] = {"league": _league}
