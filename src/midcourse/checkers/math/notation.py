r"""The same mathematics in another notation: what is typed as in a program, or in another country.

Everything comes out as the LaTeX that math-verify reads: ``sqrt(2+sqrt(3))`` gets its braces,
``log_2(3)`` its backslash, ``{}_{10}C_3`` and ``C(10, 3)`` are both a binomial coefficient.

    >>> standard("sin x + abs(x-1)/cbrt(2)")
    '\\sin x + \\left|x-1\\right|/\\sqrt[3]{2}'
    >>> standard("10C3"), standard(r"C_{5}^{2}")
    ('\\binom{10}{3}', '\\binom{5}{2}')
"""

from __future__ import annotations

import re

from midcourse.checkers.math.brackets import closing, split

# --- names of functions ------------------------------------------------------------------------

_TEXT = r"\\(?:text|mathrm|operatorname)\s?\{[^{}]*\}"
_TRIGONOMETRIC = "sin|cos|tan|cot|sec|csc"
_FUNCTION = (
    rf"arc(?:sin|cos|tan)|(?:sin|cos|tan)h|{_TRIGONOMETRIC}|tg|ctg|arctg|cosec|ln|log|lg|exp"
)
_CALLED = (
    "cbrt|abs|floor|ceil(?:ing)?|factorial|binom(?:ial)?|choose|comb|nCr|nPr|root|pow|max|min|gcd"
    "|a(?:sin|cos|tan)"
)
#: Not psi, which is a unit, and not xi, which is x times i.
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|pi|rho|sigma|tau"
    "|upsilon|phi|chi|omega|Gamma|Delta|Theta|Lambda|Sigma|Phi|Psi|Omega"
)
#: Text, which is passed over, or the name of a function or letter without its backslash.
_NAME = re.compile(
    rf"{_TEXT}|(?<![A-Za-z\\])(?:"
    rf"(?P<based>log)_?(?P<base>[0-9]{{1,3}})(?=\s?\()"
    rf"|(?P<plain>(?:{_FUNCTION}|sqrt)(?=\s?[({{\\^_0-9|]|\s[A-Za-z](?![A-Za-z]))"
    rf"|(?:{_TRIGONOMETRIC}|ln|log)(?=[xn](?![A-Za-z]))"
    rf"|[dtc]?frac(?=\s?\{{)|binom(?=\s?\{{)|(?:{_CALLED})(?=\()|(?:{_GREEK})(?![A-Za-z])))"
)
_SPELLED_FUNCTION = re.compile(rf"\\(?:text|mathrm|operatorname)\s?\{{\s?({_FUNCTION})\s?\}}")
_OTHER_NAME = re.compile(r"\\(tg|ctg|arctg|cosec|lg|asin|acos|atan)(?![A-Za-z])")
_USUAL_NAME = {
    "tg": "tan",
    "ctg": "cot",
    "arctg": "arctan",
    "cosec": "csc",
    "lg": "log_{10}",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
}

# --- calls -------------------------------------------------------------------------------------

_CALL = re.compile(r"(?:\\([A-Za-z]+)|(?<![A-Za-z\\])(C))\s?\(")
_BINOMIAL, _ARRANGEMENTS = r"\binom{#1}{#2}", r"\frac{(#1)!}{(#1-#2)!}"
#: By name and number of arguments: what is written instead.
_WRITTEN = {
    ("sqrt", 1): r"\sqrt{#1}",
    ("cbrt", 1): r"\sqrt[3]{#1}",
    ("root", 2): r"\sqrt[#2]{#1}",
    ("abs", 1): r"\left|#1\right|",
    ("floor", 1): r"\lfloor #1\rfloor ",
    ("ceil", 1): r"\lceil #1\rceil ",
    ("ceiling", 1): r"\lceil #1\rceil ",
    ("factorial", 1): "(#1)!",
    ("pow", 2): "(#1)^{#2}",
    ("log", 2): r"\log_{#2}(#1)",
    **dict.fromkeys(
        [("binom", 2), ("binomial", 2), ("choose", 2), ("comb", 2), ("nCr", 2), ("C", 2)], _BINOMIAL
    ),
    ("nPr", 2): _ARRANGEMENTS,
}

# --- combinations and arrangements -------------------------------------------------------------


def _index(name: str) -> str:
    return rf"\s?\{{?\s?(?P<{name}>[0-9]+|[a-z](?:\s?[+-]\s?[0-9a-z](?=\s?\}}))?)\s?\}}?"


_SYMBOL = r"(?:\\(?:mathrm|text)\{(?=[CPA]\}))?(?P<symbol>(?<![A-Zb-z\\])[CPA])\}?"
_COUNTED = [
    re.compile(pattern)
    for pattern in [
        # {}^5C_2 and {}_5C_2; 10C3
        rf"(?:\{{\s?\}}\s?|(?<![A-Za-z0-9)\]}}!]))[\^_]{_index('n')}\s?{_SYMBOL}\s?_{_index('k')}",
        r"(?<![A-Za-z0-9\\_^.])(?P<n>[0-9]{1,4}|n)\s?(?P<symbol>[CP])\s?(?P<k>[0-9]{1,4}|[a-hj-z])"
        r"(?![A-Za-z0-9_^.(])",
        rf"(?P<low>{_SYMBOL})\s?_{_index('n')}\s?\^{_index('k')}",
        rf"(?P<low>{_SYMBOL})\s?\^{_index('k')}\s?_{_index('n')}",
    ]
]


def _count(found: re.Match[str]) -> str:
    """Write out a number of combinations or arrangements."""
    n, k = found["n"], found["k"]
    numbered = "low" in found.re.groupindex and (found["symbol"] != "C" or n.isdigit())
    if numbered and not (n.isdigit() and k.isdigit() and int(n) >= max(3, int(k))):
        return found[0]  # a constant or a group with its number, as in C_1^2
    template = _BINOMIAL if found["symbol"] == "C" else _ARRANGEMENTS
    return template.replace("#1", n).replace("#2", k)


# --- the whole ---------------------------------------------------------------------------------

_WORDS = r"\\(?:text|mathrm)"
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:dfrac|tfrac|cfrac)(?![A-Za-z])", r"\\frac"),
        (r"(?<![A-Za-z\\])(?:infinity|infty|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"<=|\\leq(?:slant|q)?(?![A-Za-z])", r"\\le "),
        (r">=|\\geq(?:slant|q)?(?![A-Za-z])", r"\\ge "),
        (r"!=|\\neq(?![A-Za-z])|\\not\s?=", r"\\ne "),
        (r"\\backslash(?![A-Za-z])|(?<=\})\s?-\s?(?=\\\{)", r"\\setminus "),
        (r"\*\*", "^"),
        (r"(?<![A-Za-z\\])P[iI](?![A-Za-z(])", r"\\pi "),
        (r"\^\s?-\s?([0-9]+|[A-Za-z])", r"^{-\1}"),
        (r"_([0-9]{2,})", r"_{\1}"),
        (rf"_\s?(?:\{{\s?)?{_WORDS}\s?\{{([^{{}}]*)\}}\s?\}}?", r"_{\1}"),
        (r"\.\.\.|\\(?:c|l|)dots[cbi]?(?![A-Za-z])", r"\\ldots "),
        (
            rf"\\frac\s?\{{{_WORDS}\{{([a-z ]+)\}}\}}\s?\{{{_WORDS}\{{([a-z ]+)\}}\}}",
            r"\\text{\1/\2}",
        ),
        (r"\\(max|min|gcd)\s?\\\{([^{}]*)\\\}", r"\\\1(\2)"),
        # math-verify takes the greatest common divisor of two letters for 1.
        (r"\\(?:gcd|operatorname\{gcd\})\s?(\([^()]*[A-Za-z][^()]*\))", r"\\mathrm{gcd}\1"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        (r"\\(?:mathbb|Bbb)\s?\{?([RZNQC])(?:\}|(?![A-Za-z]))", r"\\mathbb{\1}"),
        (r"(\\mathbb\{[RZQ]\})\s?(?:_|\^)\s?(?:\+|\{\s?(?:\+|>\s?0)\s?\})", r"\1^{+}"),
        (r"\\mathbb\{R\}\^\{\+\}", r"(0,\\infty)"),
        (r"\\mathbb\{R\}\s?_\s?\{\s?\\ge ?0\s?\}", r"[0,\\infty)"),
        (r"\\log_\{?e\}?(?![A-Za-z])", r"\\ln "),
        (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"^([^{}]*)\\choose(?![A-Za-z])([^{}]*)$", r"\\binom{\1}{\2}"),
        (
            rf"(?<![A-Za-z0-9])([0-9]+|[a-z])\s?(?:{_WORDS}\{{\s?choose\s?\}}|choose)"
            r"\s?([0-9]+|[a-z])(?![A-Za-z0-9])",
            r"\\binom{\1}{\2}",
        ),
        # An angle in degrees within a function has no other meaning.
        (
            rf"(\\(?:{_TRIGONOMETRIC}))\s?[({{]?\s?([0-9]+)\s?\^\s?\{{?\s?\\circ\s?\}}?\s?[)}}]?",
            r"\1\\frac{\2\\pi}{180}",
        ),
        # The French way to leave an end of an interval out.
        (r"\](\s?[^\[\](),\s][^\[\](),]*,[^\[\](),]+)\[", r"(\1)"),
        (r"\](\s?[^\[\](),\s][^\[\](),]*,[^\[\](),]+)\]", r"(\1]"),
        (r"\[(\s?[^\[\](),\s][^\[\](),]*,[^\[\](),]+)\[", r"[\1)"),
        (r" +", " "),
    ]
]
_REPEATING = re.compile(r"([0-9]{0,30})\.([0-9]{0,30})\\overline\s?\{\s?([0-9]{1,30})\s?\}")


#: Numerals in words that ASCII cannot spell, with their power of ten.
_NUMERALS = {"百": 2, "千": 3, "тыс": 3, "万": 4, "млн": 6, "亿": 8}
_NUMERAL = re.compile(rf"(?<=[0-9])\s?\\text\{{\s?({'|'.join(_NUMERALS)})([^{{}}]*)\}}")


def standard(text: str) -> str:
    """Return an answer in the notation of LaTeX as math-verify reads it."""
    text = _NUMERAL.sub(lambda n: rf"\cdot 10^{{{_NUMERALS[n[1]]}}}\text{{{n[2]}}}", text)
    text = _SPELLED_FUNCTION.sub(r"\\\1 ", _NAME.sub(_with_backslash, text))
    for pattern in _COUNTED:
        text = pattern.sub(_count, text)
    text = _OTHER_NAME.sub(lambda name: rf"\{_USUAL_NAME[name[1]]}", _without_calls(text))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _REPEATING.sub(_as_fraction, text)


def _with_backslash(name: re.Match[str]) -> str:
    if name["based"]:
        return rf"\log_{{{name['base']}}}"
    return rf"\{name['plain']} " if name["plain"] else name[0]


def _without_calls(text: str) -> str:
    """Write calls of functions out, the last one first: it holds none that is yet to come."""
    for call in reversed(list(_CALL.finditer(text))):
        end = closing(text, call.end())
        arguments = split(text[call.end() : end], frozenset({","}))
        written = _WRITTEN.get((call[1] or call[2], len(arguments)))
        if end < 0 or written is None or _names_a_point(call, text, end):
            continue
        for number, argument in enumerate(arguments, 1):
            written = written.replace(f"#{number}", argument)
        text = text[: call.start()] + written + text[end + 1 :]
    return text


def _names_a_point(call: re.Match[str], text: str, end: int) -> bool:
    """Whether ``C(2, 3)`` is a point of that name, or a function: alone, or among others."""
    if call[2] is None:
        return False
    alone = call.start() == 0 and end == len(text) - 1
    return alone or _POINT.search(text) is not None or text[end + 1 :].lstrip().startswith("=")


_POINT = re.compile(r"(?<![A-Za-z\\])[ABD-Z]\s?\([^()]*,[^()]*\)")


def call_written_out(text: str) -> str:
    """Return ``C(5, 2)``, which may be a point of that name, as the number that it may be too."""
    return _without_calls(f"{text} ").strip()


def _as_fraction(repeating: re.Match[str]) -> str:
    whole, fixed, period = repeating.groups()
    top = int(whole + fixed + period) - int(whole + fixed or "0")
    return f"\\frac{{{top}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"
