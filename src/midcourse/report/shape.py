"""Does the paper's shape hold here? One line each, computed, with the figures it rests on.

"does not hold" and "cannot tell" are results as good as "holds": they are printed the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from midcourse.metrics import (
    Count,
    accuracy,
    bootstrap,
    coverage,
    mean_pass_at_k,
    paired_difference,
    wilson,
)
from midcourse.records import Condition, GroupCount
from midcourse.report.tables import none_correct, pooled, windows
from midcourse.table import share


@dataclass(frozen=True, slots=True)
class ShapeLine:
    """One expectation, e.g. "intervention ≥ 10 × original step": holds, with figures."""

    claim: str
    holds: bool | None
    """None: the data cannot tell."""
    figures: str

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "holds", False: "does not hold", None: "cannot tell"}[self.holds]


def shape_lines(
    conditions: Mapping[Condition, Sequence[Count]],
    evaluations: Mapping[str, Mapping[str, Sequence[Count]]],
    arms: Mapping[str, Sequence[GroupCount]],
    ks: Mapping[str, Sequence[int]],
) -> list[ShapeLine]:
    """Return a line for every expectation that the inputs allow to check."""
    held_out, known, control = (
        evaluations.get(eval_set, {}) for eval_set in ("held_out", "known", "control")
    )
    sft, rl = ("base", "patched"), ("base + RL", "patched + RL")
    steps = (Condition.PREFIX_ERROR, Condition.PREFIX_INTERVENTION)
    checks: list[_Check] = [
        (conditions, steps, _intervention_lines),
        (held_out, sft, partial(_pass_lines, ks=ks.get("held_out", ()))),
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
Counts = Sequence[Count]


def _intervention_lines(theirs: Counts, ours: Counts) -> list[ShapeLine]:
    low, (correct, samples) = bootstrap(ours, accuracy).low, pooled(theirs)
    # Where nothing succeeds the bootstrap has no width: Wilson's bound is the honest one.
    high = max(bootstrap(theirs, accuracy).high, wilson(correct, samples).high)
    figures = f"at least {100 * low:.2f} % against at most {100 * high:.3f} %, n = {samples:,}"
    ratio = ShapeLine("intervention ≥ 10 × original step in accuracy", low >= 10 * high, figures)
    covered, before = coverage(ours), coverage(theirs)
    figures = f"{covered}/{len(ours)} problems against {before}/{len(theirs)}"
    return [ratio, ShapeLine("intervention covers more problems", covered > before, figures)]


def _pass_lines(base: Counts, patched: Counts, ks: Sequence[int]) -> list[ShapeLine]:
    pairs = [(k, _percent_passed(base, k), _percent_passed(patched, k)) for k in ks]
    figures = ", ".join(f"@{k} {before:.1f} → {after:.1f}" for k, before, after in pairs)
    holds = all(after > before for _, before, after in pairs)
    return [ShapeLine("patched above base at every k on held-out problems", holds, f"{figures} %")]


def _percent_passed(counts: Counts, k: int = 1) -> float:
    return 100 * mean_pass_at_k(counts, k)


def _cost_lines(base: Counts, patched: Counts) -> list[ShapeLine]:
    before, after = _percent_passed(base), _percent_passed(patched)
    claim = "the patch costs at most 3 points on known notions"
    return [ShapeLine(claim, after >= before - 3, f"pass@1 {before:.1f} → {after:.1f} %")]


def _control_lines(base: Counts, patched: Counts) -> list[ShapeLine]:
    before, after = 100 * accuracy(base), 100 * accuracy(patched)
    gain = paired_difference(base, patched, accuracy)
    points, low, high = (f"{100 * x:+.1f}" for x in (gain.estimate, gain.low, gain.high))
    figures = f"{before:.1f} → {after:.1f} %, gain {points} [{low}, {high}] points"
    return [ShapeLine("a notion that was never patched gains nothing", gain.low <= 0, figures)]


def _rl_lines(base: Sequence[GroupCount], patched: Sequence[GroupCount]) -> list[ShapeLine]:
    theirs, ours = ([counts for _, counts in windows(groups)] for groups in (base, patched))
    ratios = [(none_correct(a), none_correct(b)) for a, b in zip(ours, theirs, strict=False)]
    by_window = "  ".join(f"{100 * a:.0f}/{100 * b:.0f}" for a, b in ratios)
    last, other, first = (bootstrap(c, accuracy) for c in (ours[-1], theirs[-1], theirs[0]))
    start = first.estimate
    lower = "zero-advantage ratio lower from the patched model throughout RL"
    figures = f"reward {share(last, 1)} against {share(other, 1)} %"
    begins = f"{100 * start:.1f} % in the first window"
    return [
        ShapeLine(lower, all(a < b for a, b in ratios), f"patched/base % by window: {by_window}"),
        ShapeLine("InT + RL above RL in the last window", last.estimate > other.estimate, figures),
        ShapeLine("the base starts RL at 3-15 % reward", 0.03 <= start <= 0.15, begins),
    ]


def _rl_pass_lines(base: Counts, patched: Counts) -> list[ShapeLine]:
    theirs, ours = _percent_passed(base), _percent_passed(patched)
    figures = f"pass@1 {ours:.1f} % against {theirs:.1f} %"
    return [ShapeLine("InT + RL above RL on held-out problems", ours > theirs, figures)]
