from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midcourse.metrics import (
    Count,
    accuracy,
    bootstrap,
    coverage,
    group_shares,
    mean_pass_at_k,
    paired_difference,
    pass_at_k,
    wilson,
)


@given(
    st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
)
def test_pass_at_k_is_the_share_of_subsets_with_a_success(case: tuple[int, int, int]) -> None:
    n, c, k = case
    subsets = list(combinations([i < c for i in range(n)], k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_at_its_ends() -> None:
    assert pass_at_k(64, 0, 64) == 0.0
    assert pass_at_k(64, 64, 1) == 1.0
    assert pass_at_k(1024, 1, 1024) == 1.0
    assert pass_at_k(100_000, 3, 1) == pytest.approx(3e-5)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 1, 8), (5, 1, 0), (5, 6, 1), (0, 0, 1), (5, -1, 1)])
def test_too_few_samples_are_an_error_not_a_clamp(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="num_samples"):
        pass_at_k(n, c, k)


def test_coverage_and_accuracy() -> None:
    counts = [Count(32, 0), Count(32, 4), Count(0, 0)]
    assert coverage(counts) == 1
    assert accuracy(counts) == 4 / 64
    assert math.isnan(accuracy([]))
    assert math.isnan(mean_pass_at_k([], 1))


def test_groups_are_told_apart_three_ways() -> None:
    shares = group_shares([Count(8, 0), Count(8, 8), Count(8, 3), Count(8, 1), Count(0, 0)])
    assert (shares.none_correct, shares.mixed, shares.all_correct) == (0.25, 0.5, 0.25)
    assert shares.num_groups == 4


def test_the_bootstrap_resamples_problems() -> None:
    counts = [Count(100, 100)] * 5 + [Count(100, 0)] * 5
    interval = bootstrap(counts, accuracy)
    assert interval.estimate == 0.5
    # Ten problems that agree within themselves: far wider than a thousand independent samples.
    assert interval.low < 0.3 < 0.7 < interval.high
    assert bootstrap(counts, accuracy) == interval
    same = bootstrap([Count(4, 0)] * 3, accuracy)
    assert (same.low, same.high) == (0.0, 0.0)


def test_wilson_against_known_values() -> None:
    interval = wilson(0, 10)
    assert interval.low == 0.0
    assert interval.high == pytest.approx(0.2775, abs=1e-4)
    half = wilson(50, 100)
    assert (half.low, half.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert math.isnan(wilson(0, 0).estimate)


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    before = [Count(100, c) for c in (5, 20, 40, 60, 80, 95)]
    after = [Count(100, count.num_correct + 5) for count in before]
    gain = paired_difference(before, after, accuracy)
    assert (gain.estimate, gain.low, gain.high) == pytest.approx((0.05, 0.05, 0.05))
    # Apart, the two intervals overlap by far: problems differ much more than models.
    assert bootstrap(after, accuracy).low < bootstrap(before, accuracy).high
    assert paired_difference(before, before, accuracy).high == 0.0
    with pytest.raises(ValueError, match="shorter"):
        paired_difference(before, after[:-1], accuracy)
