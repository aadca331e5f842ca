"""Measures what the base model of the programs world must be able to do, and must not."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from midcourse.config import SamplingConfig
from midcourse.lab.counts.check import COLUMNS, least, line
from midcourse.lab.kinds import Kind
from midcourse.lab.probe import Probe
from midcourse.lab.worlds import PROGRAMS
from midcourse.table import Table

#: Samples of a hard problem: as many as a run draws.
_NUM_SAMPLES = 32


def check_programs(model: str, num_problems: int, seed: int) -> tuple[list[Table], bool]:
    """Sample and compare with the truth; return a table and whether all is met.

    A rollout is right here where every statement is the world's: no program is run.
    """
    base = Probe.of(model, PROGRAMS, seed, SamplingConfig(max_tokens=140))
    known = [base.error(case) for case in base.sample(Kind.KNOWN, num_problems, 8)]
    composed = base.sample(Kind.COMPOSED, num_problems, _NUM_SAMPLES)
    by_problem = groupby(composed, lambda case: case.problem.problem_id)
    unsolved = sum(all(base.error(case) is not None for case in of) for _, of in by_problem)
    most_common = max(Counter(map(base.error, composed)).values(), default=0)
    is_spread = most_common <= 0.30 * len(composed)
    hard = f"composed problems with pass@{_NUM_SAMPLES} = 0"
    rows = (
        least("pass@1 without unknown notions", known.count(None), len(known), 0.80),
        least(hard, unsolved, num_problems, 0.8),
        line("most common first-error position", most_common, len(composed), "≤ 30 %", is_spread),
    )
    note = (
        f"model {model}, {num_problems} held-out problems of each kind, seed {seed}; 95 % Wilson."
    )
    return [Table("Lab check, programs", COLUMNS, rows, note)], all(r[-1] == "met" for r in rows)
