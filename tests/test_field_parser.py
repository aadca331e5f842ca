"""The collected replies of proposers, each with what should be read of it."""

from __future__ import annotations

from typing import Any

import pytest

from field import field_cases, needs_field_cases
from midcourse.localize.ask import parse_first_error
from midcourse.prompts.parse import parse_proposal

CASES = field_cases("parser")


def read(raw: str, num_steps: int, expected: dict[str, Any]) -> dict[str, Any]:
    """Return what is read of a reply, as far as the case says what it should be."""
    if "error_step" in expected:
        outcome, step = parse_first_error(raw, num_steps)
        return {"outcome": outcome.value, "error_step": step}
    parsed = parse_proposal(raw, num_steps)
    return {name: getattr(parsed, name) for name in expected}


@needs_field_cases
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_collected_reply_is_read_as_expected(case: dict[str, Any]) -> None:
    given = case["input"]
    expected = case["expected"]
    assert read(given["raw"], given["num_steps"], expected) == expected
