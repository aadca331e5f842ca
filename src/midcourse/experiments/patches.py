"""Table 2 and Figure 6: what to fine-tune on, and what the patch does to pass@k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from midcourse.experiments.bench import Bench
from midcourse.experiments.estimates import (
    Clusters,
    covered,
    estimate,
    flat,
    mean,
    more,
    more_accurate,
    passes,
    pool,
)
from midcourse.experiments.readings import evaluation_counts
from midcourse.experiments.results import Experiment, Result
from midcourse.experiments.table1 import row_cells
from midcourse.metrics import Count
from midcourse.report.figures import percent
from midcourse.report.plots import Figure, Panel, Point, Series
from midcourse.table import Table, share


@dataclass(frozen=True, slots=True)
class Design:
    """One way to build rows, e.g. with the suffix."""

    name: str
    recipe: str
    paper: str


#: The paper's four, then ours: the prefix not even in the context, and every kept intervention.
DESIGNS = (
    Design("prefix, no suffix, filter", "int", "202/235, 7.71 %"),
    Design("– no filter", "no-filter", "196/235, 5.06 %"),
    Design("– no prefix (masked)", "prefix-masked", "162/235, 2.87 %"),
    Design("+ suffix", "suffix", "111/235, 2.31 %"),
    Design("– prefix dropped from the context", "prefix-dropped", "not run"),
    Design("all rows: prefix, no suffix, filter", "all-rows", "not run"),
    Design("all rows: – no filter", "all-rows-no-filter", "not run"),
    Design("all rows: – no prefix (masked)", "all-rows-prefix-masked", "not run"),
    Design("all rows: + suffix", "all-rows-suffix", "not run"),
)


def _table2(bench: Bench) -> Result:
    sets = {"train": "hard training problems", "held_out": "held-out problems"}
    tables, by_set = [], {}
    for eval_set, words in sets.items():
        counts = {"base": _pooled(bench, "int", "base", eval_set)}
        counts |= {d.recipe: _pooled(bench, d.recipe, "patched", eval_set) for d in DESIGNS}
        names = {"base": ("the base, not fine-tuned", "–")}
        names |= {d.recipe: (d.name, d.paper if eval_set == "train" else "–") for d in DESIGNS}
        rows = tuple((*names[key], *row_cells(found)) for key, found in counts.items())
        columns = ("SFT rows", "paper: coverage, accuracy", "coverage", "correct",
                   "accuracy %, by problem", "accuracy %, Wilson")  # fmt: skip
        note = "After SFT, from the problem alone. 95 %: bootstrap over problems; Wilson."
        tables.append(Table(f"Table 2 on {words}", columns, rows, note))
        by_set[eval_set] = counts
    train = by_set["train"]
    best = train["int"]
    claims = [
        more_accurate("the patch raises accuracy on the hard training problems", best,
                      train["base"]),
        more_accurate("the patch raises accuracy on held-out problems",
                      by_set["held_out"]["int"], by_set["held_out"]["base"]),
    ]  # fmt: skip
    for recipe, name in (
        ("no-filter", "no filter"), ("prefix-masked", "no prefix"), ("suffix", "with suffix"),
    ):  # fmt: skip
        claims += [
            more_accurate(f"the default is more accurate than {name}", best, train[recipe]),
            more_accurate(f"the default covers more problems than {name}",
                          covered(best), covered(train[recipe])),
        ]  # fmt: skip
    return Result(tables=tuple(tables), claims=tuple(claims))


def _pooled(bench: Bench, recipe: str, label: str, eval_set: str) -> dict[str, list[Count]]:
    return pool(bench.read(recipe, lambda p: evaluation_counts(p, label, eval_set)))


def usable_ks(*clusters: Clusters[Count], smallest: int = 1) -> list[int]:
    """Return the powers of two that every problem's samples support."""
    limit = min(count.num_samples for found in clusters for count in flat(found))
    return [k for k in (2**i for i in range(limit.bit_length())) if smallest <= k <= limit]


def pass_panel(
    title: str, models: Mapping[str, Clusters[Count]], ks: Sequence[int], x_label: str = "k"
) -> Panel:
    """Return pass@k curves with intervals, one per model."""
    series = []
    for label, counts in models.items():
        points = [
            Point(k, percent(estimate(passes(counts, k), mean, 500)), len(counts)) for k in ks
        ]
        series.append(Series(label, tuple(points)))
    return Panel(
        title=title, x_label=x_label, y_label="pass@k, %", series=tuple(series), log_x=True
    )


def _figure6(bench: Bench) -> Result:
    panels, tables, claims = [], [], []
    for eval_set, words in (("train", "hard training problems"), ("held_out", "held-out problems")):
        models = {
            label: _pooled(bench, "pass-at-k", label, eval_set) for label in ("base", "patched")
        }
        ks = usable_ks(*models.values())
        panels.append(pass_panel(words, models, ks))
        tables.append(pass_table(f"Figure 6: pass@k on {words}", models, ks))
        for k in (ks[len(ks) // 2], ks[-1]):
            after, before = (passes(models[label], k) for label in ("patched", "base"))
            claims.append(more(f"pass@{k} rises with the patch on {words}", after, before, mean))
    return Result(tables=tuple(tables), claims=tuple(claims), figure=Figure("fig6", tuple(panels)))


def pass_table(title: str, models: Mapping[str, Clusters[Count]], ks: Sequence[int]) -> Table:
    """Return pass@k with intervals, one row per model."""
    rows = []
    for label, counts in models.items():
        samples = sum(count.num_samples for count in flat(counts))
        cells = [share(estimate(passes(counts, k), mean, 500), 1) for k in ks]
        rows.append((label, str(len(flat(counts))), f"{samples:,}", *cells))
    columns = ("model", "problems", "samples", *(f"pass@{k} %" for k in ks))
    return Table(title, columns, tuple(rows), "Unbiased estimates; 95 % bootstrap over problems.")


TABLE_2 = Experiment(
    name="table2", title="Table 2: what to fine-tune on",
    recipes=tuple(design.recipe for design in DESIGNS), make=_table2,
)  # fmt: skip
FIGURE_6 = Experiment(
    name="fig6", title="Figure 6: pass@k after the patch", recipes=("pass-at-k",), make=_figure6
)
