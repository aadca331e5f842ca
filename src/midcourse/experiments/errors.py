"""Figures 2 and 10: where first errors lie, and how short interventions are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median

from midcourse.experiments.bench import Bench
from midcourse.experiments.estimates import estimate, mean, more
from midcourse.experiments.readings import joined
from midcourse.experiments.results import Experiment, Result
from midcourse.pipeline import Pipeline
from midcourse.records import Rollout
from midcourse.report.figures import histogram_panel, percent
from midcourse.report.plots import Figure, Panel, Point, Series
from midcourse.steps import insert_step, location_from_error_step, split_steps
from midcourse.table import Table, share


@dataclass(frozen=True, slots=True)
class Located:
    """One accepted intervention, e.g. at step 2 of 6, 11 tokens for a rollout of 70."""

    error_step: int
    num_steps: int
    intervention_tokens: int
    rollout_tokens: int


def _located(pipeline: Pipeline) -> dict[str, list[Located]]:
    """Return every verified candidate, by problem."""
    by_rollout = {p.rollout_id: p for p in pipeline.candidates}
    found: dict[str, list[Located]] = {}
    for rollout in pipeline.train_rollouts.rollouts.read(Rollout, without=("token_ids",)):
        proposal = by_rollout.get(rollout.rollout_id)
        if proposal is not None:
            tokens = len(pipeline.renderer.encode(proposal.intervention or ""))
            place = Located(
                insert_step(proposal), len(split_steps(rollout.text)), tokens, rollout.num_tokens
            )
            found.setdefault(proposal.problem_id, []).append(place)
    return found


def _figure2(bench: Bench) -> Result:
    found = joined(bench.read("int", _located))
    late = {p: [float(x.error_step >= 1) for x in places] for p, places in found.items()}
    middle = {p: [float(2 * x.error_step >= x.num_steps) for x in places]
              for p, places in found.items()}  # fmt: skip
    places = [place for members in found.values() for place in members]
    half = {p: [0.5] * len(values) for p, values in late.items()}
    rows = (
        ("after at least one correct step", str(len(places)), share(estimate(late, mean), 1)),
        ("in the second half of the rollout", str(len(places)), share(estimate(middle, mean), 1)),
    )
    claim = more("most first errors come after correct steps", late, half, mean)
    table = Table(
        "Figure 2: where the first error lies, as proposed",
        ("first error", "interventions", "share %"), rows,
        "Paper: over 70 % after the first 50 steps. 95 % bootstrap over problems.",
    )  # fmt: skip
    panels = (
        histogram_panel([location_from_error_step(x.error_step) for x in places],
                        "step of the first error", "interventions, %", "position"),
        _relative_panel(places),
    )  # fmt: skip
    return Result(tables=(table,), claims=(claim,), figure=Figure("fig2", panels))


def _relative_panel(places: list[Located]) -> Panel:
    """Return first errors by tenth of the rollout's steps; rollouts differ in length."""
    tenths = [min(9, 10 * place.error_step // place.num_steps) + 1 for place in places]
    return histogram_panel(
        tenths, "tenth of the rollout's steps", "interventions, %", "relative position"
    )


def _figure10(bench: Bench) -> Result:
    found = joined(bench.read("int", _located))
    lengths = {
        "intervention": {p: [float(x.intervention_tokens) for x in v] for p, v in found.items()},
        "full rollout": {p: [float(x.rollout_tokens) for x in v] for p, v in found.items()},
    }
    rows = []
    for name, by_problem in lengths.items():
        values = [value for members in by_problem.values() for value in members]
        interval = estimate(by_problem, mean)
        low_high = f"[{interval.low:.1f}, {interval.high:.1f}]"
        rows.append((name, str(len(values)), f"{interval.estimate:.1f} {low_high}",
                     f"{median(values):g}", f"{max(values):g}"))  # fmt: skip
    table = Table(
        "Figure 10: lengths in tokens", ("text", "texts", "mean", "median", "longest"),
        tuple(rows), "Paper: interventions under 200 tokens, rollouts nearly 7,000 on average.",
    )  # fmt: skip
    claim = more(
        "rollouts are longer than their interventions", lengths["full rollout"],
        lengths["intervention"], mean, scale=1, unit=" tokens",
    )  # fmt: skip
    panels = tuple(_length_panel(name, by_problem) for name, by_problem in lengths.items())
    return Result(tables=(table,), claims=(claim,), figure=Figure("fig10", panels))


def _length_panel(name: str, by_problem: dict[str, list[float]]) -> Panel:
    """Return a histogram of at most 20 bins, the bin's lower end as its tick."""
    values = [value for members in by_problem.values() for value in members]
    width = max(1, -(-int(max(values, default=1) + 1) // 20))
    bins = Counter(int(value) // width for value in values)
    points = []
    for index in range(min(bins, default=0), max(bins, default=-1) + 1):
        inside = {p: [float(v // width == index) for v in vs] for p, vs in by_problem.items()}
        points.append(Point(index * width, percent(estimate(inside, mean, 300)), len(values)))
    return Panel(
        title=name, x_label=f"tokens (bins of {width})", y_label="texts, %",
        series=(Series(name, tuple(points)),), kind="bar",
    )  # fmt: skip


FIGURE_2 = Experiment(
    name="fig2", title="Figure 2: where the first error lies", recipes=("int",), make=_figure2
)
FIGURE_10 = Experiment(
    name="fig10", title="Figure 10: lengths of interventions", recipes=("int",), make=_figure10
)
