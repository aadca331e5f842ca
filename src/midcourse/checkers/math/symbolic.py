r"""Compares two answers member by member, and their expressions with math-verify.

The form comes first (`midcourse.checkers.math.forms`): a set is not a tuple, ``x = 1, y = 2`` is
not ``(2, 1)``. sympy may run without end, or die, at any expression: this is called in a worker
process only (`midcourse.checkers.pool`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from typing import Any

from midcourse.checkers.base import Comparison
from midcourse.checkers.math.algebra import is_near, same_expression
from midcourse.checkers.math.brackets import balanced, split
from midcourse.checkers.math.equivalence import approximation, compare_quickly, plain
from midcourse.checkers.math.forms import (
    ALTERNATIVES,
    CONJUNCTIONS,
    MEMBERS,
    Form,
    Shape,
    builder_of,
    normalise,
    quantity_of,
    read_form,
    signs,
)
from midcourse.checkers.math.latex import read_latex
from midcourse.checkers.math.layouts import same_cases
from midcourse.checkers.math.notation import call_written_out
from midcourse.checkers.math.sets import only_letter, rename, same_set
from midcourse.checkers.math.spelling import respelled
from midcourse.checkers.math.units import DEGREES, is_no_angle, restate, split_unit
from midcourse.checkers.math.wording import choice_label, words_of

#: A longer answer in words is an essay: its words say nothing about its sense.
_MAX_WORDS = 20
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_REGION = re.compile(rf"{_RELATION.pattern}|\\setminus(?![A-Za-z])")
_TWO_NUMBERS = re.compile(r"(?<!\\frac )(?<!\\binom )(?<![0-9])[0-9]+ [0-9]+(?! ?/)(?![0-9])")
_SET_SIGN = re.compile(r"\\(?:cup|cap|setminus)(?![A-Za-z])")
_HALF_OPEN = (("(", "]"), ("[", ")"))
#: What is more than the list of its parts.
_ROWS_OR_RULES = {Shape.RESIDUES, Shape.MATRIX, Shape.CASES, Shape.BUILT}
#: Of a function that only its name gives.
_DERIVATIVE = re.compile(
    r"\\frac\s?\{\s?(?:d|\\partial)[^{}]*\}\s?\{\s?(?:d|\\partial)\s?[a-z][^{}]*\}"
)
_RADIANS = {"rad", "radian", "radians"}
_BASE = re.compile(r"([0-9A-F]+)_\{?([0-9]{1,2})\}?")
_REMAINDER = re.compile(
    r"(?P<number>.+?)\s?\\bmod(?![A-Za-z])\s?\{?\s?(?P<modulus>[1-9][0-9]*)\s?\}?"
)
_APPROXIMATELY = re.compile(
    r"\\(?:approx(?:eq)?|simeq|thickapprox|doteq|fallingdotseq)(?![A-Za-z])|[≈≃≒]|~=|=~"
    r"|(?:\\(?:sim|cong)(?![A-Za-z])|≅)(?=\s?-?[0-9.,]+\Z)"
)
_NAME_ALONE = re.compile(
    r"(?:(?:\\?[A-Za-z]+|\\[A-Za-z]+\s?\{[A-Za-z ]*\})'*(?:_(?:\w|\{[^{}]*\}))?(?:\s?\([^()]*\))?)?"
)
_DECIMAL = re.compile(r"\s*-?[0-9][0-9.,]*\s*")
_CONSTANT = re.compile(r"\\pi|e|i")
_DOTS = r"\ldots"
#: math-verify takes what is zero to as many places for zero, so these are many.
_DIGITS = 100
#: As many members of ``1, 2, …, n`` are written out.
_MAX_WRITTEN_OUT = 1000


def compare_symbolically(*, gold: str, answer: str) -> Comparison:
    """Compare by form, then by algebra. May run without end, or die.

    Raises whatever sympy raises while comparing; an answer that does not parse is different.
    """
    gold, answer = normalise(respelled(plain(gold))), normalise(respelled(plain(answer)))
    (choice, formula), (letter, rest) = choice_label(gold), choice_label(answer)
    if not _legible(formula or gold):
        return Comparison.GOLD_UNPARSEABLE
    if choice and letter:
        same = choice == letter and (not formula or not rest or _same(formula, rest))
    else:
        same = _same(gold, rest or answer) or bool(formula and _same(formula, answer))
    return Comparison.EQUAL if same else Comparison.DIFFERENT


@lru_cache(maxsize=256)
def _legible(gold: str) -> bool:
    """Whether a gold answer can be compared with anything but its own text."""
    if not gold or not balanced(gold):
        return False
    form = read_form(gold)
    if form.shape is not Shape.ONE:
        return bool(form.parts) and all(
            part == _DOTS or _legible(part) for part in form.parts if part != gold
        )
    words = words_of(gold)
    if words:
        return len(words) <= _MAX_WORDS
    value, _ = split_unit(form.parts[0])
    return bool(read_latex(value)) or bool(re.search(r"\\[A-Za-z]+", value))


# --- by form -----------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _same(gold: str, answer: str) -> bool:
    (gold, exact), (answer, answer_exact) = _exact_part(gold, answer), _exact_part(answer, gold)
    if exact and not answer_exact:
        return False
    golds, answers = _APPROXIMATELY.split(gold), _APPROXIMATELY.split(answer)
    if len(golds) > 1:
        return len(golds) == len(answers) and _pairwise(golds, answers)
    if (built := _same_built(gold, answer)) is not None:
        return built
    ours, theirs = read_form(gold), read_form(answer)
    if (ours.shape is Shape.RESIDUES) != (theirs.shape is Shape.RESIDUES):
        ours, theirs = read_form(_reduced(gold)), read_form(_reduced(answer))
    equal = _same_forms(gold, answer, ours, theirs)
    return equal or _same_region(
        ours.parts[0] if ours.shape is Shape.ONE else gold,
        theirs.parts[0] if theirs.shape is Shape.ONE else answer,
    )


def _same_forms(gold: str, answer: str, ours: Form, theirs: Form) -> bool:
    """Compare two answers by their forms."""
    shapes = {ours.shape, theirs.shape}
    if ours.shape is Shape.ONE and theirs.shape is Shape.ONE:
        return _same_expression(gold, answer, ours, theirs)
    if shapes == {Shape.ONE, Shape.TUPLE}:
        # An interval may have a name: all of the real numbers.
        return _verify(call_written_out(gold), call_written_out(answer))
    if _ROWS_OR_RULES & shapes:
        return _same_whole(gold, answer, ours, theirs)
    if ours.shape is theirs.shape is Shape.RATIO:
        return _same_ratio(ours.parts, theirs.parts)
    if ours.shape in (Shape.TUPLE, Shape.NAMED) and theirs.shape is not Shape.ONE:
        return _same_in_order(ours, theirs)
    if shapes == {Shape.SET, Shape.TUPLE} or _names_differ(ours, theirs):
        return False
    if shapes == {Shape.ONE, Shape.SET} and _SET_SIGN.search(gold + answer):
        return _verify(gold, answer)
    return not _joined_otherwise(gold, answer) and _same_members(ours, theirs)


def _same_built(gold: str, answer: str) -> bool | None:
    """Compare sets of which one or both are given by a condition; None if neither is."""
    ours, theirs = builder_of(gold), builder_of(answer)
    if ours is not None and theirs is not None:
        return same_set(ours, theirs, _same)
    if ours is None and theirs is None:
        return None
    if ours is not None:
        return ours.may_equal(answer) and _same(ours.condition, answer)
    return theirs is not None and theirs.may_equal(gold) and _same(gold, theirs.condition)


def _same_whole(gold: str, answer: str, ours: Form, theirs: Form) -> bool:
    """Compare two answers one of which is more than the list of its parts."""
    shapes = {ours.shape, theirs.shape}
    if shapes == {Shape.MATRIX, Shape.TUPLE}:
        ours, theirs = _as_matrix(ours, theirs), _as_matrix(theirs, ours)
        shapes = {ours.shape, theirs.shape}
    if shapes == {Shape.MATRIX, Shape.ONE}:
        return _verify(gold, answer)
    if len(shapes) > 1:
        return False
    if ours.shape is Shape.RESIDUES:
        return _same_residues(ours, theirs)
    if ours.shape is Shape.CASES:
        old, new = (only_letter(*form.names) for form in (theirs, ours))
        return same_cases(_cases(ours), _cases(theirs, old, new), _same, _all_but)
    return ours.names == theirs.names and _pairwise(ours.parts, theirs.parts)


def _as_matrix(form: Form, other: Form) -> Form:
    """Read a vector, or ``[[1, 0], [0, 1]]``, as the matrix that it is compared with."""
    if form.shape is not Shape.TUPLE or form.names not in (("(", ")"), ("[", "]")):
        return form
    rows = [read_form(part) for part in form.parts]
    if {row.shape for row in rows} == {Shape.TUPLE}:
        lengths = {len(row.parts) for row in rows}
        cells = tuple(cell for row in rows for cell in row.parts)
        size = (str(len(rows)), str(max(lengths)))
        return Form(Shape.MATRIX, cells, size) if len(lengths) == 1 else form
    vector = "1" in other.names and len(form.parts) == len(other.parts)
    return Form(Shape.MATRIX, form.parts, other.names) if vector else form


def _cases(form: Form, old: str = "", new: str = "") -> list[tuple[str, str]]:
    """Return each value and when it holds, with one letter renamed: which one it is is free."""
    cases = zip(form.parts, form.names, strict=True)
    if not (old and new):
        return list(cases)
    return [(rename(value, old, new), rename(condition, old, new)) for value, condition in cases]


def _all_but(conditions: Sequence[str], condition: str) -> bool:
    """Whether a condition holds of just the real numbers of which none of the others does."""
    from sympy import Complement, Reals, Union

    regions, rest = [_region(other) for other in conditions], _region(condition)
    if rest is None or any(region is None for region in regions):
        return False
    return bool(Complement(Reals, Union(*regions)) == rest)


def _joined_otherwise(gold: str, answer: str) -> bool:
    """Whether one side joins conditions with "and", the other with "or"."""
    if not (_RELATION.search(gold) and _RELATION.search(answer)):
        return False
    ours, theirs = (
        [len(split(text, joint)) > 1 for joint in (ALTERNATIVES, CONJUNCTIONS)]
        for text in (gold, answer)
    )
    return any(ours) and any(theirs) and ours != theirs


def _exact_part(text: str, other: str) -> tuple[str, bool]:
    r"""Return what stands before ``\approx``, or the number after ``x \approx`` as inexact.

    Where both texts say that one formula is about another one, nothing is left out.
    """
    first, *others = _APPROXIMATELY.split(text)
    if not others:
        return text, True
    first = first.strip().removesuffix("=").rstrip()
    if _NAME_ALONE.fullmatch(first) and not _CONSTANT.fullmatch(first):
        return others[-1].strip(), False
    cut = all(map(_DECIMAL.fullmatch, others)) or not _APPROXIMATELY.search(other)
    return first if cut else text, True


def _same_in_order(ours: Form, theirs: Form) -> bool:
    if theirs.shape is Shape.SET or len(ours.parts) != len(theirs.parts):
        return False
    if ours.shape is Shape.TUPLE and theirs.shape is Shape.TUPLE and len(ours.parts) == 2:
        # Two in brackets may be an interval, and then its ends matter.
        return ours.names == theirs.names and _pairwise(ours.parts, theirs.parts)
    if {ours.shape, theirs.shape} == {Shape.NAMED, Shape.TUPLE} and _half_open(ours, theirs):
        return False
    if ours.shape is Shape.NAMED and set(ours.names) == set(theirs.names):
        named = dict(zip(theirs.names, theirs.parts, strict=True))
        return _pairwise(ours.parts, [named[name] for name in ours.names])
    return _pairwise(ours.parts, theirs.parts)


def _names_differ(ours: Form, theirs: Form) -> bool:
    """Whether the members of a set are named by several letters: ``x = 1, y = 2`` is a point."""
    letters = {name.partition("_")[0] for name in theirs.names}
    return ours.shape is Shape.SET and theirs.shape is Shape.NAMED and len(letters) > 1


def _half_open(*forms: Form) -> bool:
    """Whether one is an interval that lacks an end: ``(1, 2]`` is no point."""
    return any(form.shape is Shape.TUPLE and form.names in _HALF_OPEN for form in forms)


def _pairwise(ours: Iterable[str], theirs: Iterable[str]) -> bool:
    return all(_same(one, other) for one, other in zip(ours, theirs, strict=True))


def _same_members(ours: Form, theirs: Form) -> bool:
    if _DOTS in ours.parts and _DOTS in theirs.parts:
        return _same_progression(ours.parts, theirs.parts)
    golds, answers = _written_out(ours.parts), _written_out(theirs.parts)
    return _cover(golds, answers, _same)


def _cover(ours: Sequence[str], theirs: Sequence[str], same: Callable[[str, str], bool]) -> bool:
    """Whether each member has its like on the other side; repeats say nothing."""
    common = set(ours) & set(theirs)
    return all(one in common or any(same(one, other) for other in theirs) for one in ours) and all(
        other in common or any(same(one, other) for one in ours) for other in theirs
    )


def _same_residues(ours: Form, theirs: Form) -> bool:
    [modulus], [other] = ours.names, theirs.names

    def same(gold: str, answer: str) -> bool:
        if all(re.fullmatch(r"-?[0-9]+", text) for text in (gold, answer, modulus)):
            return int(modulus) != 0 and (int(gold) - int(answer)) % int(modulus) == 0
        return _same(gold, answer)

    return _same(modulus, other) and _cover(ours.parts, theirs.parts, same)


def _reduced(text: str) -> str:
    r"""Work ``2^{100} \bmod 7`` out: a number, and not a class of residues."""
    from sympy import Mod, Pow

    found = _REMAINDER.fullmatch(text)
    values = read_latex(found["number"]) if found else ()
    if not found or not values:
        return text
    [value] = values
    if value.is_Pow:  # of powers, sympy takes the remainder without working them out
        value = Pow(value.base.doit(), value.exp.doit(), evaluate=False)
    remainder = Mod(value, int(found["modulus"]))
    return str(remainder) if remainder.is_Integer else text


def _same_ratio(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    return len(ours) == len(theirs) and all(
        _same(rf"({ours[0]})\cdot({there})", rf"({theirs[0]})\cdot({here})")
        for here, there in zip(ours[1:], theirs[1:], strict=True)
    )


def _same_progression(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Compare ``1, 2, …, n`` by first member, step and last member."""
    gold, answer = _progression(ours), _progression(theirs)
    return _pairwise(gold, answer) if gold and answer else ours == theirs


def _progression(parts: Sequence[str]) -> tuple[str, str, str] | None:
    dots = parts.index(_DOTS)
    before, after = parts[:dots], parts[dots + 1 :]
    if not before or len(after) > 1 or _DOTS in after:
        return None
    step = f"({before[1]})-({before[0]})" if len(before) > 1 else "1"
    steady = all(_same(step, f"({later})-({earlier})") for earlier, later in pairwise(before))
    return (before[0], step, after[0] if after else r"\infty") if steady else None


def _written_out(parts: Sequence[str]) -> list[str]:
    """Return ``1, 2, …, 9`` in full, if its members are whole numbers and not too many."""
    numbers = [int(part) for part in parts if re.fullmatch(r"-?[0-9]{1,9}", part)]
    if _DOTS not in parts or len(numbers) != len(parts) - 1 or _progression(parts) is None:
        return list(parts)
    step = numbers[1] - numbers[0] if parts.index(_DOTS) > 1 else 1
    if step == 0 or parts[-1] == _DOTS:
        return list(parts)
    full = range(numbers[0], numbers[-1] + (1 if step > 0 else -1), step)
    return [str(number) for number in full] if len(full) <= _MAX_WRITTEN_OUT else list(parts)


def _same_region(gold: str, answer: str) -> bool:
    r"""Compare an inequality with an interval, or with another inequality."""
    if not (_REGION.search(gold) or _REGION.search(answer)):
        return False
    ours = _region(gold)
    theirs = None if ours is None else _region(answer)
    return theirs is not None and bool(ours.is_subset(theirs) and theirs.is_subset(ours))


@lru_cache(maxsize=256)
def _region(text: str) -> Any:
    """Return the set of real numbers that a text describes; None if it describes none."""
    from sympy import Intersection, Union

    regions, letters = [], set[Any]()
    for alternative in split(text, ALTERNATIVES):
        # A comma may stand for "or"; before or after "x is not 0", it stands for "and".
        joints = MEMBERS if r"\ne" in alternative else CONJUNCTIONS
        parts = signs(*split(alternative, joints))
        conditions = [_one_region(part, letters) for part in parts]
        if any(region is None for region in conditions) or len(letters) > 1:
            return None
        both = Intersection(*conditions)
        # "x < 1 and x > 3" lists the solutions: no number is both.
        listed = both.is_empty and r"\land" not in alternative
        regions.append(Union(*conditions) if listed else both)
    return Union(*regions)


def _one_region(text: str, letters: set[Any]) -> Any:
    """Return the numbers of which one condition holds; adds the letter it is about."""
    from sympy import Complement, FiniteSet, Set
    from sympy.core.relational import Equality
    from sympy.logic.boolalg import Boolean

    parsed = None if len(split(text, frozenset({","}))) > 1 else (read_latex(text) or (None,))[0]
    if isinstance(parsed, Boolean):
        letters |= parsed.free_symbols
    if isinstance(parsed, Equality) and isinstance(parsed.rhs, Set):
        parsed = parsed.rhs
    if isinstance(parsed, Equality):
        return FiniteSet(parsed.rhs)
    if isinstance(parsed, Boolean) and len(parsed.free_symbols) == 1:
        return parsed.as_set()
    if isinstance(parsed, Complement):
        return Complement(*parsed.args)
    return parsed if isinstance(parsed, Set) else None


# --- one expression ----------------------------------------------------------------------------


def _same_expression(gold: str, answer: str, ours: Form, theirs: Form) -> bool:
    """Compare what stands after ``f(x) =``; where that differs, the equations as they stand."""
    value, other = ours.parts[0], theirs.parts[0]
    quantity, other_quantity = quantity_of(gold), quantity_of(answer)
    if quantity and other_quantity and _bare(quantity) != _bare(other_quantity):
        return False
    if ours.names and theirs.names and ours.names != theirs.names:
        # The name of a function's variable is free: both get one that is not in use.
        value = rename(value, ours.names[0], r"\xi ")
        other = rename(other, theirs.names[0], r"\xi ")
        return _same_value(value, other)
    if _same_value(value, other):
        return True
    named = value != gold and other != answer
    equations = "=" in gold and "=" in answer and not words_of(answer)
    return equations and not named and _verify(gold, answer)


def _same_value(gold: str, answer: str) -> bool:
    (value, unit), (other, other_unit) = split_unit(gold), split_unit(answer)
    if unit and other_unit:
        restated = restate(value, unit, other_unit)
        if restated is None:
            return False
        value = restated
    one_in_degrees = (DEGREES.search(value) is None) != (DEGREES.search(other) is None)
    if one_in_degrees and (r"\pi" in value + other or _RADIANS & {unit, other_unit}):
        value, other = _in_radians(value), _in_radians(other)
    elif one_in_degrees and any(map(is_no_angle, (unit, other_unit))):
        return False
    value, other = _as_decimal(value, other)
    quick = compare_quickly(gold=value, answer=other)
    if quick is not None:
        return quick is Comparison.EQUAL
    ours, theirs = words_of(value), words_of(other)
    if ours or theirs:
        return ours == theirs
    # What math-verify cannot read, or takes for 0, can still be the same signs.
    if value.count("'") != other.count("'"):
        return False
    if _DERIVATIVE.search(value) or not read_latex(value):
        return _bare(value) == _bare(other)
    return _verify(value, other) or _rounds(value, other) or _rounds(other, value)


def _rounds(decimal: str, exact: str) -> bool:
    """Whether a text is a decimal that stands for what another one says exactly."""
    from sympy import Expr

    known = approximation(decimal)
    return known is not None and any(
        isinstance(value, Expr) and is_near(value, *known) for value in read_latex(exact)
    )


def _in_radians(text: str) -> str:
    number = DEGREES.sub("", text)
    return text if number == text else rf"({number})\cdot\frac{{\pi}}{{180}}"


def _as_decimal(gold: str, answer: str) -> tuple[str, str]:
    """Write two numbers with a base in the base ten; one base alone is the problem's own."""
    ours, theirs = _BASE.fullmatch(gold), _BASE.fullmatch(answer)
    if ours and theirs:
        with suppress(ValueError):  # a digit that the base has not
            return str(int(ours[1], int(ours[2]))), str(int(theirs[1], int(theirs[2])))
    return gold, answer


def _bare(text: str) -> str:
    return "".join(text.split())


@lru_cache(maxsize=256)
def _verify(gold: str, answer: str) -> bool:
    golds = read_latex(gold)
    answers = () if not golds or _TWO_NUMBERS.search(answer) else read_latex(answer)
    if not answers:
        return False
    [value], [other] = golds, answers
    return _same_parsed(*_right_sides(value, other))


def _right_sides(gold: Any, answer: Any) -> tuple[Any, Any]:
    """Return what is equal to a name, if only one side gives a name."""
    from math_verify.grader import is_assignment_relation, is_equation, take_last_relation

    if is_equation(answer) and not is_equation(gold):
        return gold, take_last_relation(answer).rhs
    if is_assignment_relation(gold) and not is_equation(answer):
        return take_last_relation(gold).rhs, answer
    return gold, answer


def _same_parsed(gold: Any, answer: Any) -> bool:
    """Compare two sympy objects: expressions and matrices by value, others with math-verify."""
    from math_verify import verify
    from sympy import Expr, MatrixBase, MatrixExpr

    matrices = (MatrixBase, MatrixExpr)
    if isinstance(gold, matrices) and isinstance(answer, matrices):
        ours, theirs = gold.doit(), answer.doit()
        if isinstance(ours, MatrixBase) and isinstance(theirs, MatrixBase):
            same_shape = ours.shape == theirs.shape
            return same_shape and all(map(_same_parsed, ours.flat(), theirs.flat()))
    elif isinstance(gold, Expr) and isinstance(answer, Expr):
        same = same_expression(gold, answer)
        # A word may stand on one side as a name and on the other as a product of letters.
        if same is not None and (same or not (gold.is_Symbol or answer.is_Symbol)):
            return same
    # Its own timeouts are off: they need the main thread, and a big-integer power holds the
    # interpreter so that they never fire. Gold comes first: verify is asymmetric by design.
    return bool(
        verify(
            gold,
            answer,
            timeout_seconds=None,
            raise_on_error=True,
            float_rounding=_DIGITS,
            numeric_precision=_DIGITS,
        )
    )
