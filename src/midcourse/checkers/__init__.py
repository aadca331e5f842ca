"""Grading: the last balanced box, a fast path, then math-verify in processes that can be killed."""

from __future__ import annotations

from midcourse.checkers.math.equivalence import GRADER
from midcourse.checkers.math.extract import extract_answer, open_box_tail
from midcourse.checkers.math.leak import contains_answer, leaks_answer
from midcourse.checkers.pool import Grader, GradeResult, grade_responses

__all__ = [
    "GRADER",
    "GradeResult",
    "Grader",
    "contains_answer",
    "extract_answer",
    "grade_responses",
    "leaks_answer",
    "open_box_tail",
]
