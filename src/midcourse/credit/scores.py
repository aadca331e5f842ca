"""How well each signal finds a step: the first error, or the largest drop of value.

Per attempt, the steps are ranked by the signal. *Top-1* is whether the target ranks first, *MRR*
the mean of one over its rank, *AUC* the share of the other steps that rank below it. Equal steps
share their ranks: a signal that says nothing scores as a uniform guess. Equal targets share theirs
too: where two steps drop alike, each is the target in one of two cases. The unit is the problem.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from midcourse.credit.signals import DROP, PROPOSER, SIGNALS, Curve, Mapped, largest, one_hot
from midcourse.credit.values import Values
from midcourse.metrics import Interval, bootstrap, mean, wilson
from midcourse.table import Table, share

_FOLDS = 5
UNIFORM, MOST_COMMON, LONGEST = "uniform guess", "most common position", "longest step"
FIRST_ERROR, OTHER_HALF = "first error", "the other half's drop"

CurveOf = Callable[[Mapped], Curve | None]
Targets = tuple[int, ...]
"""The 0-based steps that are equally good targets; none where the target is not known."""
TargetsOf = Callable[[Mapped], Targets]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one target stands in one ranking."""

    top_1: float
    """1 if first; of k equal ones at the top, 1 / k."""
    reciprocal_rank: float
    auc: float


def place(curve: Sequence[float], target: int) -> Place:
    """Return where a 0-based target stands among two steps or more."""
    others = [score for step, score in enumerate(curve) if step != target]
    above = sum(score > curve[target] for score in others)
    equal = sum(score == curve[target] for score in others)
    ranks = range(above + 1, above + equal + 2)
    return Place(
        top_1=0.0 if above else 1 / len(ranks),
        reciprocal_rank=mean([1 / rank for rank in ranks]),
        auc=(len(others) - above - equal / 2) / len(others),
    )


def expected_place(curve: Sequence[float], targets: Targets) -> Place:
    """Return the mean place of equally good targets: each may be the one that is meant."""
    places = [place(curve, target) for target in targets]
    return Place(
        top_1=mean([found.top_1 for found in places]),
        reciprocal_rank=mean([found.reciprocal_rank for found in places]),
        auc=mean([found.auc for found in places]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How well one signal finds one target."""

    name: str
    num_attempts: int
    top_1: Interval
    mrr: Interval
    auc: Interval
    over_position: Interval | None
    """Top-1 minus that of the most common position, on the same attempts; none for itself."""
    tokens: float | None
    """Read and written per attempt; null for guesses, and for what costs nothing of its own."""
    by_source: Mapping[str, Interval]
    """Top-1 by source."""


def scored(
    found: Sequence[Mapped], targets: TargetsOf, rivals: Mapping[str, CurveOf]
) -> list[Score]:
    """Score every signal, the `rivals` given by name and three guesses against the targets.

    Attempts without one are left out.
    """
    known = [(one, at) for one in found if (at := targets(one))]
    common = _common_positions(known)
    guesses: dict[str, CurveOf] = {
        MOST_COMMON: lambda one: common[one.attempt.attempt_id],
        LONGEST: lambda one: tuple(float(len(step)) for step in one.attempt.steps),
        UNIFORM: lambda one: one_hot(None, len(one.attempt.steps)),
    }
    names = [PROPOSER, *(signal.name for signal in SIGNALS)]
    signals: dict[str, CurveOf] = {name: _curve_of(name) for name in names}
    scores = (
        _score(name, curve, known, guesses[MOST_COMMON])
        for name, curve in {**rivals, **signals, **guesses}.items()
    )
    return [score for score in scores if score.num_attempts]


def _curve_of(name: str) -> CurveOf:
    return lambda one: one.curves.get(name)


def _common_positions(known: Sequence[tuple[Mapped, Targets]]) -> dict[str, Curve]:
    """Return how often each position is the target in other problems of the source, by attempt.

    Cross-validated in folds, as ``midcourse localize`` does: leaving out one at a time is unfair.
    """
    problems = sorted({one.attempt.problem.problem_id for one, _ in known})
    random.Random("credit").shuffle(problems)
    fold_of = {problem: index % _FOLDS for index, problem in enumerate(problems)}
    counts = defaultdict[tuple[str, int, int], Fraction](Fraction)
    for one, at in known:
        problem = one.attempt.problem
        for fold in set(range(_FOLDS)) - {fold_of[problem.problem_id]}:
            for step in at:
                counts[problem.source, fold, step] += Fraction(1, len(at))
    return {
        one.attempt.attempt_id: tuple(
            float(counts[problem.source, fold_of[problem.problem_id], step])
            for step in range(len(one.attempt.steps))
        )
        for one, _ in known
        for problem in [one.attempt.problem]
    }


def _score(
    name: str, curve_of: CurveOf, known: Sequence[tuple[Mapped, Targets]], position: CurveOf
) -> Score:
    places = [
        (one, expected_place(curve, at), expected_place(position(one) or (), at))
        for one, at in known
        if (curve := curve_of(one)) is not None
    ]
    costs = [one.costs[name] for one, _, _ in places if name in one.costs]
    sources = dict.fromkeys(one.attempt.problem.source for one, _, _ in places)
    gains = [(one, ours.top_1 - theirs.top_1) for one, ours, theirs in places]
    return Score(
        name=name,
        num_attempts=len(places),
        top_1=_over_problems([(one, p.top_1) for one, p, _ in places]),
        mrr=_over_problems([(one, p.reciprocal_rank) for one, p, _ in places]),
        auc=_over_problems([(one, p.auc) for one, p, _ in places]),
        over_position=None if name == MOST_COMMON else _over_problems(gains, is_share=False),
        tokens=mean([float(cost) for cost in costs]) if costs else None,
        by_source={
            source: _over_problems(
                [(one, p.top_1) for one, p, _ in places if one.attempt.problem.source == source]
            )
            for source in sources
        },
    )


def _over_problems(found: Sequence[tuple[Mapped, float]], is_share: bool = True) -> Interval:
    """Return the mean over attempts with its bootstrap interval over problems.

    A share of 0 or 1 gets Wilson's interval.
    """
    by_problem = defaultdict[str, list[float]](list)
    for one, number in found:
        by_problem[one.attempt.problem.problem_id].append(number)
    interval = bootstrap(
        list(by_problem.values()), lambda drawn: mean([number for one in drawn for number in one])
    )
    if is_share and interval.estimate in (0.0, 1.0):
        return wilson(interval.estimate * len(by_problem), len(by_problem))
    return interval


# --- targets -----------------------------------------------------------------------------------


def first_error_scores(found: Sequence[Mapped]) -> list[Score]:
    """Score the signals, and the value's own drop, against the first error where it is known."""
    return scored(found, _error_steps, {DROP: _drops})


def drop_scores(found: Sequence[Mapped]) -> list[Score]:
    """Score the signals and the first error against the largest drop, where there is any value.

    The drops of one half of the continuations against the largest of the other half say how well
    it could be found at all with half as many.
    """
    rivals = {FIRST_ERROR: _error_curve}
    ceiling = scored(found, _half_steps, {OTHER_HALF: _half_drops})
    whole = scored(found, lambda one: one.drop_steps, rivals)
    return [*(score for score in ceiling if score.name == OTHER_HALF), *whole]


def _drops(one: Mapped) -> Curve | None:
    return tuple(one.values.drops) if one.values and one.values.is_seen else None


def _error_steps(one: Mapped) -> Targets:
    at = one.attempt.error_step
    return () if at is None else (at,)


def _error_curve(one: Mapped) -> Curve | None:
    at = one.attempt.error_step
    return None if at is None else one_hot(at, len(one.attempt.steps))


def _halves(one: Mapped) -> list[Values]:
    """Return the two halves of the continuations; none unless each tells of every prefix."""
    halves = [one.values.half(parity) for parity in (0, 1)] if one.values else []
    return halves if all(all(half.outcomes) and half.is_seen for half in halves) else []


def _half_steps(one: Mapped) -> Targets:
    halves = _halves(one)
    return largest(halves[1].drops) if halves else ()


def _half_drops(one: Mapped) -> Curve | None:
    halves = _halves(one)
    return tuple(halves[0].drops) if halves else None


# --- tables ------------------------------------------------------------------------------------

_COLUMNS = (
    "signal", "attempts", "top-1 %", "over most common position", "MRR", "AUC", "tokens",
)  # fmt: skip
_NOTE = (
    "Steps of each wrong attempt, ranked by the signal. 95 % intervals: bootstrap over problems; "
    "one model, so nothing is said of others. Over most common position: difference of top-1 in "
    "points, on the same attempts. Tokens: read and written per attempt, contexts once a request."
)


FOUND_ERROR, FOUND_DROP = "Finding the first error", "Finding the largest value drop"


def scores_by_target(found: Sequence[Mapped]) -> dict[str, list[Score]]:
    """Return the scores against each target that is there, by the title of its table."""
    both = {FOUND_ERROR: first_error_scores(found), FOUND_DROP: drop_scores(found)}
    return {title: scores for title, scores in both.items() if scores}


def score_tables(found: Sequence[Mapped], by_target: Mapping[str, Sequence[Score]]) -> list[Table]:
    """Return the tables of a credit map: what has value, then each target, then by source."""
    tables = [_value_table(found)] if any(one.values for one in found) else []
    for title, scores in by_target.items():
        tables.append(Table(title, _COLUMNS, tuple(map(_line, scores)), _NOTE))
        tables += _by_source(title, scores)
    return tables


def _line(score: Score) -> tuple[str, ...]:
    return (
        score.name,
        f"{score.num_attempts}",
        share(score.top_1, 1),
        share(score.over_position, 1) if score.over_position else "–",
        _plain(score.mrr),
        _plain(score.auc),
        "–" if score.tokens is None else f"{score.tokens:,.0f}",
    )


def _plain(interval: Interval) -> str:
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _by_source(title: str, scores: Sequence[Score]) -> Iterator[Table]:
    sources = list(dict.fromkeys(source for score in scores for source in score.by_source))
    if len(sources) > 1:
        rows = tuple(
            (s.name, *(share(s.by_source[x], 1) if x in s.by_source else "–" for x in sources))
            for s in scores
        )
        yield Table(f"{title}: top-1 % by source", ("signal", *sources), rows)


def _value_table(found: Sequence[Mapped]) -> Table:
    """Say of how many attempts continuations show any value at all."""
    columns = ("source", "attempts", "with any value", "continuations without an answer, %",
               "V before the first step, %", "largest drop, points",
               "drop at the first error, points")  # fmt: skip
    by_source = defaultdict[str, list[Mapped]](list)
    for one in found:
        if one.values is not None:
            by_source[one.attempt.problem.source].append(one)
    note = (
        "Largest drop: of the attempts with any value; it is chosen among noisy drops, so it is "
        "overstated. The drop at the first error is not chosen: of all attempts where it is known. "
        "Without an interval: all are alike."
    )
    unknown = sum(one.values is None for one in found)
    if unknown:
        note += (
            f" Left out: {unknown} of {len(found)} attempts. Their answer is not known, or none "
            "of the continuations of one prefix could be graded."
        )
    rows = tuple(_value_row(source, ones) for source, ones in by_source.items())
    return Table("Value by continuation", columns, rows, note)


def _value_row(source: str, found: Sequence[Mapped]) -> tuple[str, ...]:
    valued = [(one, one.values) for one in found if one.values]
    seen = [(one, values) for one, values in valued if values.is_seen]
    unanswered = sum(values.num_unanswered for _, values in valued)
    total = sum(len(found) for _, values in valued for found in values.outcomes)
    at_error = [
        (one, values.drops[one.attempt.error_step])
        for one, values in valued
        if one.attempt.error_step is not None
    ]
    return (
        source,
        f"{len(valued)}",
        f"{len(seen)}",
        f"{100 * unanswered / total:.1f}",
        share(_over_problems([(one, values.before[0]) for one, values in valued]), 1),
        _points([(one, max(v.drops)) for one, v in seen]),
        _points(at_error if seen else []),
    )


def _points(found: Sequence[tuple[Mapped, float]]) -> str:
    """Return a mean difference in points; without an interval where all are alike."""
    if not found:
        return "–"
    interval = _over_problems(found, is_share=False)
    is_alike = interval.low == interval.high
    return f"{100 * interval.estimate:.1f}" if is_alike else share(interval, 1)
