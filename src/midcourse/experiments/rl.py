"""Tables 3 and 4, Figures 11 and 12: reinforcement learning from differently prepared models.

All arms train on the same problems for the same number of iterations. Table 4's average mixes
pass@1, pass@8 and the training reward; ours does the same over our columns and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from midcourse.experiments.bench import Bench
from midcourse.experiments.estimates import (
    estimate,
    flat,
    mean,
    more,
    more_accurate,
    passes,
    pool,
)
from midcourse.experiments.readings import (
    evaluation_counts,
    final_reward,
    group_counts,
    model_counts,
)
from midcourse.experiments.results import Experiment, Result
from midcourse.metrics import Count, Interval, accuracy, group_shares
from midcourse.pipeline import Pipeline
from midcourse.records import GroupCount
from midcourse.report.figures import arm_panel, percent
from midcourse.report.plots import Figure, Panel, Point, Series
from midcourse.report.shape import ShapeLine
from midcourse.report.tables import rl_table, windows
from midcourse.table import Table, share


@dataclass(frozen=True, slots=True)
class Arm:
    """One line of Table 4: a recipe and which of its models."""

    name: str
    recipe: str
    model: str
    paper: str
    """The paper's average and training reward, per cent."""

    @property
    def has_rl(self) -> bool:
        """Whether this model was trained by RL."""
        return "RL" in self.model


ARMS = (
    Arm("base", "int", "base", "21.17; 5.53"),
    Arm("RL", "int", "base + RL", "28.26; 13.47"),
    Arm("hint-guided RL", "hint-rl", "base + RL", "28.56; 23.06"),
    Arm("SFT on references + RL", "sft-reference", "patched + RL", "20.76; 19.07"),
    Arm("SFT on self-reflections + RL", "sft-self-reflection", "patched + RL", "27.60; 23.19"),
    Arm("distillation + RL", "sft-distillation", "patched + RL", "not run"),
    Arm("Step-DPO + RL", "step-dpo", "patched + RL", "not run"),
    Arm("InT, no RL", "int", "patched", "not run"),
    Arm("InT + RL", "int", "patched + RL", "33.72; 28.83"),
)
BEST = "InT + RL"
#: On hard problems alone: a second run, whose outcome is near to settled by that choice.
HARD_ARMS = (
    Arm("RL, hard problems only", "hard-only", "base + RL", "–"),
    Arm("InT + RL, hard problems only", "hard-only", "patched + RL", "–"),
)


def arm_counts(bench: Bench, arm: Arm, eval_set: str) -> dict[str, list[Count]]:
    """Return one arm's pooled counts on an evaluation set."""
    return pool(bench.read(arm.recipe, lambda p: evaluation_counts(p, arm.model, eval_set)))


def _groups(bench: Bench, arms: Sequence[Arm]) -> dict[str, list[list[GroupCount]]]:
    """Return, by arm with RL, the groups of each seed."""
    return {
        arm.name: bench.read(arm.recipe, lambda p, arm=arm: group_counts(p, arm.model))  # type: ignore[misc]
        for arm in arms
        if arm.has_rl
    }


def arm_groups(bench: Bench, arms: Sequence[Arm]) -> dict[str, list[GroupCount]]:
    """Return the groups of each arm, all seeds joined."""
    found = _groups(bench, arms)
    return {arm: [group for run in runs for group in run] for arm, runs in found.items()}


def _by_problem(groups: Sequence[GroupCount]) -> dict[str, list[Count]]:
    found: dict[str, list[Count]] = {}
    for group in groups:
        count = Count(group.num_correct + group.num_incorrect, group.num_correct)
        found.setdefault(group.problem_id, []).append(count)
    return found


def _none_correct(counts: Sequence[Count]) -> float:
    return group_shares(counts).none_correct


def _table4(bench: Bench) -> Result:
    ks = (1, 8)
    held_out = {arm.name: arm_counts(bench, arm, "held_out") for arm in ARMS}
    known = {arm.name: arm_counts(bench, arm, "known") for arm in ARMS if _has_probe(bench)}
    rewards = {
        arm: [final_reward(run) for run in runs] for arm, runs in _groups(bench, ARMS).items()
    }
    rows = []
    for arm in ARMS:
        passed = [estimate(passes(held_out[arm.name], k), mean) for k in ks]
        cells = [share(interval, 1) for interval in passed]
        cells.append(share(estimate(known[arm.name], accuracy), 1) if known else "–")
        reward = 100 * fmean(rewards[arm.name]) if arm.name in rewards else None
        values = [100 * interval.estimate for interval in passed]
        average = fmean([*values, *([] if reward is None else [reward])])
        cells += ["–" if reward is None else f"{reward:.1f}", f"{average:.1f}"]
        rows.append((arm.name, arm.paper, *cells))
    columns = ("model", "paper: average; training reward", "held out pass@1 %",
               "held out pass@8 %", "known notions pass@1 %", "training reward %",
               "average")  # fmt: skip
    note = (
        "Training reward: last iteration, exponential moving average (0.9). The average mixes "
        "pass@1, pass@8 and, where there is one, the training reward, as the paper's does: it "
        "is no estimate of anything. Intervals: 95 % bootstrap over problems."
    )
    table = Table("Table 4: models after RL", columns, tuple(rows), note)
    return Result(tables=(table,), claims=tuple(_table4_claims(held_out, known)))


def _has_probe(bench: Bench) -> bool:
    """Whether the scale's problems come with a probe of known notions: the lab's do."""
    return bench.recipe("int", bench.seeds[0]).problems.kind == "lab"


def _table4_claims(
    held_out: Mapping[str, dict[str, list[Count]]], known: Mapping[str, dict[str, list[Count]]]
) -> list[ShapeLine]:
    best = held_out[BEST]
    claims = []
    for arm in ARMS:
        if arm.name != BEST:
            for k in (1, 8):
                words = f"{BEST} above {arm.name}, pass@{k} on held-out problems"
                claims.append(more(words, passes(best, k), passes(held_out[arm.name], k), mean))
    if known:
        cost = more("the patch costs accuracy on known notions", known["base"],
                    known["InT, no RL"], accuracy)  # fmt: skip
        claims.append(replace(cost, claim="our own: " + cost.claim))
    return claims


def _table3(bench: Bench) -> Result:
    """Only the base and InT + RL: the other models of Table 3 are not ours to train."""
    papers = {"base": "11.68 %", BEST: "25.62 %"}
    arms = [arm for arm in ARMS if arm.name in papers]
    counts = {arm.name: arm_counts(bench, arm, "held_out") for arm in arms}
    rows = tuple(
        (name, papers[name], share(estimate(passes(found, 1), mean), 1), str(len(flat(found))))
        for name, found in counts.items()
    )
    columns = ("model", "paper: IMO-AnswerBench", "held out pass@1 %", "problems")
    note = "The paper's other rows are foreign models. 95 % bootstrap over problems."
    claim = more_accurate("InT + RL above the base", counts[BEST], counts["base"])
    return Result(tables=(Table("Table 3: one benchmark", columns, rows, note),), claims=(claim,))


#: Read off the published plot at iteration 400 (spec §3).
PAPER_FIGURE_11 = (
    "Paper, at iteration 400, reward and zero-advantage ratio: InT 29 and 42 %, self-reflections "
    "26 and 45 %, references 22 and 45 %, RL 14 and 65 %."
)


def _figure11(bench: Bench) -> Result:
    arms = arm_groups(bench, ARMS)
    hard = arm_groups(bench, HARD_ARMS)
    claims = []
    for arm, groups in arms.items():
        if arm != BEST:
            claims += _against(arm, BEST, groups, arms[BEST])
    theirs, ours = hard
    claims += _against(theirs, ours, hard[theirs], hard[ours])
    table, table_2 = rl_table(arms), rl_table(hard)
    tables = (
        replace(table, title="Figure 11: " + table.title,
                note=f"{table.note} {PAPER_FIGURE_11}"),
        replace(table_2, title=table_2.title + ", hard problems only"),
    )  # fmt: skip
    figure = Figure("fig11", course_panels(arms))
    return Result(tables=tables, claims=tuple(claims), figure=figure)


def course_panels(arms: dict[str, list[GroupCount]]) -> tuple[Panel, Panel]:
    """Return training reward and zero-advantage ratio over RL."""
    return (
        replace(arm_panel(arms, "mean reward, %", accuracy), title="training reward"),
        replace(arm_panel(arms, "groups with none correct, %", _none_correct),
                title="zero-advantage ratio"),
    )  # fmt: skip


def _against(
    arm: str, best: str, theirs: Sequence[GroupCount], ours: Sequence[GroupCount]
) -> list[ShapeLine]:
    """Compare all of RL, and its last window, with another arm."""
    last = windows(ours)[-1][0]
    end_ours, end_theirs = (
        _by_problem([group for group in groups if group.iteration >= last])
        for groups in (ours, theirs)
    )
    return [
        more(f"zero-advantage ratio of {arm} above {best}, all of RL", _by_problem(theirs),
             _by_problem(ours), _none_correct),
        more(f"zero-advantage ratio of {arm} above {best}, last window", end_theirs, end_ours,
             _none_correct),
        more_accurate(f"reward of {best} above {arm}, last window", end_ours, end_theirs),
    ]  # fmt: skip


#: The three initialisations of Fig. 12.
COURSES = {"InT + RL": "int", "SFT on references + RL": "sft-reference", "RL": "int"}


def _course(pipeline: Pipeline, role: str) -> dict[int, dict[str, Count]]:
    """Return counts on held-out problems by RL iteration."""
    label = pipeline.in_role(role).label
    models = pipeline.rl_course(label)
    return {step: model_counts(pipeline, model, "held_out") for step, model in models.items()}


def course_figure(
    bench: Bench, name: str, arms: Sequence[Arm], ks: Sequence[int]
) -> tuple[Figure, Table, dict[str, dict[int, dict[str, list[Count]]]]]:
    """Return pass@k on held-out problems over RL, as a figure and a table, and the counts."""
    courses: dict[str, dict[int, dict[str, list[Count]]]] = {}
    for arm in arms:
        seeds = bench.read(arm.recipe, lambda p, arm=arm: _course(p, arm.model))  # type: ignore[misc]
        courses[arm.name] = {step: pool(seed[step] for seed in seeds) for step in seeds[0]}
    panels, rows = [], []
    for k in ks:
        series = []
        for arm_name, course in courses.items():
            points = [
                Point(step, percent(estimate(passes(counts, k), mean, 500)), len(counts))
                for step, counts in course.items()
            ]
            series.append(Series(arm_name, tuple(points)))
            rows += [(arm_name, str(k), f"{p.x:g}", share(_shares(p.y), 1)) for p in points]
        panels.append(
            Panel(title=f"k = {k}", x_label="RL iteration", y_label=f"pass@{k}, %",
                  series=tuple(series))
        )  # fmt: skip
    columns = ("model", "k", "RL iteration", "pass@k %")
    note = "Held-out problems; unbiased estimates; 95 % bootstrap over problems."
    table = Table("pass@k over RL iterations", columns, tuple(rows), note)
    return Figure(name, tuple(panels)), table, courses


def _shares(interval: Interval) -> Interval:
    return Interval(interval.estimate / 100, interval.low / 100, interval.high / 100)


def _figure12(bench: Bench) -> Result:
    arms = [arm for arm in ARMS if arm.name in COURSES]
    ks = (1, 8)
    figure, table, courses = course_figure(bench, "fig12", arms, ks)
    claims = []
    for name, course in courses.items():
        if name != BEST:
            for k in ks:
                ours, theirs = (passes(c[max(c)], k) for c in (courses[BEST], course))
                claims.append(more(f"{BEST} above {name} at the end, pass@{k}", ours, theirs, mean))
    best = courses[BEST]
    first, last = (passes(best[step], 1) for step in (0, max(best)))
    claims.append(more("RL raises pass@1 of the patched model", last, first, mean))
    return Result(tables=(table,), claims=tuple(claims), figure=figure)


def _recipes(of: Callable[[Arm], bool]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(arm.recipe for arm in ARMS if of(arm)))


TABLE_3 = Experiment(name="table3", title="Table 3: one benchmark", recipes=("int",), make=_table3)
TABLE_4 = Experiment(
    name="table4", title="Table 4: models after RL", recipes=_recipes(lambda _: True), make=_table4
)
FIGURE_11 = Experiment(
    name="fig11", title="Figure 11: reward and zero-advantage ratio during RL",
    recipes=(*_recipes(lambda arm: arm.has_rl), "hard-only"), make=_figure11,
)  # fmt: skip
FIGURE_12 = Experiment(
    name="fig12", title="Figure 12: pass@k during RL",
    recipes=tuple(dict.fromkeys(COURSES.values())), make=_figure12,
)  # fmt: skip
