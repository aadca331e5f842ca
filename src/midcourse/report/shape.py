"""Does the paper's shape hold here? One line each, computed, with the figures it rests on.

"does not hold" and "cannot tell" are results as good as "holds": they are printed the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from midcourse.metrics import (
    Count,
    accuracy,
    bootstrap,
    coverage,
    group_shares,
    mean_pass_at_k,
    paired_difference,
    wilson,
)
from midcourse.records import Condition, GroupCount
from midcourse.report.tables import pooled, windows
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
        if self.holds is None:
            return "cannot tell"
        return "holds" if self.holds else "does not hold"


def shape_lines(
    conditions: Mapping[Condition, Sequence[Count]],
    evaluations: Mapping[str, Mapping[str, Sequence[Count]]],
    arms: Mapping[str, Sequence[GroupCount]],
    ks: Sequence[int],
) -> list[ShapeLine]:
    """Return a line for every expectation that the inputs allow to check."""
    lines: list[ShapeLine] = []
    if {Condition.PREFIX_ERROR, Condition.PREFIX_INTERVENTION} <= conditions.keys():
        lines += _intervention_lines(conditions)
    held_out = evaluations.get("held_out", {})
    if {"base", "patched"} <= held_out.keys():
        lines.append(_pass_line(held_out["base"], held_out["patched"], ks))
    for eval_set, line in (("known", _cost_line), ("control", _control_line)):
        if {"base", "patched"} <= evaluations.get(eval_set, {}).keys():
            lines.append(line(evaluations[eval_set]))
    if {"base + RL", "patched + RL"} <= arms.keys():
        lines += _rl_lines(arms)
    if {"base + RL", "patched + RL"} <= held_out.keys():
        ours = mean_pass_at_k(held_out["patched + RL"], 1)
        theirs = mean_pass_at_k(held_out["base + RL"], 1)
        figures = f"pass@1 {100 * ours:.1f} % against {100 * theirs:.1f} %"
        lines.append(ShapeLine("InT + RL above RL on held-out problems", ours > theirs, figures))
    return lines


def _intervention_lines(conditions: Mapping[Condition, Sequence[Count]]) -> list[ShapeLine]:
    ours, theirs = conditions[Condition.PREFIX_INTERVENTION], conditions[Condition.PREFIX_ERROR]
    low, (correct, samples) = bootstrap(ours, accuracy).low, pooled(theirs)
    # Where nothing succeeds the bootstrap has no width: Wilson's bound is the honest one.
    high = max(bootstrap(theirs, accuracy).high, wilson(correct, samples).high)
    figures = f"at least {100 * low:.2f} % against at most {100 * high:.3f} %, n = {samples:,}"
    ratio = ShapeLine("intervention ≥ 10 × original step in accuracy", low >= 10 * high, figures)
    covered, before = coverage(ours), coverage(theirs)
    figures = f"{covered}/{len(ours)} problems against {before}/{len(theirs)}"
    return [ratio, ShapeLine("intervention covers more problems", covered > before, figures)]


def _pass_line(base: Sequence[Count], patched: Sequence[Count], ks: Sequence[int]) -> ShapeLine:
    pairs = [(k, mean_pass_at_k(base, k), mean_pass_at_k(patched, k)) for k in ks]
    figures = ", ".join(f"@{k} {100 * b:.1f} → {100 * p:.1f}" for k, b, p in pairs)
    holds = all(after > before for _, before, after in pairs)
    return ShapeLine("patched above base at every k on held-out problems", holds, f"{figures} %")


def _cost_line(known: Mapping[str, Sequence[Count]]) -> ShapeLine:
    before, after = (100 * mean_pass_at_k(known[model], 1) for model in ("base", "patched"))
    claim = "the patch costs at most 3 points on known notions"
    return ShapeLine(claim, after >= before - 3, f"pass@1 {before:.1f} → {after:.1f} %")


def _control_line(control: Mapping[str, Sequence[Count]]) -> ShapeLine:
    before, after = (100 * accuracy(control[model]) for model in ("base", "patched"))
    gain = paired_difference(control["base"], control["patched"], accuracy)
    points, low, high = (f"{100 * x:+.1f}" for x in (gain.estimate, gain.low, gain.high))
    figures = f"{before:.1f} → {after:.1f} %, gain {points} [{low}, {high}] points"
    return ShapeLine("a notion that was never patched gains nothing", gain.low <= 0, figures)


def _rl_lines(arms: Mapping[str, Sequence[GroupCount]]) -> list[ShapeLine]:
    ours, theirs = windows(arms["patched + RL"]), windows(arms["base + RL"])
    ratios = [
        (group_shares(a).none_correct, group_shares(b).none_correct)
        for (_, a), (_, b) in zip(ours, theirs, strict=False)
    ]
    said = "  ".join(f"{100 * a:.0f}/{100 * b:.0f}" for a, b in ratios)
    last, other = bootstrap(ours[-1][1], accuracy), bootstrap(theirs[-1][1], accuracy)
    start = bootstrap(theirs[0][1], accuracy).estimate
    return [
        ShapeLine(
            "zero-advantage ratio lower from the patched model throughout RL",
            all(a < b for a, b in ratios),
            f"patched/base % by window: {said}",
        ),
        ShapeLine(
            "InT + RL above RL in the last window",
            last.estimate > other.estimate,
            f"reward {share(last, 1)} against {share(other, 1)} %",
        ),
        ShapeLine(
            "the base starts RL at 3-15 % reward",
            0.03 <= start <= 0.15,
            f"{100 * start:.1f} % in the first window",
        ),
    ]
