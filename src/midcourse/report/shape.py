"""Do the models of this run have the paper's shape? One line each, with the figures it rests on.

The unit is a problem, so that a line is about these models: another run of the same recipe may have
others. A claim about training needs runs (`midcourse.report.runs`).

Only runs that the paper's expectations are about are asked: those of its own problems and model,
and the lab's. "does not hold" and "cannot tell" are results as good as "holds": they are printed
the same way. Every line rests on an interval; nothing is said from one number against another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from midcourse.config import Recipe, load_recipe
from midcourse.metrics import Count, Interval, accuracy, bootstrap, count_of, mean
from midcourse.records import Condition, GroupCount
from midcourse.report.estimates import (
    MARGIN,
    Counts,
    ShapeLine,
    by_place,
    covered,
    grouped,
    mean_difference,
    more,
    more_accurate,
    passed,
    passes,
)
from midcourse.report.figures import usable_ks
from midcourse.report.tables import WINDOW, none_correct, windows
from midcourse.table import share

#: What stands above the lines, and what they are about.
SHAPE_TITLE = "The paper's shape, in this run's models"
SHAPE_NOTE = "About these models alone; a claim about training needs runs: docs/results/claims.md"


def is_of_paper(recipe: Recipe) -> bool:
    """Whether a recipe is about the paper's problems and base model, or about the lab's."""
    if recipe.problems.kind == "lab":
        return True
    theirs = load_recipe("paper/int", overlays=["scale/paper"])
    return recipe.problems == theirs.problems and recipe.model.path == theirs.model.path


def shape_lines(
    conditions: Mapping[Condition, Sequence[Count]],
    evaluations: Mapping[str, Mapping[str, Sequence[Count]]],
    arms: Mapping[str, Sequence[GroupCount]],
    ks: Mapping[str, Sequence[int]],
) -> list[ShapeLine]:
    """Return a line for every expectation that the inputs allow to check."""
    usable = {name: usable_ks(models.values(), ks[name]) for name, models in evaluations.items()}
    # Where a problem has no graded rollout there is no pass@k of the set.
    held_out, known, control = (
        {name: by_place(counts) for name, counts in evaluations[eval_set].items()}
        if usable.get(eval_set)
        else {}
        for eval_set in ("held_out", "known", "control")
    )
    given = {condition: by_place(counts) for condition, counts in conditions.items()}
    sft, rl = ("base", "patched"), ("base + RL", "patched + RL")
    steps = (Condition.PREFIX_ERROR, Condition.PREFIX_INTERVENTION)
    checks: list[_Check] = [
        (given, steps, _intervention_lines),
        (held_out, sft, partial(_pass_lines, ks=usable.get("held_out", ()))),
        (known, sft, _cost_lines),
        (control, sft, _control_lines),
        (arms, rl, _rl_lines),
        (held_out, rl, _rl_pass_lines),
    ]
    return [
        line
        for found, (before, after), lines in checks
        if before in found and after in found
        for line in lines(found[before], found[after])
    ]


_Check = tuple[Mapping[Any, Any], tuple[str, str], Callable[[Any, Any], list[ShapeLine]]]
"""What was counted, the two sides of a comparison, and what is said of them."""


def _intervention_lines(theirs: Counts, ours: Counts) -> list[ShapeLine]:
    ratio = more_accurate("intervention ≥ 10 × original step in accuracy", ours, theirs, 10)
    wider = more("intervention covers more problems", covered(ours), covered(theirs), accuracy)
    return [ratio, wider]


def _pass_lines(base: Counts, patched: Counts, ks: Sequence[int]) -> list[ShapeLine]:
    gains = {k: mean_difference(passes(patched, k), passes(base, k)) for k in ks}
    figures = ", ".join(f"@{k} {points(gain)}" for k, gain in gains.items())
    claim = "patched above base at every k on held-out problems"
    return [ShapeLine(claim, _all_above(gains.values()), f"gain {figures} points")]


def _all_above(gains: Iterable[Interval]) -> bool | None:
    """Return whether all lie above zero; False if one lies below."""
    found = list(gains)
    if any(gain.high < 0 for gain in found):
        return False
    return True if all(gain.low > 0 for gain in found) else None


def points(gain: Interval) -> str:
    """Return a difference of shares in points, ``+3.9 [+0.4, +8.2]``."""
    middle, low, high = (f"{100 * x:+.1f}" for x in (gain.estimate, gain.low, gain.high))
    return f"{middle} [{low}, {high}]"


def _cost_lines(base: Counts, patched: Counts) -> list[ShapeLine]:
    change = mean_difference(passes(patched, 1), passes(base, 1))
    holds = True if change.low >= -MARGIN else False if change.high < -MARGIN else None
    claim = f"the patch costs at most {100 * MARGIN:.0f} points on known notions"
    return [ShapeLine(claim, holds, f"{_both(base, patched)}, change {points(change)} points")]


def _both(base: Counts, patched: Counts) -> str:
    before, after = (100 * passed(counts, 1).estimate for counts in (base, patched))
    return f"pass@1 {before:.1f} → {after:.1f} %"


def _control_lines(base: Counts, patched: Counts) -> list[ShapeLine]:
    """Nothing is gained if the whole interval lies within the margin, not if it holds zero."""
    gain = mean_difference(passes(patched, 1), passes(base, 1))
    is_within = gain.low > -MARGIN and gain.high < MARGIN
    holds = True if is_within else False if gain.low > MARGIN or gain.high < -MARGIN else None
    claim = f"a notion that was never patched gains nothing (within {100 * MARGIN:.0f} points)"
    return [ShapeLine(claim, holds, f"{_both(base, patched)}, gain {points(gain)} points")]


def group_clusters(groups: Iterable[GroupCount]) -> dict[str, list[Count]]:
    """Return the graded groups of RL by problem: groups of one hang together."""
    return grouped((group.problem_id, count_of(group)) for group in groups)


def by_window(groups: Sequence[GroupCount]) -> dict[int, dict[str, list[Count]]]:
    """Return the groups of every `WINDOW` iterations by problem, by the first iteration."""
    members = grouped((g.iteration - g.iteration % WINDOW, g) for g in groups)
    return {first: group_clusters(found) for first, found in sorted(members.items())}


def _rl_lines(base: Sequence[GroupCount], patched: Sequence[GroupCount]) -> list[ShapeLine]:
    theirs, ours = by_window(base), by_window(patched)
    both = [first for first in ours if first in theirs]
    lower = [more("", theirs[first], ours[first], none_correct) for first in both]
    ratios = "  ".join(
        f"{100 * none_correct(b):.0f}/{100 * none_correct(a):.0f}"
        for (_, a), (_, b) in zip(windows(base), windows(patched), strict=False)
    )
    holds = [line.holds for line in lower]
    always = False if False in holds else None if None in holds else True
    lower_in = f"by its interval lower in {holds.count(True)} of {len(holds)} windows"
    claim = "zero-advantage ratio lower from the patched model in every window of RL"
    return [
        ShapeLine(claim, always, f"patched/base % by window: {ratios}; {lower_in}"),
        more(
            "reward of the patched model above the base's in the last window of RL",
            ours[both[-1]],
            theirs[both[-1]],
            accuracy,
        ),
        _start_line(bootstrap(windows(base)[0][1], accuracy)),
    ]


def _start_line(start: Interval) -> ShapeLine:
    is_inside = start.low >= 0.03 and start.high <= 0.15
    is_outside = start.high < 0.03 or start.low > 0.15
    holds = True if is_inside else False if is_outside else None
    figures = f"{share(start, 1)} % in the first window"
    return ShapeLine("the base starts RL at 3-15 % reward", holds, figures)


def _rl_pass_lines(base: Counts, patched: Counts) -> list[ShapeLine]:
    claim = "patched + RL above base + RL on held-out problems"
    return [more(claim, passes(patched, 1), passes(base, 1), mean)]
