"""Comparisons over training runs, against hand-made cases and by simulation."""

from __future__ import annotations

import math
import random

import pytest

from midcourse.metrics import mean
from midcourse.report.runs import (
    compare_runs,
    compare_values,
    difference_of_arms,
    holm,
    runs_needed,
    sign_flip,
    t_point,
)


def test_the_sign_flip_test_is_exact() -> None:
    assert sign_flip([1.0] * 3) == 2 / 8
    assert sign_flip([1.0] * 6) == 2 / 64
    assert sign_flip([1.0, -1.0]) == 1.0
    assert sign_flip([3.0, 1.0, -1.0]) == 6 / 8  # ±3 ± 1 ± 1 is within 1 of zero for two of eight
    assert sign_flip([]) == 1.0


def test_the_sign_flip_test_keeps_its_size_under_the_null() -> None:
    rng = random.Random(0)
    rejected = sum(sign_flip([rng.gauss(0, 1) for _ in range(8)]) < 0.05 for _ in range(400))
    assert rejected / 400 < 0.08


def test_many_runs_draw_signs_and_never_give_zero() -> None:
    assert 0 < sign_flip([1.0] * 20) < 0.001


def test_holm_orders_and_never_lowers() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_arms_are_paired_by_seed() -> None:
    theirs = {seed: {f"p{i}": [0.1 * seed] for i in range(4)} for seed in range(5)}
    ours = {seed: {p: [v[0] + 0.05] for p, v in run.items()} for seed, run in theirs.items()}
    found = compare_runs(ours | {9: {"p": [1.0]}}, theirs, mean)
    assert found.seeds == (0, 1, 2, 3, 4)
    assert found.differences == pytest.approx([0.05] * 5)
    assert found.difference.estimate == pytest.approx(0.05)


def test_problems_of_a_run_do_not_narrow_the_interval_over_runs() -> None:
    values = {0: 0.2, 1: 0.5, 2: 0.3, 3: 0.6}
    few, many = (
        compare_runs(
            {s: {f"p{i}": [v] for i in range(n)} for s, v in values.items()},
            {s: {f"p{i}": [0.1] for i in range(n)} for s in values},
            mean,
        )
        for n in (3, 300)
    )
    assert few.difference.low == pytest.approx(many.difference.low)
    assert few.p_value == many.p_value == 2 / 16
    # Resampling seeds alone leaves a width, though all problems of a run agree.
    assert many.resampled.high - many.resampled.low > 0.1


def test_two_runs_have_no_interval() -> None:
    found = compare_values({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.0})
    assert math.isnan(found.difference.low)
    assert found.p_value == 0.5


def test_runs_needed_grow_with_the_square_of_the_spread() -> None:
    # A paired t-test of size 5 % and power 80 % on an effect of one SD needs 10 pairs.
    assert runs_needed([-1.0, 1.0, -1.0, 1.0, 0.0], 1.0) == 10
    assert runs_needed([0.1], 0.05) is None


def test_points_of_t_are_those_of_printed_tables() -> None:
    printed = {1: 12.706, 2: 4.303, 3: 3.182, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980}
    assert {freedom: round(t_point(freedom), 3) for freedom in printed} == printed


def test_arms_are_paired_where_three_seeds_are_common_and_else_are_not() -> None:
    ours, theirs = {1: 0.3, 2: 0.5, 3: 0.9}, {1: 0.2, 2: 0.3, 3: 0.8}
    paired = difference_of_arms(ours, theirs)
    assert (paired.n, paired.unit) == (3, "pairs of runs")
    apart = difference_of_arms(ours, {seed + 10: value for seed, value in theirs.items()})
    assert (apart.n, apart.how) == (6, "Welch's t over runs")
    assert paired.found.estimate == pytest.approx(apart.found.estimate)
    assert paired.found.low > apart.found.low, "what a seed shares is taken out"
