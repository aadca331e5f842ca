"""Figures 7, 8 and 9: how likely tokens are, before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from midcourse.experiments.bench import Bench
from midcourse.experiments.estimates import Clusters, close, estimate, mean, more, passes, pool
from midcourse.experiments.patches import pass_panel, pass_table, usable_ks
from midcourse.experiments.readings import evaluation_counts, joined, likelihood_values
from midcourse.experiments.results import Experiment, Result
from midcourse.metrics import Count, Interval
from midcourse.pipeline import Pipeline
from midcourse.records import Likelihood
from midcourse.report.plots import Figure, Panel, Point, Series
from midcourse.table import Table


def _values(
    bench: Bench, recipe: str, role: str, what: str, value: Callable[[Likelihood], float]
) -> dict[str, list[float]]:
    return joined(bench.read(recipe, lambda p: likelihood_values(p, role, what, value)))


def _plain(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _number(values: Clusters[float]) -> int:
    return sum(len(members) for members in values.values())


MEANS: dict[str, Callable[[Likelihood], float]] = {
    "mean of probabilities": lambda item: item.mean_probability,
    "exp(mean log probability)": lambda item: item.exp_mean_logprob,
}
TEXTS = {"intervention": "train", "intervention_held_out": "held out"}
PAPER_FIGURE_7 = {
    ("base", "train"): "0.165", ("patched", "train"): "0.405",
    ("base", "held out"): "0.18", ("patched", "held out"): "0.42",
}  # fmt: skip


def _figure7(bench: Bench) -> Result:
    rows, claims, panels = [], [], []
    for name, value in MEANS.items():
        found = {
            (label, where): _values(bench, "int", label, what, value)
            for label in ("base", "patched")
            for what, where in TEXTS.items()
        }
        for (label, where), values in found.items():
            cells = (str(_number(values)), _plain(estimate(values, mean)))
            rows.append((f"{label}, {where}", name, PAPER_FIGURE_7[label, where], *cells))
        for where in TEXTS.values():
            words = f"interventions are likelier after the patch, {where}, {name}"
            claims.append(
                more(words, found["patched", where], found["base", where], mean, scale=1, unit="")
            )
        series = [
            Series(label, tuple(
                Point(where, estimate(found[label, where], mean), _number(found[label, where]))
                for where in TEXTS.values()
            ))
            for label in ("base", "patched")
        ]  # fmt: skip
        panels.append(
            Panel(title=name, x_label="interventions", y_label="probability per token",
                  series=tuple(series), kind="bar")
        )  # fmt: skip
    columns = ("model, interventions", "average", "paper (read off the plot)", "texts", "ours")
    table = Table("Figure 7: probability of intervention tokens", columns, tuple(rows),
                  "Per text, then over texts; 95 % bootstrap over problems.")  # fmt: skip
    return Result(tables=(table,), claims=tuple(claims), figure=Figure("fig7", tuple(panels)))


@dataclass(frozen=True, slots=True)
class Tuned:
    """One fine-tuned model of Figs 8 and 9, and the text it was trained on."""

    name: str
    recipe: str
    role: str
    what: str
    """The kind of text in the likelihood stage; empty for the base."""
    entropy: str
    """The paper's, nats, read off the plot."""
    nll: str


MODELS = (
    Tuned("base", "int", "base", "", "0.29", "–"),
    Tuned("InT", "int", "patched", "intervention_row", "0.26", "0.40"),
    Tuned("self-reflection", "sft-self-reflection", "patched", "self_reflection_row", "0.43",
          "0.55"),
    Tuned("self-reflection, no filter", "sft-self-reflection-no-filter", "patched",
          "self_reflection_row", "–", "–"),
    Tuned("distillation", "sft-distillation", "patched", "distillation_row", "–", "–"),
    Tuned("reference", "sft-reference", "patched", "reference_row", "1.66", "human 1.26"),
)  # fmt: skip
#: Further sources of Fig. 9, where the scale names a model of that kind.
FURTHER = (
    Tuned("a reasoner's summary", "distillation-summary", "patched", "distillation_row", "–",
          "0.62"),
    Tuned("a reasoner's thinking", "distillation-thinking", "patched", "distillation_row", "–",
          "0.78"),
    Tuned("reference by a model", "written-reference", "patched", "distillation_row", "–", "0.96"),
)  # fmt: skip


def _figure8(bench: Bench) -> Result:
    found = {
        m.name: _values(bench, m.recipe, m.role, "own_rollout", lambda item: item.entropy)
        for m in MODELS
    }
    rows = tuple(
        (m.name, m.entropy, str(_number(found[m.name])), _plain(estimate(found[m.name], mean)))
        for m in MODELS
    )
    base = estimate(found["base"], mean).estimate
    claims = [
        close("entropy after InT within a quarter of the base's", found["InT"], found["base"],
              mean, 0.25 * base, scale=1, unit=" nats")
    ]  # fmt: skip
    claims += [
        more(f"entropy after {m.name} above InT's", found[m.name], found["InT"], mean, scale=1,
             unit=" nats")
        for m in MODELS if m.name not in ("base", "InT")
    ]  # fmt: skip
    points = tuple(Point(m.name, estimate(found[m.name], mean), _number(found[m.name]))
                   for m in MODELS)  # fmt: skip
    panel = Panel(title="", x_label="model", y_label="entropy, nats per token",
                  series=(Series("entropy", points),), kind="bar")  # fmt: skip
    table = Table(
        "Figure 8: next-token entropy on the model's own rollouts",
        ("model", "paper (read off the plot)", "rollouts", "entropy, nats"), rows,
        "Full softmax at temperature 1 over generated tokens; 95 % bootstrap over problems.",
    )  # fmt: skip
    return Result(tables=(table,), claims=tuple(claims), figure=Figure("fig8", (panel,)))


def _figure9(bench: Bench) -> Result:
    models = [*MODELS, *(m for m in FURTHER if bench.has(m.recipe))]
    sources = [m for m in models if m.what]
    nll = {m.name: _values(bench, m.recipe, "base", m.what, lambda item: item.nll) for m in sources}
    step = "InT, the intervention alone"
    nll[step] = _values(bench, "int", "base", "intervention", lambda item: item.nll)
    papers = {m.name: m.nll for m in sources}
    rows = tuple(
        (name, papers.get(name, "–"), str(_number(found)), _plain(estimate(found, mean)))
        for name, found in nll.items()
    )
    table = Table(
        "Figure 9, left: NLL of what is trained on, under the base",
        ("source", "paper (read off the plot)", "texts", "NLL, nats per token"), rows,
        "Token mean over the trained tokens given the problem; for the intervention alone given "
        "its prefix too. 95 % bootstrap over problems."
        + "".join(f" This scale names no model for: {m.name}." for m in FURTHER if m not in models),
    )  # fmt: skip
    points = tuple(Point(n, estimate(f, mean), _number(f)) for n, f in nll.items())
    panels = [Panel(title="under the base", x_label="trained on", y_label="NLL, nats per token",
                    series=(Series("NLL", points),), kind="bar")]  # fmt: skip
    claims = [
        more(f"NLL of {ours} below {theirs}", nll[theirs], nll[ours], mean, scale=1, unit=" nats")
        for ours, theirs in (("InT", "self-reflection"), ("self-reflection", "reference"),
                             ("InT", "distillation"), ("distillation", "reference"))
    ]  # fmt: skip
    tables = [table]
    for eval_set, words in (("train", "hard training problems"), ("held_out", "held-out problems")):
        counts = {m.name: pool(bench.read(m.recipe, _counts_of(m, eval_set))) for m in models}
        ks = usable_ks(*counts.values())
        panels.append(pass_panel(words, counts, ks))
        tables.append(pass_table(f"Figure 9: pass@k on {words}", counts, ks))
        claims += [
            more(f"InT above {m.name}, pass@{k} on {words}", passes(counts["InT"], k),
                 passes(counts[m.name], k), mean)
            for m in models if m.name != "InT" for k in (1, ks[-1])
        ]  # fmt: skip
    return Result(tables=tuple(tables), claims=tuple(claims), figure=Figure("fig9", tuple(panels)))


def _counts_of(model: Tuned, eval_set: str) -> Callable[[Pipeline], dict[str, Count]]:
    return lambda pipeline: evaluation_counts(pipeline, model.role, eval_set)


FIGURE_7 = Experiment(
    name="fig7", title="Figure 7: probability of intervention tokens", recipes=("int",),
    make=_figure7,
)  # fmt: skip
FIGURE_8 = Experiment(
    name="fig8", title="Figure 8: next-token entropy",
    recipes=tuple(dict.fromkeys(m.recipe for m in MODELS)), make=_figure8,
)  # fmt: skip
FIGURE_9 = Experiment(
    name="fig9", title="Figure 9: likelihood and worth of what is trained on",
    recipes=tuple(dict.fromkeys(m.recipe for m in (*MODELS, *FURTHER))), make=_figure9,
)  # fmt: skip
