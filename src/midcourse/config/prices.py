"""What tokens cost, in no key: prices change, results do not."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import model_validator

from midcourse.config.base import Section, tunable
from midcourse.tokens import TokenCount


class PriceConfig(Section):
    """What the tokens of one of those who are asked cost."""

    input: float | None = tunable(None, ge=0, allow_inf_nan=False)
    """USD per million tokens in; unset, no cost is shown."""
    output: float | None = tunable(None, ge=0, allow_inf_nan=False)
    """USD per million tokens out."""

    @model_validator(mode="after")
    def _is_whole(self) -> PriceConfig:
        if (self.input is None) != (self.output is None):
            raise ValueError("give input and output, in USD per million tokens; 0 is a price too")
        return self

    def cost(self, count: TokenCount) -> float | None:
        """Return what tokens cost in USD; none without a price."""
        if self.input is None or self.output is None:
            return None
        return (count.tokens_in * self.input + count.tokens_out * self.output) / 1e6


class PricesConfig(Section):
    """Prices by who is asked."""

    policy: PriceConfig = PriceConfig()
    proposer: PriceConfig = PriceConfig()
    teacher: PriceConfig = PriceConfig()
    reference: PriceConfig = PriceConfig()

    def cost(self, tokens: Mapping[str, TokenCount]) -> float | None:
        """Return what tokens cost in USD, of those with a price; none if nobody asked has one.

        Whoever a later release may name has none.
        """
        costs = [getattr(self, name, PriceConfig()).cost(count) for name, count in tokens.items()]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if known else None
