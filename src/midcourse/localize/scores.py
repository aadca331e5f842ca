"""Scores of the first-error benchmark, next to what can be guessed without reading a word.

People mark early steps more often than late ones, so a guesser who sees nothing but the number of
steps is right surprisingly often: no score is worth anything without that one next to it. Guessers
that learn from the marks are cross-validated: a case is guessed from the marks of other problems.

* *exact*, *within one*, *not later*: shares of the solutions with an error. *Not later* asks for a
  step no later than the marked one, which is what an intervention needs; naming step 1 always
  scores 100 % there.
* *says no error*: share of the right solutions. *F1*: harmonic mean of it and *exact*, given only
  where a source has both kinds.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from midcourse.localize.ask import Localization, LocalizationOutcome
from midcourse.localize.cases import ErrorCase
from midcourse.metrics import Interval, bootstrap, wilson
from midcourse.table import Table, share

#: Cross-validation: the folds, and how often problems are dealt into them again.
_FOLDS, _DEALS = 5, 20
#: How many solutions of nearly the same length the length-conditioned guess rests on.
_NEIGHBOURS = 20

Guess = Mapping[int, float]
"""Probabilities of naming a 0-based step; what is missing to 1 names none."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How often one answerer is right on one source, each with its 95 % interval."""

    source: str
    num_wrong: int
    """Solutions with a marked error."""
    num_right: int
    exact: Interval
    within_one: Interval
    not_later: Interval
    says_no_error: Interval
    f1: Interval | None
    """Null unless the source has both kinds."""
    num_unread: int
    """Questions without an answer that could be read: counted as wrong."""


_HITS = ("exact", "within_one", "not_later", "says_no_error")
_Hits = defaultdict[str, float]
"""Sums over the solutions of one problem, which are resampled together: solutions are ``wrong`` or
``right``, answers one of `_HITS` or ``unread``; a guess is right with a probability."""


def score(cases: Sequence[ErrorCase], answers: Iterable[Localization]) -> list[Scores]:
    """Return the scores per source of answers to some of `cases`, in the order of the cases."""
    by_id = {(case.source, case.case_id): case for case in cases}
    answered: dict[str, list[tuple[ErrorCase, _Hits]]] = {case.source: [] for case in cases}
    for answer in answers:
        if answer.outcome is LocalizationOutcome.REQUEST_FAILED:
            continue  # nothing was answered: right or wrong, it says nothing of the model
        case = by_id[answer.source, answer.case_id]
        hits = _hits(case, {} if answer.named_step is None else {answer.named_step: 1.0})
        if answer.outcome is LocalizationOutcome.NO_ERROR:
            hits["says_no_error"] += case.error_step is None
        else:
            hits["unread"] += answer.outcome is not LocalizationOutcome.NAMED
        answered[case.source].append((case, hits))
    return [_scores(source, found, _f1) for source, found in answered.items() if found]


def baselines(cases: Sequence[ErrorCase]) -> dict[str, list[Scores]]:
    """Return the scores per source of guessers that never read a word, by name.

    None of them says "no error" by itself; their F1 is what they reach by saying it in the most
    favourable share of cases.
    """
    sources: dict[str, list[ErrorCase]] = {}
    for case in cases:
        sources.setdefault(case.source, []).append(case)
    return {
        name: [
            _scores(source, zip(ours, map(_hits, ours, guesser(ours)), strict=True), _best_f1)
            for source, ours in sources.items()
        ]
        for name, guesser in _GUESSERS.items()
    }


def _uniform(cases: Sequence[ErrorCase]) -> list[Guess]:
    return [dict.fromkeys(range(len(case.steps)), 1 / len(case.steps)) for case in cases]


def _best_fixed(cases: Sequence[ErrorCase]) -> list[Guess]:
    """Guess the most common position, learnt from the very cases: no fixed guess does better."""
    marked = [case for case in cases if case.error_step is not None]
    return [{_mode(marked): 1.0} if marked else {} for _ in cases]


def _most_common(cases: Sequence[ErrorCase]) -> list[Guess]:
    """Guess the position that is most often the marked one elsewhere in the source."""
    return _cross_validated(cases, lambda case, others: _mode(others))


def _by_length(cases: Sequence[ErrorCase]) -> list[Guess]:
    """Guess the most common position among the solutions nearest in their number of steps."""

    def guess(case: ErrorCase, others: Sequence[ErrorCase]) -> int:
        near = sorted(others, key=lambda other: abs(len(other.steps) - len(case.steps)))
        return _mode(near[:_NEIGHBOURS])

    return _cross_validated(cases, guess)


_GUESSERS: dict[str, Callable[[Sequence[ErrorCase]], list[Guess]]] = {
    "best fixed position, in hindsight": _best_fixed,
    "most common position": _most_common,
    "most common at this length": _by_length,
    "uniform over the steps": _uniform,
}


def _cross_validated(
    cases: Sequence[ErrorCase], guess: Callable[[ErrorCase, Sequence[ErrorCase]], int]
) -> list[Guess]:
    """Guess each case from the wrong solutions of problems in other folds, over many deals.

    Leaving out one case at a time would be unfair where two positions are about equally common:
    taking a case out makes the other position the more common one.
    """
    rng = random.Random("first errors")
    problems = sorted({case.problem for case in cases})
    guesses: list[Counter[int]] = [Counter() for _ in cases]
    for _ in range(_DEALS):
        rng.shuffle(problems)
        fold_of = {problem: index % _FOLDS for index, problem in enumerate(problems)}
        for fold in range(_FOLDS):
            others = [c for c in cases if c.error_step is not None and fold_of[c.problem] != fold]
            for case, counter in zip(cases, guesses, strict=True):
                if fold_of[case.problem] == fold and others:
                    counter[min(guess(case, others), len(case.steps) - 1)] += 1
    return [{step: count / _DEALS for step, count in counter.items()} for counter in guesses]


def _mode(cases: Sequence[ErrorCase]) -> int:
    """Return the most common marked step; of equally common ones the earlier."""
    counts = Counter(case.error_step for case in cases if case.error_step is not None)
    return min(counts, key=lambda step: (-counts[step], step))


def _hits(case: ErrorCase, guess: Guess) -> _Hits:
    """Return what is right about one guess of a step."""
    marked = case.error_step
    if marked is None:
        return _Hits(float, right=1)
    hits = _Hits(float, wrong=1)
    for step, probability in guess.items():
        hits["exact"] += probability if step == marked else 0
        hits["within_one"] += probability if abs(step - marked) <= 1 else 0
        hits["not_later"] += probability if step <= marked else 0
    return hits


def _f1(problems: Sequence[_Hits]) -> float:
    exact, no_error = _ratio(problems, "exact"), _ratio(problems, "says_no_error")
    return _harmonic_mean(exact, no_error)


def _harmonic_mean(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def _best_f1(problems: Sequence[_Hits]) -> float:
    """Return the best F1 of a guesser that says "no error" at random with some probability.

    With probability p the shares are (1 − p)·exact and p; their harmonic mean is largest at
    p = √exact / (1 + √exact).
    """
    exact = _ratio(problems, "exact")
    return 2 * exact / (1 + math.sqrt(exact)) ** 2


def _kind(hits: str) -> str:
    """Return the kind of solutions that can score these hits."""
    return "right" if hits == "says_no_error" else "wrong"


def _ratio(problems: Sequence[_Hits], hits: str) -> float:
    # A resample may hold no solution of this kind: it shows no skill at it either.
    total = sum(problem[_kind(hits)] for problem in problems)
    return sum(problem[hits] for problem in problems) / total if total else 0.0


def _scores(
    source: str,
    found: Iterable[tuple[ErrorCase, _Hits]],
    f1: Callable[[Sequence[_Hits]], float],
) -> Scores:
    by_problem: dict[str, _Hits] = defaultdict(lambda: _Hits(float))
    for case, hits in found:
        for name, value in hits.items():
            by_problem[case.problem][name] += value
    problems = list(by_problem.values())
    num_wrong, num_right, num_unread = (
        round(sum(problem[kind] for problem in problems)) for kind in ("wrong", "right", "unread")
    )
    shares = {name: _interval(problems, name) for name in _HITS}
    both = bootstrap(problems, f1) if num_wrong and num_right else None
    if both is not None and not both.estimate:  # nothing right of one kind: no width
        highest = _harmonic_mean(shares["exact"].high, shares["says_no_error"].high)
        both = Interval(both.estimate, 0.0, highest)
    return Scores(source, num_wrong, num_right, **shares, f1=both, num_unread=num_unread)


def _interval(problems: Sequence[_Hits], hits: str) -> Interval:
    """Return a share with its bootstrap interval over problems; Wilson's at 0 and 1.

    A set may hold several solutions of one problem: they are not independent.
    """
    asked = [problem for problem in problems if problem[_kind(hits)]]
    interval = bootstrap(asked, lambda drawn: _ratio(drawn, hits))
    if interval.estimate not in (0.0, 1.0):
        return interval
    return wilson(*(round(sum(p[name] for p in asked)) for name in (hits, _kind(hits))))


_SHARES = ("exact %", "within one %", "not later %", "says no error %", "F1 %")
_COLUMNS = ("who", "wrong + right", *_SHARES, "unread")
_NOTE = (
    "An answer that cannot be read (no tag, cut off, no step of that number) is wrong. 95 % "
    "intervals: bootstrap over problems. Below the model, guesses that read nothing: in hindsight "
    "is learnt from the cases themselves, the other two positions from other problems of the "
    f"source ({_FOLDS} folds, {_DEALS} deals); their F1 is the best to be had by saying "
    '"no error" in a fixed share of the cases.'
)


def first_error_tables(
    answers: Mapping[str, Sequence[Scores]], guesses: Mapping[str, Sequence[Scores]]
) -> list[Table]:
    """Build one table per source: the scores of each answerer, then of each guesser, by name."""
    sources = dict.fromkeys(s.source for scores in guesses.values() for s in scores)
    tables = []
    for source in sources:
        rows = [
            _line(name, s, is_guess=named is guesses)
            for named in (answers, guesses)
            for name, scores in named.items()
            for s in scores
            if s.source == source
        ]
        tables.append(Table(f"First errors: {source}", _COLUMNS, tuple(rows)))
    return [*tables[:-1], replace(tables[-1], note=_NOTE)]


def _line(name: str, s: Scores, is_guess: bool) -> tuple[str, ...]:
    shares = [share(x, 1) for x in (s.exact, s.within_one, s.not_later)]
    no_error, unread = ("–", "–") if is_guess else (share(s.says_no_error, 1), f"{s.num_unread}")
    f1 = share(s.f1, 1) if s.f1 is not None else "–"
    return (name, f"{s.num_wrong} + {s.num_right}", *shares, no_error, f1, unread)
