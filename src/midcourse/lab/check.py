"""Measures what the base model of a world of notions must be able to do, and must not."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import NamedTuple

from midcourse.config import SamplingConfig
from midcourse.lab.counts.check import COLUMNS, least, line
from midcourse.lab.kinds import Kind
from midcourse.lab.probe import Probe
from midcourse.lab.worlds import WORLDS
from midcourse.table import Table

#: Samples of a hard problem: as many as a run draws.
_NUM_SAMPLES = 32


class _Bounds(NamedTuple):
    max_tokens: int
    """Of a rollout, or of all turns of the model in a dialogue."""
    most_common: float
    """Share of the rollouts that may have one and the same first error."""


#: The first notion of a hard problem stands at one of few places in the memory world.
_BOUNDS = {"programs": _Bounds(140, 0.30), "memory": _Bounds(240, 0.45)}


def check_world(name: str, model: str, num_problems: int, seed: int) -> tuple[list[Table], bool]:
    """Sample and compare with the truth; return a table and whether all is met.

    A rollout is right here where every step is the world's: no checker is asked.
    """
    max_tokens, bound = _BOUNDS[name]
    base = Probe.of(model, WORLDS[name], seed, SamplingConfig(max_tokens=max_tokens))
    known = [base.error(case) for case in base.sample(Kind.KNOWN, num_problems, 8)]
    composed = base.sample(Kind.COMPOSED, num_problems, _NUM_SAMPLES)
    by_problem = groupby(composed, lambda case: case.problem.problem_id)
    unsolved = sum(all(base.error(case) is not None for case in of) for _, of in by_problem)
    most_common = max(Counter(map(base.error, composed)).values(), default=0)
    is_spread = most_common <= bound * len(composed)
    hard = f"composed problems with pass@{_NUM_SAMPLES} = 0"
    place, at_most = "most common first-error position", f"≤ {100 * bound:.0f} %"
    rows = (
        least("pass@1 without unknown notions", known.count(None), len(known), 0.80),
        least(hard, unsolved, num_problems, 0.8),
        line(place, most_common, len(composed), at_most, is_spread),
    )
    note = (
        f"model {model}, {num_problems} held-out problems of each kind, seed {seed}; 95 % Wilson."
    )
    return [Table(f"Lab check, {name}", COLUMNS, rows, note)], all(r[-1] == "met" for r in rows)
