"""Do sampler and trainer have the same weights? Compared on every token that was sampled.

The commonest silent failure of RL is a sampler with stale weights: rewards go on, learning does
not. The trainer computes the log-probability of each sampled token before its first update; where
that is not what the sampler says, something is wrong, or rounds differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from midcourse.errors import MidcourseError

#: A gap of so many times the median of earlier iterations is a jump …
_JUMP = 10.0
#: … if it is over what rounding makes in float32, in nats.
_FLOOR = 1e-3
#: Earlier iterations that a jump is measured against, at least and at most.
_FEWEST, _WINDOW = 3, 50


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
            "sampler/logprob_gap": self.mean,
            "sampler/logprob_gap_max": self.largest,
            "sampler/kl": self.divergence,
        }


@dataclass(eq=False)
class AgreementAlarm:
    """Stops a training whose sampler has left its trainer behind, or the other way round."""

    limit: float
    """Nats per token, on average, that are never right."""
    _earlier: list[float] = field(default_factory=list)

    def check(self, iteration: int, seen: Agreement) -> None:
        """Raise MidcourseError if the gap is over the limit or jumped."""
        usual = self._usual()
        if seen.mean > self.limit:
            against = f"more than train_rl.max_logprob_gap = {self.limit:g}"
        elif usual is not None and seen.mean > max(_FLOOR, _JUMP * usual):
            against = f"{seen.mean / usual:.0f} times what it was before ({usual:.2g})"
        else:
            self._earlier.append(seen.mean)
            return
        raise MidcourseError(
            f"iteration {iteration}: sampler and trainer disagree by {seen.mean:.2g} nats a token, "
            f"{against}: the sampler has other weights than the trainer (stale, or of another "
            "dtype), and what follows would be learned from the wrong policy"
        )

    def _usual(self) -> float | None:
        earlier: Sequence[float] = self._earlier[-_WINDOW:]
        return max(median(earlier), 1e-12) if len(earlier) >= _FEWEST else None
