"""Reinforcement learning from differently prepared models: Tables 3, 4 and 8, Figs 11, 12, 19, 20.

All arms train on the same problems for the same number of iterations. Tables 4 and 8 have a column
for every benchmark of the recipe (the held-out set and those of ``evaluate.sets``) at each of its
k. Table 4's average mixes these with the training reward, the base's too, and says so. In Appendix
G (Table 8, Figs 19 and 20: a stronger proposer, against distilling it) InT's RL sees only
the problems of verified interventions; its two baselines see all training problems, as in the
paper: the comparison favours them in data. Beyond the paper: ``zero-advantage``, where the drop of
that ratio comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import NamedTuple

from midcourse.config import HELD_OUT_SET, Recipe
from midcourse.experiments import readings, results
from midcourse.experiments.catalogue import Experiment, Row
from midcourse.experiments.data import Reading
from midcourse.experiments.readings import BASE_RL, PATCHED_RL, evaluated
from midcourse.experiments.results import Maker, Result, judge, num_items, pass_cell
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import accuracy, count_of, mean
from midcourse.pipeline import Method, Session
from midcourse.records import GroupCount
from midcourse.report import estimates
from midcourse.report.estimates import Clusters, Counts, ShapeLine, each, flat, grouped, more
from midcourse.report.figures import arm_panel, panel, zero_advantage_panel
from midcourse.report.plots import Panel
from midcourse.report.tables import none_correct, rl_table, windows
from midcourse.table import Table, share

Groups = dict[str, list[GroupCount]]
KS = (1, 8)
#: Headings of tables: the benchmarks' columns, and what is made of several of them.
BENCHMARKS, AVERAGE, AVERAGE_PASS = "benchmarks", "average", "average pass@1 %"
KNOWN_NOTIONS = "known notions pass@1 %"
BEST = "InT + RL"


def _groups(runner: ExperimentRunner, rows: Iterable[Row]) -> dict[str, list[list[GroupCount]]]:
    """Return, by arm with RL, the groups of each seed."""
    trained = (row for row in rows if row.role.rl)
    runs = runner.read_rows(trained, Reading(_group_counts))
    return {name: list(by_seed.values()) for name, by_seed in runs.items()}


def _group_counts(session: Session, method: Method, row: Row) -> list[GroupCount]:
    return readings.group_counts(session, method, row.role)


def _joined(runs: Mapping[str, Sequence[Sequence[GroupCount]]]) -> Groups:
    return {name: [group for run in seeds for group in run] for name, seeds in runs.items()}


def _num_rl_problems(session: Session, method: Method, _: Row) -> int:
    return len(method.models.rl_problems.read(session))


class Column(NamedTuple):
    """One benchmark at one k, e.g. ``amo-bench pass@8 %``."""

    eval_set: str
    k: int

    @property
    def title(self) -> str:
        """What stands above it."""
        name = "held out" if self.eval_set == HELD_OUT_SET else self.eval_set
        return f"{name} pass@{self.k} %"


def columns_of(recipe: Recipe) -> list[Column]:
    """Return the columns of a recipe's benchmarks: each at its own k, else pass@1 and pass@8."""
    config = recipe.evaluate
    has_held_out = recipe.problems.has_held_out and config.includes(HELD_OUT_SET)
    names = [HELD_OUT_SET] * has_held_out + [*config.benchmarks]
    own = {name: of.ks for name, of in config.sets.items()}
    return [Column(name, k) for name in names for k in own.get(name) or KS]


def _rewards(runner: ExperimentRunner, rows: Iterable[Row]) -> dict[str, float]:
    """Return the training reward of every model in per cent, the mean over seeds."""
    found = runner.read_rows(rows, Reading(readings.training_reward))
    return {name: 100 * fmean(rewards.values()) for name, rewards in found.items()}


def _models(runner: ExperimentRunner, experiment: Experiment) -> Result:
    """Tables 3, 4 and 8: the columns that each asks for; Table 3 is about one benchmark."""
    (head,), rows = experiment.tables, experiment.rows
    columns = [Column(HELD_OUT_SET, 1)]
    if BENCHMARKS in head.columns:
        columns = columns_of(runner.recipe(rows[0].recipe, runner.seeds[0]))
    shows_known = KNOWN_NOTIONS in head.columns and runner.is_lab
    sets = dict.fromkeys(column.eval_set for column in columns)
    counts = evaluated(runner, rows, *sets, *["known"] * shows_known)
    known = counts.pop("known", {})
    headings = [name for name in head.columns[2:] if name != AVERAGE_PASS or len(sets) > 1]
    cells = _model_cells(runner, rows, columns, counts, known, headings)
    shown = [
        (row.name, *row.cells, *(cell for name in headings for cell in cells[name](row)))
        for row in rows
    ]
    titles = [name for h in headings for name in _titles(h, columns)]
    table = replace(head, columns=(*head.columns[:2], *titles)).table(*shown)
    return Result(tables=[table], claims=_model_claims(experiment, columns, counts, known))


def _titles(heading: str, columns: Iterable[Column]) -> list[str]:
    return [column.title for column in columns] if heading == BENCHMARKS else [heading]


def _model_cells(
    runner: ExperimentRunner,
    rows: Sequence[Row],
    columns: Sequence[Column],
    counts: Mapping[str, Mapping[str, Counts]],
    known: Mapping[str, Counts],
    headings: Iterable[str],
) -> dict[str, Callable[[Row], list[str]]]:
    """Return what stands under each heading; under ``benchmarks`` a cell for every column."""
    rewards = _rewards(runner, rows) if AVERAGE in headings else {}

    def passed(row: Row, ks: Iterable[int]) -> list[float]:
        shown = [(counts[eval_set][row.name], k) for eval_set, k in columns if k in ks]
        return [100 * mean(flat(estimates.passes(found, k))) for found, k in shown]

    return {
        BENCHMARKS: lambda row: [pass_cell(counts[name][row.name], k) for name, k in columns],
        AVERAGE_PASS: lambda row: [f"{fmean(passed(row, [1])):.1f}"],
        AVERAGE: lambda row: [
            f"{fmean([*passed(row, [k for _, k in columns]), rewards[row.name]]):.1f}"
        ],
        "held out pass@1 %": lambda row: [pass_cell(counts[HELD_OUT_SET][row.name], 1)],
        "problems": lambda row: [
            "/".join(str(num_items(of_set[row.name])) for of_set in counts.values())
        ],
        KNOWN_NOTIONS: lambda row: [
            share(estimates.estimate(known[row.name], accuracy), 1) if known else "–"
        ],
        "training reward %": lambda row: [f"{rewards[row.name]:.1f}"],
        "RL problems, by seed": lambda row: [
            "/".join(map(str, runner.read(row.recipe, _num_rl_problems).values()))
        ],
    }


def _model_claims(
    experiment: Experiment,
    columns: Sequence[Column],
    counts: Mapping[str, Mapping[str, Counts]],
    known: Mapping[str, Counts],
) -> list[ShapeLine]:
    """Judge the claims on every benchmark at its k, and those on known notions."""
    about = [claim for claim in experiment.claims if claim.only != "known"]
    claims = []
    for eval_set, found in counts.items():
        on = "held-out problems" if eval_set == HELD_OUT_SET else eval_set
        claims += judge(about, found, [c.k for c in columns if c.eval_set == eval_set], on=on)
    for claim in (c for c in experiment.claims if c.only == "known" and known):
        claims.append(more(claim.words, known[claim.ours], known[claim.theirs], accuracy))
    return claims


def _figure11(runner: ExperimentRunner, experiment: Experiment) -> Result:
    found = _joined(_groups(runner, experiment.rows))
    hard_rl, hard_int = (row.name for row in experiment.rows if row.recipe == "hard-only")
    hard = {name: found.pop(name) for name in (hard_rl, hard_int)}
    claims = [line for name in found if name != BEST for line in _against(name, BEST, found)]
    claims += _against(hard_rl, hard_int, hard)
    tables = []
    for head, groups in zip(experiment.tables, (found, hard), strict=True):
        table = rl_table(groups)
        tables.append(replace(table, title=head.title, note=table.note + head.note))
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


def _during_rl(runner: ExperimentRunner, experiment: Experiment, ks: Sequence[int] = KS) -> Result:
    """Return pass@k on held-out problems along RL, by arm and iteration, seeds pooled."""
    by_seed = runner.read_rows(experiment.rows, Reading(readings.course_counts))
    courses = {
        name: {step: estimates.pool(run[step] for run in runs.values()) for step in _steps(runs)}
        for name, runs in by_seed.items()
    }
    y = partial(estimates.estimate, statistic=mean, num_resamples=500)
    rows, panels = [], []
    for k in ks:
        curves = {
            name: {step: estimates.passes(counts, k) for step, counts in course.items()}
            for name, course in courses.items()
        }
        for name, curve in curves.items():
            rows += [(name, str(k), str(step), share(y(of), 1)) for step, of in curve.items()]
        panels.append(panel(curves, y, ("RL iteration", f"pass@{k}, %"), title=f"k = {k}"))
    note = "Held-out problems; unbiased estimates; 95 % bootstrap over problems."
    columns = ("model", "k", "RL iteration", "pass@k %")
    table = Table("pass@k over RL iterations", columns, tuple(rows), note)
    ends = {name: course[max(course)] for name, course in courses.items()}
    counts = ends | {f"start: {name}": course[0] for name, course in courses.items()}
    claims = judge(experiment.claims, counts, ks, others=ends)
    return Result(tables=[table], claims=claims, panels=panels)


def _steps(runs: Mapping[int, Mapping[int, Counts]]) -> list[int]:
    """Return the iterations that every run was evaluated at."""
    first, *others = runs.values()
    return [step for step in first if all(step in run for run in others)]


def _figure20(runner: ExperimentRunner, experiment: Experiment) -> Result:
    groups = _joined(_groups(runner, experiment.rows))
    course = _during_rl(runner, experiment, (1,))
    (reward, ratio), (middle,) = _reward_and_ratio(groups), course.panels
    panels = [reward, replace(middle, title="held-out problems"), ratio]
    return replace(course, tables=[rl_table(groups), *course.tables], panels=panels)


def _drops(session: Session, method: Method, _: Row) -> Clusters[tuple[bool, float, float]]:
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


def _zero_advantage(runner: ExperimentRunner, experiment: Experiment) -> Result:
    drops = estimates.pool(runner.read("int", _drops).values())
    (claim,), rows = experiment.claims, []
    values = {
        claim.ours: each(drops, lambda d: (d[1] - d[2]) * d[0]),
        claim.theirs: each(drops, lambda d: (d[1] - d[2]) * (not d[0])),
    }
    for name, is_hard in zip(values, (True, False), strict=True):
        members = [d for d in flat(drops) if d[0] is is_hard]
        ratios = (f"{100 * mean([d[run] for d in members]):.1f}" for run in (1, 2))
        rows.append((name, str(len(members)), *ratios, results.mean_cell(values[name])))
    table = experiment.tables[0].table(*rows)
    return Result(tables=[table], claims=judge([claim], values))


MAKERS: dict[str, Maker] = {
    "table3": _models,
    "table4": _models,
    "table8": _models,
    "fig11": _figure11,
    "fig12": _during_rl,
    "fig19": _during_rl,
    "fig20": _figure20,
    "zero-advantage": _zero_advantage,
}
