"""Measures what the base model of the counts world must be able to do, and must not.

The asymmetry the lab stands on: the base solves what it knows, fails on composed unknown notions
in every sample, yet names and fixes its own first error when it can compare with a reference, and
cannot without one. The world knows the truth, so every figure here is exact but for sampling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import filterfalse, groupby, islice
from typing import Literal

from midcourse.config import ProposeConfig, SamplingConfig
from midcourse.lab.counts.world import Kind
from midcourse.lab.probe import Probe
from midcourse.lab.worlds import COUNTS
from midcourse.metrics import wilson
from midcourse.stages.propose import Case
from midcourse.table import Table, share

_PROPOSE = ProposeConfig(
    turns="single",
    num_rollouts=2,
    num_proposals=1,
    max_intervention_tokens=40,
    sampling=SamplingConfig(max_tokens=400),
)


def check_counts(model: str, num_problems: int, seed: int) -> tuple[list[Table], bool]:
    """Sample, propose and compare with the truth; return a table and whether all is met."""
    base = Probe.of(model, COUNTS, seed, SamplingConfig(max_tokens=140))
    known = base.sample(Kind.KNOWN, num_problems, 8)
    composed = base.sample(Kind.COMPOSED, num_problems, 64)
    solved = {case.problem.problem_id for case in composed if base.is_right(case)}
    by_problem = groupby(composed, lambda case: case.problem.problem_id)
    wrong = [
        case
        for _, cases in by_problem
        for case in islice(filterfalse(base.is_right, cases), _PROPOSE.num_rollouts)
    ]
    errors, total = [base.error(case) for case in known], len(wrong)
    most_common = max(Counter(map(base.error, wrong)).values(), default=0)
    is_spread = most_common <= 0.30 * total
    located, usable = _judge(base, wrong, "given")
    _, bare = _judge(base, wrong, "none")
    rows = (
        least("pass@1 without unknown notions", errors.count(None), len(errors), 0.90),
        least("composed problems with pass@64 = 0", num_problems - len(solved), num_problems, 0.6),
        least("names the true first error, with reference", located, total, 0.80),
        least("usable, exactly correct intervention, with reference", usable, total, 0.75),
        line("the same without reference", bare, total, "≤ half of that", 2 * bare <= usable),
        line("most common first-error position", most_common, total, "≤ 30 %", is_spread),
    )
    note = (
        f"model {model}, {num_problems} held-out problems of each kind, seed {seed}; 95 % Wilson."
    )
    table = Table("Lab check", COLUMNS, rows, note)
    return [table], all(row[-1] == "met" for row in rows)


def _judge(
    base: Probe, cases: Sequence[Case], reference: Literal["given", "none"]
) -> tuple[int, int]:
    """Return how many proposals name the true first error, and how many are exactly right."""
    located = base.located(base.propose(cases, _PROPOSE, reference), cases)
    return len(located), sum(map(base.is_exact, located))


COLUMNS = ("figure", "count", "share %", "required", "")


def least(what: str, num_correct: int, num_samples: int, share: float) -> tuple[str, ...]:
    """Return a line that requires a share of samples at the least."""
    met = num_correct >= share * num_samples
    return line(what, num_correct, num_samples, f"≥ {100 * share:.0f} %", met)


def line(what: str, num_correct: int, num_samples: int, bound: str, met: bool) -> tuple[str, ...]:
    """Return a line: a count with its share, what is required, and whether that is met."""
    found = share(wilson(num_correct, num_samples), 1)
    return (what, f"{num_correct}/{num_samples}", found, bound, "met" if met else "NOT MET")
