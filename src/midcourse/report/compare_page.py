"""The tables, the page and the JSON of a comparison of runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from statistics import stdev
from typing import Any

from midcourse.metrics import accuracy
from midcourse.report.compare import ComparedRun, Measure, Side, differences, measures
from midcourse.report.estimates import (
    accuracy_of,
    by_place,
    grouped,
    passed,
    pool,
)
from midcourse.report.facts import cost_of, models_of, totals, wall_seconds
from midcourse.report.figures import arm_panel, pass_panel, usable_ks
from midcourse.report.findings import Finding, Verdict
from midcourse.report.page import Block, Drawing, Page, Section, Sentences, Topic
from midcourse.report.runs import MIN_RUNS, over_runs
from midcourse.report.svg import draw_panels
from midcourse.report.tables import PAPER_TABLE_1, accuracy_cells, none_correct, windows
from midcourse.table import Table, share
from midcourse.tokens import TokenCount, duration

_NOTHING = "–"
_BOOTSTRAP = "95 % bootstrap over {}, Wilson over samples where none or all are correct"
_HOW = (
    "95 % intervals. “cannot tell”: the interval holds zero. They are not corrected for their "
    "number: of twenty that are all chance, one will look like a difference."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a comparison says."""

    tables: Mapping[str, Sequence[Table]]
    """By heading, in order."""
    findings: Sequence[Finding]
    drawings: Sequence[Drawing]


def compare(sides: Sequence[Side]) -> Comparison:
    """Put runs side by side."""
    runs = [run for side in sides for run in side.runs]
    kept = measures(runs)
    tables = {
        "What was run": [_runs_table(runs), *_setting_tables(runs)],
        "Seeds": [_seed_table(side, kept) for side in sides if len(side.runs) > 1],
        "Funnel": _filled(_funnel_table(runs)),
        "What an intervention is worth": _filled(_condition_table(runs)),
        "pass@k": list(_pass_tables(runs)),
        "RL": _filled(_rl_table(runs)),
    }
    return Comparison(tables=tables, findings=differences(sides), drawings=list(_drawings(runs)))


def _filled(table: Table) -> list[Table]:
    return [table] if table.rows else []


def _columns(runs: Sequence[ComparedRun], *first: str) -> tuple[str, ...]:
    return (*first, *(run.label for run in runs))


# --- what was run ------------------------------------------------------------------------------


def _runs_table(runs: Sequence[ComparedRun]) -> Table:
    rows: dict[str, Callable[[ComparedRun], str]] = {
        "recipe": lambda run: run.recipe.name,
        "seed": lambda run: str(run.recipe.seed),
        "base model": lambda run: models_of(run.recipe)["base model"],
        "proposer": lambda run: models_of(run.recipe)["proposer"],
        "complete": lambda run: f"{run.num_complete} of {run.num_steps} stages",
        "code": lambda run: ", ".join(dict.fromkeys(c.code for c in run.costs)) or _NOTHING,
        "wall time": lambda run: duration(wall_seconds(run.costs)),
        "tokens in": lambda run: _tokens(run, lambda of: of.tokens_in),
        "tokens out": lambda run: _tokens(run, lambda of: of.tokens_out),
        "cost": lambda run: cost_of(totals(run.costs), run.recipe.prices) or "no prices",
    }
    cells = tuple((name, *map(of, runs)) for name, of in rows.items())
    note = "Of a run that is not complete, every number is of what is there."
    return Table("Runs", _columns(runs, ""), cells, note)


def _tokens(run: ComparedRun, of: Callable[[TokenCount], int]) -> str:
    found = totals(run.costs)
    return "unknown" if found is None else f"{sum(map(of, found.values())):,}"


def _setting_tables(runs: Sequence[ComparedRun]) -> list[Table]:
    """Return the keys in which recipes differ: those that decide results, and the others."""
    every = [_flattened(run.recipe.model_dump(mode="json")) for run in runs]
    deciding = set[str]().union(
        *(_flattened(run.recipe.identity(with_defaults=True)) for run in runs)
    )
    keys = list(dict.fromkeys(key for settings in every for key in settings))
    differing = [key for key in keys if len({s.get(key, _NOTHING) for s in every}) > 1]
    notes = {
        "Settings that differ": "By the recipes as they were resolved, defaults included.",
        "Settings of speed and place that differ": "They decide no result, or nothing but a name.",
    }
    tables = []
    for is_deciding, (title, note) in zip((True, False), notes.items(), strict=True):
        rows = tuple(
            (key, *(settings.get(key, _NOTHING) for settings in every))
            for key in differing
            if (key in deciding) is is_deciding
        )
        if rows or is_deciding:
            tables.append(Table(title, _columns(runs, "key"), rows, note if rows else "None."))
    return tables


def _flattened(value: object, where: str = "") -> dict[str, str]:
    """Return dotted keys and their values as JSON."""
    if not isinstance(value, dict) or not value:
        return {where: json.dumps(value, ensure_ascii=False)}
    found: dict[str, str] = {}
    for key, below in value.items():
        found |= _flattened(below, f"{where}.{key}".lstrip("."))
    return found


# --- side by side ------------------------------------------------------------------------------


def _funnel_table(runs: Sequence[ComparedRun]) -> Table:
    stages = dict.fromkeys(name for run in runs for name in run.data.funnel)
    rows = []
    for stage in stages:
        found = [run.data.funnel.get(stage, {}) for run in runs]
        for outcome in dict.fromkeys(["total", *(name for counts in found for name in counts)]):
            name = stage if outcome == "total" else f"{stage}: {outcome}"
            cells = (f"{c[outcome]:,}" if outcome in c else _NOTHING for c in found)
            rows.append((name, *cells))
    return Table("Counts by stage", _columns(runs, "stage: outcome"), tuple(rows))


def _condition_table(runs: Sequence[ComparedRun]) -> Table:
    rows = []
    for condition, (name, _) in PAPER_TABLE_1.items():
        found = [run.data.conditions.get(condition) for run in runs]
        if any(found):
            rows.append((name, *(_accuracy_cell(counts) for counts in found)))
    note = f"Accuracy in %, {_BOOTSTRAP.format('problems')}; in brackets the problems covered."
    return Table("Table 1, accuracy", _columns(runs, "base model given"), tuple(rows), note)


def _accuracy_cell(counts: Any) -> str:
    if not counts:
        return _NOTHING
    covered, _, accuracy_cell, _ = accuracy_cells(counts, accuracy_of(by_place(counts)))
    return f"{accuracy_cell} ({covered})"


def _pass_tables(runs: Sequence[ComparedRun]) -> Iterator[Table]:
    for eval_set in dict.fromkeys(name for run in runs for name in run.data.evaluations):
        models = dict.fromkeys(m for run in runs for m in run.data.evaluations.get(eval_set, {}))
        ks = sorted({k for run in runs for k in run.data.ks.get(eval_set, ())})
        rows = [
            (f"{model}, k = {k}", *(_pass_cell(run, eval_set, model, k) for run in runs))
            for model in models
            for k in ks
        ]
        numbers = (str(len(run.data.problem_ids.get(eval_set, ()))) for run in runs)
        note = f"{', '.join(numbers)} problems. 95 % bootstrap over problems, or Wilson's."
        yield Table(f"pass@k on {eval_set}, %", _columns(runs, "model"), tuple(rows), note)


def _pass_cell(run: ComparedRun, eval_set: str, model: str, k: int) -> str:
    counts = run.data.evaluations.get(eval_set, {}).get(model, ())
    is_usable = k in usable_ks([counts], [k])
    return share(passed(by_place(counts), k, 500), 1) if is_usable else _NOTHING


def _rl_table(runs: Sequence[ComparedRun]) -> Table:
    rows: list[tuple[str, ...]] = []
    for arm in dict.fromkeys(arm for run in runs for arm in run.data.arms):
        found = [run.data.arms.get(arm, ()) for run in runs]
        ends = [windows(groups)[-1][1] if groups else [] for groups in found]
        rewards = (share(accuracy_of(by_place(c), 500), 1) if c else _NOTHING for c in ends)
        ratios = (f"{100 * none_correct(counts):.0f}" if counts else _NOTHING for counts in ends)
        iterations = (str(max((g.iteration + 1 for g in gs), default=0)) for gs in found)
        rows += [
            (f"{arm}: iterations", *iterations),
            (f"{arm}: reward %, last window", *rewards),
            (f"{arm}: none correct %, last window", *ratios),
        ]
    note = f"{_BOOTSTRAP.format('groups')}."
    return Table("RL", _columns(runs, "arm"), tuple(rows), note)


# --- seeds -------------------------------------------------------------------------------------


def _seed_table(side: Side, kept: Sequence[Measure]) -> Table:
    """Return every number by seed; the interval over runs, and the one over pooled problems."""
    rows = []
    for measure in kept:
        found = [(run, measure.read(run)) for run in side.runs]
        values = [measure.value(run) for run, clusters in found if clusters]
        if not values:
            continue
        cells = (f"{100 * measure.value(run):.1f}" if of else _NOTHING for run, of in found)
        whole = over_runs(values)
        by_run = f"{100 * whole.estimate:.1f}" if isnan(whole.low) else share(whole, 1)
        spread = f"{100 * stdev(values):.1f}" if len(values) > 1 else _NOTHING
        pooled = pool(clusters for _, clusters in found)
        rows.append((measure.name, *cells, by_run, spread, share(measure.alone(pooled, 500), 1)))
    seeds = (f"seed {run.recipe.seed}" for run in side.runs)
    columns = ("%", *seeds, "mean over runs", "SD", "pooled problems")
    note = (
        f"Mean over runs: 95 % by Student's t with {MIN_RUNS} runs or more, for claims about "
        "training. Pooled problems: 95 % bootstrap over the problems of all seeds; it is about "
        "these models."
    )
    return Table(f"Seeds of {side.runs[0].recipe.name}", columns, tuple(rows), note)


# --- page and JSON -----------------------------------------------------------------------------


def _drawings(runs: Sequence[ComparedRun], most: int = 8) -> Iterator[Drawing]:
    """Yield pass@k and rewards of all runs, if there are few enough curves to read."""
    for eval_set in dict.fromkeys(name for run in runs for name in run.data.evaluations):
        curves = {
            f"{run.label}: {model}": counts
            for run in runs
            for model, counts in run.data.evaluations.get(eval_set, {}).items()
        }
        ks = usable_ks(curves.values(), max((r.data.ks.get(eval_set, ()) for r in runs), key=len))
        if len(ks) > 1 and len(curves) <= most:
            yield Drawing(
                topic=Topic.EVALUATION,
                name=f"pass_at_k_{eval_set}",
                title=f"pass@k on {eval_set}",
                caption="Unbiased pass@k, %. Bands: 95 % bootstrap over each run's problems.",
                svg=draw_panels([pass_panel(curves, ks)], f"pass@k on {eval_set}"),
                is_wide=True,
            )
    arms = {f"{run.label}: {arm}": g for run in runs for arm, g in run.data.arms.items() if g}
    if arms and len(arms) <= most:
        yield Drawing(
            topic=Topic.RL,
            name="reward",
            title="Reward during RL",
            caption="Mean reward, %. Bands: 95 % bootstrap over the groups of a window.",
            svg=draw_panels([arm_panel(arms, "mean reward, %", accuracy)], "Reward during RL"),
            is_wide=True,
        )


def comparison_page(sides: Sequence[Side], comparison: Comparison) -> Page:
    """Return the page of a comparison."""
    sections = [
        Section(title, [*(d for d in comparison.drawings if d.topic == title), *tables])
        for title, tables in comparison.tables.items()
    ]
    sections.insert(1, Section("Differences", _said(comparison.findings)))
    names = " and ".join(side.label for side in sides)
    return Page(
        title=f"Comparison of {names}", summary=_summary(sides, comparison), sections=sections
    )


def _summary(sides: Sequence[Side], comparison: Comparison) -> str:
    found = comparison.findings
    told = sum(one.verdict in (Verdict.ABOVE, Verdict.BELOW) for one in found)
    said = f"{told} of {len(found)} differences lie beyond zero with their whole interval."
    if len(sides) == 1:
        said = "Seeds of one recipe: they are put together, with nothing to compare them with."
    same = grouped(((run.what, run.recipe.seed), run.label) for side in sides for run in side.runs)
    copies = [" and ".join(labels) for labels in same.values() if len(labels) > 1]
    return said + "".join(f" {one} are of one recipe and seed: copies." for one in copies)


def _said(found: Sequence[Finding]) -> list[Block]:
    by_heading = grouped((one.about, (str(one.verdict), one.sentence)) for one in found)
    blocks: list[Block] = [Sentences(title, said) for title, said in by_heading.items()]
    return [*blocks, _HOW] if blocks else []


def comparison_json(sides: Sequence[Side], comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON holds it; where there is no interval its ends are null."""
    return {
        "sides": [{"label": s.label, "runs": [run.label for run in s.runs]} for s in sides],
        "findings": [
            {name: None if isinstance(of, float) and isnan(of) else of for name, of in one.items()}
            for one in map(asdict, comparison.findings)
        ],
        "tables": {
            title: [asdict(table) for table in tables]
            for title, tables in comparison.tables.items()
        },
    }
