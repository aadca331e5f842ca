from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midcourse.steps import (
    error_step_from_location,
    join_steps,
    location_from_error_step,
    number_steps,
    prefix_before,
    split_steps,
)


@given(st.text(alphabet=st.sampled_from("ab \n\r\t."), max_size=60))
def test_splitting_loses_nothing(text: str) -> None:
    steps = split_steps(text)
    assert join_steps(steps) == text
    assert all(step.endswith("\n\n") for step in steps[:-1])
    assert all(steps)


def test_a_step_owns_the_blank_line_after_it() -> None:
    assert split_steps("a.\n\nb.\n\n\nc") == ["a.\n\n", "b.\n\n", "\nc"]
    assert split_steps("") == []
    assert split_steps("a\r\n\r\nb") == ["a\r\n\r\nb"]


@given(st.text(alphabet=st.sampled_from("ab\n"), max_size=40), st.integers(0, 9))
def test_prefix_and_rest_are_the_text(text: str, error_step: int) -> None:
    prefix = prefix_before(text, error_step)
    assert prefix + join_steps(split_steps(text)[error_step:]) == text


def test_a_model_counts_from_one() -> None:
    assert number_steps(["a.\n\n", "b."]) == "Substep 1: a.\n\nSubstep 2: b."
    assert error_step_from_location(1) == 0
    assert location_from_error_step(error_step_from_location(14)) == 14
