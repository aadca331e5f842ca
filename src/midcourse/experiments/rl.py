"""Reinforcement learning from differently prepared models: Tables 3, 4 and 8, Figs 11, 12, 19, 20.

All arms train on the same problems for the same number of iterations. Table 4's average mixes
pass@1, pass@8 and the training reward; ours does the same over our columns and says so. In
Appendix G (Table 8, Figs 19 and 20: a stronger proposer, against distilling it) InT's RL sees only
the problems of verified interventions; its two baselines see all training problems, as in the
paper: the comparison favours them in data. Beyond the paper: ``zero-advantage``, where the drop of
that ratio comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import NamedTuple

from midcourse.experiments import estimates, readings, results
from midcourse.experiments.estimates import Clusters, Counts, each, flat, grouped, more, pass_more
from midcourse.experiments.readings import BASE, BASE_RL, PATCHED, PATCHED_RL, final_reward
from midcourse.experiments.results import Experiment, Result, above_others, num_items, pass_cell
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import accuracy, count_of, mean
from midcourse.pipeline import Method, Session
from midcourse.records import GroupCount, Role
from midcourse.report.figures import arm_panel, panel, zero_advantage_panel
from midcourse.report.plots import Panel
from midcourse.report.shape import ShapeLine
from midcourse.report.tables import none_correct, rl_table, windows
from midcourse.table import Table, share


class Arm(NamedTuple):
    """One line of Table 4: which model of a recipe, and the paper's figures of it, per cent."""

    recipe: str
    role: Role
    paper: str = "–"


ARMS = {
    "base": Arm("int", BASE, "21.17; 5.53"),
    "RL": Arm("int", BASE_RL, "28.26; 13.47"),
    "hint-guided RL": Arm("hint-rl", BASE_RL, "28.56; 23.06"),
    "SFT on references + RL": Arm("sft-reference", PATCHED_RL, "20.76; 19.07"),
    "SFT on self-reflections + RL": Arm("sft-self-reflection", PATCHED_RL, "27.60; 23.19"),
    "distillation + RL": Arm("sft-distillation", PATCHED_RL, "not run"),
    "Step-DPO + RL": Arm("step-dpo", PATCHED_RL, "not run"),
    "InT, no RL": Arm("int", PATCHED, "not run"),
    "InT + RL": Arm("int", PATCHED_RL, "33.72; 28.83"),
}
BEST = "InT + RL"
#: On hard problems alone: a second run, whose outcome is near to settled by that choice.
HARD_ARMS = {
    "RL, hard problems only": Arm("hard-only", BASE_RL),
    "InT + RL, hard problems only": Arm("hard-only", PATCHED_RL),
}
#: Of Appendix G; the paper's figures are the average and pass@8 on a hard test.
ARMS_G = {
    "RL": Arm("appendix-g-rl", BASE_RL, "27.73; 15.85"),
    "distillation + RL": Arm("appendix-g-distillation", PATCHED_RL, "27.38; 14.8"),
    BEST: Arm("appendix-g", PATCHED_RL, "29.65; 23.56"),
}
Arms = Mapping[str, Arm]
Groups = dict[str, list[GroupCount]]
Courses = dict[str, dict[int, Counts]]
KS = (1, 8)
ABOVE = f"{BEST} above {{other}}, pass@{{k}} on held-out problems"


def _recipes(arms: Arms) -> tuple[str, ...]:
    return tuple(dict.fromkeys(arm.recipe for arm in arms.values()))


def _evaluated(runner: ExperimentRunner, arms: Arms) -> tuple[dict[str, Counts], dict[str, Counts]]:
    """Return the counts of all arms on held-out problems, and on the lab's known notions."""
    models = {name: (arm.recipe, arm.role) for name, arm in arms.items()}
    eval_sets = ("held_out", "known") if runner.is_lab else ("held_out",)
    found = readings.evaluated(runner, models, *eval_sets)
    return found["held_out"], found.get("known", {})


def _groups(runner: ExperimentRunner, arms: Arms) -> dict[str, list[list[GroupCount]]]:
    """Return, by arm with RL, the groups of each seed."""
    groups = readings.group_counts
    trained = {name: arm for name, arm in arms.items() if arm.role.rl}
    return runner.read_all(
        {name: (arm.recipe, partial(groups, role=arm.role)) for name, arm in trained.items()}
    )


def _joined(runs: Mapping[str, Sequence[Sequence[GroupCount]]]) -> Groups:
    return {name: [group for run in seeds for group in run] for name, seeds in runs.items()}


# --- Tables 3, 4 and 8 -------------------------------------------------------------------------


def _table3(runner: ExperimentRunner) -> Result:
    # The other models of Table 3 are not ours to train.
    papers = {"base": "11.68 %", BEST: "25.62 %"}
    models = {name: (ARMS[name].recipe, ARMS[name].role) for name in papers}
    counts = readings.evaluated(runner, models, "held_out")["held_out"]
    rows = [
        {
            "model": name,
            "paper: IMO-AnswerBench": papers[name],
            "held out pass@1 %": pass_cell(found, 1),
            "problems": str(num_items(found)),
        }
        for name, found in counts.items()
    ]
    note = "The paper's other rows are foreign models. 95 % bootstrap over problems."
    table = results.named_table("Table 3: one benchmark", rows, note)
    claim = estimates.more_accurate("InT + RL above the base", counts[BEST], counts["base"])
    return Result(tables=[table], claims=[claim])


NOTE_4 = (
    "Training reward: last iteration, exponential moving average (0.9). The average mixes "
    "pass@1, pass@8 and, where there is one, the training reward, as the paper's does: it "
    "is no estimate of anything. Intervals: 95 % bootstrap over problems."
)


def _table4(runner: ExperimentRunner) -> Result:
    held_out, known = _evaluated(runner, ARMS)
    runs = _groups(runner, ARMS)
    rows = []
    for name, counts in held_out.items():
        reward = [100 * fmean(map(final_reward, runs[name]))] if name in runs else []
        passed = [100 * mean(flat(estimates.passes(counts, k))) for k in KS]
        rows.append(
            {
                "model": name,
                "paper: average; training reward": ARMS[name].paper,
                **{f"held out pass@{k} %": pass_cell(counts, k) for k in KS},
                "known notions pass@1 %": _accuracy(known.get(name)),
                "training reward %": f"{reward[0]:.1f}" if reward else "–",
                "average": f"{fmean([*passed, *reward]):.1f}",
            }
        )
    claims = above_others(ABOVE, BEST, held_out, KS)
    if known:
        words = "our own: the patch costs accuracy on known notions"
        claims.append(more(words, known["base"], known["InT, no RL"], accuracy))
    table = results.named_table("Table 4: models after RL", rows, NOTE_4)
    return Result(tables=[table], claims=claims)


def _accuracy(counts: Counts | None) -> str:
    return share(estimates.estimate(counts, accuracy), 1) if counts else "–"


def _num_rl_problems(session: Session, method: Method) -> int:
    return len(method.models.rl_problems.read(session))


def _table8(runner: ExperimentRunner) -> Result:
    held_out, known = _evaluated(runner, ARMS_G)
    sizes = runner.read_all({name: (a.recipe, _num_rl_problems) for name, a in ARMS_G.items()})
    rows = [
        {
            "model": name,
            "paper: average; hard test pass@8": ARMS_G[name].paper,
            "RL problems, by seed": "/".join(map(str, sizes[name])),
            "known notions pass@1 %": _accuracy(known.get(name)),
            **{f"held out pass@{k} %": pass_cell(counts, k) for k in KS},
            "problems": str(num_items(counts)),
        }
        for name, counts in held_out.items()
    ]
    note = "The paper's columns are seven benchmarks; ours two sets. 95 % bootstrap over problems."
    table = results.named_table("Table 8: after RL, with a stronger proposer", rows, note)
    return Result(tables=[table], claims=above_others(ABOVE, BEST, held_out, KS))


# --- Figure 11 ---------------------------------------------------------------------------------

#: Read off the published plot at iteration 400; the paper gives no table of these numbers.
PAPER_FIGURE_11 = (
    "Paper, at iteration 400, reward and zero-advantage ratio: InT 29 and 42 %, self-reflections "
    "26 and 45 %, references 22 and 45 %, RL 14 and 65 %."
)


def _figure11(runner: ExperimentRunner) -> Result:
    found = _joined(_groups(runner, ARMS | HARD_ARMS))
    hard = {name: found.pop(name) for name in HARD_ARMS}
    claims = [line for name in found if name != BEST for line in _against(name, BEST, found)]
    hard_rl, hard_int = hard
    claims += _against(hard_rl, hard_int, hard)
    table, hard_table = rl_table(found), rl_table(hard)
    tables = [
        replace(table, title=f"Figure 11: {table.title}", note=f"{table.note} {PAPER_FIGURE_11}"),
        replace(hard_table, title=f"{hard_table.title}, hard problems only"),
    ]
    return Result(tables=tables, claims=claims, panels=_reward_and_ratio(found))


def _reward_and_ratio(arms: Groups) -> list[Panel]:
    reward = arm_panel(arms, "mean reward, %", accuracy, "training reward")
    return [reward, zero_advantage_panel(arms, "zero-advantage ratio")]


def _against(arm: str, best: str, groups: Groups) -> list[ShapeLine]:
    """Compare all of RL, and its last window, with another arm."""
    last = windows(groups[best])[-1][0]
    theirs, ours, end_theirs, end_ours = (
        grouped((g.problem_id, count_of(g)) for g in groups[name] if g.iteration >= first)
        for first in (0, last)
        for name in (arm, best)
    )
    ratio = f"zero-advantage ratio of {arm} above {best}"
    return [
        more(f"{ratio}, all of RL", theirs, ours, none_correct),
        more(f"{ratio}, last window", end_theirs, end_ours, none_correct),
        estimates.more_accurate(f"reward of {best} above {arm}, last window", end_ours, end_theirs),
    ]


# --- pass@k along RL: Figures 12, 19 and 20 ----------------------------------------------------

#: The initialisations of Fig. 12.
ARMS_OF_FIGURE_12 = {name: ARMS[name] for name in ("RL", "SFT on references + RL", BEST)}


def _courses(runner: ExperimentRunner, arms: Arms) -> tuple[Courses, dict[str, Counts]]:
    """Return the counts on held-out problems by arm and iteration, seeds pooled; and the last."""
    course = readings.course_counts
    wanted = {name: (arm.recipe, partial(course, role=arm.role)) for name, arm in arms.items()}
    courses: Courses = {
        name: {step: estimates.pool(seed[step] for seed in seeds) for step in seeds[0]}
        for name, seeds in runner.read_all(wanted).items()
    }
    return courses, {name: course[max(course)] for name, course in courses.items()}


def _shown(courses: Courses, ks: Sequence[int]) -> tuple[Table, list[Panel]]:
    """Return pass@k along RL as a table and a panel for each k."""
    y = partial(estimates.estimate, statistic=mean, num_resamples=500)
    rows, panels = [], []
    for k in ks:
        curves = {
            name: {step: estimates.passes(counts, k) for step, counts in course.items()}
            for name, course in courses.items()
        }
        rows += [
            (name, str(k), str(step), share(y(values), 1))
            for name, curve in curves.items()
            for step, values in curve.items()
        ]
        panels.append(panel(curves, y, ("RL iteration", f"pass@{k}, %"), title=f"k = {k}"))
    note = "Held-out problems; unbiased estimates; 95 % bootstrap over problems."
    columns = ("model", "k", "RL iteration", "pass@k %")
    return Table("pass@k over RL iterations", columns, tuple(rows), note), panels


def _figure12(runner: ExperimentRunner) -> Result:
    courses, ends = _courses(runner, ARMS_OF_FIGURE_12)
    claims = above_others(f"{BEST} above {{other}} at the end, pass@{{k}}", BEST, ends, KS)
    rises = "RL raises pass@1 of the patched model"
    claims.append(pass_more(rises, ends[BEST], courses[BEST][0], 1))
    table, panels = _shown(courses, KS)
    return Result(tables=[table], claims=claims, panels=panels)


def _figure19(runner: ExperimentRunner) -> Result:
    courses, ends = _courses(runner, ARMS_G)
    claims = [
        pass_more(f"RL raises pass@{k} from its start: {name}", ends[name], course[0], k)
        for name, course in courses.items()
        for k in KS
    ]
    table, panels = _shown(courses, KS)
    return Result(tables=[table], claims=claims, panels=panels)


def _figure20(runner: ExperimentRunner) -> Result:
    groups = _joined(_groups(runner, ARMS_G))
    courses, ends = _courses(runner, ARMS_G)
    other = "distillation + RL"
    ours, distilled, distillation = ends[BEST], ends[other], courses[other][0]
    above = f"{BEST} ends above {{}}, held-out pass@1"
    claims = [
        pass_more(above.format("RL"), ours, ends["RL"], 1),
        pass_more(f"{BEST} rises, held-out pass@1", ours, courses[BEST][0], 1),
        pass_more("RL after distillation lowers held-out pass@1", distillation, distilled, 1),
        pass_more(above.format(other), ours, distilled, 1),
    ]
    reward, ratio = _reward_and_ratio(groups)
    table, (middle,) = _shown(courses, (1,))
    panels = [reward, replace(middle, title="held-out problems"), ratio]
    return Result(tables=[rl_table(groups), table], claims=claims, panels=panels)


# --- beyond the paper: where the drop of the zero-advantage ratio comes from -------------------


def _drops(session: Session, method: Method) -> Clusters[tuple[bool, float, float]]:
    """Return, of problems that both RL runs met, whether hard, and the ratio in either run.

    A hard one was never solved by the base: what is gained is newly solvable.
    """
    hard = {problem.problem_id for problem in method.hard.read(session)}
    before, after = (
        _ratio_by_problem(readings.group_counts(session, method, role))
        for role in (BASE_RL, PATCHED_RL)
    )
    both = sorted(before.keys() & after.keys())
    return {p: [(p in hard, before[p], after[p])] for p in both}


def _ratio_by_problem(groups: Sequence[GroupCount]) -> dict[str, float]:
    """Return the share of each problem's graded groups without a correct rollout."""
    counts = grouped((group.problem_id, count_of(group)) for group in groups)
    graded = estimates.only(counts, lambda count: count.num_samples > 0)
    return {problem_id: none_correct(found) for problem_id, found in graded.items()}


def _zero_advantage(runner: ExperimentRunner) -> Result:
    drops = estimates.pool(runner.read("int", _drops))
    new = each(drops, lambda d: (d[1] - d[2]) * d[0])
    old = each(drops, lambda d: (d[1] - d[2]) * (not d[0]))
    rows = []
    for name, is_hard, values in (
        ("newly solvable: pass@k = 0 under the base", True, new),
        ("solvable before: more variance", False, old),
    ):
        members = [d for d in flat(drops) if d[0] is is_hard]
        rows.append(
            {
                "problems": name,
                "number": str(len(members)),
                "ratio in RL from the base, %": f"{100 * mean([d[1] for d in members]):.1f}",
                "from the patched model, %": f"{100 * mean([d[2] for d in members]):.1f}",
                "contribution to the drop, points": results.mean_cell(values),
            }
        )
    note = (
        "Mean over problems that both runs met, all iterations; the contributions add up to the "
        "whole drop. 95 % bootstrap over problems."
    )
    title = "Where the drop of the zero-advantage ratio comes from"
    claim = more("most of the drop comes from newly solvable problems", new, old, mean)
    return Result(tables=[results.named_table(title, rows, note)], claims=[claim])


DURING = "Figure 11: reward and zero-advantage ratio during RL"
STRONGER = "Figure 19: pass@k during RL, stronger proposer"
EXPERIMENTS = (
    Experiment("table3", "Table 3: one benchmark", _table3),
    Experiment("table4", "Table 4: models after RL", _table4, _recipes(ARMS)),
    Experiment("table8", "Table 8: a stronger proposer, after RL", _table8, _recipes(ARMS_G)),
    Experiment("fig11", DURING, _figure11, _recipes(ARMS | HARD_ARMS)),
    Experiment("fig12", "Figure 12: pass@k during RL", _figure12, _recipes(ARMS_OF_FIGURE_12)),
    Experiment("fig19", STRONGER, _figure19, _recipes(ARMS_G)),
    Experiment("fig20", "Figure 20: InT against distillation", _figure20, _recipes(ARMS_G)),
    Experiment("zero-advantage", "Beyond: newly solvable, or new variance?", _zero_advantage),
)
