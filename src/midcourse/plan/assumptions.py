"""What a plan has to assume, each with a name, a unit and where it comes from.

A value is *given* (``--assume rollout_tokens=5000``), else *measured* (``--from RUN_DIR``), else a
*default*: the paper's figure where it has one. Lengths that are 0 follow from others; rates that
are null are computed from the model's shape and the device (`midcourse.plan.hardware`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field, ValidationError

from midcourse.config import Section, explain
from midcourse.errors import ConfigError


class Assumptions(Section):
    """Everything a plan needs that no recipe holds."""

    # What the problems and the model are like.
    num_problems: int | None = Field(None, ge=1)
    """Training problems; null: as many as the recipe's file or limit says."""
    num_held_out: int | None = Field(None, ge=0)
    """Held-out problems; null: as many as the file holds, 200 if it is not there."""
    prompt_tokens: float = Field(200, gt=0)
    """A problem as the model is asked to solve it."""
    reference_tokens: float = Field(700, ge=0)
    """A reference solution."""
    rollout_tokens: float = Field(0, ge=0)
    """A rollout; 0: 0.43 of sample.sampling.max_tokens (Fig. 10: about 7k of 16,384)."""
    rl_tokens: float = Field(0, ge=0)
    """A rollout in RL; 0: as rollout_tokens."""
    rl_sampled_share: float = Field(1, ge=1)
    """Rollouts that RL samples for each that it trains on: above 1 where groups without a gradient
    are replaced."""
    prefix_share: float = Field(0.5, ge=0, le=1)
    """How much of a rollout stands before its first error."""
    continuation_tokens: float = Field(0, ge=0)
    """A continuation of a prefix; 0: what prefix_share leaves of a rollout."""
    intervention_tokens: float = Field(200, gt=0)
    """An intervention (Fig. 10: below 200)."""
    guided_tokens: float = Field(0, ge=0)
    """First turn of the proposer, its guided solution; 0: as reference_tokens."""
    review_tokens: float = Field(0, ge=0)
    """The turn that reviews; 0: 0.25 of propose.sampling.max_tokens."""
    source_shares: dict[str, float] = Field(default_factory=dict)
    """Share of the training problems by source, where `sample.num_rollouts_by_source` asks; {}: as
    the file has them, none without a file. E.g. ``source_shares={"omni-math": 0.04}``."""
    # What comes of it.
    hard_share: float | None = Field(None, ge=0, le=1)
    """Problems without a correct rollout; null: by the pass rates."""
    rollouts_per_problem: float = Field(0, ge=0)
    """Rollouts that a search draws; 0: by the pass rates."""
    hinted_share: float = Field(1, ge=0, le=1)
    """Hard problems that a hint does not solve, where hints are tried."""
    missing_share: float = Field(1, ge=0, le=1)
    """Hard problems without a reference, where missing ones are written."""
    candidate_share: float = Field(0.91, ge=0, le=1)
    """Rollouts asked about that end with an accepted intervention (authors: 14,766 of 16,192)."""
    verified_share: float = Field(0.266, ge=0, le=1)
    """Hard problems with a verified intervention (Table 1 row 11: 1,076 of 4,048)."""
    # How fast it goes, per device; null: by formula.
    sample_tokens_per_second: float | None = Field(None, gt=0)
    """Sampled tokens, rollouts of training problems."""
    propose_tokens_per_second: float | None = Field(None, gt=0)
    """Sampled tokens, the proposer."""
    verify_tokens_per_second: float | None = Field(None, gt=0)
    """Sampled tokens, continuations."""
    evaluate_tokens_per_second: float | None = Field(None, gt=0)
    """Sampled tokens, evaluation."""
    sft_tokens_per_second: float | None = Field(None, gt=0)
    """Tokens trained on, SFT."""
    rl_tokens_per_second: float | None = Field(None, gt=0)
    """Sampled tokens, each also trained on, RL."""
    likelihood_tokens_per_second: float | None = Field(None, gt=0)
    """Tokens scored."""
    grades_per_second: float = Field(400, gt=0)
    """Answers graded by one worker."""
    decode_efficiency: float = Field(0.6, gt=0, le=1)
    """Share of the device's memory bandwidth that decoding reaches."""
    compute_efficiency: float = Field(0.35, gt=0, le=1)
    """Share of the device's operations that prefill and training reach."""
    step_overhead_seconds: float = Field(0.004, ge=0)
    """Time of one decoding step beyond memory and arithmetic."""
    load_seconds: float = Field(60, ge=0)
    """Opening an engine: servers, weights."""
    train_start_seconds: float = Field(60, ge=0)
    """Starting a training process."""
    other_seconds: float = Field(10, ge=0)
    """Everything between and after the stages: the report."""
    # How large it is.
    disk_bytes_per_token: float = Field(3.3, gt=0)
    """Text and ids of a sampled token on disk, compressed."""

    @property
    def prefix_tokens(self) -> float:
        """What of a rollout stands before its first error."""
        return self.rollout_tokens * self.prefix_share

    @property
    def hint_tokens(self) -> float:
        """A hint: up to a third of a reference."""
        return self.reference_tokens / 6


@dataclass(frozen=True, slots=True)
class Settled:
    """Values, and where each that is not a default comes from."""

    values: Assumptions
    sources: Mapping[str, str]
    """``given`` or ``measured``, by key."""


def settle(given: Sequence[str], measured: Mapping[str, float]) -> Settled:
    """Merge ``key=value`` texts over what was measured. Raises ConfigError, one line."""
    told: dict[str, object] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"--assume {text!r}: write key=value, e.g. rollout_tokens=5000")
        try:
            told[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            raise ConfigError(f"--assume {text!r}: {value!r} is not a number") from None
    try:
        values = Assumptions.model_validate({**measured, **told})
    except ValidationError as error:
        raise ConfigError(f"--assume {explain(error, Assumptions)}") from error
    sources = dict.fromkeys(measured, "measured") | dict.fromkeys(told, "given")
    return Settled(values, sources)
