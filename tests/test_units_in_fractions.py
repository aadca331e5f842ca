"""Units are read from text: a fraction of two products is not two units."""

from midcourse.checkers.math.units import split_unit


def test_a_fraction_of_two_products_is_not_a_duration() -> None:
    assert split_unit(r"\frac{2h}{30min}") == (r"\frac{2h}{30min}", "")


def test_two_units_in_text_are_given_in_the_smaller_one() -> None:
    duration = (r"\frac{150}{1}", "min")
    assert split_unit(r"2\text{ h }30\text{ min}") == duration
    assert split_unit("2 h 30 min") == duration
