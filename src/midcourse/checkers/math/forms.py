r"""The form of an answer: one expression, a list, a set, a tuple, named values, residues.

math-verify compares expressions; what stands around them it guesses at. So the form is read
here, from the text and without algebra, and expressions are compared member by member. Order
counts in a tuple and in nothing else; ``x = 1, y = 2`` is a tuple that names its members.

    >>> read_form(r"x=1 \text{ and } y=2")
    Form(shape=<Shape.NAMED: 'named'>, parts=('1', '2'), names=('x', 'y'))
    >>> read_form(r"f(n) = 2n+1")
    Form(shape=<Shape.ONE: 'one'>, parts=('2n+1',), names=('n',))
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate


class Shape(StrEnum):
    """What kind of thing an answer is."""

    ONE = "one"
    LIST = "list"
    """Several answers, written one after the other: the order says nothing."""
    SET = "set"
    TUPLE = "tuple"
    NAMED = "named"
    """Values by name: ``x = 1, y = 2`` or ``(x, y) = (1, 2)``."""
    RESIDUES = "residues"
    RATIO = "ratio"
    """Three or more numbers: ``1:2:3``."""


@dataclass(frozen=True, slots=True)
class Form:
    """An answer taken apart, e.g. ``Form(TUPLE, ("1", "2"), ("(", ")"))``."""

    shape: Shape
    parts: tuple[str, ...]
    """The members, each to be read in its turn; of `one`, the expression alone."""
    names: tuple[str, ...] = ()
    """NAMED: the names. TUPLE: its brackets. RESIDUES: the modulus. ONE: x of ``f(x) =``."""


# --- the same thing in other characters --------------------------------------------------------

_UNICODE = {
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "×": r"\times ",
    "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ",
    "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "…": r"\ldots ", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "≡": r"\equiv ", "∖": r"\setminus ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "²": "^{2}", "³": "^{3}", "α": r"\alpha ",
    "β": r"\beta ", "γ": r"\gamma ", "θ": r"\theta ", "λ": r"\lambda ", "ρ": r"\rho ",
    "φ": r"\varphi ",
}  # fmt: skip
_CHARACTERS = str.maketrans(_UNICODE)
_LETTERS = r"\\(?:text|mathrm|textrm|textbf|textit|mbox|mathbf|operatorname)"
_REWRITES = [
    (re.compile(pattern, re.IGNORECASE if pattern.startswith("(?i") else 0), replacement)
    for pattern, replacement in [
        (r"√\s?([0-9]+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"√\s?\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"√\s?\{", r"\\sqrt{"),
        (r"(?<![A-Za-z\\])sqrt\s?\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])(?:infinity|infty|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"<=|\\leq(?:slant)?(?![A-Za-z])", r"\\le "),
        (r">=|\\geq(?:slant)?(?![A-Za-z])", r"\\ge "),
        (r"!=|\\neq(?![A-Za-z])", r"\\ne "),
        (r"\*\*", "^"),
        (r"\.\.\.|\\(?:c|l|)dots[cbi]?(?![A-Za-z])", r"\\ldots "),
        (r"\\(?:left|right|[bB]igg?[lr]?)\s?(?=[()\[\]]|\\[{}])", ""),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\underline\s?\{([^{}]*)\}", r"\1"),
        (r"\\(?:text)?color\s?\{[A-Za-z]+\}", ""),
        (
            rf"\\frac\s?\{{{_LETTERS}\{{([a-z ]+)\}}\}}\s?\{{{_LETTERS}\{{([a-z ]+)\}}\}}",
            r"\\text{\1/\2}",
        ),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
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
        (rf"{_LETTERS}\s?\{{[\s,]*(and|or)[\s,]*\}}", r" \1 "),
        (r"\\(?:lor|vee)(?![A-Za-z])", " or "),
        (r"\\(?:land|wedge)(?![A-Za-z])|\\&", " and "),
        # An angle in degrees within a function has no other meaning.
        (
            r"(\\(?:sin|cos|tan|cot|sec|csc))\s?[({]?\s?([0-9]+)\s?\^\s?\{?\s?\\circ\s?\}?\s?[)}]?",
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
_PHRASES = {
    "number real": r"\mathbb{R}",
    "real": r"\mathbb{R}",
    "integer": r"\mathbb{Z}",
    "integer positive": r"\mathbb{Z}^{+}",
    "number rational": r"\mathbb{Q}",
    "complex number": r"\mathbb{C}",
    "infinity": r"\infty",
    "no solution": r"\emptyset",
    "no solution exist": r"\emptyset",
    "empty set": r"\emptyset",
}
_LEAD = re.compile(
    rf"(?:{_LETTERS}\s?\{{(?P<spelled>[^{{}}]*)\}}"
    r"|(?P<plain>[A-Za-z][A-Za-z ,']{0,80}?(?:\b(?:is|are|equals)\b\s?:?|:|(?i:answer)\s?=)))\s*"
)
#: What a lead must end with, and what makes it more than a lead.
_PRESENTS = re.compile(r"(?:\b(?:is|are|equals|equal to|be)|[:=])\s*\Z")
_SAYS_MORE = re.compile(
    r"\b(?:not|no|never|cannot|least|most|less|greater|more|than|about|approximately|nearly|between"
    r"|below|above|if|when|unless|except)\b",
    re.IGNORECASE,
)
_ALL_TEXT = re.compile(rf"{_LETTERS}\s?\{{([^{{}}]*)\}}")
_LETTER = re.compile(rf"(?:{_LETTERS}\s?\{{)?\s*\(?([A-J])\)?\s*\}}?")
_LABEL = re.compile(rf"{_LETTERS}\s?\{{\s*\(?([A-J])\)[\s.:]*\}}[\s\\:.]*|\(?([A-J])\)[\s.:]+")
_OPERATOR = re.compile(r"[-+*/^=<>]|\\(?:cdot|times)")
_QUALIFIER = re.compile(
    rf",?\s*(?:{_LETTERS}\s?\{{\s*,?\s*)?(?:for (?:all|any|every|each|some)\b|\bwhere\b"
    r"|\\forall(?![A-Za-z])|\bfor\b\s*\}?\s*(?=[a-z]\s?\\in(?![A-Za-z]))"
    r"|(?<=,)\s*(?=[a-z](?:, ?[a-z])*\s?\\in\s?\\mathbb))(?P<tail>.{0,80})\Z",
    re.DOTALL,
)
_NARROWS = re.compile(
    r"[<>=0-9+]|\\(?:le|ge|ne)(?![A-Za-z])"
    r"|\b(?:except|but|if|and|odd|even|primes?|large|when|not|non|distinct|coprime)\b"
)
#: "all integers n > 3" is "n > 3": the problem says what n is.
_ALL_THAT = re.compile(
    rf"(?:{_LETTERS}\s?\{{\s*)?\b(?:all|any|every)\b"
    r"(?: (?:positive|nonnegative|non-negative|real|natural|integers?|numbers?|reals?|values?|of))"
    r"{0,4}\s*\}?\s*(?=[a-z]\s?(?:[<>]|\\(?:le|ge|ne)(?![A-Za-z])))",
    re.IGNORECASE,
)
#: ", " between numbers whose own thousands have a comma without a space.
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_THOUSANDS_LIST = re.compile(
    rf"(?:{_THOUSANDS.pattern}|[0-9]{{1,3}})(?:, (?:{_THOUSANDS.pattern}|[0-9]{{1,3}}))+"
)


@lru_cache(maxsize=1024)
def normalise(answer: str) -> str:
    """Return a tidied answer in plain LaTeX, without the words that only present it."""
    text = answer.translate(_CHARACTERS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = _REPEATING.sub(_as_fraction, text.strip())
    if (whole := _ALL_TEXT.fullmatch(text)) and re.search(r"[0-9]|\\infty", whole[1]):
        text = whole[1].strip()
    text = _without_qualifier(_without_lead(text)).rstrip(" .,;:")
    words = words_of(text)
    return _PHRASES.get(" ".join(words), text) if words else text


def _without_lead(text: str) -> str:
    r"""Drop ``\text{The answer is }`` and the like in front of a formula."""
    if that := _ALL_THAT.match(text):
        text = text[that.end() :]
    found = _LEAD.match(text)
    if found is None or not (rest := text[found.end() :].strip()):
        return text
    lead = found["spelled"] if found["spelled"] is not None else found["plain"]
    if not _PRESENTS.search(lead) or _SAYS_MORE.search(lead):
        return text
    return rest if "answer" in lead.lower() or not words_of(rest) else text


def _without_qualifier(text: str) -> str:
    r"""Drop ``for all real x`` or ``, k \in \mathbb{Z}``, which a formula means anyway."""
    found = _QUALIFIER.search(text)
    if found is None or found.start() == 0 or _NARROWS.search(found["tail"]):
        return text
    rest = text[: found.start()].strip(" ,")
    return text if words_of(rest) else rest


def _as_fraction(repeating: re.Match[str]) -> str:
    whole, fixed, period = repeating.groups()
    top = int(whole + fixed + period) - int(whole + fixed or "0")
    return f"\\frac{{{top}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


def choice_label(text: str) -> tuple[str, str]:
    r"""Return the letter and the rest of ``\textbf{(B) } 5``; no letter if there is none."""
    if alone := _LETTER.fullmatch(text):
        return alone[1], ""
    found = _LABEL.match(text)
    if found is None or _OPERATOR.match(text, found.end()):
        return "", text
    return found[1] or found[2], text[found.end() :].strip()


# --- taking apart ------------------------------------------------------------------------------

ALTERNATIVES = frozenset({";", "or"})
MEMBERS = frozenset({",", "and"})
_COLON = frozenset({":", r"\colon"})
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[A-Za-z]+|.", re.DOTALL)
_OPENING, _CLOSING = {"(", "[", "{", r"\{"}, {")", "]", "}", r"\}"}
_SUBSCRIPT = r"(?:_(?:[A-Za-z0-9]|\{[^{}]*\}))?'*"
_NAME = re.compile(
    rf"\s*(?P<name>(?:\\?[A-Za-z]{{1,20}}{_SUBSCRIPT}|{_ALL_TEXT.pattern})"
    r"(?:\s?\(\s?(?P<bound>[A-Za-z])\s?\)|\s?\([^()=<>]*\))?"
    r"|\((?P<several>[^()=<>]*)\))\s?(?P<sign>=|:=|\\in(?![A-Za-z])|\\equiv(?![A-Za-z]))"
)
#: What a set is built over, if that says nothing of its own: ``{x ∈ R : x > 3}``.
_RUNS_OVER = re.compile(r"[A-Za-z](?:\s?\\in\s?\\mathbb\{R\})?")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])\s?")
_MINUS_PLUS = re.compile(r"\\mp(?![A-Za-z])\s?")
_MODULUS = re.compile(
    r"[\s,]*(?:\(\s?)?(?:\\(?:pmod|bmod|mod|pod)|(?:\\(?:text|mathrm)\{)?\s?\bmod\b\s?\}?)"
    r"\s?(?:\{(?P<braced>[^{}]*)\}|(?P<plain>[A-Za-z0-9]+))\s?\)?\Z"
)


def read_form(text: str) -> Form:
    """Take a normalised answer apart, one level."""
    if modulus := _MODULUS.search(text):
        return _residues(text[: modulus.start()], modulus["braced"] or modulus["plain"])
    if _THOUSANDS_LIST.fullmatch(text) and _THOUSANDS.search(text):
        return Form(Shape.LIST, tuple(part.replace(",", "") for part in text.split(", ")))
    if _THOUSANDS.fullmatch(text):
        return Form(Shape.ONE, (text,))
    for separators in (ALTERNATIVES, MEMBERS):
        parts = split(text, separators)
        if len(parts) > 1:
            named = _named(parts) if separators is MEMBERS else None
            return named or Form(Shape.LIST, tuple(_signs(*parts)))
    return _read_one(text)


def split(text: str, separators: frozenset[str]) -> list[str]:
    """Split outside of all brackets; what is empty between two separators is not a part."""
    parts, start, depth = [], 0, 0
    for token in _TOKEN.finditer(text):
        if token[0] in _OPENING:
            depth += 1
        elif token[0] in _CLOSING:
            depth -= 1
        elif depth == 0 and token[0] in separators:
            parts.append(text[start : token.start()])
            start = token.end()
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _read_one(text: str) -> Form:
    name = _NAME.match(text)
    if name and (rest := text[name.end() :].rpartition("=")[2].strip()):
        return _after_name(name, rest)
    content, brackets = _bracketed(text)
    if brackets == (r"\{", r"\}"):
        parts = _signs(*split(content, MEMBERS))
        builder = split(content, _COLON | {"|", r"\mid", r"\vert"})
        if len(builder) == 2 and _RUNS_OVER.fullmatch(builder[0]):
            return read_form(builder[1])
        if not parts or len(builder) > 1:
            return Form(Shape.ONE, (text if parts else r"\emptyset",))
        return read_form(parts[0]) if len(parts) == 1 else Form(Shape.SET, tuple(parts))
    if brackets and brackets[0] in "([" and len(parts := split(content, MEMBERS)) > 1:
        return Form(Shape.TUPLE, tuple(parts), brackets)
    if len(ratio := split(text, _COLON)) > 2:
        return Form(Shape.RATIO, tuple(ratio))
    signs = _signs(text)
    return Form(Shape.LIST if len(signs) > 1 else Shape.ONE, tuple(signs))


def _after_name(name: re.Match[str], rest: str) -> Form:
    r"""Read what follows ``x =``, ``f(x) =``, ``(x, y) =`` or ``x \in``."""
    inner = read_form(rest)
    if name["several"]:
        names = tuple(split(name["several"], MEMBERS))
        if inner.shape is Shape.TUPLE and len(names) == len(inner.parts) == len(set(names)):
            return Form(Shape.NAMED, inner.parts, names)
    elif inner.shape is Shape.ONE and name["bound"]:
        return Form(Shape.ONE, inner.parts, (name["bound"],))
    return inner


def _named(parts: list[str]) -> Form | None:
    """Return ``x = 1``, ``y = 2`` as named values if every part is one, of another name."""
    sides = [part.partition("=") for part in parts]
    found = [_NAME.fullmatch(left + sign) for left, sign, _ in sides]
    names = tuple("".join(name["name"].split()) for name in found if name)
    if len(set(names)) < len(parts):
        return None
    return Form(Shape.NAMED, tuple(right.strip() for _, _, right in sides), names)


def _residues(text: str, modulus: str) -> Form:
    residues = text.rpartition(r"\equiv")[2].rpartition("=")[2]
    parts = _signs(*split(residues, ALTERNATIVES | MEMBERS))
    return Form(Shape.RESIDUES, tuple(parts), (modulus.strip(),))


def _signs(*parts: str) -> list[str]:
    r"""Return the parts, two expressions for each one with ``\pm``."""
    signs: list[str] = []
    for part in parts:
        if _PLUS_MINUS.search(part):
            above = _MINUS_PLUS.sub("-", _PLUS_MINUS.sub("+", part))
            signs += [above.removeprefix("+"), _MINUS_PLUS.sub("+", _PLUS_MINUS.sub("-", part))]
        else:
            signs.append(part)
    return signs


def _bracketed(text: str) -> tuple[str, tuple[str, str] | tuple[()]]:
    """Return the content and the brackets of a text that one pair of brackets encloses."""
    tokens, depth = list(_TOKEN.finditer(text)), 0
    for index, token in enumerate(tokens):
        depth += (token[0] in _OPENING) - (token[0] in _CLOSING)
        if depth == 0:
            if index == 0 or index < len(tokens) - 1:
                break
            return text[tokens[0].end() : token.start()], (tokens[0][0], token[0])
    return text, ()


def balanced(text: str) -> bool:
    """Whether every bracket closes; which kind closes which is not asked (intervals)."""
    steps = ((t[0] in _OPENING) - (t[0] in _CLOSING) for t in _TOKEN.finditer(text))
    depths = list(accumulate(steps, initial=0))
    return min(depths) == depths[-1] == 0


def rename(text: str, old: str, new: str) -> str:
    """Return an expression with one variable renamed."""
    return re.sub(
        r"\\[A-Za-z]+|[A-Za-z]", lambda letter: new if letter[0] == old else letter[0], text
    )


# --- words -------------------------------------------------------------------------------------

_FUNCTIONS = frozenset(
    ["sqrt", "frac", "binom", "floor", "ceil", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"]
)
_SILENT = frozenset(["a", "an", "the", "is", "are", "be", "that", "all", ",", "."])
_TEXT_MACRO = re.compile(r"\\(?:text|textrm|textbf|textit|mbox)\s?\{([^{}]*)\}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s?\{[A-Za-z*]*\}")
_WORD_OR_SIGN = re.compile(r"\\[A-Za-z]+|[A-Za-z]+|[0-9.]+|[^\s{}~]")


def words_of(text: str) -> list[str]:
    r"""Return the words and signs of an answer in prose; empty for a formula.

    Prose is what has two letters or more in ``\text{…}``, or a bare word of four.
    """
    spelled = any(re.search(r"[A-Za-z]{2}", inner) for inner in _TEXT_MACRO.findall(text))
    formula = _ENVIRONMENT.sub("", _TEXT_MACRO.sub("", text))
    bare = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{4,}", formula)
    if not spelled and _FUNCTIONS.issuperset(bare):
        return []
    tokens = _WORD_OR_SIGN.findall(_TEXT_MACRO.sub(r" \1 ", text))
    words = [token.lower() if len(token) > 1 and token.isalpha() else token for token in tokens]
    said = [word for word in words if word not in _SILENT]
    words = [w.removesuffix("s") if len(w) > 3 and w.isalpha() else w for w in said]
    if words[:-1] and words[-2:] == ["prime", "number"]:
        words.pop()
    # "even n" is "n even"; of more words, the order may say who is greater than whom.
    return sorted(words) if len(words) == 2 else words
