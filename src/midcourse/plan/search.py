"""What a hard-set search saves, from a guess at the pass rates: arithmetic, no model.

Cancelling what is in flight makes a search cheaper than this; wrong rollouts being longer than
right ones makes exhaustive sampling and search alike more expensive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, combinations, pairwise

from midcourse.errors import ConfigError
from midcourse.table import Table

PassRates = Sequence[tuple[float, float]]
"""Pairs of (pass rate, share of the problems); shares sum to 1."""


@dataclass(frozen=True, slots=True)
class SearchCost:
    """Expected rollouts per problem, e.g. 8.9 in rounds of 4, 12, 48 against 64."""

    rounds: tuple[int, ...]
    rollouts: float
    floor: float
    """One by one, stopping at the first correct: nothing is cheaper."""

    @property
    def saving(self) -> float:
        """How many times fewer rollouts than exhaustive sampling."""
        return sum(self.rounds) / self.rollouts


def rollouts_of_search(pass_rates: PassRates, rounds: Sequence[int]) -> SearchCost:
    """Return the expected cost of a search in `rounds`."""
    cost = sum(share * _in_rounds(rate, rounds) for rate, share in pass_rates)
    floor = sum(share * _in_rounds(rate, (1,) * sum(rounds)) for rate, share in pass_rates)
    return SearchCost(tuple(rounds), cost, floor)


def best_rounds(pass_rates: PassRates, num_rollouts: int, max_rounds: int = 3) -> SearchCost:
    """Return the cheapest way to cut `num_rollouts` into at most `max_rounds` rounds.

    Every round is a wait for its slowest rollout: few rounds keep an engine busy. Cuts are tried at
    powers of two and at multiples of a sixteenth of the whole.
    """
    places = {2**i for i in range(num_rollouts.bit_length())}
    places |= {num_rollouts * i // 16 for i in range(1, 16)}
    usable = sorted(place for place in places if 0 < place < num_rollouts)
    cuts = sorted(chain.from_iterable(combinations(usable, n) for n in range(max_rounds)))
    ways = [tuple(b - a for a, b in pairwise((0, *cut, num_rollouts))) for cut in cuts]
    costs = [rollouts_of_search(pass_rates, rounds) for rounds in ways]
    return min(costs, key=lambda cost: cost.rollouts)


def parse_pass_rates(text: str) -> PassRates:
    """Read ``0:0.05,0.3:0.95``. Raises ConfigError unless rates are in 0…1 and shares sum to 1."""
    option = f"--pass-rates {text!r}"
    try:
        pairs = [part.split(":") for part in text.split(",")]
        rates = [(float(rate), float(share)) for rate, share in pairs]
    except ValueError:
        raise ConfigError(f"{option}: write rate:share,… e.g. 0:0.1,0.5:0.9") from None
    if any(not 0 <= rate <= 1 or share < 0 for rate, share in rates):
        raise ConfigError(f"{option}: rates and shares lie between 0 and 1")
    if not math.isclose(sum(share for _, share in rates), 1.0, abs_tol=1e-6):
        raise ConfigError(f"{option}: the shares must sum to 1")
    return rates


def search_table(pass_rates: PassRates, num_rollouts: int, rounds: Sequence[int]) -> Table:
    """Build the comparison of `rounds`, the best rounds, and exhaustive sampling."""
    whole = rollouts_of_search(pass_rates, (num_rollouts,))
    ways = {"all at once": whole}
    if rounds:
        ways["the recipe's rounds"] = rollouts_of_search(pass_rates, rounds)
    ways["best three rounds"] = best_rounds(pass_rates, num_rollouts)
    rows = [
        (name, ", ".join(map(str, c.rounds)), f"{c.rollouts:.2f}", f"{c.saving:.2f} ×")
        for name, c in ways.items()
    ]
    saving = f"{num_rollouts / whole.floor:.2f} ×"
    rows.append(("one by one (floor)", "1, 1, …", f"{whole.floor:.2f}", saving))
    hard = sum(share for rate, share in pass_rates if rate == 0)
    note = f"{hard:.1%} of the problems hard; set sample.rounds to use a search."
    columns = ("search", "rounds", "rollouts a problem", "saving")
    return Table("Expected rollouts", columns, tuple(rows), note)


def _in_rounds(rate: float, rounds: Sequence[int]) -> float:
    """Return the expected rollouts of one problem: a round is drawn if all before it failed."""
    before = (0, *accumulate(rounds[:-1]))
    return sum(size * (1 - rate) ** start for size, start in zip(rounds, before, strict=True))
