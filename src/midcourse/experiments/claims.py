"""The primary claims of ``claims.toml``: read from data, judged together, written to one page.

A claim is judged when all of its planned runs are there, not before: looking at a few runs and
stopping where they please is how a false claim is made. A verdict rests on the p-value of an exact
sign-flip test over pairs of runs, corrected by Holm over all claims, those without a verdict too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from midcourse.experiments import league, readings
from midcourse.experiments.catalogue import Experiment, Measure, Row
from midcourse.experiments.data import MissingDataError, Reading
from midcourse.experiments.interventions import continuations
from midcourse.experiments.page import BEGIN, END, by_hand
from midcourse.experiments.readings import counts_on
from midcourse.experiments.results import Maker, Result
from midcourse.experiments.rl import reward_groups
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count, accuracy, mean, pass_at_k
from midcourse.report.estimates import Clusters, Counts, Statistic, each
from midcourse.report.runs import Comparison, compare_runs, holm, runs_needed
from midcourse.report.shape import points
from midcourse.report.tables import none_correct
from midcourse.table import Table

#: What a family of claims risks: that any of its verdicts is false.
LEVEL = 0.05
#: Differences, as shares, for which the runs that would show them are told.
EFFECTS = (0.05, 0.10)
NOT_YET = "not yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Primary:
    """That `ours` is above `theirs`, run against run."""

    words: str
    scale: str
    """As `ExperimentRunner.scale_name`, e.g. ``lab2``."""
    measure: Measure
    ours: Row
    theirs: Row
    paper: str
    runs: int = 10
    """Planned: seeds 1, 2, …; none but these are looked at."""

    @property
    def seeds(self) -> range:
        """The planned seeds."""
        return range(1, self.runs + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A claim with what its runs say."""

    claim: Primary
    found: Comparison
    """Of the runs that are there."""
    adjusted: float
    """Holm's p-value; that of a claim without all its runs is 1."""

    @property
    def is_complete(self) -> bool:
        """Whether all planned runs are there."""
        return len(self.found.seeds) == self.claim.runs

    @property
    def verdict(self) -> str:
        """One of three answers, or that it is too early for one."""
        if not self.is_complete:
            return f"{NOT_YET}: {len(self.found.seeds)} of {self.claim.runs} runs"
        if self.adjusted >= LEVEL:
            return "cannot tell"
        return "holds" if self.found.difference.estimate > 0 else "does not hold"


@cache
def primary_claims() -> tuple[Primary, ...]:
    """Return every primary claim, in order."""
    text = (resources.files("midcourse.experiments") / "claims.toml").read_text("utf-8")
    adapter = TypeAdapter(dict[str, tuple[Primary, ...]], config=ConfigDict(extra="forbid"))
    return adapter.validate_python(tomllib.loads(text))["claim"]


# --- what is measured --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Measured:
    """How a run gives items by problem, and one number of them."""

    items: Callable[[ExperimentRunner, Row], Mapping[int, Clusters[Any]]]
    statistic: Statistic[Any]


def _read(reading: Reading[Any], make: Callable[[Any], Clusters[Any]]) -> Any:
    """Return what takes items by problem and seed from a reading."""

    def items(runner: ExperimentRunner, row: Row) -> dict[int, Clusters[Any]]:
        found = runner.read_rows([row], reading)[row.name]
        return {seed: make(value) for seed, value in found.items()}

    return items


def _along(
    height: Callable[[Mapping[int, float]], float],
) -> Callable[[Mapping[int, Counts]], dict[str, list[float]]]:
    """Return what makes one number a problem of its pass@1 by iteration."""

    def by_problem(course: Mapping[int, Counts]) -> dict[str, list[float]]:
        shares = {step: _first_tries(counts) for step, counts in course.items()}
        problems = shares[max(shares)]
        return {p: [height({step: of[p][0] for step, of in shares.items()})] for p in problems}

    return by_problem


def _first_tries(counts: Counts) -> dict[str, list[float]]:
    return each(counts, lambda count: pass_at_k(count.num_samples, count.num_correct, 1))


def _at_budget(runner: ExperimentRunner, row: Row) -> dict[int, Clusters[float]]:
    """Return a run's gain at the budget of its seed, as one item: it is not a mean of problems."""
    gains = league.held_out_gains(runner, row)
    return {seed: {"run": [gain]} for seed, gain in gains.items()}


def _as_read(counts: Counts) -> Counts:
    return counts


def _by_iteration(found: Mapping[int, Sequence[tuple[int, int]]]) -> dict[str, list[Count]]:
    """Return the groups of RL by iteration, which stands for the problem in resampling."""
    return {str(iteration): [Count(*of) for of in groups] for iteration, groups in found.items()}


MEASURED: dict[Measure, _Measured] = {
    Measure.ACCURACY: _Measured(_read(Reading(continuations), _as_read), accuracy),
    Measure.PASS_AT_K: _Measured(_read(counts_on("held_out"), _first_tries), mean),
    Measure.PLATEAU: _Measured(
        _read(Reading(readings.course_counts), _along(readings.plateau)), mean
    ),
    Measure.AREA: _Measured(_read(Reading(readings.course_counts), _along(readings.area)), mean),
    Measure.ZERO_ADVANTAGE: _Measured(_read(Reading(reward_groups), _by_iteration), none_correct),
    Measure.AT_BUDGET: _Measured(_at_budget, mean),
}


def compare(claim: Primary, runner: ExperimentRunner | None) -> Comparison:
    """Compare the arms of a claim on those planned seeds of which the runner has both.

    Without a runner no study has the claim's scale yet.
    """
    of = MEASURED[claim.measure]
    ours: dict[int, Clusters[Any]] = {}
    theirs: dict[int, Clusters[Any]] = {}
    for at in [replace(runner, seeds=(seed,)) for seed in claim.seeds] if runner else ():
        try:
            pair = [of.items(at, row) for row in (claim.ours, claim.theirs)]
        except MissingDataError:
            continue
        ours.update(pair[0])
        theirs.update(pair[1])
    return compare_runs(ours, theirs, of.statistic)


def judge_all(found: Iterable[tuple[Primary, Comparison]]) -> list[Judged]:
    """Return the claims with verdicts, corrected together."""
    pairs = list(found)
    p_values = [of.p_value if len(of.seeds) == claim.runs else 1.0 for claim, of in pairs]
    return [
        Judged(claim=claim, found=of, adjusted=adjusted)
        for (claim, of), adjusted in zip(pairs, holm(p_values), strict=True)
    ]


def _claims(runner: ExperimentRunner, experiment: Experiment) -> Result:
    """Read what the claims at this scale are about; they are judged on a page of their own."""
    for claim in primary_claims():
        if claim.scale == runner.scale_name:
            for row in (claim.ours, claim.theirs):
                MEASURED[claim.measure].items(runner, row)
    return Result(tables=[experiment.tables[0].table()])


MAKERS: dict[str, Maker] = {"claims": _claims}


# --- the page ----------------------------------------------------------------------------------


def write_claims(judged: Sequence[Judged], page: Path) -> None:
    """Write the page of primary claims."""
    lines = [
        "# Primary claims",
        "",
        f"{len(judged)} claims, named before their runs. The unit is a training run: a seed gives "
        "each arm one number, and arms are compared seed by seed. A verdict is given when all "
        f"planned runs are there: **holds** or **does not hold** if Holm's p-value is below "
        f"{LEVEL} (exact sign-flip test over pairs, all claims of this page one family), else "
        "**cannot tell**. Every other statement in these results is exploratory.",
        "",
        BEGIN,
        by_hand(page, ""),
        END,
        "",
        *summary_table(judged).markdown(),
        "",
        *_power_table(judged).markdown(),
        "",
        "Runs needed: pairs of runs that would show a true difference of so many points in four of "
        "five studies (two-sided 5 %, before Holm), by the spread seen.",
    ]
    for number, of in enumerate(judged, start=1):
        lines += ["", f'<a id="claim-{number}"></a>', "", *_details(number, of)]
    page.write_text("\n".join(lines) + "\n", "utf-8")


def summary_table(judged: Sequence[Judged], page: str = "") -> Table:
    """Return a row for each claim."""
    rows = [
        (
            f"[{number}]({page}#claim-{number})",
            of.claim.words,
            of.claim.paper,
            f"**{of.verdict}**",
            _difference(of.found),
            f"{of.adjusted:.3g}" if of.is_complete else "–",
        )
        for number, of in enumerate(judged, start=1)
    ]
    columns = ("", "claim", "paper", "verdict", "difference, points", "Holm's p")
    return Table("", columns, tuple(rows))


def _difference(found: Comparison) -> str:
    if not found.seeds:
        return "–"
    return points(found.difference).replace(" [+nan, +nan]", "")


def _power_table(judged: Sequence[Judged]) -> Table:
    rows = []
    for number, of in enumerate(judged, start=1):
        needed = (runs_needed(of.found.differences, effect) for effect in EFFECTS)
        rows.append((str(number), *("–" if n is None else str(n) for n in needed)))
    heads = (f"runs needed for {100 * effect:.0f} points" for effect in EFFECTS)
    return Table("", ("claim", *heads), tuple(rows))


def _details(number: int, of: Judged) -> Iterator[str]:
    claim, found = of.claim, of.found
    yield f"## {number}. {claim.words}"
    yield ""
    yield (
        f"Scale {claim.scale}; measure {claim.measure}; {claim.ours.name} (recipe "
        f"{claim.ours.recipe}, {claim.ours.key}) against {claim.theirs.name} (recipe "
        f"{claim.theirs.recipe}, {claim.theirs.key}); planned seeds 1-{claim.runs}. "
        f"Verdict: **{of.verdict}**."
    )
    if not found.seeds:
        return
    yield ""
    rows = [
        (str(seed), *(f"{100 * value:.1f}" for value in (a, b, a - b)))
        for seed, a, b in zip(found.seeds, found.ours, found.theirs, strict=True)
    ]
    means = (mean(values) for values in (found.ours, found.theirs, found.differences))
    rows.append(("mean", *(f"{100 * value:.1f}" for value in means)))
    columns = ("seed", f"{claim.ours.name} %", f"{claim.theirs.name} %", "difference, points")
    yield from Table("", columns, tuple(rows)).markdown()
    yield ""
    yield (
        f"95 % by t over runs: {_difference(found)}; hierarchical bootstrap: "
        f"{points(found.resampled)}; sign-flip p = {found.p_value:.3g}."
    )
