"""midcourse's grader as a TRL reward: 1, 0, or None where it could not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from midcourse.export.rewards import reward


def correct(
    completions: Sequence[Sequence[dict[str, str]]], answer: Sequence[str], **_: Any
) -> list[float | None]:
    """Return one reward per completion; TRL leaves None out of a group's mean."""
    texts = [completion[0]["content"] for completion in completions]
    return [reward(text, gold) for text, gold in zip(texts, answer, strict=True)]
