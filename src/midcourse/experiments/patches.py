"""The patch: what to fine-tune on (Table 2), what it does to pass@k and to likelihoods (Figs 6-9).

Appendix F: is the patch memorised? A model that had only learnt its training interventions by heart
would gain where held-out problems are like them, and nothing where they are not: held-out problems
are put in quarters by how much of the training intervention nearest to them stands in their text or
reference, and the lab adds problems of notions that no intervention is about. Beyond the paper:
``iterated``, three rounds of InT against one with three times the attempts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from midcourse.config import HELD_OUT_SET
from midcourse.errors import ConfigError
from midcourse.experiments import readings, results
from midcourse.experiments.catalogue import Experiment, Measure, Row
from midcourse.experiments.data import Reading
from midcourse.experiments.readings import BASE, PATCHED, TextScore, evaluated, likelihoods
from midcourse.experiments.results import (
    Maker,
    Result,
    judge_runs,
    per_run,
    run_bars,
    run_cells,
)
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count, accuracy, coverage, mean
from midcourse.pipeline import Method, Session
from midcourse.pipeline.contexts import ready_rows
from midcourse.records import Role, Rollout, Verdict
from midcourse.report.estimates import Counts, ShapeLine, Statistic, flat
from midcourse.training.jobs import read_summary

SETS = {"train": "hard training problems", "held_out": "held-out problems"}


def _covered(counts: Sequence[Count]) -> float:
    return coverage(counts) / len(counts)


#: What is measured of one run's counts.
_OF_COUNTS: dict[Measure, Statistic[Count]] = {
    Measure.COVERAGE: _covered,
    Measure.ACCURACY: accuracy,
}


def _table2(runner: ExperimentRunner, experiment: Experiment) -> Result:
    (head,), tables, claims = experiment.tables, [], []
    columns = [title for name in _OF_COUNTS for title in results.run_columns(f"{name} %")]
    for eval_set, models in evaluated(runner, experiment.rows, *SETS).items():
        on = SETS[eval_set]
        found = {
            measure: {name: per_run(runs, of) for name, runs in models.items()}
            for measure, of in _OF_COUNTS.items()
        }
        rows = [
            (row.name, *row.cells, *(c for of in found.values() for c in run_cells(of[row.name])))
            for row in experiment.rows
        ]
        title = head.title.format(on=on)
        tables.append(replace(head, title=title, columns=(*head.columns, *columns)).table(*rows))
        about = [claim for claim in experiment.claims if claim.only in ("", eval_set)]
        claims += judge_runs(about, found, on=on)
    return Result(tables=tables, claims=claims)


def _passes(runner: ExperimentRunner, experiment: Experiment, rows: Sequence[Row]) -> Result:
    """Return pass@k of models on both sets, and verdicts at one k."""
    tables, lines, panels = [], [], []
    wanted = next(c.k for c in experiment.claims if c.measure is Measure.PASS_AT_K)
    for eval_set, models in evaluated(runner, rows, *SETS).items():
        words, ks = SETS[eval_set], results.usable_ks(models)
        k = min(wanted or ks[-1], ks[-1])
        title = experiment.tables[0].title.format(on=words)
        panels.append(results.pass_panel(words, models, ks))
        tables.append(results.pass_table(title, models, ks, k))
        passed = {name: results.runs_passed(runs, k) for name, runs in models.items()}
        lines += judge_runs(experiment.claims, {Measure.PASS_AT_K: passed}, k=k, on=words)
    return Result(tables=tables, claims=lines, panels=panels)


def _figure6(runner: ExperimentRunner, experiment: Experiment) -> Result:
    return _passes(runner, experiment, experiment.rows)


def _means(
    runner: ExperimentRunner, rows: Iterable[Row], value: Callable[[TextScore], float]
) -> dict[str, dict[int, float]]:
    """Return the mean over each row's texts under its model, by seed."""
    texts = runner.read_rows(rows, Reading(likelihoods))
    return {
        name: {seed: mean([value(item) for item in flat(found)]) for seed, found in runs.items()}
        for name, runs in texts.items()
    }


#: The first is what the claims are about.
MEANS: dict[str, Callable[[TextScore], float]] = {
    "mean of probabilities": lambda item: item.mean_probability,
    "exp(mean log probability)": lambda item: item.exp_mean_logprob,
}


def _figure7(runner: ExperimentRunner, experiment: Experiment) -> Result:
    rows, claims, panels = [], list[ShapeLine](), []
    for name, value in MEANS.items():
        found = _means(runner, experiment.rows, value)
        bars: dict[str, dict[str, results.Numbers]] = {}
        for row in experiment.rows:
            rows.append((row.name, name, *row.cells, *run_cells(found[row.name], 3, 1)))
            model, _, where = row.name.partition(", ")
            bars.setdefault(model, {})[where] = found[row.name]
        claims = claims or judge_runs(experiment.claims, {Measure.MEAN: found})
        panels.append(run_bars(bars, ("interventions", "probability per token"), name))
    return Result(tables=[experiment.tables[0].table(*rows)], claims=claims, panels=panels)


def _figure8(runner: ExperimentRunner, experiment: Experiment) -> Result:
    found = _means(runner, experiment.rows, lambda item: item.entropy)
    rows = [(row.name, *row.cells, *run_cells(found[row.name], 4, 1)) for row in experiment.rows]
    return Result(
        tables=[experiment.tables[0].table(*rows)],
        claims=judge_runs(experiment.claims, {Measure.MEAN: found}),
        panels=[run_bars({"entropy": found}, ("model", "entropy, nats per token"))],
    )


def _tuning(session: Session, method: Method, _: Row) -> dict[str, float]:
    """Return what the fine-tuning of a recipe was concluded with: rows, steps, losses."""
    trained = method.models.patched.trained
    assert trained is not None
    return read_summary(session.path(trained))


def _figure9(runner: ExperimentRunner, experiment: Experiment) -> Result:
    *models, alone = (row for row in experiment.rows if runner.has(row.recipe))
    shown = [row for row in (*models, alone) if row.text]
    nll = _means(runner, [replace(row, role=BASE) for row in shown], lambda item: item.nll)
    tuned = [row for row in shown if row is not alone]
    after = _means(runner, tuned, lambda item: item.nll)
    steps = runner.read_rows(tuned, Reading(_tuning))
    rows = []
    for row in shown:
        ends = ("–", "–")
        if row is not alone:
            done = (f"{made['num_steps']:g}" for made in steps[row.name].values())
            ends = (" / ".join(done), run_cells(after[row.name], 3, 1)[0])
        rows.append((row.name, *row.cells, *run_cells(nll[row.name], 3, 1), *ends))
    _, left = experiment.tables
    missing = (row.name for row in experiment.rows if not runner.has(row.recipe))
    note = left.note + "".join(f" This scale names no model for: {name}." for name in missing)
    right = _passes(runner, experiment, models)
    bars = run_bars({"NLL": nll}, ("trained on", "NLL, nats per token"), "under the base")
    return Result(
        tables=[replace(left, note=note).table(*rows), *right.tables],
        claims=[*judge_runs(experiment.claims, {Measure.MEAN: nll}), *right.claims],
        panels=[bars, *right.panels],
    )


#: Problems shown side by side, of each seed.
_NUM_SHOWN = 3
_QUARTERS = ("least similar", "second", "third", "most similar")
CONTROL = "control"


def pairs_of_words(text: str) -> set[tuple[str, str]]:
    """Return the pairs of neighbouring words of a text, in lower case, signs left out."""
    return set(pairwise(re.findall(r"\w+", text.lower())))


def similarity(text: str, interventions: Iterable[str]) -> float:
    """Return how much of the intervention that is nearest to a text stands in it, as a share.

    Of its pairs of neighbouring words; 0 without interventions.
    """
    own, found = pairs_of_words(text), map(pairs_of_words, interventions)
    return max((len(pairs & own) / len(pairs) for pairs in found if pairs), default=0.0)


def _similarities(session: Session, method: Method, _: Row) -> dict[str, float]:
    """Return how similar each held-out problem is to the training intervention nearest to it.

    Of a problem its text counts and its reference solution.
    """
    chosen = {row.proposal_id for row in ready_rows(session, method.models.rows)}
    candidates = method.interventions.candidates().read(session)
    texts = [str(p.intervention) for p in candidates if p.proposal_id in chosen]
    problems = method.evaluation.problems(session, HELD_OUT_SET)
    return {
        p.problem_id: similarity(f"{p.text}\n{p.reference_solution or ''}", texts) for p in problems
    }


def quarters(similarities: Mapping[str, float]) -> list[list[str]]:
    """Return the problems in four parts of equal size, the least similar first."""
    order = sorted(similarities, key=lambda problem_id: (similarities[problem_id], problem_id))
    cuts = [round(part * len(order) / 4) for part in range(5)]
    return [order[low:high] for low, high in pairwise(cuts)]


class Example(NamedTuple):
    """A held-out problem that no rollout of the base solved, and one of the patched model did."""

    problem_id: str
    before: str
    after: str


def quarters_differ(similarities: Mapping[str, float]) -> bool:
    """Whether every problem of the least similar quarter is less so than any of the most similar.

    Ties are cut by problem id: where they reach from the one to the other, quarters say nothing.
    """
    least, *_, most = quarters(similarities)
    return max(similarities[p] for p in least) < min(similarities[p] for p in most)


def _examples(session: Session, method: Method, _: Row) -> list[Example]:
    """Return a few problems that only the patched model solved, with a rollout of either."""
    first, solved, newly = dict[str, str](), set[str](), dict[str, str]()
    for rollout, is_correct in _held_out(session, method, BASE):
        first.setdefault(rollout.problem_id, rollout.text)
        solved |= {rollout.problem_id} if is_correct else set()
    for rollout, is_correct in _held_out(session, method, PATCHED):
        if is_correct and rollout.problem_id not in solved:
            newly.setdefault(rollout.problem_id, rollout.text)
    shown = sorted(newly.keys() & first.keys())[:_NUM_SHOWN]
    return [Example(p, _in_a_line(first[p]), _in_a_line(newly[p])) for p in shown]


def _held_out(session: Session, method: Method, role: Role) -> Iterator[tuple[Rollout, bool]]:
    drawn = method.evaluation.evaluate(readings.model_of(session, method, role), HELD_OUT_SET)
    right = {g.rollout_id for g in session.read(drawn.grades) if g.verdict is Verdict.CORRECT}
    for rollout in session.read(drawn.rollouts, ("token_ids",)):
        yield rollout, rollout.rollout_id in right


def _in_a_line(text: str) -> str:
    return text.strip().replace("\n\n", " ‖ ").replace("\n", " ")


def _appendix_f(runner: ExperimentRunner, experiment: Experiment) -> Result:
    models = evaluated(runner, experiment.rows, HELD_OUT_SET, *[CONTROL] * runner.is_lab)
    similar = runner.read_rows(experiment.rows[-1:], Reading(_similarities))["patched"]
    rows, found = [], dict[str, dict[int, float]]()
    for place, quarter in enumerate(_QUARTERS):
        chosen = {seed: quarters(of)[place] for seed, of in similar.items()}
        nearest = {s: mean([similar[s][p] for p in chosen[s]]) for s in chosen}
        for name, runs in models[HELD_OUT_SET].items():
            found[f"{name}, {quarter}"] = {
                seed: accuracy([c for p in chosen[seed] for c in counts[p]])
                for seed, counts in runs.items()
            }
        rows.append((quarter, run_cells(nearest, 2, 1)[0], *_gain(found, quarter)))
    if CONTROL in models:
        for name, runs in models[CONTROL].items():
            found[f"{name}, {CONTROL}"] = per_run(runs, accuracy)
        rows.append(("of notions that were never patched", "–", *_gain(found, CONTROL)))
    head, side_by_side = experiment.tables
    examples = next(iter(runner.read("int", _examples).values()))
    claims = judge_runs(experiment.claims, {Measure.ACCURACY: found})
    if tied := sum(not quarters_differ(of) for of in similar.values()):
        why = (
            f"in {tied} of {len(similar)} runs the least and the most similar quarter share a value"
        )
        claims = [ShapeLine(of.claim, None, f"{of.figures}; not told: {why}") for of in claims]
    return Result(tables=[head.table(*rows), side_by_side.table(*examples)], claims=claims)


def _gain(found: Mapping[str, results.Numbers], part: str) -> tuple[str, ...]:
    """Return accuracy before and after, and the difference of each run, in points."""
    before, after = found[f"base, {part}"], found[f"patched, {part}"]
    gains = {seed: after[seed] - before[seed] for seed in after}
    return run_cells(before)[0], run_cells(after)[0], *run_cells(gains)


NUM_ROUNDS = 3


class Round(NamedTuple):
    """What a round leaves: its patched model, and how that does."""

    folder: str
    """Of the model, in the run directory."""
    num_rows: int
    hard: list[str]
    """The problems that were hard for the model that the round began with."""
    held_out: Counts


def _round(session: Session, method: Method, _: Row) -> Round | None:
    """Run one round; None if there is nothing left to intervene in."""
    rows = len(ready_rows(session, method.models.rows))
    if not rows:
        return None
    counts = readings.role_counts(session, method, PATCHED, HELD_OUT_SET)
    path = Path(session.tools.path(method.models.patched))
    hard = [problem.problem_id for problem in method.hard.read(session)]
    return Round(str(path.relative_to(session.run.directory)), rows, hard, counts)


def _rounds(runner: ExperimentRunner, seed: int) -> list[Round]:
    """Patch, sample again, intervene again; the original base proposes throughout.

    A seed that runs out of interventions keeps its last model.
    """
    base = runner.recipe("iterated", seed).model.path
    done: list[Round] = []
    for number in range(1, NUM_ROUNDS + 1):
        settings = [*runner.settings, f"name=iterated-{number}"]
        if done:
            last = runner.run_directory(seed) / done[-1].folder
            settings += (f"model.path={last}", f"proposer_model.path={base}")
        one = replace(runner, seeds=(seed,), settings=tuple(settings))
        made = one.read("iterated", _round)[seed]
        if made is None:
            break
        done.append(made)
    return [*done, *done[-1:] * (NUM_ROUNDS - len(done))]


def _iterated(runner: ExperimentRunner, experiment: Experiment) -> Result:
    rounds = {seed: _rounds(runner, seed) for seed in runner.seeds}
    single = {s: made for s, made in runner.read("equal-budget", _round).items() if made}
    if len(single) < len(rounds) or not all(rounds.values()):
        raise ConfigError("iterated: no intervention was verified, so there is nothing to compare")
    names = ("1 round", "2 rounds", "3 rounds")
    reached = {name: {s: of[i] for s, of in rounds.items()} for i, name in enumerate(names)}
    reached["1 round, 3 times the attempts"] = single
    models = evaluated(runner, [Row(name="base")], HELD_OUT_SET)[HELD_OUT_SET]
    sizes: dict[str, tuple[str, ...]] = {"base": ("–", "–", "–")}
    first = reached["1 round"]
    for name, made in reached.items():
        models[name] = {seed: one.held_out for seed, one in made.items()}
        shared = (len({*one.hard} & {*first[seed].hard}) for seed, one in made.items())
        numbers = (
            (one.num_rows for one in made.values()),
            (len(one.hard) for one in made.values()),
        )
        sizes[name] = tuple("/".join(map(str, of)) for of in (*numbers, shared))
    return _reached(experiment, models, sizes)


def _reached(
    experiment: Experiment,
    models: Mapping[str, Mapping[int, Counts]],
    sizes: Mapping[str, tuple[str, ...]],
) -> Result:
    """Return the table of rounds, and the verdicts at pass@1."""
    (head,), ks = experiment.tables, results.usable_ks(models)
    table = results.pass_table(head.title, models, ks, 1)
    table = replace(
        table,
        columns=("model", *head.columns, *table.columns[1:]),
        rows=tuple((name, *sizes[name], *cells) for name, *cells in table.rows),
        note=f"{table.note} {head.note}",
    )
    passed = {name: results.runs_passed(runs, 1) for name, runs in models.items()}
    claims = judge_runs(experiment.claims, {Measure.PASS_AT_K: passed}, k=1)
    return Result(tables=[table], claims=claims)


MAKERS: dict[str, Maker] = {
    "table2": _table2,
    "fig6": _figure6,
    "fig7": _figure7,
    "fig8": _figure8,
    "fig9": _figure9,
    "appendix-f": _appendix_f,
    "iterated": _iterated,
}
