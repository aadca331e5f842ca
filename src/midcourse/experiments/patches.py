"""The patch: what to fine-tune on (Table 2), what it does to pass@k and to likelihoods (Figs 6-9).

Appendix F: are interventions memorised? A rollout's n-grams of words are looked up among those of
the training interventions, and a rollout is said to copy if it holds a training intervention as a
whole. A patch that only copies would solve nothing where it does not. Beyond the paper:
``iterated``, three rounds of InT against one of equal sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from midcourse.errors import ConfigError
from midcourse.experiments import estimates, readings, results
from midcourse.experiments.estimates import Clusters, Counts, each, grouped, more, only, pass_more
from midcourse.experiments.readings import BASE, PATCHED, likelihoods, role_counts
from midcourse.experiments.results import Claim, Experiment, Result, Row, num_items, text_cells
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import mean
from midcourse.pipeline import Method, Session
from midcourse.pipeline.contexts import ready_rows
from midcourse.records import Likelihood, Role, Verdict
from midcourse.table import Table

SETS = {"train": "hard training problems", "held_out": "held-out problems"}

# --- Table 2 and Figure 6 ----------------------------------------------------------------------

UNTUNED, DEFAULT = "the base, not fine-tuned", "prefix, no suffix, filter"
NO_FILTER, NO_PREFIX, SUFFIX = "– no filter", "– no prefix (masked)", "+ suffix"
#: Ways to build rows, by recipe, with the paper's figures. After the paper's four ours: the prefix
#: not even in the context, and every kept intervention.
DESIGNS = {
    "int": (DEFAULT, "202/235, 7.71 %"),
    "no-filter": (NO_FILTER, "196/235, 5.06 %"),
    "prefix-masked": (NO_PREFIX, "162/235, 2.87 %"),
    "suffix": (SUFFIX, "111/235, 2.31 %"),
    "prefix-dropped": ("– prefix dropped from the context", "not run"),
    "all-rows": ("all rows: prefix, no suffix, filter", "not run"),
    "all-rows-no-filter": ("all rows: – no filter", "not run"),
    "all-rows-prefix-masked": ("all rows: – no prefix (masked)", "not run"),
    "all-rows-suffix": ("all rows: + suffix", "not run"),
}
MORE_ACCURATE, COVERS = "the default is more accurate than", "the default covers more problems than"
CLAIMS = {
    "train": (
        Claim("the patch raises accuracy on the hard training problems", DEFAULT, UNTUNED),
        Claim(f"{MORE_ACCURATE} no filter", DEFAULT, NO_FILTER),
        Claim(f"{COVERS} no filter", DEFAULT, NO_FILTER, coverage=True),
        Claim(f"{MORE_ACCURATE} no prefix", DEFAULT, NO_PREFIX),
        Claim(f"{COVERS} no prefix", DEFAULT, NO_PREFIX, coverage=True),
        Claim(f"{MORE_ACCURATE} with suffix", DEFAULT, SUFFIX),
        Claim(f"{COVERS} with suffix", DEFAULT, SUFFIX, coverage=True),
    ),
    "held_out": (Claim("the patch raises accuracy on held-out problems", DEFAULT, UNTUNED),),
}


def _table2(runner: ExperimentRunner) -> Result:
    found = []
    for eval_set, words in SETS.items():
        base, patched = (partial(role_counts, role=r, eval_set=eval_set) for r in (BASE, PATCHED))
        rows = [Row((UNTUNED, "–"), "int", base)]
        for recipe, (name, paper) in DESIGNS.items():
            rows.append(Row((name, paper if eval_set == "train" else "–"), recipe, patched))
        made = results.compared(
            runner,
            title=f"Table 2 on {words}",
            columns=("SFT rows", "paper: coverage, accuracy"),
            rows=rows,
            claims=CLAIMS[eval_set],
            note=f"After SFT, from the problem alone. {results.BOTH}",
        )
        found.append(made)
    tables = [table for made in found for table in made.tables]
    return Result(tables=tables, claims=[claim for made in found for claim in made.claims])


def _figure6(runner: ExperimentRunner) -> Result:
    models = {str(role): ("pass-at-k", role) for role in (BASE, PATCHED)}
    panels, tables, claims = [], [], []
    for words, counts, ks in _passes(runner, models):
        panels.append(results.pass_panel(words, counts, ks))
        tables.append(results.pass_table(f"Figure 6: pass@k on {words}", counts, ks))
        for k in (ks[len(ks) // 2], ks[-1]):
            claim = f"pass@{k} rises with the patch on {words}"
            claims.append(pass_more(claim, counts["patched"], counts["base"], k))
    return Result(tables=tables, claims=claims, panels=panels)


# --- Figures 7, 8 and 9: how likely tokens are -------------------------------------------------

MEANS: dict[str, Callable[[Likelihood], float]] = {
    "mean of probabilities": lambda item: item.mean_probability,
    "exp(mean log probability)": lambda item: item.exp_mean_logprob,
}
TEXTS = {"train": "intervention", "held out": "intervention_held_out"}
#: Read off the plot, by model and texts.
PAPER_FIGURE_7 = {
    ("base", "train"): "0.165",
    ("base", "held out"): "0.18",
    ("patched", "train"): "0.405",
    ("patched", "held out"): "0.42",
}
ROLES = {"base": BASE, "patched": PATCHED}


def _figure7(runner: ExperimentRunner) -> Result:
    texts = runner.pooled(
        {
            (model, where): ("int", partial(likelihoods, role=ROLES[model], what=TEXTS[where]))
            for model, where in PAPER_FIGURE_7
        }
    )
    rows, claims, panels = [], [], []
    for name, value in MEANS.items():
        found = {key: each(items, value) for key, items in texts.items()}
        for (model, where), values in found.items():
            paper = PAPER_FIGURE_7[model, where]
            rows.append((f"{model}, {where}", name, paper, *text_cells(values)))
        for where in TEXTS:
            words = f"interventions are likelier after the patch, {where}, {name}"
            before, after = found["base", where], found["patched", where]
            claims.append(more(words, after, before, mean, scale=1, unit=""))
        bars = {model: {where: found[model, where] for where in TEXTS} for model in ROLES}
        panels.append(results.text_bars(bars, ("interventions", "probability per token"), name))
    columns = ("model, interventions", "average", "paper (read off the plot)", "texts", "ours")
    note = "Per text, then over texts; 95 % bootstrap over problems."
    table = Table("Figure 7: probability of intervention tokens", columns, tuple(rows), note)
    return Result(tables=[table], claims=claims, panels=panels)


class Tuned(NamedTuple):
    """One fine-tuned model of Figs 8 and 9, and the kind of text it was trained on."""

    name: str
    recipe: str
    what: str
    """The kind of text in the likelihood stage; empty for the base."""
    entropy: str = "–"
    """The paper's, nats, read off the plot."""
    nll: str = "–"

    @property
    def role(self) -> Role:
        """Which model of its recipe it is."""
        return PATCHED if self.what else BASE


REFLECTION, DISTILLATION = "self_reflection_row", "distillation_row"
UNFILTERED = "sft-self-reflection-no-filter"
MODELS = (
    Tuned("base", "int", "", "0.29"),
    Tuned("InT", "int", "intervention_row", "0.26", "0.40"),
    Tuned("self-reflection", "sft-self-reflection", REFLECTION, "0.43", "0.55"),
    Tuned("self-reflection, no filter", UNFILTERED, REFLECTION),
    Tuned("distillation", "sft-distillation", DISTILLATION),
    Tuned("reference", "sft-reference", "reference_row", "1.66", "human 1.26"),
)
#: Further sources of Fig. 9, where the scale names a model of that kind.
FURTHER = (
    Tuned("a reasoner's summary", "distillation-summary", DISTILLATION, nll="0.62"),
    Tuned("a reasoner's thinking", "distillation-thinking", DISTILLATION, nll="0.78"),
    Tuned("reference by a model", "written-reference", DISTILLATION, nll="0.96"),
)
NLL_CLAIMS = (
    ("InT", "self-reflection"),
    ("self-reflection", "reference"),
    ("InT", "distillation"),
    ("distillation", "reference"),
)


def _figure8(runner: ExperimentRunner) -> Result:
    texts = runner.pooled(
        {m.name: (m.recipe, partial(likelihoods, role=m.role, what="own_rollout")) for m in MODELS}
    )
    found = {name: each(items, lambda item: item.entropy) for name, items in texts.items()}
    base, ours = found["base"], found["InT"]
    tolerance = 0.25 * estimates.estimate(base, mean).estimate
    words = "entropy after InT within a quarter of the base's"
    claims = [estimates.close(words, ours, base, mean, tolerance, scale=1, unit=" nats")]
    for model in MODELS[2:]:
        words = f"entropy after {model.name} above InT's"
        claims.append(more(words, found[model.name], ours, mean, scale=1, unit=" nats"))
    table = Table(
        "Figure 8: next-token entropy on the model's own rollouts",
        ("model", "paper (read off the plot)", "rollouts", "entropy, nats"),
        tuple((m.name, m.entropy, *text_cells(found[m.name])) for m in MODELS),
        "Full softmax at temperature 1 over generated tokens; 95 % bootstrap over problems.",
    )
    bars = results.text_bars({"entropy": found}, ("model", "entropy, nats per token"))
    return Result(tables=[table], claims=claims, panels=[bars])


def _figure9(runner: ExperimentRunner) -> Result:
    models = [*MODELS, *(m for m in FURTHER if runner.has(m.recipe))]
    left, nll = _nll(runner, models)
    claims = [
        more(f"NLL of {a} below {b}", nll[b], nll[a], mean, scale=1, unit=" nats")
        for a, b in NLL_CLAIMS
    ]
    labels = ("trained on", "NLL, nats per token")
    tables, panels = [left], [results.text_bars({"NLL": nll}, labels, "under the base")]
    for words, counts, ks in _passes(runner, {m.name: (m.recipe, m.role) for m in models}):
        panels.append(results.pass_panel(words, counts, ks))
        tables.append(results.pass_table(f"Figure 9: pass@k on {words}", counts, ks))
        claim = f"InT above {{other}}, pass@{{k}} on {words}"
        claims += results.above_others(claim, "InT", counts, (1, ks[-1]))
    return Result(tables=tables, claims=claims, panels=panels)


def _nll(
    runner: ExperimentRunner, models: Sequence[Tuned]
) -> tuple[Table, dict[str, dict[str, list[float]]]]:
    """Return how likely what models were trained on is under the base."""
    wanted = {m.name: (m.recipe, m.what) for m in models if m.what}
    wanted["InT, the intervention alone"] = ("int", "intervention")
    texts = runner.pooled(
        {
            name: (of, partial(likelihoods, role=BASE, what=what))
            for name, (of, what) in wanted.items()
        }
    )
    nll = {name: each(items, lambda item: item.nll) for name, items in texts.items()}
    papers = {m.name: m.nll for m in models}
    left_out = (f" This scale names no model for: {m.name}." for m in FURTHER if m not in models)
    note = (
        "Token mean over the trained tokens given the problem; for the intervention alone given "
        "its prefix too. 95 % bootstrap over problems."
    )
    table = Table(
        "Figure 9, left: NLL of what is trained on, under the base",
        ("source", "paper (read off the plot)", "texts", "NLL, nats per token"),
        tuple((name, papers.get(name, "–"), *text_cells(x)) for name, x in nll.items()),
        note + "".join(left_out),
    )
    return table, nll


# --- Appendix F --------------------------------------------------------------------------------

#: Words of an n-gram: about a step of the lab; long enough that chance hits are rare elsewhere.
N = 5
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


def _seen(session: Session, method: Method, role: Role) -> Clusters[Seen]:
    """Return the held-out rollouts of the model in a role, by problem."""
    chosen = {row.proposal_id for row in ready_rows(session, method.models.rows)}
    candidates = method.interventions.candidates().read(session)
    texts = (p.intervention for p in candidates if p.proposal_id in chosen)
    interventions = [text.strip() for text in texts if text]
    known = {gram for text in interventions for gram in ngrams(text)}
    drawn = method.evaluation.evaluate(readings.model_of(session, method, role), "held_out")
    verdicts = {g.rollout_id: g.verdict for g in session.read(drawn.grades)}
    found = []
    for rollout in session.read(drawn.rollouts, ("token_ids",)):
        text, grams = rollout.text, ngrams(rollout.text)
        overlap = len(grams & known) / len(grams) if grams else 0.0
        copies = any(intervention in text for intervention in interventions)
        is_correct = verdicts[rollout.rollout_id] is Verdict.CORRECT
        found.append((rollout.problem_id, Seen(is_correct, copies, overlap, text)))
    return grouped(found)


def _appendix_f(runner: ExperimentRunner) -> Result:
    found = runner.pooled(
        {name: ("int", partial(_seen, role=role)) for name, role in ROLES.items()}
    )
    rows = []
    for model, seen in found.items():
        right = each(only(seen, lambda s: s.is_correct), lambda s: float(not s.copies))
        copies, overlap = each(seen, lambda s: float(s.copies)), each(seen, lambda s: s.overlap)
        rows.append(
            {
                "model": model,
                "rollouts": str(num_items(seen)),
                f"{N}-grams of training interventions, %": results.mean_cell(overlap),
                "rollouts with a whole one, %": results.mean_cell(copies),
                "correct rollouts": str(num_items(right)),
                "of them without one, %": results.mean_cell(right),
            }
        )
    title = "Held-out rollouts against training interventions"
    table = results.named_table(title, rows, "95 % bootstrap over problems.")
    words = "most correct patched rollouts of unseen problems copy no training intervention"
    claim = more(words, right, each(right, lambda _: 0.5), mean)
    return Result(tables=[table, _side_by_side(found["base"], found["patched"])], claims=[claim])


def _side_by_side(before: Clusters[Seen], after: Clusters[Seen]) -> Table:
    """Show problems that the base never solved and the patched model did (Figs 17, 18)."""
    solved = only(before, lambda seen: seen.is_correct)
    newly = only(after, lambda seen: seen.is_correct)
    rows = [
        (problem_id, _in_a_line(before[problem_id][0].text), _in_a_line(newly[problem_id][0].text))
        for problem_id in sorted(newly)
        if problem_id in before and problem_id not in solved
    ]
    note = "Unseen problems that no rollout of the base solved; steps are parted by ‖."
    columns = ("problem", "base", "patched")
    return Table("Side by side", columns, tuple(rows[:_NUM_SHOWN]), note)


def _in_a_line(text: str) -> str:
    return text.strip().replace("\n\n", " ‖ ").replace("\n", " ")


# --- beyond the paper: three rounds against one ------------------------------------------------

NUM_ROUNDS = 3


class Round(NamedTuple):
    """What a round leaves: its patched model, and how that does."""

    path: str
    num_rows: int
    held_out: Counts


def _round(session: Session, method: Method) -> Round | None:
    """Run one round; None if there is nothing left to intervene in."""
    rows = len(ready_rows(session, method.models.rows))
    if not rows:
        return None
    counts = role_counts(session, method, PATCHED, "held_out")
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
        (made,) = replace(runner, seeds=(seed,), settings=settings).read("iterated", _round)
        if made is None:
            break
        done.append(made)
    return [*done, *done[-1:] * (NUM_ROUNDS - len(done))]


def _iterated(runner: ExperimentRunner) -> Result:
    rounds = [_rounds(runner, seed) for seed in runner.seeds]
    single = [made for made in runner.read("equal-budget", _round) if made]
    if len(single) < len(rounds) or not all(rounds):
        raise ConfigError("iterated: no intervention was verified, so there is nothing to compare")
    first, *_, last = names = ("1 round", "2 rounds", "3 rounds")
    one = "1 round, equal sampling"
    reached = {**dict(zip(names, zip(*rounds, strict=True), strict=True)), one: single}
    base = readings.evaluated(runner, {"base": ("int", BASE)}, "held_out")["held_out"]
    after = {n: estimates.pool(made.held_out for made in by_seed) for n, by_seed in reached.items()}
    rows = {n: "/".join(str(made.num_rows) for made in by_seed) for n, by_seed in reached.items()}
    models = base | after
    ks = results.usable_ks(models)
    table = results.pass_table("Iterated InT on held-out problems", models, ks)
    table = replace(
        table,
        columns=("model", "rows", *table.columns[1:]),
        rows=tuple((name, rows.get(name, "–"), *cells) for name, *cells in table.rows),
        note=f"{table.note} Rows: by seed, of the round. The base proposes in every round.",
    )
    claims = [
        pass_more(f"{last} above {other}, pass@{k}", models[last], models[other], k)
        for other in (first, one)
        for k in (1, ks[-1])
    ]
    return Result(tables=[table], claims=claims)


def _passes(
    runner: ExperimentRunner, models: Mapping[str, tuple[str, Role]]
) -> list[tuple[str, dict[str, Counts], list[int]]]:
    """Return, by set, its words, the counts of models and the k that they support."""
    found = readings.evaluated(runner, models, *SETS)
    return [(SETS[name], counts, results.usable_ks(counts)) for name, counts in found.items()]


def _recipes(models: Sequence[Tuned]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(model.recipe for model in models))


LIKELY, ROUNDS = (
    "Figure 9: likelihood and worth of what is trained on",
    "Beyond: three rounds against one",
)
EXPERIMENTS = (
    Experiment("table2", "Table 2: what to fine-tune on", _table2, tuple(DESIGNS)),
    Experiment("fig6", "Figure 6: pass@k after the patch", _figure6, ("pass-at-k",)),
    Experiment("fig7", "Figure 7: probability of intervention tokens", _figure7),
    Experiment("fig8", "Figure 8: next-token entropy", _figure8, _recipes(MODELS)),
    Experiment("fig9", LIKELY, _figure9, _recipes(MODELS + FURTHER)),
    Experiment("appendix-f", "Appendix F: are interventions memorised?", _appendix_f),
    Experiment("iterated", ROUNDS, _iterated, ("int", "iterated", "equal-budget")),
)
