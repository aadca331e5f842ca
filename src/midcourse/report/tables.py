"""Tables of a run as plain data: built once, shown in a terminal, in HTML and as JSON.

Every figure is computed from counts handed in; a denominator stands next to each share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from midcourse.metrics import (
    Count,
    Interval,
    StoppedCount,
    count_of,
    coverage,
    group_shares,
    mean,
    wilson,
)
from midcourse.records import Condition, GroupCount, Likelihood, Verdict
from midcourse.report.estimates import accuracy_of, by_place, passed
from midcourse.table import Table, share

#: Iterations of RL that are read together.
WINDOW = 5


def funnel_table(stages: Mapping[str, Mapping[str, int]]) -> Table:
    """Build the funnel from counts by outcome; each stage's outcomes add up to its total.

    Raises ValueError if a stage's ``total`` is not the sum of its outcomes.
    """
    rows = []
    for stage, counts in stages.items():
        outcomes = {name: count for name, count in counts.items() if name != "total"}
        total = sum(outcomes.values())
        if counts.get("total", total) != total:
            raise ValueError(f"the funnel does not add up at {stage}: {dict(counts)}")
        said = " + ".join(f"{count:,} {name}" for name, count in outcomes.items())
        rows.append((stage, f"{total:,}", said or "–"))
    note = "Every count is the sum of its outcomes; nothing is dropped."
    return Table("Funnel", ("stage", "records", "outcomes"), tuple(rows), note)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedCount:
    """What became of proposals whose guided solutions the grader says the same of."""

    solutions: int
    """Fewer than proposals where several go on from one."""
    proposals: int
    accepted: int
    candidates: int
    """Those that were verified: the first accepted one of each rollout."""
    kept: int
    """Candidates with a correct continuation."""


def guided_table(guided: Mapping[Verdict, GuidedCount]) -> Table:
    """Build what became of proposals by the verdict on their guided solutions."""
    total = sum(count.solutions for count in guided.values())
    rows = [
        (
            str(verdict),
            _share_of(count.solutions, total),
            _share_of(count.accepted, count.proposals),
            _share_of(count.kept, count.candidates),
        )
        for verdict, count in guided.items()
    ]
    columns = ("guided solution", "solutions", "proposals accepted", "candidates kept")
    note = (
        "Is the reference understood at all? The solution that the proposer writes with the "
        "reference at hand, before its review. Kept: a continuation is correct."
    )
    return Table("Guided solutions", columns, tuple(rows), note)


def _share_of(number: int, of: int) -> str:
    return f"{number:,}/{of:,} = {100 * number / of:.1f} %" if of else "–"


#: Table 1 of the paper: coverage of problems, accuracy in per cent; rows 8-10 on those of the
#: problems that hints do not solve. The text calls row 8 "hint", the table "hint + prefix".
PAPER_TABLE_1 = {
    Condition.PROBLEM: ("problem only", "40/334, 0.0984"),
    Condition.PREFIX: ("+ correct prefix", "31/334, 0.0726"),
    Condition.PREFIX_ERROR: ("+ prefix + original step", "29/334, 0.0713"),
    Condition.PREFIX_INTERVENTION: ("+ prefix + intervention", "80/334, 1.56; row 9: 18/176, 3.05"),
    Condition.HINT: ("+ hint", "–"),
    Condition.HINT_PREFIX: ("+ hint + prefix", "row 8: 11/176, 2.38"),
    Condition.HINT_PREFIX_INTERVENTION: ("+ hint + prefix + intervention", "row 10: 25/176, 4.62"),
}


ACCURACY_COLUMNS = ("coverage", "correct", "accuracy %, by problem", "accuracy %, Wilson")


def accuracy_cells(counts: Sequence[Count], by_problem: Interval) -> tuple[str, ...]:
    """Return coverage, and accuracy with both intervals; one of them is given."""
    correct, samples = pooled(counts)
    solved, drawn = f"{coverage(counts)}/{len(counts)}", f"{correct:,}/{samples:,}"
    return solved, drawn, share(by_problem), share(wilson(correct, samples))


def condition_table(
    conditions: Mapping[Condition, Sequence[Count]],
    searches: Mapping[Condition, Sequence[StoppedCount]],
) -> Table:
    """Build Table 1 by condition: counts per hard problem.

    A condition that was searched has coverage alone.
    """
    rows: list[tuple[str, ...]] = []
    for condition, (name, paper) in PAPER_TABLE_1.items():
        if condition in searches:
            found = searches[condition]
            drawn = f"{sum(count.num_drawn for count in found):,} drawn"
            rows.append((name, f"{coverage(found)}/{len(found)}", drawn, "–", "–", paper))
        if condition in conditions:
            counts = conditions[condition]
            rows.append((name, *accuracy_cells(counts, accuracy_of(by_place(counts))), paper))
    columns = ("base model given", *ACCURACY_COLUMNS, "paper: coverage, %")
    note = (
        "95 % intervals: bootstrap over problems, Wilson's where none or all are correct; "
        "Wilson over samples."
    )
    return Table("Table 1: what an intervention is worth", columns, tuple(rows), note)


def pooled(counts: Sequence[Count]) -> tuple[int, int]:
    """Return correct samples and all samples over all problems."""
    return sum(count.num_correct for count in counts), sum(count.num_samples for count in counts)


def pass_at_k_table(
    results: Mapping[str, Mapping[str, Sequence[Count]]], ks: Mapping[str, Sequence[int]]
) -> list[Table]:
    """Build pass@k per evaluation set: ``results[eval set][model]`` are counts per problem.

    `ks` are each set's own. Each model is a column, each k a row; a k that some problem has too few
    samples for is left out.
    """
    tables = []
    for eval_set, models in results.items():
        smallest = min(c.num_samples for counts in models.values() for c in counts)
        rows = []
        for k in (k for k in ks[eval_set] if k <= smallest):
            cells = (share(passed(by_place(c), k, 500), 1) for c in models.values())
            rows.append((str(k), *cells))
        sizes = {(len(counts), pooled(counts)[1]) for counts in models.values()}
        of = " or ".join(f"{problems} problems, {n:,} samples" for problems, n in sorted(sizes))
        note = (
            f"{of} per model. Unbiased estimate; 95 % bootstrap over problems, Wilson's where all "
            "problems agree."
        )
        title = f"pass@k on {eval_set}, %"
        tables.append(Table(title, ("k", *models), tuple(rows), note))
    return tables


def none_correct(counts: Sequence[Count]) -> float:
    """Return the share of groups without a correct rollout, the zero-advantage ratio."""
    return group_shares(counts).none_correct


def windows(groups: Sequence[GroupCount]) -> list[tuple[int, list[Count]]]:
    """Return the graded groups of every `WINDOW` iterations, by the window's first iteration."""
    found: dict[int, list[Count]] = {}
    for group in groups:
        found.setdefault(group.iteration - group.iteration % WINDOW, []).append(count_of(group))
    return sorted(found.items())


def rl_table(arms: Mapping[str, Sequence[GroupCount]]) -> Table:
    """Build reward and the three group shares per window of iterations for each arm."""
    rows = []
    for arm, groups in arms.items():
        for first, counts in windows(groups):
            shares, reward = group_shares(counts), accuracy_of(by_place(counts), 500)
            kinds = (shares.none_correct, shares.mixed, shares.all_correct)
            cells = (f"{first + 1}-{first + WINDOW}", str(shares.num_groups), share(reward, 1))
            rows.append((arm, *cells, *(f"{100 * kind:.0f}" for kind in kinds)))
    columns = ("arm", "iterations", "groups", "reward %", "none correct %", "mixed %", "all %")
    note = (
        "The zero-advantage ratio of Fig. 11 is “none correct”. 95 % bootstrap over groups, Wilson "
        "over rollouts where none or all are correct."
    )
    return Table("RL: reward and zero-advantage ratio", columns, tuple(rows), note)


def likelihood_table(items: Sequence[Likelihood], labels: Mapping[str, str]) -> Table:
    """Build NLL, entropy and both token probabilities per model and kind of text."""
    names = ("nll", "entropy", "mean_probability", "exp_mean_logprob")
    groups: dict[tuple[str, str], list[Likelihood]] = {}
    for item in items:
        groups.setdefault((item.what, labels.get(item.model, item.model)), []).append(item)
    rows = []
    for key, members in sorted(groups.items()):
        means = (mean([getattr(item, name) for item in members]) for name in names)
        rows.append((*key, str(len(members)), *(f"{value:.3f}" for value in means)))
    measures = ("NLL, nats/token", "entropy, nats", "mean p", "exp(mean log p)")
    note = (
        "Figs 7-9: token means per text, then the mean over texts; full softmax at temperature 1."
    )
    return Table("Likelihood", ("text", "model", "texts", *measures), tuple(rows), note)
