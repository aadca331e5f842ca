"""Checkers, which say whether an answer is right, and the grader that runs them in processes."""

from __future__ import annotations

from midcourse.checkers.base import Checker, Comparison, Pair
from midcourse.checkers.pool import Grader, GradeResult, grade_responses
from midcourse.checkers.registry import checker_named

__all__ = [
    "Checker",
    "Comparison",
    "GradeResult",
    "Grader",
    "Pair",
    "checker_named",
    "grade_responses",
]
