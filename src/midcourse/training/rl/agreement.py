"""Do sampler and trainer have the same weights? Compared on every token that was sampled.

The commonest silent failure of RL is a sampler with stale weights: rewards go on, learning does
not. The trainer computes the log-probability of each sampled token before its first update; where
that is not what the sampler says, something is wrong, or rounds differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from midcourse.errors import MidcourseError

#: A gap of so many times the usual one is a jump …
_JUMP = 10.0
#: … if it is over what rounding makes in float32, in nats.
_FLOOR = 1e-3
#: Earlier iterations whose median is usual, at most.
_WINDOW = 50
#: What the log calls the mean gap of an iteration.
GAP = "sampler/logprob_gap"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far apart they are in one iteration, over all tokens of all processes, in nats."""

    mean: float
    """Of the absolute difference."""
    largest: float
    divergence: float
    """Mean of sampler minus trainer: estimates their KL divergence."""

    def metrics(self) -> dict[str, float]:
        """Return what the log shows."""
        return {
            GAP: self.mean,
            "sampler/logprob_gap_max": self.largest,
            "sampler/kl": self.divergence,
        }


@dataclass(frozen=True, slots=True)
class AgreementAlarm:
    """Stops a training whose sampler has left its trainer behind, or the other way round."""

    limit: float
    """Nats per token, on average, that are never right."""

    def check(self, iteration: int, seen: Agreement, earlier: Sequence[float]) -> None:
        """Raise MidcourseError if the gap is over the limit, or jumped over `earlier` ones."""
        usual = _usual(earlier)
        if not seen.mean <= self.limit:  # NaN is never right
            against = f"more than train_rl.max_logprob_gap = {self.limit:g}"
        elif usual is not None and seen.mean > max(_FLOOR, _JUMP * usual):
            against = f"{seen.mean / usual:.0f} times what it was before ({usual:.2g})"
        else:
            return
        raise MidcourseError(
            f"iteration {iteration}: sampler and trainer disagree by {seen.mean:.2g} nats a token, "
            f"{against}: the sampler has other weights than the trainer (stale, or of another "
            "dtype), and what follows would be learned from the wrong policy"
        )


def _usual(earlier: Sequence[float]) -> float | None:
    """Return the usual gap: the median of the last ones, but no more than the very first one.

    At first the sampler has the trainer's weights, or is stopped at once. One that is never
    refreshed drifts off slowly: measured against the last ones alone, it would never jump.
    """
    if not earlier:
        return None
    return max(min(earlier[0], median(earlier[-_WINDOW:])), 1e-12)
