"""What a run found, as sentences with intervals; and what it could not measure, and why.

A sentence is chosen by its interval, never by one number against another: raised, lowered, changed
by less than the margin of equivalence, cannot tell, or too few problems to tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from math import isnan

from midcourse.config import HELD_OUT_SET, Recipe
from midcourse.metrics import Count, Interval, accuracy, coverage, mean
from midcourse.records import Condition
from midcourse.report.collect import HARD, ReportData
from midcourse.report.estimates import (
    MARGIN,
    MIN_PROBLEMS,
    Clusters,
    Counts,
    Statistic,
    accuracy_margins,
    by_place,
    difference,
    each,
    flat,
    grouped,
    mean_difference,
    passes,
    share_difference,
)
from midcourse.report.figures import usable_ks
from midcourse.report.shape import by_window, group_clusters
from midcourse.report.tables import PAPER_TABLE_1, WINDOW, none_correct, pooled


class Verdict(StrEnum):
    """What an interval of a difference says."""

    ABOVE = "higher"
    BELOW = "lower"
    SAME = "the same"
    OPEN = "cannot tell"
    FEW = "too few"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One difference with its 95 % interval, in words and in numbers."""

    name: str
    """What is compared, the same in every run, e.g. ``intervention``, ``patch held_out pass@1``."""
    about: str
    """The heading that it stands under."""
    sentence: str
    estimate: float
    low: float
    high: float
    unit: str
    """``points`` of per cent, or ``nats``."""
    n: int
    """How many `n_unit` the interval is over."""
    n_unit: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a finding is about, before it is put into words."""

    name: str
    about: str
    cause: str
    """Who did it: ``Fine-tuning``, or ``b``."""
    measure: str
    """What is measured: ``pass@1 on held_out``."""
    found: Interval
    """As shares, or in `unit`."""
    n: int
    n_unit: str = "problems"
    unit: str = "points"
    margin: float = MARGIN
    least: int = MIN_PROBLEMS
    """With fewer of `n` nothing is said."""
    before: float
    after: float
    how: str = "paired by problem"
    verbs: tuple[str, str, str] = ("raised", "lowered", "changed")


def judge(found: Interval, n: int, margin: float = MARGIN, least: int = MIN_PROBLEMS) -> Verdict:
    """Return what the interval of a difference over `n` problems says."""
    if n < least or isnan(found.low) or isnan(found.high):
        return Verdict.FEW
    if found.low > 0:
        return Verdict.ABOVE
    if found.high < 0:
        return Verdict.BELOW
    return Verdict.SAME if -margin < found.low and found.high < margin else Verdict.OPEN


def finding(change: Change) -> Finding:
    """Put a difference into words."""
    scale, digits = (100.0, 1) if change.unit == "points" else (1.0, 3)
    middle, low, high = (
        scale * x for x in (change.found.estimate, change.found.low, change.found.high)
    )
    before, after = (f"{scale * x:.{digits}f}" for x in (change.before, change.after))
    per_cent = " %" if change.unit == "points" else " nats a token"
    rest = f"({before} → {after}{per_cent}; {change.how}, n = {change.n:,} {change.n_unit})."
    verdict = judge(change.found, change.n, change.margin, change.least)
    raised, lowered, changed = change.verbs
    sizes = sorted(abs(x) for x in (low, high))
    by = f"{abs(middle):.{digits}f} {change.unit} [{sizes[0]:.{digits}f}, {sizes[1]:.{digits}f}]"
    signed = f"{middle:+.{digits}f} {change.unit} [{low:+.{digits}f}, {high:+.{digits}f}]"
    whether = f"whether {change.cause} {changed} {change.measure}: {signed}"
    margin = f"{scale * change.margin:g} {change.unit}"
    said = {
        Verdict.ABOVE: f"{change.cause} {raised} {change.measure} by {by}",
        Verdict.BELOW: f"{change.cause} {lowered} {change.measure} by {by}",
        Verdict.SAME: f"{change.cause} {changed} {change.measure} by less than {margin}: {signed}",
        Verdict.OPEN: f"cannot tell {whether}",
        Verdict.FEW: f"too few {change.n_unit} to tell {whether}",
    }[verdict]
    sentence = f"{said[0].upper()}{said[1:]} {rest}"
    return Finding(
        name=change.name,
        about=change.about,
        sentence=sentence,
        estimate=middle,
        low=low,
        high=high,
        unit=change.unit,
        n=change.n,
        n_unit=change.n_unit,
        verdict=verdict,
    )


def findings(data: ReportData) -> list[Finding]:
    """Return what a run found: of interventions, of the patch, of RL, of likelihoods."""
    changes = [*_worth(data), *_evaluated(data), *_rewards(data), *_likelihood(data)]
    return [finding(change) for change in changes if not isnan(change.found.estimate)]


# --- interventions -----------------------------------------------------------------------------

_WORTH = "What an intervention was worth"
#: What an intervention is compared with, the closest comparison first.
_REFERENCES = (Condition.PREFIX_ERROR, Condition.PREFIX, Condition.PROBLEM)


def _worth(data: ReportData) -> Iterator[Change]:
    """Yield what an intervention is worth against the closest condition that was drawn."""
    ours = data.conditions.get(Condition.PREFIX_INTERVENTION)
    other = next((c for c in _REFERENCES if c in data.conditions), None)
    if ours and other:
        theirs, given = data.conditions[other], PAPER_TABLE_1[other][0].removeprefix("+ ")
        cause = f"an intervention in place of “{given}”"
        yield accuracy_change(
            "intervention", _WORTH, cause, "accuracy on hard problems", theirs, ours
        )
        wider = (each(by_place(side), _solved) for side in (ours, theirs))
        yield Change(
            name="intervention coverage",
            about=_WORTH,
            cause=cause,
            measure="the share of hard problems with a correct continuation",
            found=mean_difference(*wider),
            n=len(ours),
            before=coverage(theirs) / len(theirs),
            after=coverage(ours) / len(ours),
        )


def _solved(count: Count) -> float:
    return float(count.is_solved)


def accuracy_change(
    name: str, about: str, cause: str, measure: str, before: Sequence[Count], after: Sequence[Count]
) -> Change:
    """Return a difference in accuracy over the same problems."""
    ours, theirs = by_place(after), by_place(before)
    samples = f"{pooled(before)[1]:,} and {pooled(after)[1]:,} samples"
    return Change(
        name=name,
        about=about,
        cause=cause,
        measure=measure,
        found=share_difference(ours, theirs, accuracy, accuracy_margins(ours, theirs)),
        n=len(before),
        before=accuracy(before),
        after=accuracy(after),
        how=f"paired by problem, {samples}",
    )


# --- evaluation --------------------------------------------------------------------------------

_COST, _GAINED = "What the patch gained, and what it cost elsewhere", "What RL gained"
#: Two models, who made one of the other, and what that is called in `Finding.name`.
_STEPS = (
    ("base", "patched", "fine-tuning", "patch"),
    ("base", "base + RL", "RL from the base", "RL base"),
    ("patched", "patched + RL", "RL from the patched model", "RL patched"),
    ("base + RL", "patched + RL", "fine-tuning before RL", "patch before RL"),
)


def _evaluated(data: ReportData) -> Iterator[Change]:
    """Yield what every training did on every set: on held-out problems a gain, elsewhere a cost."""
    sets = sorted(data.evaluations, key=lambda name: name != HELD_OUT_SET)
    for before, after, cause, name in _STEPS:
        about = _GAINED if name.startswith("RL") else _COST
        for eval_set in sets:
            models = data.evaluations[eval_set]
            if before in models and after in models:
                ks = usable_ks(models.values(), data.ks[eval_set])
                chosen = (ks[:1], ks[-1:]) if eval_set == HELD_OUT_SET else (ks[:1],)
                for k in dict.fromkeys(chain(*chosen)):
                    sides, what = (by_place(models[before]), by_place(models[after])), f"pass@{k}"
                    yield pass_change(f"{name} {eval_set} {what}", about, cause, eval_set, sides, k)


def pass_change(
    name: str, about: str, cause: str, eval_set: str, sides: tuple[Counts, Counts], k: int
) -> Change:
    """Return a difference in pass@k over the same problems; `sides` are before and after."""
    before, after = (passes(side, k) for side in sides)
    return Change(
        name=name,
        about=about,
        cause=cause,
        measure=f"pass@{k} on {eval_set}",
        found=mean_difference(after, before),
        n=len(before),
        before=_mean(before),
        after=_mean(after),
    )


def _mean(clusters: Clusters[float]) -> float:
    return mean(flat(clusters))


# --- RL's own problems, likelihood -------------------------------------------------------------


def _rewards(data: ReportData) -> Iterator[Change]:
    """Yield how rewards moved during RL, and how the arms' groups differ."""
    for arm, groups in data.arms.items():
        found = list(by_window(groups).items())
        if len(found) > 1:
            (first, early), (last, late) = found[0], found[-1]
            yield _group_change(
                f"reward {arm}",
                f"RL ({arm})",
                _span("the reward of iterations", last, first),
                early,
                late,
            )
    if {"base + RL", "patched + RL"} <= data.arms.keys() and all(data.arms.values()):
        sides = [group_clusters(data.arms[arm]) for arm in ("base + RL", "patched + RL")]
        yield _group_change(
            "zero advantage",
            "fine-tuning before RL",
            "the share of RL groups with none correct",
            sides[0],
            sides[1],
            none_correct,
        )


def _span(what: str, last: int, first: int) -> str:
    return f"{what} {last + 1}-{last + WINDOW} over that of {first + 1}-{first + WINDOW}"


def _group_change(
    name: str,
    cause: str,
    measure: str,
    before: Counts,
    after: Counts,
    statistic: Statistic[Count] = accuracy,
) -> Change:
    groups = flat(before), flat(after)
    margins = accuracy_margins(after, before) if statistic is accuracy else (0.0, 0.0)
    return Change(
        name=name,
        about=_GAINED,
        cause=cause,
        measure=measure,
        found=share_difference(after, before, statistic, margins),
        n=len(before.keys() | after.keys()),
        before=statistic(groups[0]),
        after=statistic(groups[1]),
        how=f"problems resampled whole, {len(groups[0])} and {len(groups[1])} groups",
    )


def _likelihood(data: ReportData) -> Iterator[Change]:
    """Yield how much likelier fine-tuning made texts that it was not trained on, and its own."""
    by_text = grouped(
        ((item.what, data.model_labels.get(item.model, "")), (item.problem_id, item.nll))
        for item in data.likelihoods
    )
    for what, said in _TEXTS.items():
        sides = [grouped(by_text.get((what, model), ())) for model in ("base", "patched")]
        if all(sides):
            yield Change(
                name=f"NLL {what}",
                about="Likelihood",
                cause="fine-tuning",
                measure=f"the NLL of {said}",
                found=difference(sides[1], sides[0], mean),
                n=len(sides[0]),
                unit="nats",
                margin=NLL_MARGIN,
                before=_mean(sides[0]),
                after=_mean(sides[1]),
                how="paired by problem",
            )


#: Texts that are scored, as a sentence says them.
_TEXTS = {
    "intervention": "interventions that it was trained on",
    "intervention_held_out": "interventions on held-out problems",
    "own_rollout": "a model's own rollouts",
}
#: Texts whose NLL moves by less have not changed for a reader: 2 % of a token's probability.
NLL_MARGIN = 0.02


# --- what could not be measured ----------------------------------------------------------------


def not_measured(data: ReportData, recipe: Recipe) -> list[str]:
    """Return what the recipe did not measure, and the key that would."""
    return [*_no_models(data, recipe), *_no_parts(data, recipe)]


def _no_models(data: ReportData, recipe: Recipe) -> Iterator[str]:
    models = {str(role) for role in recipe.evaluate.roles}
    listed = ", ".join(f'"{name}"' for name in sorted(models))
    if not data.evaluations:
        yield (
            "What training changed on problems that it has not seen: there is no evaluation set. "
            "Set problems.held_out_path or evaluate.sets."
        )
    for name, what in (
        ("patched", "What the patch gained or cost"),
        ("base + RL", "What RL gains from the base"),
        ("patched + RL", "What RL gains after the patch"),
    ):
        if name not in models:
            yield f"{what}: evaluate.models is [{listed}], without “{name}”."


def _no_parts(data: ReportData, recipe: Recipe) -> Iterator[str]:
    if Condition.PREFIX_INTERVENTION not in data.conditions:
        yield (
            "What an intervention was worth in accuracy: its continuations were drawn until the "
            "first correct one (verify.rounds), which says coverage alone."
            if data.searches
            else "What an intervention was worth: there is no verified continuation."
        )
    elif not any(condition in data.conditions for condition in _REFERENCES):
        yield (
            "What an intervention was worth against going on without it: verify.conditions has "
            'neither "prefix_error" nor "prefix" nor "problem".'
        )
    elsewhere = [name for name in data.evaluations if name != HELD_OUT_SET]
    if data.evaluations and not elsewhere:
        yield (
            "What the patch cost on other problems: there is only the held-out set. "
            "Add one to evaluate.sets."
        )
    if not data.likelihoods:
        yield "Likelihoods: the engine gives no log-probabilities of given texts."


def summary(data: ReportData, found: Sequence[Finding]) -> str:
    """Say in one sentence what came out."""
    hard, kept = len(data.problem_ids.get(HARD, ())), _kept(data.funnel)
    of = sum(n for name, n in data.funnel.get("problems", {}).items() if name != "total")
    parts = [f"{hard:,} of {of:,} problems were hard"] if HARD in data.problem_ids else []
    rows = "1 row was" if kept == 1 else f"{kept:,} rows were" if kept is not None else ""
    parts += [f"{rows} ready to train on"] if rows else []
    for start in ("intervention", f"patch {HELD_OUT_SET}", f"RL patched {HELD_OUT_SET}"):
        parts += [_short(one) for one in found if one.name.startswith(start)][:1]
    text = "; ".join(parts) or "nothing is complete yet"
    return f"{text[0].upper()}{text[1:]}."


def _kept(funnel: Mapping[str, Mapping[str, int]]) -> int | None:
    rows = funnel.get("candidates for a row")
    return rows.get("ready", 0) if rows is not None else None


def _short(one: Finding) -> str:
    """Return a sentence without what it rests on."""
    head = one.sentence.partition(" (")[0]
    return head if head.startswith("RL") else f"{head[0].lower()}{head[1:]}"
