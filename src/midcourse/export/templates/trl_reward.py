"""midcourse's grader as a TRL reward: 1, 0, or None where it could not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from midcourse.export.rewards import reward
from midcourse.records import Gold


def correct(
    completions: Sequence[Sequence[dict[str, str]]], gold: Sequence[Mapping[str, str]], **_: Any
) -> list[float | None]:
    """Return one reward per completion; TRL leaves None out of a group's mean."""
    texts = [completion[0]["content"] for completion in completions]
    return [reward(text, Gold(**fields)) for text, fields in zip(texts, gold, strict=True)]
