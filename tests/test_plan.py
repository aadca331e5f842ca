from __future__ import annotations

import random

import pytest

from midcourse.errors import ConfigError
from midcourse.plan.search import best_rounds, parse_pass_rates, rollouts_of_search


def test_the_expected_rollouts_are_those_of_a_simulation() -> None:
    rates, rounds = [(0.0, 0.2), (0.1, 0.3), (0.7, 0.5)], (4, 12, 48)
    rng = random.Random(0)
    total = 0
    for _ in range(20_000):
        rate = rng.choices([r for r, _ in rates], [s for _, s in rates])[0]
        for size in rounds:
            total += size
            if any(rng.random() < rate for _ in range(size)):
                break
    cost = rollouts_of_search(rates, rounds)
    assert cost.rollouts == pytest.approx(total / 20_000, rel=0.03)
    assert cost.floor < cost.rollouts < 64
    assert cost.saving == pytest.approx(64 / cost.rollouts)


def test_extremes() -> None:
    assert rollouts_of_search([(0.0, 1.0)], (4, 60)).rollouts == 64
    assert rollouts_of_search([(1.0, 1.0)], (4, 60)).rollouts == 4
    assert rollouts_of_search([(1.0, 1.0)], (4, 60)).floor == 1


def test_the_best_rounds_beat_a_guess() -> None:
    rates = [(0.0, 0.05), (0.05, 0.2), (0.5, 0.75)]
    best = best_rounds(rates, 64)
    assert sum(best.rounds) == 64
    assert len(best.rounds) <= 3
    assert best.rollouts <= rollouts_of_search(rates, (4, 12, 48)).rollouts
    assert best_rounds([(0.0, 1.0)], 64).rounds == (64,)


@pytest.mark.parametrize("text", ["", "0.5", "a:b", "0:0.5", "2:1", "0:1.5,1:-0.5"])
def test_pass_rates_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--pass-rates"):
        parse_pass_rates(text)
    assert list(parse_pass_rates("0:0.25,0.5:0.75")) == [(0.0, 0.25), (0.5, 0.75)]
