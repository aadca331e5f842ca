r"""Worked references for some of reasoning-gym's tasks, from what their entries know.

These tasks come without a solution. Where the metadata holds what a solution goes through (numbers,
factors, digits) it is written out, a step a paragraph, and ends in the entry's own answer; a test
has every reference's answer pass the task's verifier. Intervention training can then show a
reference, as it does in mathematics.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from midcourse.checkers.math.extract import state_answer
from midcourse.steps import STEP_SEPARATOR

Metadata = Mapping[str, Any]


def worked(task: str, entry: Mapping[str, Any]) -> str | None:
    """Return the reference of an entry; None for a task that there is no writer for."""
    write = WRITERS.get(task)
    if write is None:
        return None
    return STEP_SEPARATOR.join([*write(entry["metadata"]), state_answer(str(entry["answer"]))])


def _leg_counting(told: Metadata) -> Iterator[str]:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    total = 0
    for animal, number in told["animals"].items():
        legs = ANIMALS[animal]
        yield (
            f"A {animal} has {legs} legs, so {number} of them have {number} * {legs} = "
            f"{number * legs} legs. So far: {total} + {number * legs} = {total + number * legs}."
        )
        total += number * legs


def _chain_sum(told: Metadata) -> Iterator[str]:
    first, *others = re.findall(r"(?:^|[+-])\s*\d+", told["expression"])
    total = int(first)
    for term in others:
        sign, number = term[0], int(term[1:])
        after = total + number if sign == "+" else total - number
        yield f"{total} {sign} {number} = {after}."
        total = after


def _gcd(told: Metadata) -> Iterator[str]:
    found, *others = told["numbers"]
    for number in others:
        yield f"The greatest common divisor of {found} and {number}, by division:"
        yield from _divisions(found, number)
        found = math.gcd(found, number)
        yield f"The last remainder that is not 0 is {found}."


def _divisions(a: int, b: int) -> Iterator[str]:
    while b:
        yield f"{a} = {a // b} * {b} + {a % b}."
        a, b = b, a % b


def _lcm(told: Metadata) -> Iterator[str]:
    found, *others = told["numbers"]
    for number in others:
        common = math.gcd(found, number)
        yield f"The greatest common divisor of {found} and {number} is {common}."
        after = found * number // common
        yield f"Their least common multiple is {found} * {number} / {common} = {after}."
        found = after


def _prime_factorization(told: Metadata) -> Iterator[str]:
    left = told["number"]
    for factor in told["factors"]:
        yield f"{left} / {factor} = {left // factor}."
        left //= factor


def _letter_counting(told: Metadata) -> Iterator[str]:
    letter, total = told["target_letter"], 0
    for word in told["span"]:
        number = word.lower().count(letter)
        yield f"“{word}” has {number}: {total} + {number} = {total + number}."
        total += number


def _fraction_simplification(told: Metadata) -> Iterator[str]:
    above, below = told["numerator"], told["denominator"]
    common = math.gcd(above, below)
    yield f"The greatest common divisor of {above} and {below}, by division:"
    yield from _divisions(above, below)
    yield f"{above} / {common} = {above // common}."
    yield f"{below} / {common} = {below // common}."


def _base_conversion(told: Metadata) -> Iterator[str]:
    source, target, value = told["source_base"], told["target_base"], 0
    for digit in told["source_repr"]:
        after = value * source + int(digit, 36)
        yield f"{value} * {source} + {int(digit, 36)} = {after}."
        value = after
    yield f"So it is {value} in base 10. Its digits in base {target}, from the last to the first:"
    while value:
        yield f"{value} = {value // target} * {target} + {value % target}."
        value //= target


def _count_bits(told: Metadata) -> Iterator[str]:
    bits, total = told["binary"], 0
    yield f"{told['number']} is {bits} in base 2. Eight digits at a time:"
    for start in range(0, len(bits), 8):
        part = bits[start : start + 8]
        number = part.count("1")
        yield f"{part} has {number}: {total} + {number} = {total + number}."
        total += number


def _word_sorting(told: Metadata) -> Iterator[str]:
    words = told["sorted_words"]
    for first, second in pairwise(words):
        yield f"“{first}” comes before “{second}”, {told['direction']}."


#: What writes the steps of a task, by its name.
WRITERS: Mapping[str, Callable[[Metadata], Iterator[str]]] = {
    "leg_counting": _leg_counting,
    "chain_sum": _chain_sum,
    "gcd": _gcd,
    "lcm": _lcm,
    "prime_factorization": _prime_factorization,
    "letter_counting": _letter_counting,
    "fraction_simplification": _fraction_simplification,
    "base_conversion": _base_conversion,
    "count_bits": _count_bits,
    "word_sorting": _word_sorting,
}
