r"""Reads a formula with math-verify: LaTeX to sympy, and no text to code.

What a model or a data file writes must never be evaluated as Python. sympy evaluates whatever
text it is handed where a number or an expression should be, and math-verify hands it the numerals
it finds. So numerals are read here, exactly, and sympy's own reader of text is replaced by one
that knows numbers and names.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, NoReturn

_NUMERAL = re.compile(
    r"(?P<digits>-?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE](?P<power>[+-]?[0-9]{1,4}))?"
)
_FRACTION = re.compile(r"-?[0-9]+(?:/[0-9]+)?")
#: math-verify reads 2(3) as the mixed number 2 + 3.
_JUXTAPOSED = re.compile(r"(?<![A-Za-z0-9_^.{])([0-9]+(?:\.[0-9]+)?)\s?(?=\()")


@lru_cache(maxsize=256)
def read_latex(text: str) -> tuple[Any, ...]:
    """Return what math-verify makes of a whole answer; empty if it does not parse.

    Only the box is read, as LaTeX: its other extractors look for numbers anywhere in a text, and
    evaluate them. Its unit stripping is off: it takes the m of ``2 - 2m`` for metres.
    """
    parse, config = _parser()
    return tuple(
        parse(
            rf"\boxed{{{_spaced(text)}}}",
            extraction_config=[config],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
    )


def _spaced(text: str) -> str:
    return _JUXTAPOSED.sub(r"\1\\cdot ", text)


@cache
def _parser() -> tuple[Any, Any]:
    """Return math-verify's parser, made safe, and its settings."""
    from latex2sympy2_extended import latex2sympy2
    from math_verify import LatexExtractionConfig, parse
    from sympy.parsing import sympy_parser

    sympy_parser.parse_expr, sympy_parser.eval_expr = _name_or_number, _refuse
    latex2sympy2._Latex2Sympy.parse_number = lambda _, text: _numeral(text)
    latex2sympy2.convert_number = _numeral
    usual = LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)
    config = replace(usual, normalization_config=replace(usual.normalization_config, units=False))
    return parse, config


def _refuse(*_: object) -> NoReturn:
    raise SyntaxError("text is not evaluated")  # what sympy expects of text that it cannot read


def _name_or_number(text: str, *_: object, **__: object) -> Any:
    """Read what sympy's own modules hand it, names and numbers like 3/2, and nothing else."""
    from sympy import Rational, Symbol

    if _FRACTION.fullmatch(text):
        return Rational(text)
    return Symbol(text) if text.isidentifier() else _refuse()


def _numeral(text: str) -> Any:
    """Return the exact value of ``1,234.50``, of ``0,5`` or of ``1.5e-3``."""
    from sympy import Rational

    separator = "." if text.startswith("0") else ""
    found = _NUMERAL.fullmatch(text.replace(",", separator).replace(" ", ""))
    if found is None:
        raise ValueError("this is not a numeral")
    return Rational(found["digits"]) * Rational(10) ** int(found["power"] or 0)
