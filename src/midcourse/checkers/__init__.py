"""Checkers, which say whether an answer is right, and the grader that runs them in processes."""

from __future__ import annotations

from midcourse.checkers.answers import AnswerChecker
from midcourse.checkers.base import Checker, Compared, Comparison, Pair, ProgramChecker
from midcourse.checkers.pool import Grader, GradeResult, grade_responses
from midcourse.checkers.registry import (
    checker_named,
    checker_names,
    runs_programs,
    shown_failure,
    shown_tests,
)

__all__ = [
    "AnswerChecker",
    "Checker",
    "Compared",
    "Comparison",
    "GradeResult",
    "Grader",
    "Pair",
    "ProgramChecker",
    "checker_named",
    "checker_names",
    "grade_responses",
    "runs_programs",
    "shown_failure",
    "shown_tests",
]
