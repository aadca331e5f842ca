"""Figures of a run, from what the report counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from functools import partial
from typing import Literal, TypeVar

from midcourse.config import HELD_OUT_SET, PROBE_SETS
from midcourse.metrics import (
    Count,
    Interval,
    accuracy,
    bootstrap,
    group_shares,
    mean,
    wilson,
)
from midcourse.records import GroupCount
from midcourse.report.collect import HARD, ReportData
from midcourse.report.estimates import accuracy_of, by_place, mean_share, passes
from midcourse.report.page import Drawing, Topic
from midcourse.report.plots import Panel, Point, Series
from midcourse.report.rl import RlCourse
from midcourse.report.svg import draw_funnel, draw_panels
from midcourse.report.tables import PAPER_TABLE_1, WINDOW, none_correct, windows
from midcourse.steps import location_from_error_step

X = TypeVar("X", bound=float | str)
V = TypeVar("V", bound=Sized)


#: What every caption of bands and whiskers ends with.
_OVER_PROBLEMS = "95 % bootstrap over problems"
_OVER_GROUPS = "95 % bootstrap over groups"


def draw_figures(data: ReportData) -> dict[str, Drawing]:
    """Return the figures of a run by name, in order; those without data are left out."""
    drawings = [
        *_funnel(data),
        *_table_1(data),
        *_proposals(data),
        *_tuning(data),
        *_evaluation(data),
        *_groups(data),
        *_logs(data),
        *_likelihood(data),
    ]
    return {drawing.name: drawing for drawing in drawings}


def _drawing(topic: Topic, name: str, title: str, caption: str, *panels: Panel) -> Drawing:
    svg = draw_panels(panels, title)
    is_wide = len(panels) > 1 or topic in (Topic.INTERVENTIONS, Topic.LIKELIHOOD)
    return Drawing(topic=topic, name=name, title=title, caption=caption, svg=svg, is_wide=is_wide)


def _funnel(data: ReportData) -> Iterator[Drawing]:
    stages = {name: counts for name, counts in data.funnel.items() if any(counts.values())}
    if stages:
        yield Drawing(
            topic=Topic.FUNNEL,
            name="funnel",
            title="The funnel",
            svg=draw_funnel(stages, "Funnel"),
            is_wide=True,
            caption="A bar per stage, divided by outcome, with counts and shares of the stage; "
            "the outcome that a stage is after is coloured. Nothing is left out; no interval.",
        )


def _table_1(data: ReportData) -> Iterator[Drawing]:
    names = {c: name for c, (name, _) in PAPER_TABLE_1.items() if c in data.conditions}
    if names:
        bars = {"accuracy": {name: data.conditions[c] for c, name in names.items()}}
        yield _drawing(
            Topic.INTERVENTIONS,
            "conditions",
            "Accuracy on hard problems by what is given",
            f"Correct continuations of the base model, %. n = {len(data.problem_ids[HARD])} hard "
            f"problems a bar; lines: {_OVER_PROBLEMS}, Wilson's over samples if none is correct.",
            panel(bars, lambda c: accuracy_of(by_place(c)), ("", "accuracy, %"), kind="bar"),
        )


def _proposals(data: ReportData) -> Iterator[Drawing]:
    places = [location_from_error_step(step) for step in data.error_steps]
    if places:
        labels = ("substep of the first error, as proposed", "interventions, %")
        yield _drawing(
            Topic.PROPOSALS,
            "first_errors",
            "Where the first error is",
            f"Which step of the rollout the proposer names. n = {len(places)} verified candidates; "
            "whiskers: 95 % Wilson.",
            histogram_panel(places, labels, least=(1, max(places))),
        )
    for kind, counts in data.lengths.items():
        values = sorted(counts.elements())
        middle, longest = values[len(values) // 2], values[-1]
        yield _drawing(
            Topic.PROPOSALS,
            f"lengths_{kind}",
            f"Length of {kind}",
            f"Sampled tokens. n = {len(values):,}; median {middle:,}, longest {longest:,}; "
            "all are counted, there is no interval.",
            _length_panel(counts, kind),
        )


def _length_panel(counts: Counter[int], kind: str, bins: int = 24) -> Panel:
    """Return a histogram of whole numbers in bins of equal width, named by their first."""
    low, high = min(counts), max(counts)
    width = max(1, -(-(high - low + 1) // bins))
    total, found = counts.total(), Counter[int]()
    for length, count in counts.items():
        found[low + (length - low) // width * width] += count
    points = tuple(
        Point(float(start), Interval(*[100 * found[start] / total] * 3), found[start])
        for start in range(low, high + 1, width)
    )
    label = "tokens" if width == 1 else f"tokens (bins of {width})"
    series = (Series(kind, points),)
    return Panel(title="", x_label=label, y_label=f"{kind}, %", series=series, kind="bar")


def _tuning(data: ReportData) -> Iterator[Drawing]:
    if data.sft_log:
        course = {"patched": RlCourse([], data.sft_log)}
        yield _drawing(
            Topic.TUNING,
            "sft_loss",
            "Loss of fine-tuning",
            f"Mean loss of a batch, nats a token, as it was logged. n = {len(data.sft_log)} steps "
            "of one training; there is no interval.",
            log_panel(course, "loss", "loss, nats a token", "step"),
        )


def _evaluation(data: ReportData) -> Iterator[Drawing]:
    for eval_set, models in data.evaluations.items():
        ks = usable_ks(models.values(), data.ks[eval_set])
        if len(ks) > 1 and eval_set not in PROBE_SETS:
            name = "pass_at_k" if eval_set == HELD_OUT_SET else f"pass_at_k_{eval_set}"
            number = len(next(iter(models.values())))
            of = "held-out problems" if eval_set == HELD_OUT_SET else eval_set
            yield _drawing(
                Topic.EVALUATION,
                name,
                f"pass@k on {of}",
                f"Unbiased pass@k, %, by k. n = {number} problems; bands: {_OVER_PROBLEMS}, "
                "Wilson's where all problems agree.",
                pass_panel(models, ks),
            )


def _groups(data: ReportData) -> Iterator[Drawing]:
    arms = {arm: groups for arm, groups in data.arms.items() if groups}
    if not arms:
        return
    number = ", ".join(f"{len(groups)} of {arm}" for arm, groups in arms.items())
    caption = f"In windows of {WINDOW} iterations. n = {number} groups; bands: {_OVER_GROUPS}."
    yield _drawing(
        Topic.RL,
        "reward",
        "Reward during RL",
        f"Mean reward of the sampled groups, %. {caption}",
        arm_panel(arms, "mean reward, %", accuracy),
    )
    yield _drawing(
        Topic.RL,
        "zero_advantage",
        "Groups with none correct",
        f"The zero-advantage ratio of the paper's Fig. 11, %. {caption}",
        zero_advantage_panel(arms),
    )
    yield _drawing(
        Topic.RL,
        "group_kinds",
        "Three kinds of groups",
        f"Shares of groups with no, some and only correct rollouts, %, by arm. {caption}",
        *(_kinds_panel(arm, groups) for arm, groups in arms.items()),
    )


def _kinds_panel(arm: str, groups: Sequence[GroupCount]) -> Panel:
    kinds: dict[str, Callable[[Sequence[Count]], float]] = {
        "none correct": none_correct,
        "mixed": lambda counts: group_shares(counts).mixed,
        "all correct": lambda counts: group_shares(counts).all_correct,
    }
    panels = [arm_panel({arm: groups}, "groups, %", of, arm) for of in kinds.values()]
    series = (replace(p.series[0], label=name) for p, name in zip(panels, kinds, strict=True))
    return replace(panels[0], series=tuple(series))


#: What RL logs, by the figure's name: title, label of y, where it is in the log, factor.
_LOGGED = {
    "completion_lengths": (
        "Length of RL's rollouts",
        "mean length, tokens",
        "completions/mean_length",
        1.0,
    ),
    "truncated": ("Truncated rollouts of RL", "truncated, %", "completions/clipped_ratio", 100.0),
    "entropy": ("Entropy of the policy", "entropy, nats", "entropy", 1.0),
    "clip_share": ("Clipped tokens", "clipped, %", "clip_ratio/region_mean", 100.0),
    "gradient_norm": ("Norm of RL's gradient", "norm", "grad_norm", 1.0),
    "sampler_gap": (
        "Sampler and trainer apart",
        "log p apart, nats a token",
        "sampler/logprob_gap",
        1.0,
    ),
    "sampler_entropy": ("Entropy of what is sampled", "entropy, nats", "sampler/entropy", 1.0),
}


def _logs(data: ReportData) -> Iterator[Drawing]:
    """Yield what RL logged; a number that an engine does not log has no figure."""
    for name, (title, label, key, scale) in _LOGGED.items():
        logged = {a: c for a, c in data.courses.items() if any(key in e for e in c.log.values())}
        if logged:
            number = ", ".join(f"{len(course.log)} of {arm}" for arm, course in logged.items())
            yield _drawing(
                Topic.RL,
                name,
                title,
                f"As logged, iteration by iteration ({key}). n = {number} iterations; there is no "
                "interval.",
                log_panel(logged, key, label, scale=scale),
            )


def _likelihood(data: ReportData) -> Iterator[Drawing]:
    values: dict[str, dict[str, list[float]]] = {}
    for item in sorted(data.likelihoods, key=lambda item: item.what):
        model = data.model_labels.get(item.model, item.model)
        values.setdefault(model, {}).setdefault(item.what.replace("_", " "), []).append(item.nll)
    if values:
        numbers = {what: len(nlls) for texts in values.values() for what, nlls in texts.items()}
        said = ", ".join(f"{number} {what}" for what, number in numbers.items())
        yield _drawing(
            Topic.LIKELIHOOD,
            "nll",
            "NLL by kind of text",
            f"Mean NLL of a text's tokens, nats. n = {said}; lines: 95 % bootstrap over texts.",
            panel(
                values,
                partial(bootstrap, statistic=mean, num_resamples=300),
                ("", "NLL, nats a token"),
                kind="bar",
                scale=1,
            ),
        )


def panel(
    curves: Mapping[str, Mapping[X, V]],
    estimate: Callable[[V], Interval],
    labels: tuple[str, str],
    *,
    title: str = "",
    kind: Literal["line", "bar"] = "line",
    log_x: bool = False,
    scale: float = 100.0,
    units: Callable[[V], int] = len,
) -> Panel:
    """Return an estimate, by default in per cent, by series and x; `labels` are of x and y."""
    x_label, y_label = labels

    def point(x: X, found: V) -> Point:
        y = estimate(found)
        scaled = Interval(scale * y.estimate, scale * y.low, scale * y.high)
        return Point(x, scaled, units(found))

    series = tuple(
        Series(name, tuple(point(x, found) for x, found in curve.items()))
        for name, curve in curves.items()
    )
    return Panel(
        title=title, x_label=x_label, y_label=y_label, series=series, kind=kind, log_x=log_x
    )


def histogram_panel(
    values: Sequence[int],
    labels: tuple[str, str],
    title: str = "",
    least: tuple[int, int] | tuple[()] = (),
) -> Panel:
    """Return the shares of small whole numbers as bars, with Wilson intervals.

    The axis goes from the smallest to the largest of the values and of `least`.
    """
    ends = (*values, *least)
    span = range(min(ends, default=0), max(ends, default=-1) + 1)
    shares = {"share": {x: [value == x for value in values] for x in span}}
    return panel(shares, lambda x: wilson(sum(x), len(x)), labels, title=title, kind="bar")


def usable_ks(models: Iterable[Sequence[Count]], ks: Sequence[int]) -> list[int]:
    """Return the k that every problem has enough samples for, smallest first."""
    smallest = min((c.num_samples for counts in models for c in counts), default=0)
    return sorted(k for k in ks if k <= smallest)


def pass_panel(models: Mapping[str, Sequence[Count]], ks: Sequence[int]) -> Panel:
    """Return pass@k by model and k; bands over problems."""
    curves = {
        model: {k: passes(by_place(counts), k) for k in ks} for model, counts in models.items()
    }
    estimate = partial(mean_share, num_resamples=300)
    return panel(curves, estimate, ("k", "pass@k, %"), log_x=True)


def zero_advantage_panel(arms: Mapping[str, Sequence[GroupCount]], title: str = "") -> Panel:
    """Return the zero-advantage ratio during RL."""
    return arm_panel(arms, "groups with none correct, %", none_correct, title)


def arm_panel(
    arms: Mapping[str, Sequence[GroupCount]],
    y_label: str,
    statistic: Callable[[Sequence[Count]], float],
    title: str = "",
) -> Panel:
    """Return a statistic of the groups in windows of RL iterations, one series per arm."""
    curves = {
        arm: {first + (WINDOW + 1) / 2: counts for first, counts in windows(groups)}
        for arm, groups in arms.items()
    }
    estimate = partial(bootstrap, statistic=statistic, num_resamples=300)
    return panel(curves, estimate, (f"RL iteration (windows of {WINDOW})", y_label), title=title)


def log_panel(
    courses: Mapping[str, RlCourse],
    name: str,
    y_label: str,
    x_label: str = "RL iteration",
    scale: float = 1.0,
) -> Panel:
    """Return a number that a training logs, step by step; one without an interval."""
    curves = {
        arm: {
            step + 1: [entry[name]] for step, entry in sorted(course.log.items()) if name in entry
        }
        for arm, course in courses.items()
    }
    return panel(curves, lambda one: Interval(*one, *one, *one), (x_label, y_label), scale=scale)
