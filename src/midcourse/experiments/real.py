"""A real language model, small: what of the method holds for SmolLM2-135M (docs/results/real.md).

Its parts, at the scale ``scale/real``, each of which reads what runs of the parts before it left:
``levels`` chooses problems by how often the warmed-up model solves training problems, and ``tasks``
measures others for comparison; ``table1`` continues from the reference's own steps; ``proposals``
judges the model's own; ``sft`` compares what to fine-tune on; ``rl`` runs only if ``sft`` separates
arms. Sizes, rules and claims were fixed before any part was run: the page has them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from midcourse.data.word_problems import NAME as WORD_PROBLEMS
from midcourse.errors import DataError
from midcourse.experiments.catalogue import Row
from midcourse.experiments.data import Reading
from midcourse.experiments.readings import (
    BASE,
    BASE_RL,
    PATCHED,
    PATCHED_RL,
    condition_counts,
    counts_on,
    likelihoods,
    proposal_counts,
)
from midcourse.experiments.results import Result, num_items
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count, Interval, accuracy, bootstrap, mean, wilson
from midcourse.pipeline import Method, Session
from midcourse.records import Condition, ProposalOutcome, RowOutcome
from midcourse.report import estimates
from midcourse.report.collect import tally
from midcourse.report.estimates import Clusters, Counts, ShapeLine, each, flat, grouped, only, pool
from midcourse.report.runs import Runs, compare_runs, over_runs
from midcourse.report.tables import ACCURACY_COLUMNS, accuracy_cells
from midcourse.stages.oracle import from_reference
from midcourse.stages.propose import Case
from midcourse.table import Table, share

#: Pass@1 of a level that is chosen, on training problems.
EASIEST, HARDEST = 0.20, 0.05
#: Hard problems that the study wants, and what the number of problems is rounded up to.
_WANTED, _ROUND = 165, 50
#: Difference of held-out pass@1 between two arms of ``sft`` from which on RL is run.
SEPARATED = 0.05
_ORACLE = "true-interventions"
ARMS = {
    "InT": _ORACLE,
    "InT, prefix masked": "prefix-masked",
    "InT with suffix": "suffix",
    "self-reflection": "sft-self-reflection",
    "reference": "sft-reference",
}
"""What is fine-tuned on, by name, and its recipe."""
_BY_RUN_NOTE = (
    "Held out. Mean of runs with the 95 % interval by t, which does not stop at 0 or 100 %, and "
    "each run's own value. The problems are the same in every run, so that t is about other runs "
    "on them; “over problems” is a bootstrap over the problems, and decides no verdict."
)
_TEXTS = {
    "InT": "intervention_row",
    "self-reflection": "self_reflection_row",
    "reference": "reference_row",
}


# --- (a) levels --------------------------------------------------------------------------------


def level_counts(session: Session, method: Method, row: Row) -> dict[str, Counts]:
    """Return the counts of the training rollouts by source and problem."""
    counts = tally(session, method.train, lambda grade: grade.problem_id)
    problems = method.setup.problems.train
    return grouped_counts((p.source, p.problem_id, counts[p.problem_id]) for p in problems)


def grouped_counts(items: Iterable[tuple[str, str, Count]]) -> dict[str, Counts]:
    """Return counts by their source, then by problem."""
    by_source = grouped((source, (problem_id, count)) for source, problem_id, count in items)
    return {source: grouped(pairs) for source, pairs in by_source.items()}


def choose_levels(levels: Mapping[str, Counts]) -> list[str]:
    """Return the levels that the study is about, by their pass@1 on training problems.

    Only word problems have the worked references that the oracle reads. Chosen are all that are
    solved in 5 to 20 %; if there is none, the one that is nearest to the middle.
    """
    rates = {n: accuracy(flat(c)) for n, c in levels.items() if n.startswith(f"{WORD_PROBLEMS}/")}
    chosen = [name for name, rate in rates.items() if HARDEST <= rate <= EASIEST]
    middle = (EASIEST + HARDEST) / 2
    return chosen or [min(rates, key=lambda name: abs(rates[name] - middle))]


def problems_needed(counts: Counts) -> int:
    """Return how many problems hold the hard ones that the study wants, by their share here."""
    unsolved = mean([float(not count.is_solved) for count in flat(counts)])
    return math.ceil(_WANTED / max(unsolved, 1 / len(counts)) / _ROUND) * _ROUND


def levels(runner: ExperimentRunner) -> Result:
    """Part (a): how often each kind of word problem is solved, and which are chosen."""
    found = _levels(runner, "levels-words")
    chosen = choose_levels(found)
    needed = problems_needed(pool(found[name] for name in chosen))
    note = (
        f"95 % bootstrap over problems. Chosen by the rule: {', '.join(chosen)}; {needed} problems "
        f"for {_WANTED} hard ones."
    )
    return Result(tables=[_level_table("(a) Word problems", found, note)], claims=())


def tasks(runner: ExperimentRunner) -> Result:
    """Part (a): the same of reasoning-gym's tasks, for comparison."""
    found = _levels(runner, "levels-tasks")
    note = "95 % bootstrap over problems. Without worked references none can be chosen."
    return Result(tables=[_level_table("(a) reasoning-gym", found, note)], claims=())


def _levels(runner: ExperimentRunner, recipe: str) -> dict[str, Counts]:
    rows = [Row(name=recipe, recipe=recipe)]
    (found,) = runner.read_rows(rows, Reading(level_counts))[recipe].values()
    return found


def _level_table(title: str, found: Mapping[str, Counts], note: str) -> Table:
    columns = ("kind", "problems", "samples", "pass@1 %", "none correct")
    rows = tuple(_level_cells(name, counts) for name, counts in found.items())
    return Table(f"{title}: pass@1 on training problems", columns, rows, note)


def _level_cells(name: str, counts: Counts) -> tuple[str, ...]:
    every = flat(counts)
    rate = share(estimates.accuracy_of(counts), 1)
    unsolved = sum(not count.is_solved for count in every)
    samples = str(sum(count.num_samples for count in every))
    return (name, str(len(every)), samples, rate, str(unsolved))


# --- (b) continuations from the reference's own steps ------------------------------------------


class OracleStep(NamedTuple):
    """What the oracle says of one wrong rollout, e.g. accepted, step 1 of 4, with its result."""

    outcome: str
    error_step: int | None
    num_steps: int
    tells_result: bool
    """Whether the step holds its result; the last one, which comes to the answer, does not."""


def oracle_steps(session: Session, method: Method, row: Row) -> Clusters[OracleStep]:
    """Return what the oracle said of every wrong rollout that it was asked about."""
    texts = {r.rollout_id: r.text for r in session.read(method.cases, ("token_ids",))}
    found = []
    for made in session.read(method.proposals, ("turns",)):
        num_steps = len(method.setup.steps.split(texts[made.rollout_id]))
        tells = "=" in (made.intervention or "")
        found.append(
            (made.problem_id, OracleStep(str(made.outcome), made.error_step, num_steps, tells))
        )
    return grouped(found)


def continuations(session: Session, method: Method, row: Row) -> Counts:
    """Return the continuations of every hard problem under the row's condition."""
    assert row.condition is not None
    return condition_counts(session, method, row.condition)


_TABLE_1 = tuple(
    Row(name=number, recipe=_ORACLE, condition=condition, cells=(words,))
    for number, words, condition in (
        ("1", "problem", Condition.PROBLEM),
        ("2", "+ prefix before the first error", Condition.PREFIX),
        ("3", "+ prefix + the original step", Condition.PREFIX_ERROR),
        ("4", "+ prefix + the reference's step", Condition.PREFIX_INTERVENTION),
    )
)
_COLUMNS = ("row", "continued from", *ACCURACY_COLUMNS)


def table1(runner: ExperimentRunner) -> Result:
    """Part (b): Table 1 rows 1-4, with interventions that are right."""
    runs = runner.read_rows(_TABLE_1, Reading(continuations))
    counts = {name: pool(by_seed.values()) for name, by_seed in runs.items()}
    steps = pool(runner.read(_ORACLE, oracle_steps).values())
    tables = [_conditions("(b) Table 1 with the reference's own steps", counts)]
    for words, tells in (("with its result", True), ("whose result is left out", False)):
        ids = only(steps, partial(_is_step, tells))
        part = {name: {p: c for p, c in of.items() if p in ids} for name, of in counts.items()}
        tables.append(_conditions(f"(b) Of these, steps {words}", part))
    claims = [
        _judged("intervention above the original step (rows 4, 3)", counts["4"], counts["3"]),
        _judged("intervention above the prefix alone (rows 4, 2)", counts["4"], counts["2"]),
        _judged(
            "intervention covers more problems than the problem alone (rows 4, 1)",
            estimates.covered(counts["4"]),
            estimates.covered(counts["1"]),
        ),
    ]
    return Result(tables=[*tables, _outcomes("(b) What the oracle said", steps)], claims=claims)


def _is_step(tells_result: bool, step: OracleStep) -> bool:
    is_accepted = step.outcome == ProposalOutcome.ACCEPTED
    return is_accepted and step.tells_result == tells_result


def _judged(words: str, ours: Counts, theirs: Counts) -> ShapeLine:
    return estimates.more_accurate(words, ours, theirs)


def _conditions(title: str, counts: Mapping[str, Counts]) -> Table:
    names = {row.name: row.cells for row in _TABLE_1}
    rows = tuple(
        (name, *names[name], *accuracy_cells(flat(of), estimates.accuracy_of(of)))
        for name, of in counts.items()
    )
    note = (
        "No training: the unit is a hard problem. 95 %: bootstrap over problems, Wilson's where "
        "none or all are correct; Wilson."
    )
    return Table(title, _COLUMNS, rows, note)


def _outcomes(title: str, steps: Clusters[OracleStep]) -> Table:
    outcomes = Counter(step.outcome for step in flat(steps))
    rows = tuple((name, str(number)) for name, number in outcomes.most_common())
    first = Counter(step.error_step for step in flat(steps) if step.error_step is not None)
    places = ", ".join(f"{number} at step {step + 1}" for step, number in sorted(first.items()))
    return Table(title, ("outcome", "rollouts"), rows, f"First errors: {places}.")


# --- (c) own proposals -------------------------------------------------------------------------


class OwnProposal(NamedTuple):
    """One answer about a wrong rollout, next to the oracle's, and its continuations."""

    outcome: str
    error_step: int | None
    true_step: int | None
    num_correct: int
    num_continuations: int


def own_proposals(session: Session, method: Method, row: Row) -> Clusters[OwnProposal]:
    """Return the model's own proposals for wrong rollouts of hard problems, by problem."""
    problems = {p.problem_id: p for p in method.hard.read(session)}
    rollouts = {r.rollout_id: r for r in session.read(method.cases, ("token_ids",))}
    verified = method.interventions.verified[Condition.PREFIX_INTERVENTION]
    counts, found = proposal_counts(session, verified), []
    for made in session.read(method.proposals, ("turns",)):
        case = Case(problems[made.problem_id], rollouts[made.rollout_id], "")
        count = counts.get(made.proposal_id, Count(0, 0))
        step = from_reference(case, method.setup.steps).error_step
        own = (str(made.outcome), made.error_step, step, count.num_correct, count.num_samples)
        found.append((made.problem_id, OwnProposal(*own)))
    return grouped(found)


_OWN = {"4, own": "conditions", "7": "no-reference"}


def proposals(runner: ExperimentRunner) -> Result:
    """Part (c): the model after verification training proposes, with the reference and without."""
    made = {name: pool(runner.read(of, own_proposals).values()) for name, of in _OWN.items()}
    rows, claims, both = [], list[ShapeLine](), list[Clusters[float]]()
    for name, found in made.items():
        every = only(found, lambda own: own.true_step is not None)
        located = each(every, lambda own: float(own.error_step == own.true_step))
        common = Counter(own.true_step for own in flat(every)).most_common(1)[0][0]
        guess = each(each(every, lambda own: own.true_step), partial(_same, common))
        verified = sum(own.num_correct > 0 for own in flat(found))
        rows.append((name, *_own_cells(found, located, guess, verified)))
        both.append(located)
        words = f"names the first error more often than always the most common step (row {name})"
        claims.append(estimates.more(words, located, guess, mean, scale=100, unit=" %"))
    shown, hidden = both
    words = "with a reference the first error is named more often than without (rows 4, 7)"
    claims.append(estimates.more(words, shown, hidden, mean, scale=100, unit=" %"))
    columns = (
        "row", "proposals", "outcomes", "at the first error", "always the most common step",
        "verified", "accuracy of continuations %",
    )  # fmt: skip
    note = "First error: where the rollout leaves its reference. 95 %: Wilson, over proposals."
    return Result(tables=[Table("(c) Own proposals", columns, tuple(rows), note)], claims=claims)


def _same(common: int | None, step: int | None) -> float:
    return float(step == common)


def _own_cells(
    found: Clusters[OwnProposal], located: Clusters[float], guess: Clusters[float], verified: int
) -> tuple[str, ...]:
    outcomes = Counter(own.outcome for own in flat(found)).most_common()
    named = sum(flat(located))
    continued = each(found, lambda own: Count(own.num_continuations, own.num_correct))
    return (
        str(num_items(found)),
        ", ".join(f"{number} {outcome}" for outcome, number in outcomes),
        f"{named:.0f}: {share(wilson(named, num_items(located)), 1)}",
        f"{sum(flat(guess)):.0f}",
        f"{verified}: {share(wilson(verified, num_items(found)), 1)}",
        share(estimates.accuracy_of(continued)),
    )


# --- (d) what to fine-tune on ------------------------------------------------------------------


def _on_held_out(runner: ExperimentRunner, rows: Iterable[Row]) -> dict[str, Runs[Count]]:
    return dict(runner.read_rows(rows, counts_on("held_out")))


def num_ready(session: Session, method: Method, row: Row) -> int:
    """Return how many rows there are to fine-tune on: none where no solution was found right."""
    return sum(made.outcome is RowOutcome.READY for made in session.read(method.models.rows))


def _arms(runner: ExperimentRunner) -> list[str]:
    """Return the sources that every run found a row of: on the others nothing can be trained."""
    asked = [Row(name=name, recipe=of, role=BASE) for name, of in ARMS.items()]
    found = runner.read_rows(asked, Reading(num_ready))
    return [name for name, numbers in found.items() if all(numbers.values())]


def _sft_rows(arms: Iterable[str]) -> list[Row]:
    rows = [Row(name=name, recipe=ARMS[name], role=PATCHED) for name in arms]
    return [Row(name="base", recipe=_ORACLE, role=BASE), *rows]


def sft(runner: ExperimentRunner) -> Result:
    """Part (d): what the sources of SFT do to pass@k, entropy, and how likely they are."""
    arms = _arms(runner)
    if "InT" not in arms:
        raise DataError("part (d): a run verified no intervention, so there is nothing to compare")
    trained = _sft_rows(arms)
    counts = _on_held_out(runner, trained)
    own = [Row(name=r.name, recipe=r.recipe, role=r.role, text="own_rollout") for r in trained]
    entropy = _values(runner, own, lambda item: item.entropy)
    texts = [Row(name=n, recipe=ARMS[n], role=BASE, text=_TEXTS[n]) for n in _TEXTS if n in arms]
    nll = _values(runner, texts, lambda item: item.nll)
    ks = [1, 8, 64]
    rows = tuple(
        (
            name,
            *(_by_run(passes_at(runs, k), 100) for k in ks),
            _by_run(entropy[name], 1, 3),
            _by_run(nll[name], 1, 3) if name in nll else "–",
        )
        for name, runs in counts.items()
    )
    columns = (
        "trained on", *(f"pass@{k} %" for k in ks), "entropy, nats", "NLL under the base, nats",
    )  # fmt: skip
    note = _BY_RUN_NOTE
    if missing := [name for name in ARMS if name not in arms]:
        note += f" Not trained, for a run found no solution to train on: {', '.join(missing)}."
    table = Table("(d) What to fine-tune on, without RL", columns, rows, note)
    return Result(tables=[table], claims=_sft_claims(counts, entropy, nll))


def passes_at(runs: Runs[Count], k: int) -> dict[int, Clusters[float]]:
    """Return pass@k of each problem, by run."""
    return {seed: estimates.passes(counts, k) for seed, counts in runs.items()}


def _values(
    runner: ExperimentRunner, rows: Iterable[Row], value: Callable[..., float]
) -> dict[str, Runs[float]]:
    read = runner.read_rows(rows, Reading(likelihoods))
    return {
        name: {seed: each(items, value) for seed, items in by_seed.items()}
        for name, by_seed in read.items()
    }


def _by_run(runs: Runs[float], scale: float, digits: int = 1) -> str:
    values = [scale * mean(flat(items)) for items in runs.values()]
    whole = over_runs(values)
    each_run = ", ".join(f"{value:.{digits}f}" for value in values)
    interval = (
        "" if math.isnan(whole.low) else f" [{whole.low:.{digits}f}, {whole.high:.{digits}f}]"
    )
    return f"{whole.estimate:.{digits}f}{interval} ({each_run})"


def _sft_claims(
    counts: Mapping[str, Runs[Count]],
    entropy: Mapping[str, Runs[float]],
    nll: Mapping[str, Runs[float]],
) -> list[ShapeLine]:
    others = [name for name in counts if name != "InT"]
    orders = [
        ("Fig. 9: self-reflections less likely under the base than InT's rows",
         nll, "self-reflection", "InT"),
        ("Fig. 9: references less likely under the base than self-reflections",
         nll, "reference", "self-reflection"),
        ("Fig. 8: entropy after references above entropy after InT", entropy, "reference", "InT"),
    ]  # fmt: skip
    claims = [
        by_runs(words, of[ours], of[theirs], 1, " nats")
        for words, of, ours, theirs in orders
        if ours in of and theirs in of
    ]
    for k in (1, 64):
        claims += [
            by_runs(f"InT above {name}, held-out pass@{k}",
                    passes_at(counts["InT"], k), passes_at(counts[name], k))
            for name in others
        ]  # fmt: skip
    return claims


def by_runs(
    words: str, ours: Runs[float], theirs: Runs[float], scale: float = 100, unit: str = " points"
) -> ShapeLine:
    """Judge that ours is above theirs, run against run: by the interval by t over the pairs.

    Where all runs are measured on the same problems, `over_problems` stands beside it.
    """
    compared = compare_runs(ours, theirs, mean)
    between = compared.difference
    holds = True if between.low > 0 else False if between.high < 0 else None
    values = ", ".join(f"{scale * value:+.3g}" for value in compared.differences)
    ends = f"[{scale * between.low:.3g}, {scale * between.high:.3g}]"
    figures = f"{scale * between.estimate:+.3g} {ends}{unit}; by run {values}"
    if same := over_problems(ours, theirs):
        figures += f"; over problems [{scale * same.low:.3g}, {scale * same.high:.3g}]"
    return ShapeLine(words, holds, figures)


def over_problems(ours: Runs[float], theirs: Runs[float]) -> Interval | None:
    """Return ours - theirs, mean of runs, with its 95 % bootstrap over problems.

    The interval by t is about other runs on the same problems, this one about the same runs on
    other problems. None where runs have different ones: there t is about both.
    """
    seeds = ours.keys() & theirs.keys()
    sides = [side[seed] for seed in sorted(seeds) for side in (ours, theirs)]
    if not sides or any(side.keys() != sides[0].keys() for side in sides):
        return None
    apart = [
        mean([mean(ours[seed][problem]) - mean(theirs[seed][problem]) for seed in seeds])
        for problem in sorted(sides[0])
    ]
    return bootstrap(apart, mean)


def separated(counts: Mapping[str, Runs[Count]]) -> list[str]:
    """Return the arms that InT differs from by the rule of part (e), on held-out pass@1.

    The interval by t of the paired differences leaves out 0, and their mean is 5 points or more.
    """
    compare = partial(compare_runs, statistic=mean)
    ours = passes_at(counts["InT"], 1)
    others = {name: compare(ours, passes_at(of, 1)).difference for name, of in counts.items()}
    return [
        name
        for name, apart in others.items()
        if name != "InT" and apart.low * apart.high > 0 and abs(apart.estimate) >= SEPARATED
    ]


# --- (e) RL ------------------------------------------------------------------------------------


def rl(runner: ExperimentRunner) -> Result:
    """Part (e): RL from the base, from InT and from each arm that InT is separated from.

    Raises MissingDataError before all runs of part (d) were read.
    """
    there = replace(runner.data, may_run=False) if runner.data else None
    every_run = replace(runner, seeds=tuple(range(PARTS["sft"].num_seeds)), data=there)
    apart = separated(_on_held_out(every_run, _sft_rows(_arms(every_run))))
    if not apart:
        why = "No arm of part (d) is 5 points from InT with an interval that leaves out 0."
        return Result(tables=[Table("(e) Not run, by the rule", ("arms",), (), why)], claims=())
    arms = [name for name in ARMS if name == "InT" or name in apart]
    rows = [Row(name="RL", recipe=_ORACLE, role=BASE_RL)]
    rows += [Row(name=f"{name} + RL", recipe=ARMS[name], role=PATCHED_RL) for name in arms]
    counts = _on_held_out(runner, rows)
    cells = tuple(
        (name, *(_by_run(passes_at(runs, k), 100) for k in (1, 8, 64)))
        for name, runs in counts.items()
    )
    columns = ("model", "pass@1 %", "pass@8 %", "pass@64 %")
    note = _BY_RUN_NOTE
    if missing := [name for name in ARMS if name not in arms]:
        note += f" Not run, by the rule: {', '.join(missing)}."
    ours = passes_at(counts["InT + RL"], 1)
    claims = [
        by_runs(f"InT + RL above {name}, held-out pass@1", ours, passes_at(runs, 1))
        for name, runs in counts.items()
        if name != "InT + RL"
    ]
    return Result(tables=[Table("(e) After RL", columns, cells, note)], claims=claims)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the study."""

    make: Callable[[ExperimentRunner], Result]
    num_seeds: int = 1
    """Runs: parts without a training need one."""


PARTS = {
    "levels": Part(levels),
    "tasks": Part(tasks),
    "table1": Part(table1),
    "proposals": Part(proposals),
    "sft": Part(sft, 3),
    "rl": Part(rl, 3),
}
