"""Appendix G: interventions of a stronger model against distilling it (Table 8, Figs 19, 20).

InT's RL sees only the problems of verified interventions; its two baselines see all training
problems, as in the paper: the comparison favours them in data.
"""

from __future__ import annotations

from dataclasses import replace

from midcourse.experiments.bench import Bench
from midcourse.experiments.estimates import estimate, flat, mean, more, passes
from midcourse.experiments.results import Experiment, Result
from midcourse.experiments.rl import Arm, arm_counts, arm_groups, course_figure, course_panels
from midcourse.metrics import accuracy
from midcourse.pipeline import Pipeline
from midcourse.report.plots import Figure
from midcourse.report.tables import rl_table
from midcourse.table import Table, share

ARMS = (
    Arm("RL", "appendix-g-rl", "base + RL", "27.73; 15.85"),
    Arm("distillation + RL", "appendix-g-distillation", "patched + RL", "27.38; 14.8"),
    Arm("InT + RL", "appendix-g", "patched + RL", "29.65; 23.56"),
)
BEST = "InT + RL"
RECIPES = tuple(arm.recipe for arm in ARMS)


def _num_problems(pipeline: Pipeline) -> int:
    return len(pipeline.rl_problems)


def _table8(bench: Bench) -> Result:
    held_out = {arm.name: arm_counts(bench, arm, "held_out") for arm in ARMS}
    is_lab = bench.recipe("appendix-g", bench.seeds[0]).problems.kind == "lab"
    rows = []
    for arm in ARMS:
        sizes = bench.read(arm.recipe, _num_problems)
        counts = held_out[arm.name]
        known = share(estimate(arm_counts(bench, arm, "known"), accuracy), 1) if is_lab else "–"
        cells = [share(estimate(passes(counts, k), mean), 1) for k in (1, 8)]
        size = "/".join(map(str, sizes))
        rows.append((arm.name, arm.paper, size, known, *cells, str(len(flat(counts)))))
    columns = ("model", "paper: average; hard test pass@8", "RL problems, by seed",
               "known notions pass@1 %", "held out pass@1 %", "held out pass@8 %",
               "problems")  # fmt: skip
    note = "The paper's columns are seven benchmarks; ours two sets. 95 % bootstrap over problems."
    table = Table("Table 8: after RL, with a stronger proposer", columns, tuple(rows), note)
    claims = [
        more(f"{BEST} above {name}, pass@{k} on held-out problems", passes(held_out[BEST], k),
             passes(counts, k), mean)
        for name, counts in held_out.items() if name != BEST for k in (1, 8)
    ]  # fmt: skip
    return Result(tables=(table,), claims=tuple(claims))


def _figure19(bench: Bench) -> Result:
    ks = (1, 8)
    figure, table, courses = course_figure(bench, "fig19", ARMS, ks)
    claims = []
    for name, course in courses.items():
        for k in ks:
            end, start = (passes(course[step], k) for step in (max(course), 0))
            claims.append(more(f"RL raises pass@{k} from its start: {name}", end, start, mean))
    return Result(tables=(table,), claims=tuple(claims), figure=figure)


def _figure20(bench: Bench) -> Result:
    groups = arm_groups(bench, ARMS)
    figure, table, courses = course_figure(bench, "fig20", ARMS, (1,))
    reward, ratio = course_panels(groups)
    middle = replace(figure.panels[0], title="held-out problems")
    claims = []
    for name, course in courses.items():
        if name == BEST:
            continue
        steps = max(course), 0
        ours, before = (passes(courses[BEST][step], 1) for step in (max(courses[BEST]), 0))
        theirs, start = (passes(course[step], 1) for step in steps)
        if name.startswith("distillation"):
            claims.append(more("RL after distillation lowers held-out pass@1", start, theirs, mean))
        claims.append(more(f"{BEST} ends above {name}, held-out pass@1", ours, theirs, mean))
        if name == "RL":
            claims.append(more(f"{BEST} rises, held-out pass@1", ours, before, mean))
    return Result(
        tables=(rl_table(groups), table), claims=tuple(claims),
        figure=Figure("fig20", (reward, middle, ratio)),
    )  # fmt: skip


TABLE_8 = Experiment(
    name="table8", title="Table 8: a stronger proposer, after RL", recipes=RECIPES, make=_table8
)
FIGURE_19 = Experiment(
    name="fig19", title="Figure 19: pass@k during RL, stronger proposer", recipes=RECIPES,
    make=_figure19,
)  # fmt: skip
FIGURE_20 = Experiment(
    name="fig20", title="Figure 20: InT against distillation", recipes=RECIPES, make=_figure20
)
