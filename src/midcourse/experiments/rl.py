"""Tables 3 and 4, Figure 11: reinforcement learning from differently prepared models.

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
from midcourse.experiments.readings import evaluation_counts, final_reward, group_counts
from midcourse.experiments.results import Experiment, Result
from midcourse.metrics import Count, accuracy, group_shares
from midcourse.records import GroupCount
from midcourse.report.figures import arm_panel
from midcourse.report.plots import Figure
from midcourse.report.shape import ShapeLine
from midcourse.report.tables import Table, rl_table, share, windows

__all__ = ["ARMS", "FIGURE_11", "TABLE_3", "TABLE_4", "Arm"]


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
    Arm("InT, no RL", "int", "patched", "not run"),
    Arm("InT + RL", "int", "patched + RL", "33.72; 28.83"),
)
BEST = "InT + RL"


def _counts(bench: Bench, arm: Arm, eval_set: str) -> dict[str, list[Count]]:
    return pool(bench.read(arm.recipe, lambda p: evaluation_counts(p, arm.model, eval_set)))


def _groups(bench: Bench) -> dict[str, list[list[GroupCount]]]:
    """Return, by arm with RL, the groups of each seed."""
    return {
        arm.name: bench.read(arm.recipe, lambda p, arm=arm: group_counts(p, arm.model))  # type: ignore[misc]
        for arm in ARMS
        if arm.has_rl
    }


def _pooled(groups: Mapping[str, Sequence[Sequence[GroupCount]]]) -> dict[str, list[GroupCount]]:
    """Join the seeds; the same problem in two of them stays one cluster."""
    return {arm: [group for run in runs for group in run] for arm, runs in groups.items()}


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
    held_out = {arm.name: _counts(bench, arm, "held_out") for arm in ARMS}
    known = {arm.name: _counts(bench, arm, "known") for arm in ARMS if _has_probe(bench)}
    rewards = {arm: [final_reward(run) for run in runs] for arm, runs in _groups(bench).items()}
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
    counts = {arm.name: _counts(bench, arm, "held_out") for arm in arms}
    rows = tuple(
        (name, papers[name], share(estimate(passes(found, 1), mean), 1), str(len(flat(found))))
        for name, found in counts.items()
    )
    columns = ("model", "paper: IMO-AnswerBench", "held out pass@1 %", "problems")
    note = "The paper's other rows are foreign models. 95 % bootstrap over problems."
    claim = more_accurate("InT + RL above the base", counts[BEST], counts["base"])
    return Result(tables=(Table("Table 3: one benchmark", columns, rows, note),), claims=(claim,))


#: Read off the published plot at iteration 400 (spec §3).
PAPER_FIGURE_11 = "Paper, at iteration 400: reward InT 29, RL 14 %; zero-advantage InT 42, RL 65 %."


def _figure11(bench: Bench) -> Result:
    arms = _pooled(_groups(bench))
    claims = []
    for arm, groups in arms.items():
        if arm != BEST:
            claims += _against(arm, arms[BEST], groups)
    panels = (
        replace(arm_panel(arms, "mean reward, %", accuracy), title="training reward"),
        replace(arm_panel(arms, "groups with none correct, %", _none_correct),
                title="zero-advantage ratio"),
    )  # fmt: skip
    table = rl_table(arms)
    table = replace(table, note=f"{table.note} {PAPER_FIGURE_11}")
    return Result(tables=(table,), claims=tuple(claims), figure=Figure("fig11", panels))


def _against(arm: str, ours: Sequence[GroupCount], theirs: Sequence[GroupCount]) -> list[ShapeLine]:
    """Compare all of RL, and its last window, with another arm."""
    last = windows(ours)[-1][0]
    end_ours, end_theirs = (
        _by_problem([group for group in groups if group.iteration >= last])
        for groups in (ours, theirs)
    )
    return [
        more(f"zero-advantage ratio of {arm} above {BEST}, all of RL", _by_problem(theirs),
             _by_problem(ours), _none_correct),
        more(f"zero-advantage ratio of {arm} above {BEST}, last window", end_theirs, end_ours,
             _none_correct),
        more_accurate(f"reward of {BEST} above {arm}, last window", end_ours, end_theirs),
    ]  # fmt: skip


def _recipes(of: Callable[[Arm], bool]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(arm.recipe for arm in ARMS if of(arm)))


TABLE_3 = Experiment(name="table3", title="Table 3: one benchmark", recipes=("int",), make=_table3)
TABLE_4 = Experiment(
    name="table4", title="Table 4: models after RL", recipes=_recipes(lambda _: True), make=_table4
)
FIGURE_11 = Experiment(
    name="fig11", title="Figure 11: reward and zero-advantage ratio during RL",
    recipes=_recipes(lambda arm: arm.has_rl), make=_figure11,
)  # fmt: skip
