"""Whether two sympy expressions are equal: numbers exactly, letters by trying values.

Two numbers are equal if their difference is zero to a thousand digits, however small both are.
Letters take rational values of both signs, at which numbers are compared: one point refutes, and
several prove as much as an algebraic simplification that may never end.

Letters stand for what makes sense. What a root, a logarithm or a broken power is taken of is
positive, unless the absolute value of a letter is taken on one side only: else the square of
sqrt(x) would be the absolute value of x. A letter is a whole number where it is counted to, where
it has a factorial, and where it is one of i to n and rounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from typing import Any

#: Digits to tell most numbers apart, and as far as a zero is followed: without letters, with them.
_FEW_DIGITS, _MANY_DIGITS, _DIGITS_AT_A_POINT = 30, 1000, 120
#: A number that sympy knows to fewer bits than this is a zero that it cannot see through.
_DUST_BITS = 4
#: Points that are compared, of a smooth expression and of one with corners or steps; points that
#: may be tried to find them, and that a verdict needs.
_POINTS, _POINTS_OF_STEPS, _TRIED_POINTS, _ENOUGH_POINTS = 6, 20, 64, 3
_INDICES = frozenset("ijklmn")


def same_expression(one: Any, other: Any) -> bool | None:
    """Whether two expressions have the same value everywhere; None where that cannot be told."""
    if one == other:
        return True
    one, other = _plain(one), _plain(other)
    letters = sorted(one.free_symbols | other.free_symbols, key=str)
    if not letters:
        return _same_number(one, other)
    if _is_endless(one) or _is_endless(other):
        return None
    equal = 0
    smooth = not (one.has(*_steps()) or other.has(*_steps()))
    points = _points(one, other, letters)
    for point in islice(points, _POINTS if smooth else _POINTS_OF_STEPS):
        same = _same_number(one.xreplace(point), other.xreplace(point), _DIGITS_AT_A_POINT)
        if same is False:
            return False
        equal += same is True
    return True if equal >= _ENOUGH_POINTS else None


def is_near(expression: Any, value: Fraction, tolerance: Fraction) -> bool:
    """Whether an expression is a real number at most `tolerance` away from a value."""
    from sympy import Rational

    parts = _parts(_plain(expression) - Rational(value.numerator, value.denominator))
    limit = Rational(tolerance.numerator, tolerance.denominator)
    return parts is not None and parts[1] == 0 and bool(abs(parts[0]) <= limit)


def _plain(expression: Any) -> Any:
    """Return an expression whose letters go by their names alone; i is the imaginary unit.

    Sums, integrals and the like are worked out where they can be, percent signs are, and what an
    unknown function makes of something is one more letter.
    """
    from sympy import I, Symbol, UnevaluatedExpr
    from sympy.core.function import AppliedUndef

    plain = expression.replace(UnevaluatedExpr, lambda inner: inner)
    letters = {x: I if x.name == "i" else Symbol(x.name) for x in plain.free_symbols}
    plain = _with_sequences_whole(plain.xreplace(letters))
    plain = plain.xreplace({call: Symbol(str(call)) for call in plain.atoms(AppliedUndef)})
    with suppress(NotImplementedError, ValueError):
        return plain.doit() if plain.has(*_operators()) else plain
    return plain


def _with_sequences_whole(expression: Any) -> Any:
    """Make one letter of a sum of ``a_k`` or ``f(k)`` over k: its term is not a constant.

    The name of the index is free, and goes.
    """
    from sympy import Product, Symbol
    from sympy.core.function import AppliedUndef

    whole = {}
    for operator in expression.atoms(*_operators()):
        calls = {str(call) for call in operator.atoms(AppliedUndef)}
        below = {x.name.partition("_")[2] for x in operator.free_symbols} | calls
        for index in map(str, getattr(operator, "variables", operator.args[1:2])):
            alone = re.compile(rf"(?<![A-Za-z\\]){re.escape(index)}(?![A-Za-z])")
            if any(map(alone.search, below)):
                factor, term = operator.args[0].as_coeff_Mul()
                if isinstance(operator, Product):
                    factor, term = 1, operator.args[0]
                name = str(operator.func(term, *operator.args[1:]))
                whole[operator] = factor * Symbol(alone.sub("#", name))
    return expression.xreplace(whole)


def _operators() -> tuple[Any, ...]:
    from sympy import Derivative, Integral, Limit, Product, Sum

    return Derivative, Integral, Limit, Product, Sum


def _steps() -> tuple[Any, ...]:
    from sympy import Abs, Max, Min, Mod, Piecewise, ceiling, floor, sign

    return Abs, Max, Min, Mod, Piecewise, ceiling, floor, sign


def _is_endless(expression: Any) -> bool:
    """Whether something is left that no value of its letters makes a finite sum."""
    from sympy import Product, Sum, oo

    operators = expression.atoms(*_operators())
    return any(not isinstance(x, (Sum, Product)) or x.has(oo, -oo) for x in operators)


# --- numbers -----------------------------------------------------------------------------------


def _same_number(one: Any, other: Any, most_digits: int = _MANY_DIGITS) -> bool | None:
    """Compare two expressions without letters; None if one of them is not a number."""
    ours, theirs = _parts(one), _parts(other)
    if ours is None or theirs is None:
        return None
    size = max(map(abs, ours + theirs))
    gap = max(abs(x - y) for x, y in zip(ours, theirs, strict=True))
    if gap * 10 ** (_FEW_DIGITS - 5) > size:
        return False
    difference = one.doit() - other.doit()
    if difference.is_Rational:
        return bool(difference == 0)
    return _parts(difference, most_digits) == (0, 0)


def _parts(number: Any, most_digits: int = _DIGITS_AT_A_POINT) -> tuple[Any, Any] | None:
    """Return the real and imaginary part of a number, in digits; None if it is not finite."""
    try:
        value = number.doit() if number.has(*_operators()) else number
        parts = value.evalf(_FEW_DIGITS, maxn=most_digits).as_real_imag()
    except (NotImplementedError, ValueError):  # a pole, a limit that sympy does not know
        return None
    if not all(part.is_Float or part.is_Rational for part in parts):
        return None
    real, imaginary = (0 if p.is_Float and p._prec < _DUST_BITS else p for p in parts)
    return real, imaginary


# --- letters -----------------------------------------------------------------------------------


def _points(one: Any, other: Any, letters: list[Any]) -> Iterator[dict[Any, Any]]:
    """Yield values of the letters at which roots and logarithms are real."""
    from sympy import Mod, Product, Sum, binomial, ceiling, factorial, floor

    def letters_in(*kinds: Any) -> set[Any]:
        calls = one.atoms(*kinds) | other.atoms(*kinds)
        return {letter for call in calls for letter in call.free_symbols}

    bases = _positive_bases(one, other)
    whole, rounded = letters_in(Sum, Product, factorial, binomial), letters_in(floor, ceiling, Mod)
    whole |= {letter for letter in rounded if letter.name in _INDICES}
    for index in range(_TRIED_POINTS):
        point = {
            letter: _value(index, place, letter in whole, letter in rounded)
            for place, letter in enumerate(letters)
        }
        if all(_is_positive(base.xreplace(point)) for base in bases):
            yield point


def _value(index: int, place: int, whole: bool, rounded: bool) -> Any:
    """Return the value of a letter at a point; of what is rounded, some are whole numbers."""
    from sympy import Integer, Rational

    if whole:
        return Integer(2 + (index + 3 * place) % 11)
    below = (1, 2, 3, 7) if rounded else (7, 11, 13)
    size = Rational(3 + (7 * index + 11 * place) % 31, below[(index + place) % len(below)])
    return -size if index >> place % 6 & 1 else size


def _is_positive(number: Any) -> bool:
    parts = _parts(number)
    return parts is not None and parts[1] == 0 and bool(parts[0] > 0)


def _positive_bases(one: Any, other: Any) -> set[Any]:
    """Return what must be positive for every root, logarithm and power to be real."""
    from sympy import Abs, Pow, log

    bases = {call.args[0] for x in (one, other) for call in x.atoms(log)}
    powers = one.atoms(Pow) | other.atoms(Pow)
    bases |= {power.base for power in powers if power.exp.is_integer is not True}
    bases = {base for base in bases if base.free_symbols}
    bases |= {letter for base in bases for letter in _letters_of_monomial(base)}
    absolute, others = one.atoms(Abs), other.atoms(Abs)
    if bool(absolute) == bool(others):
        return bases
    signed = {letter for each in absolute | others for letter in each.free_symbols}
    return {base for base in bases if not base.free_symbols & signed}


def _letters_of_monomial(base: Any) -> set[Any]:
    """Return the letters of ``a^2 b``: its root is taken for a sqrt(b). None of ``a^2``."""
    factors = [factor.as_base_exp() for factor in base.as_coeff_mul()[1]]
    if all(x.is_Symbol for x, _ in factors) and any(
        power.is_even is not True for _, power in factors
    ):
        return {x for x, _ in factors}
    return set()
