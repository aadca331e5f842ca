"""midcourse's grader as a verl reward function."""

from __future__ import annotations

from typing import Any

from midcourse.export.rewards import reward
from midcourse.records import Gold


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any],
    **_: Any,
) -> dict[str, float]:
    """Return the score; verl has no "no reward", so what could not be graded is 0 and counted."""
    score = reward(solution_str, Gold(extra_info["checker"], ground_truth))
    return {"score": score or 0.0, "ungraded": float(score is None)}
