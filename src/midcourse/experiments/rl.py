"""Reinforcement learning from differently prepared models: Tables 3, 4 and 8, Figs 11, 12, 19, 20.

All arms train on the same problems for the same number of iterations. Arms are compared at their
plateau (pass@1 on held-out problems, the mean of the checkpoints in the last two fifths) and by the
area under pass@1 along RL: where a run ends is too much a matter of chance. Tables 4 and 8 also
have a column for every benchmark of the recipe (the held-out set and those of ``evaluate.sets``) at
each of its k. In Appendix G (Table 8, Figs 19 and 20: a stronger proposer, against distilling it)
InT's RL sees only the problems of verified interventions; its two baselines see all training
problems, as in the paper: the comparison favours them in data. Beyond the paper:
``zero-advantage``, where the drop of that ratio comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from midcourse.config import HELD_OUT_SET, Recipe
from midcourse.experiments import readings, results
from midcourse.experiments.catalogue import Experiment, Measure, Row
from midcourse.experiments.data import Reading
from midcourse.experiments.readings import BASE_RL, PATCHED_RL, evaluated
from midcourse.experiments.results import (
    Maker,
    Numbers,
    Result,
    judge_runs,
    per_run,
    run_cells,
    run_panel,
    runs_passed,
)
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count, accuracy, count_of, mean
from midcourse.pipeline import Method, Session
from midcourse.records import GroupCount
from midcourse.report import estimates
from midcourse.report.estimates import Clusters, Counts, ShapeLine, Statistic, flat, grouped
from midcourse.report.plots import Panel
from midcourse.report.tables import none_correct
from midcourse.table import Table

KS = (1, 8)
#: Headings of tables: the benchmarks' columns, and what is made of several of them.
BENCHMARKS, AVERAGE, AVERAGE_PASS = "benchmarks", "the paper's average", "average pass@1 %"
PLATEAU, AREA = "plateau pass@1 %", "area under pass@1 %"
KNOWN_NOTIONS, TRAINING_REWARD = "known notions pass@1 %", "training reward %"
RL_PROBLEMS, PROBLEMS = "RL problems", "problems"
#: What else than the mean is shown by seed; of counts nothing but that.
_BY_SEED, _COUNTED = (PLATEAU, AREA), (RL_PROBLEMS, PROBLEMS)

Course = Mapping[int, Counts]
"""Held-out problems along RL, by iteration."""
Found = dict[str, Mapping[str, Numbers]]
"""By heading and model."""


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


def _num_rl_problems(session: Session, method: Method, _: Row) -> int:
    return len(method.models.rl_problems.read(session))


def _models(runner: ExperimentRunner, experiment: Experiment) -> Result:
    """Tables 3, 4 and 8: the columns that each asks for; Table 3 is about one benchmark."""
    (head,), rows = experiment.tables, experiment.rows
    columns = [Column(HELD_OUT_SET, 1)]
    if BENCHMARKS in head.columns:
        columns = columns_of(runner.recipe(rows[0].recipe, runner.seeds[0]))
    counts = evaluated(runner, rows, *dict.fromkeys(column.eval_set for column in columns))
    found: Found = {c.title: _passed(counts[c.eval_set], c.k) for c in columns}
    averaged = {title: of for title, of in found.items() if title.endswith("pass@1 %")}
    if AVERAGE_PASS in head.columns and len(averaged) > 1:
        found[AVERAGE_PASS] = _mean_of(averaged.values())
    found |= _further(runner, rows, head.columns, found)
    found[PROBLEMS] = {
        name: {seed: float(sum(len(of[name][seed]) for of in counts.values())) for seed in runs}
        for name, runs in counts[columns[0].eval_set].items()
    }
    shown = _shown(head.columns[len(rows[0].cells) + 1 :], found, columns)
    cells = [
        (row.name, *row.cells, *(c for t in shown for c in _cells(t, found[t][row.name])))
        for row in rows
    ]
    titles = [name for title in shown for name in _titles(title)]
    table = replace(head, columns=(*head.columns[: len(rows[0].cells) + 1], *titles)).table(*cells)
    return Result(tables=[table], claims=_model_claims(experiment, columns, found))


def _passed(models: Mapping[str, Mapping[int, Counts]], k: int) -> dict[str, Numbers]:
    return {name: runs_passed(runs, k) for name, runs in models.items()}


def _mean_of(parts: Iterable[Mapping[str, Numbers]]) -> dict[str, Numbers]:
    """Return the mean of several numbers of each model and run."""
    first, *others = parts
    return {
        name: {s: mean([value, *(of[name][s] for of in others)]) for s, value in runs.items()}
        for name, runs in first.items()
    }


def _further(
    runner: ExperimentRunner, rows: Sequence[Row], wanted: Iterable[str], benchmarks: Found
) -> Found:
    """Return what stands in a table next to its benchmarks, as far as it is wanted."""
    found: Found = {}
    if PLATEAU in wanted:
        courses = _courses(runner, rows)
        found[PLATEAU] = along(courses, readings.plateau)
        found[AREA] = along(courses, readings.area)
    if KNOWN_NOTIONS in wanted and runner.is_lab:
        (known,) = evaluated(runner, rows, "known").values()
        found[KNOWN_NOTIONS] = {name: per_run(runs, accuracy) for name, runs in known.items()}
    if TRAINING_REWARD in wanted:
        rewards = runner.read_rows(rows, Reading(readings.training_reward))
        parts = [of for title, of in benchmarks.items() if title != AVERAGE_PASS]
        found |= {TRAINING_REWARD: rewards, AVERAGE: _mean_of([*parts, rewards])}
    if RL_PROBLEMS in wanted:
        found[RL_PROBLEMS] = runner.read_rows(rows, Reading(_num_rl_problems))
    return found


def _shown(wanted: Iterable[str], found: Found, columns: Iterable[Column]) -> list[str]:
    """Return the headings of a table in order, of those that there is something under."""
    titles = [t for h in wanted for t in ([c.title for c in columns] if h == BENCHMARKS else [h])]
    return [title for title in titles if title in found]


def _titles(title: str) -> tuple[str, ...]:
    if title in _COUNTED:
        return (f"{title}, by seed",)
    return results.run_columns(title) if title in _BY_SEED else (title,)


def _cells(title: str, runs: Numbers) -> tuple[str, ...]:
    if title in _COUNTED:
        return ("/".join(f"{number:g}" for number in runs.values()),)
    return run_cells(runs) if title in _BY_SEED else run_cells(runs)[:1]


def _model_claims(
    experiment: Experiment, columns: Iterable[Column], found: Found
) -> list[ShapeLine]:
    """Judge the claims on held-out problems, on every benchmark at its k, on known notions."""
    plateau, known = found.get(PLATEAU, {}), found.get(KNOWN_NOTIONS, {})
    of_runs = {Measure.PLATEAU: plateau, Measure.ACCURACY: known}
    lines = judge_runs(experiment.claims, of_runs)
    for column in columns:
        if column.eval_set != HELD_OUT_SET:
            passed = {Measure.PASS_AT_K: found[column.title]}
            lines += judge_runs(experiment.claims, passed, k=column.k, on=column.eval_set)
    return lines


def _courses(
    runner: ExperimentRunner, rows: Iterable[Row]
) -> dict[str, dict[int, dict[int, Counts]]]:
    """Return held-out problems along RL by model, seed and iteration."""
    return runner.read_rows(rows, Reading(readings.course_counts))


def along(
    courses: Mapping[str, Mapping[int, Course]],
    of: Callable[[Mapping[int, float]], float],
    k: int = 1,
) -> dict[str, dict[int, float]]:
    """Return what pass@k along RL comes to, as a share, by model and seed."""
    return {
        name: {seed: of(runs_passed(course, k)) for seed, course in runs.items()}
        for name, runs in courses.items()
    }


def _during_rl(runner: ExperimentRunner, experiment: Experiment, ks: Sequence[int] = KS) -> Result:
    """Return pass@k on held-out problems along RL, by arm and iteration."""
    courses = _courses(runner, experiment.rows)
    rows, panels = [], []
    for k in ks:
        curves = {name: _curve(runs, k) for name, runs in courses.items()}
        for name, curve in curves.items():
            rows += [(name, str(k), str(step), *run_cells(of)) for step, of in curve.items()]
        panels.append(run_panel(curves, ("RL iteration", f"pass@{k}, %"), title=f"k = {k}"))
    columns = ("model", "k", "RL iteration", *results.run_columns("pass@k %"))
    note = "Held-out problems; unbiased estimates."
    table = Table("pass@k over RL iterations", columns, tuple(rows), note)
    plateau, area = along(courses, readings.plateau), along(courses, readings.area)
    starts = {f"start: {name}": of for name, of in along(courses, lambda c: c[0]).items()}
    found = {Measure.PLATEAU: plateau | starts, Measure.AREA: area}
    summary = [(name, *run_cells(plateau[name]), *run_cells(area[name])) for name in courses]
    columns = ("model", *results.run_columns(PLATEAU), *results.run_columns(AREA))
    of_runs = Table("Plateau and area", columns, tuple(summary), note)
    return Result(
        tables=[of_runs, table], claims=judge_runs(experiment.claims, found), panels=panels
    )


def _curve(runs: Mapping[int, Course], k: int) -> dict[int, Numbers]:
    """Return pass@k of each run by the iterations that every run was evaluated at."""
    passed = {seed: runs_passed(course, k) for seed, course in runs.items()}
    first, *others = passed.values()
    steps = [step for step in first if all(step in run for run in others)]
    return {step: {seed: run[step] for seed, run in passed.items()} for step in steps}


def reward_groups(session: Session, method: Method, row: Row) -> dict[int, list[tuple[int, int]]]:
    """Return (graded, correct) rollouts of every group of an RL run, by iteration."""
    groups = readings.group_counts(session, method, row.role)
    return grouped((g.iteration, (count_of(g).num_samples, g.num_correct)) for g in groups)


#: Parts of RL that rewards and groups are shown by; claims about rewards are about the last two.
_PARTS = 5
Groups = Mapping[str, Mapping[int, Mapping[int, Sequence[Count]]]]
"""By arm, seed and part of RL, from 1."""


def _groups_of(runner: ExperimentRunner, rows: Iterable[Row]) -> Groups:
    runs = runner.read_rows((row for row in rows if row.role.rl), Reading(reward_groups))
    return {
        name: {seed: _in_parts(groups) for seed, groups in by_seed.items()}
        for name, by_seed in runs.items()
    }


def _in_parts(groups: Mapping[int, Sequence[tuple[int, int]]]) -> dict[int, list[Count]]:
    number = max(groups) + 1
    return grouped(
        (1 + _PARTS * iteration // number, Count(*group))
        for iteration, members in sorted(groups.items())
        for group in members
    )


def _by_part(groups: Groups, of: Statistic[Count]) -> dict[str, dict[int, Numbers]]:
    """Return a statistic of each run's groups by arm and part of RL."""
    return {
        arm: {
            part: {seed: of(found[part]) for seed, found in runs.items() if part in found}
            for part in sorted({part for found in runs.values() for part in found})
        }
        for arm, runs in groups.items()
    }


def _from_part(groups: Groups, of: Statistic[Count], first: int) -> dict[str, Numbers]:
    """Return a statistic of each run's groups from a part of RL on."""
    return {
        arm: {
            seed: of([c for part, counts in found.items() if part >= first for c in counts])
            for seed, found in runs.items()
        }
        for arm, runs in groups.items()
    }


def _figure11(runner: ExperimentRunner, experiment: Experiment) -> Result:
    rows = [
        [r for r in experiment.rows if (r.recipe == "hard-only") is hard] for hard in (False, True)
    ]
    tables, claims, panels = [], [], list[Panel]()
    for head, chosen in zip(experiment.tables, rows, strict=True):
        groups = _groups_of(runner, chosen)
        tables.append(head.table(*_group_rows(groups)))
        found = {
            Measure.ZERO_ADVANTAGE: _from_part(groups, none_correct, 1),
            Measure.REWARD: _from_part(groups, accuracy, _PARTS - 1),
        }
        claims += judge_runs(experiment.claims, found)
        panels = panels or _reward_and_ratio(groups)
    return Result(tables=tables, claims=claims, panels=panels)


def _group_rows(groups: Groups) -> list[tuple[str, ...]]:
    reward, ratio = (_by_part(groups, of) for of in (accuracy, none_correct))
    return [
        (arm, f"{part}/{_PARTS}", *run_cells(of), *run_cells(ratio[arm][part]))
        for arm, parts in reward.items()
        for part, of in parts.items()
    ]


def _reward_and_ratio(groups: Groups) -> list[Panel]:
    shown: tuple[tuple[str, str, Statistic[Count]], ...] = (
        ("training reward", "mean reward, %", accuracy),
        ("zero-advantage ratio", "groups with none correct, %", none_correct),
    )
    return [
        run_panel(_by_part(groups, of), ("fifth of RL", label), title=title)
        for title, label, of in shown
    ]


def _figure20(runner: ExperimentRunner, experiment: Experiment) -> Result:
    groups = _groups_of(runner, experiment.rows)
    course = _during_rl(runner, experiment, (1,))
    (reward, ratio), (middle,) = _reward_and_ratio(groups), course.panels
    table = experiment.tables[0].table(*_group_rows(groups))
    panels = [reward, replace(middle, title="held-out problems"), ratio]
    return replace(course, tables=[table, *course.tables], panels=panels)


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
    drops = {seed: flat(found) for seed, found in runner.read("int", _drops).items()}
    (claim,), rows, values = experiment.claims, [], dict[str, dict[int, float]]()
    for name, is_hard in zip((claim.ours, *claim.theirs), (True, False), strict=True):
        members = {seed: [d for d in found if d[0] is is_hard] for seed, found in drops.items()}
        values[name] = {
            seed: sum(before - after for _, before, after in members[seed]) / max(1, len(found))
            for seed, found in drops.items()
        }
        ratios = (
            run_cells({seed: mean([d[run] for d in of]) for seed, of in members.items()})[0]
            for run in (1, 2)
        )
        number = "/".join(str(len(of)) for of in members.values())
        rows.append((name, number, *ratios, *run_cells(values[name])))
    table = experiment.tables[0].table(*rows)
    return Result(tables=[table], claims=judge_runs([claim], {Measure.MEAN: values}))


MAKERS: dict[str, Maker] = {
    "table3": _models,
    "table4": _models,
    "table8": _models,
    "arms": _models,
    "equal-tokens": _models,
    "fig11": _figure11,
    "fig12": _during_rl,
    "fig19": _during_rl,
    "fig20": _figure20,
    "zero-advantage": _zero_advantage,
}
