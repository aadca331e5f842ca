"""Steps: how a response is cut into them, losslessly, and how they are counted."""

from __future__ import annotations

from midcourse.steps.cutting import (
    STEP_SEPARATOR,
    error_step_from_location,
    insert_step,
    join_steps,
    location_from_error_step,
    split_steps,
    step_at,
)
from midcourse.steps.rules import BLANK_LINES, StepRule, rule_named
from midcourse.steps.turns import answers_of, place_of, whole_text

__all__ = [
    "BLANK_LINES",
    "STEP_SEPARATOR",
    "StepRule",
    "answers_of",
    "error_step_from_location",
    "insert_step",
    "join_steps",
    "location_from_error_step",
    "place_of",
    "rule_named",
    "split_steps",
    "step_at",
    "whole_text",
]
