"""The groups of an iteration: what was sampled from one context, and what it is worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from midcourse.config import Loss, ZeroGradient
from midcourse.records import Grade, RlSample, Rollout
from midcourse.training.rl.advantages import reward_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What the teacher is given of one rollout, in self-distillation."""

    context_ids: tuple[int, ...]
    """The prompt that shows a solution, then prefix and intervention as the student has them."""
    taught_by: str
    """As `RlSample.taught_by`."""


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
    falls_back: bool = False
    """Whether its problem lacks the kind of context that was wanted."""
    lessons: tuple[Lesson | None, ...] = ()
    """In self-distillation: per rollout, none where there is nothing to show."""

    @property
    def rewards(self) -> tuple[float | None, ...]:
        """One per rollout; none where it is ungraded."""
        return tuple(reward_of(grade.verdict) for grade in self.grades)

    @property
    def has_gradient(self) -> bool:
        """Whether any rollout is worth more or less than the others, or has a lesson."""
        return any(self.advantages) or self.is_taught

    @property
    def is_taught(self) -> bool:
        """Whether any rollout has a lesson."""
        return any(self.lessons)

    @property
    def num_tokens(self) -> int:
        """Sampled tokens."""
        return sum(rollout.num_tokens for rollout in self.rollouts)

    @property
    def num_trained_tokens(self) -> int:
        """Tokens that TRL counts: of an empty rollout it gets one (`Collector`)."""
        return sum(max(rollout.num_tokens, 1) for rollout in self.rollouts)

    @property
    def samples(self) -> list[RlSample]:
        """The records of where its rollouts were drawn and what they are worth."""
        none = (None,) * len(self.rollouts)
        return [
            RlSample(
                rollout_id=rollout.rollout_id,
                iteration=self.iteration,
                group=self.index,
                advantage=advantage,
                is_trained=self.is_trained,
                taught_by=lesson.taught_by if lesson else "",
            )
            for rollout, advantage, lesson in zip(
                self.rollouts, self.advantages, self.lessons or none, strict=True
            )
        ]


def choose_trained(groups: Sequence[Group], number: int) -> list[Group]:
    """Return all groups, of which `number` are trained: those with a gradient, by index, first."""
    ranked = sorted(groups, key=lambda group: (not group.has_gradient, group.index))
    chosen = {group.index for group in ranked[:number]}
    return [replace(group, is_trained=group.index in chosen) for group in groups]


def scale_without_zeros(groups: Iterable[Group], loss: Loss) -> float:
    """Return what makes the mean over `groups` one over those with a gradient; 1 if none has one.

    A loss divides by tokens (``token_mean``) or by sequences, of all groups alike: so many times
    too much. Over all updates of an iteration together; a single one may hold more of them.
    """
    trained = list(groups)
    sizes = [group.num_trained_tokens if loss == "token_mean" else 1 for group in trained]
    counted = sum(size for size, group in zip(sizes, trained, strict=True) if group.has_gradient)
    return sum(sizes) / counted if counted else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one iteration is trained on."""

    groups: tuple[Group, ...]
    """This process's share of the trained groups, in the order of TRL's rows."""
    scale: float
    """Advantages are multiplied by it in the loss."""
    metrics: dict[str, float]
    """What the log shows of all groups of all processes."""


def group_metrics(groups: Sequence[Group], planned: int, how: ZeroGradient) -> dict[str, float]:
    """Return what the log shows of the groups of an iteration; `planned` is without further ones.

    ``dropped`` are in the batch and not in what the loss is divided by; ``discarded`` are not in
    the batch.
    """
    trained = [group for group in groups if group.is_trained]
    zero = sum(not group.has_gradient for group in trained)
    found = {
        "sampled": len(groups),
        "refilled": len(groups) - planned,
        "trained": len(trained),
        "with_gradient": len(trained) - zero,
        "dropped": zero if how == "drop" else 0,
        "discarded": len(groups) - len(trained),
        "fell_back": sum(group.falls_back for group in groups),
        "sampled_tokens": sum(group.num_tokens for group in groups),
        "trained_tokens": sum(group.num_tokens for group in trained),
    }
    if any(group.lessons for group in groups):
        found |= _lesson_counts(trained)
    for condition in sorted({group.rollouts[0].condition for group in groups}):
        found[f"from_{condition}"] = sum(g.rollouts[0].condition is condition for g in groups)
    return {f"groups/{name}": float(value) for name, value in found.items()}


def _lesson_counts(trained: Sequence[Group]) -> dict[str, int]:
    """Count what self-distillation has to say about groups, and what its teacher reads for it."""
    pairs = [
        (lesson, rollout)
        for group in trained
        for lesson, rollout in zip(group.lessons, group.rollouts, strict=True)
        if lesson
    ]
    taught = sum(group.is_taught for group in trained)
    return {
        "taught": taught,
        "not_taught": len(trained) - taught,
        "taught_rollouts": len(pairs),
        "taught_tokens": sum(rollout.num_tokens for _, rollout in pairs),
        "teacher_tokens": sum(len(one.context_ids) + made.num_tokens for one, made in pairs),
    }
