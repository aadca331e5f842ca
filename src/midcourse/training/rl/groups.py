"""The groups of an iteration: what was sampled from one context, and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass

from midcourse.records import Grade, RlSample, Rollout
from midcourse.training.rl.advantages import reward_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rollouts of one context in one iteration, graded."""

    iteration: int
    index: int
    """0-based, within the iteration."""
    context_ids: tuple[int, ...]
    """Prompt, prefix and intervention: what the rollouts continue and nothing is learned of."""
    rollouts: tuple[Rollout, ...]
    logprobs: tuple[tuple[float, ...], ...]
    """Per rollout and sampled token, under the sampler; empty where it does not tell."""
    grades: tuple[Grade, ...]
    advantages: tuple[float, ...]
    is_trained: bool = True

    @property
    def rewards(self) -> tuple[float | None, ...]:
        """One per rollout; none where it is ungraded."""
        return tuple(reward_of(grade.verdict) for grade in self.grades)

    @property
    def has_gradient(self) -> bool:
        """Whether any rollout is worth more or less than the others."""
        return any(self.advantages)

    @property
    def num_tokens(self) -> int:
        """Sampled tokens."""
        return sum(rollout.num_tokens for rollout in self.rollouts)

    @property
    def samples(self) -> list[RlSample]:
        """The records of where its rollouts were drawn and what they are worth."""
        return [
            RlSample(
                rollout_id=rollout.rollout_id,
                iteration=self.iteration,
                group=self.index,
                advantage=advantage,
                is_trained=self.is_trained,
            )
            for rollout, advantage in zip(self.rollouts, self.advantages, strict=True)
        ]
