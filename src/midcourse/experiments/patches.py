"""The patch: what to fine-tune on (Table 2), what it does to pass@k and to likelihoods (Figs 6-9).

Appendix F: are interventions memorised? A rollout's n-grams of words are looked up among those of
the training interventions, and a rollout is said to copy if it holds a training intervention as a
whole. A patch that only copies would solve nothing where it does not. Beyond the paper:
``iterated``, three rounds of InT against one of equal sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from midcourse.errors import ConfigError
from midcourse.experiments import readings, results
from midcourse.experiments.catalogue import Claim, Experiment, Head, Measure, Row
from midcourse.experiments.data import Reading
from midcourse.experiments.readings import BASE, PATCHED, evaluated, likelihoods
from midcourse.experiments.results import Maker, Result, judge, num_items, text_cells
from midcourse.experiments.runner import ExperimentRunner
from midcourse.pipeline import Method, Session
from midcourse.pipeline.contexts import ready_rows
from midcourse.records import Likelihood, Verdict
from midcourse.report import estimates
from midcourse.report.estimates import Clusters, Counts, each, grouped, only
from midcourse.table import Table

SETS = {"train": "hard training problems", "held_out": "held-out problems"}


def _table2(runner: ExperimentRunner, experiment: Experiment) -> Result:
    (head,), tables, claims = experiment.tables, [], []
    for eval_set, counts in evaluated(runner, experiment.rows, *SETS).items():
        cells = [row.cells if eval_set == "train" else ("–",) for row in experiment.rows]
        rows = [((name, *own), counts[name]) for name, own in zip(counts, cells, strict=True)]
        of_set = replace(head, title=head.title.format(on=SETS[eval_set]))
        tables.append(results.accuracy_table(of_set, rows))
        claims += judge((c for c in experiment.claims if c.only == eval_set), counts)
    return Result(tables=tables, claims=claims)


def _passes(
    runner: ExperimentRunner,
    experiment: Experiment,
    rows: Sequence[Row],
    compared: Callable[[Sequence[int]], Sequence[int]],
) -> Result:
    """Return pass@k of models on both sets, and verdicts at the k that are compared."""
    tables, lines, panels = [], [], []
    claims = _about(experiment, Measure.PASS_AT_K)
    for eval_set, counts in evaluated(runner, rows, *SETS).items():
        words, ks = SETS[eval_set], results.usable_ks(counts)
        panels.append(results.pass_panel(words, counts, ks))
        tables.append(results.pass_table(experiment.tables[0].title.format(on=words), counts, ks))
        lines += judge(claims, counts, compared(ks), on=words)
    return Result(tables=tables, claims=lines, panels=panels)


def _about(experiment: Experiment, measure: Measure) -> list[Claim]:
    return [claim for claim in experiment.claims if claim.measure is measure]


def _figure6(runner: ExperimentRunner, experiment: Experiment) -> Result:
    return _passes(runner, experiment, experiment.rows, lambda ks: (ks[len(ks) // 2], ks[-1]))


MEANS: dict[str, Callable[[Likelihood], float]] = {
    "mean of probabilities": lambda item: item.mean_probability,
    "exp(mean log probability)": lambda item: item.exp_mean_logprob,
}


def _values(
    runner: ExperimentRunner, rows: Iterable[Row], value: Callable[[Likelihood], float]
) -> dict[str, dict[str, list[float]]]:
    """Return a value of each row's texts under its model."""
    texts = runner.pooled(rows, Reading(likelihoods))
    return {name: each(items, value) for name, items in texts.items()}


def _figure7(runner: ExperimentRunner, experiment: Experiment) -> Result:
    rows, claims, panels = [], [], []
    for name, value in MEANS.items():
        found = _values(runner, experiment.rows, value)
        bars: dict[str, dict[str, Clusters[float]]] = {}
        for row in experiment.rows:
            rows.append((row.name, name, *row.cells, *text_cells(found[row.name])))
            model, _, where = row.name.partition(", ")
            bars.setdefault(model, {})[where] = found[row.name]
        claims += judge(experiment.claims, found, on=name)
        panels.append(results.text_bars(bars, ("interventions", "probability per token"), name))
    return Result(tables=[experiment.tables[0].table(*rows)], claims=claims, panels=panels)


def _figure8(runner: ExperimentRunner, experiment: Experiment) -> Result:
    found = _values(runner, experiment.rows, lambda item: item.entropy)
    rows = [(row.name, *row.cells, *text_cells(found[row.name])) for row in experiment.rows]
    return Result(
        tables=[experiment.tables[0].table(*rows)],
        claims=judge(experiment.claims, found),
        panels=[results.text_bars({"entropy": found}, ("model", "entropy, nats per token"))],
    )


def _figure9(runner: ExperimentRunner, experiment: Experiment) -> Result:
    *models, alone = (row for row in experiment.rows if runner.has(row.recipe))
    shown = [row for row in (*models, alone) if row.text]
    under_base = [replace(row, role=BASE) for row in shown]
    nll = _values(runner, under_base, lambda item: item.nll)
    rows = [(row.name, *row.cells, *text_cells(nll[row.name])) for row in shown]
    _, left = experiment.tables
    missing = (row.name for row in experiment.rows if not runner.has(row.recipe))
    note = left.note + "".join(f" This scale names no model for: {name}." for name in missing)
    right = _passes(runner, experiment, models, lambda ks: (1, ks[-1]))
    bars = results.text_bars({"NLL": nll}, ("trained on", "NLL, nats per token"), "under the base")
    return Result(
        tables=[replace(left, note=note).table(*rows), *right.tables],
        claims=[*judge(_about(experiment, Measure.MEAN), nll), *right.claims],
        panels=[bars, *right.panels],
    )


#: Words of an n-gram: about a step of the lab; long enough that chance hits are rare elsewhere.
N = 5  # The table's head in experiments.toml says so too.
#: Problems shown side by side.
_NUM_SHOWN = 3


class Seen(NamedTuple):
    """One rollout of an unseen problem, and what of it stands in the training interventions."""

    is_correct: bool
    copies: bool
    """Whether a training intervention stands in it as a whole."""
    overlap: float
    """Share of its n-grams that training interventions hold."""
    text: str


def ngrams(text: str, n: int = N) -> set[tuple[str, ...]]:
    """Return the n-grams of the words of a text; of a shorter text, all its words as one."""
    words = text.split()
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} - {()}


def _seen(session: Session, method: Method, row: Row) -> Clusters[Seen]:
    """Return the held-out rollouts of the model in a role, by problem."""
    chosen = {row.proposal_id for row in ready_rows(session, method.models.rows)}
    candidates = method.interventions.candidates().read(session)
    texts = (p.intervention for p in candidates if p.proposal_id in chosen)
    interventions = [text.strip() for text in texts if text]
    known = {gram for text in interventions for gram in ngrams(text)}
    drawn = method.evaluation.evaluate(readings.model_of(session, method, row.role), "held_out")
    verdicts = {g.rollout_id: g.verdict for g in session.read(drawn.grades)}
    found = []
    for rollout in session.read(drawn.rollouts, ("token_ids",)):
        text, grams = rollout.text, ngrams(rollout.text)
        overlap = len(grams & known) / len(grams) if grams else 0.0
        copies = any(intervention in text for intervention in interventions)
        is_correct = verdicts[rollout.rollout_id] is Verdict.CORRECT
        found.append((rollout.problem_id, Seen(is_correct, copies, overlap, text)))
    return grouped(found)


def _appendix_f(runner: ExperimentRunner, experiment: Experiment) -> Result:
    found = runner.pooled(experiment.rows, Reading(_seen))
    rows, right = [], {}
    for model, seen in found.items():
        solved = only(seen, lambda s: s.is_correct)
        right[model] = each(solved, lambda s: float(not s.copies))
        copies, overlap = each(seen, lambda s: float(s.copies)), each(seen, lambda s: s.overlap)
        all_rollouts = (str(num_items(seen)), results.mean_cell(overlap), results.mean_cell(copies))
        solving = (str(num_items(solved)), results.mean_cell(right[model]))
        rows.append((model, *all_rollouts, *solving))
    head, side_by_side = experiment.tables
    half = each(right["patched"], lambda _: 0.5)
    return Result(
        tables=[head.table(*rows), _side_by_side(side_by_side, found["base"], found["patched"])],
        claims=judge(experiment.claims, {**right, "half": half}),
    )


def _side_by_side(head: Head, before: Clusters[Seen], after: Clusters[Seen]) -> Table:
    """Show problems that the base never solved and the patched model did (Figs 17, 18)."""
    solved, newly = (only(seen, lambda s: s.is_correct) for seen in (before, after))
    shown = sorted((newly.keys() & before.keys()) - solved.keys())[:_NUM_SHOWN]
    return head.table(
        *((p, _in_a_line(before[p][0].text), _in_a_line(newly[p][0].text)) for p in shown)
    )


def _in_a_line(text: str) -> str:
    return text.strip().replace("\n\n", " ‖ ").replace("\n", " ")


NUM_ROUNDS = 3


class Round(NamedTuple):
    """What a round leaves: its patched model, and how that does."""

    path: str
    num_rows: int
    held_out: Counts


def _round(session: Session, method: Method, _: Row) -> Round | None:
    """Run one round; None if there is nothing left to intervene in."""
    rows = len(ready_rows(session, method.models.rows))
    if not rows:
        return None
    counts = readings.role_counts(session, method, PATCHED, "held_out")
    return Round(session.tools.path(method.models.patched), rows, counts)


def _rounds(runner: ExperimentRunner, seed: int) -> list[Round]:
    """Patch, sample again, intervene again; the original base proposes throughout.

    A seed that runs out of interventions keeps its last model.
    """
    base = runner.recipe("iterated", seed).model.path
    done: list[Round] = []
    for number in range(1, NUM_ROUNDS + 1):
        start = (f"model.path={done[-1].path}", f"proposer_model.path={base}") if done else ()
        settings = (*runner.settings, f"name=iterated-{number}", *start)
        made = replace(runner, seeds=(seed,), settings=settings).read("iterated", _round)[seed]
        if made is None:
            break
        done.append(made)
    return [*done, *done[-1:] * (NUM_ROUNDS - len(done))]


def _iterated(runner: ExperimentRunner, experiment: Experiment) -> Result:
    rounds = [_rounds(runner, seed) for seed in runner.seeds]
    single = [made for made in runner.read("equal-budget", _round).values() if made]
    if len(single) < len(rounds) or not all(rounds):
        raise ConfigError("iterated: no intervention was verified, so there is nothing to compare")
    reached = dict(zip(("1 round", "2 rounds", "3 rounds"), zip(*rounds, strict=True), strict=True))
    reached["1 round, equal sampling"] = tuple(single)
    models = evaluated(runner, [Row(name="base")], "held_out")["held_out"]
    sizes = {"base": "–"}
    for name, by_seed in reached.items():
        models[name] = estimates.pool(made.held_out for made in by_seed)
        sizes[name] = "/".join(str(made.num_rows) for made in by_seed)
    (head,), ks = experiment.tables, results.usable_ks(models)
    table = results.pass_table(head.title, models, ks)
    table = replace(
        table,
        columns=("model", "rows", *table.columns[1:]),
        rows=tuple((name, sizes[name], *cells) for name, *cells in table.rows),
        note=table.note + head.note,
    )
    return Result(tables=[table], claims=judge(experiment.claims, models, (1, ks[-1])))


MAKERS: dict[str, Maker] = {
    "table2": _table2,
    "fig6": _figure6,
    "fig7": _figure7,
    "fig8": _figure8,
    "fig9": _figure9,
    "appendix-f": _appendix_f,
    "iterated": _iterated,
}
