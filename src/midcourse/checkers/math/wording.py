r"""Words in an answer: those that only present it, phrases for a set, choices, answers in prose.

>>> without_presentation(r"\text{The answer is }x+1")
'x+1'
>>> choice_label(r"\text{Option (B)}: 12")
('B', '12')
>>> words_of(r"n \text{ is even}")
['even', 'n']
"""

from __future__ import annotations

import re

from midcourse.checkers.math.brackets import balanced

_LETTERS = r"\\(?:text|mathrm|operatorname)"
#: A letter of a word; whatever stands outside of ASCII at this point is one. Written as what it is
#: not: to compile a range of all of Unicode takes milliseconds.
_LETTER = r"[^\x00-@\[-`{-\xa9]"

# --- what presents an answer -------------------------------------------------------------------

_JOINTS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (rf"{_LETTERS}\s?\{{[\s,]*(and|or)[\s,]*\}}", r" \1 "),
        (r"\\text\s?\{\s?(?:或者?|или)\s?\}", " or "),
        (r"\\text\s?\{\s?(?:[和与及]|и)\s?\}", " and "),
        (r"\\text\s?\{\s?(and also|as well as|or else)\s?\}", r" \1 "),
        (r"\b(?:and also|as well as)\b", "and"),
        (r"\bor else\b", "or"),
        (r"\\(?:lor|vee)(?![A-Za-z])", " or "),
        (r"\\(?:land|wedge)(?![A-Za-z])|\\&", " and "),
        (r"\A(?:\\text\s?\{\s?)?(?:both|either)(?:\s?\}|\b)(?=.*(?:\band\b|\bor\b))", ""),
        (rf"(?<=[0-9])\s?(?:{_LETTERS}\s?\{{\s?(?:is )?to\s?\}}|\bto\b)\s?(?=[0-9])", ":"),
        (r"\\text\s?\{\s?:\s?\}", ":"),
        (
            r"\A(?:\\text\s?\{\s?)?(?:all )?(?:real numbers|reals|real x)(?: x)?,?"
            r" (?:except|other than|excluding)(?: for)?(?: x =)?\s?\}?\s?([^{}]+)\Z",
            r"\\mathbb{R}\\setminus\\{\1\\}",
        ),
        (r" +", " "),
    ]
]
_PHRASES = {
    "number real": r"\mathbb{R}",
    "real": r"\mathbb{R}",
    "integer": r"\mathbb{Z}",
    "integer positive": r"\mathbb{Z}^{+}",
    "number rational": r"\mathbb{Q}",
    "complex number": r"\mathbb{C}",
    "infinity": r"\infty",
}
_THINGS = (
    r"(?:solution|root|value|integer|number|function|polynomial|pair|triple|point|set|element|limit"
    r"|answer|[a-z])s?"
)
_QUALITIES = r"(?:(?:real|integer|positive|natural|rational|prime|possible|valid|other|such) )*"
_SAYING = [
    (re.compile(pattern), meaning)
    for pattern, meaning in [
        (
            rf"(?:there (?:is|are|exists?) |(?:the (?:equation|system|inequality) )?ha(?:s|ve) )?"
            rf"(?:none|no {_QUALITIES}{_THINGS})(?: of [a-z])?(?: exists?)?"
            r"|none exists?|(?:the )?(?:empty|null)(?: set)?|d\.?n\.?e\.?"
            rf"|(?:(?:the|such|such an?) )?(?:{_THINGS} )?(?:does not|do not|doesn't|don't) exist",
            r"\emptyset",
        ),
        (
            r"(?:there (?:is|are) )?(?:infinite(?:ly many)?|an infinite number(?: of)?"
            rf"|infinite number(?: of)?)(?: {_QUALITIES}{_THINGS})?",
            r"\text{infinitely many}",
        ),
        (r"(?:it is )?(?:undefined|not defined)", r"\text{undefined}"),
    ]
]
_LEAD = re.compile(
    rf"(?:{_LETTERS}\s?\{{(?P<spelled>[^{{}}]*)\}}"
    r"|(?P<plain>[A-Za-z][A-Za-z ,']{0,80}?"
    r"(?:\b(?:is|are|equals)\b\s?:?|:|(?i:answer)\s?=)))\s*"
)
#: What a lead must end with, and what makes it more than a lead.
_PRESENTS = re.compile(r"(?:\b(?:is|are|equals|equal to|be)|[:=])\s*\Z")
_LABELS = re.compile(r"\b[A-J]\s?:\s*\Z")
_SAYS_MORE = re.compile(
    r"\b(?:not|no|never|cannot|least|most|less|greater|more|than|about|approximately|nearly|between"
    r"|below|above|if|when|unless|except)\b",
    re.IGNORECASE,
)
#: What a pair of coordinates is, before it.
_KIND = re.compile(
    rf"(?:{_LETTERS}\s?\{{\s?)?(?:the )?(?:(?:ordered |number )?(?:point|pair|triple|vector|vertex"
    r"|cent(?:er|re)|focus|interval|coordinates?))\b\s?\}?\s?(?=(?:[A-Z]\s?=?\s?)?[(\[])",
    re.IGNORECASE,
)
_ALL_TEXT = re.compile(rf"{_LETTERS}\s?\{{([^{{}}]*)\}}")
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


def joined(text: str) -> str:
    """Return an answer with one word for each way to join its members."""
    for pattern, replacement in _JOINTS:
        text = pattern.sub(replacement, text)
    return text.strip()


def meaning(text: str) -> str:
    """Return the set or the value that a phrase stands for, else the text as it is."""
    prose = " ".join(_TEXT_MACRO.sub(r" \1 ", text).split()).lower().strip(" .")
    for pattern, said in _SAYING:
        if pattern.fullmatch(prose):
            return said
    words = words_of(text)
    return _PHRASES.get(" ".join(words), text) if words else text


def without_presentation(text: str) -> str:
    """Return an answer without the words that only lead to it or say where it holds."""
    if (whole := _ALL_TEXT.fullmatch(text)) and re.search(r"[0-9]|\\infty", whole[1]):
        text = whole[1].strip()
    text = _without_lead(text)
    return _without_qualifier(_KIND.sub("", text)).rstrip(" .,;:")


def _without_lead(text: str) -> str:
    r"""Drop ``\text{The answer is }`` and the like in front of a formula."""
    if that := _ALL_THAT.match(text):
        text = text[that.end() :]
    found = _LEAD.match(text)
    if found is None or not (rest := text[found.end() :].strip()):
        return text
    lead = found["spelled"] if found["spelled"] is not None else found["plain"]
    if not _PRESENTS.search(lead) or _SAYS_MORE.search(lead) or _LABELS.search(lead):
        return text
    return rest if "answer" in lead.lower() or not words_of(rest) else text


def _without_qualifier(text: str) -> str:
    r"""Drop ``for all real x`` or ``, k \in \mathbb{Z}``, which a formula means anyway."""
    found = _QUALIFIER.search(text)
    if found is None or found.start() == 0 or _NARROWS.search(found["tail"]):
        return text
    rest = text[: found.start()].strip(" ,")
    return rest if balanced(rest) and not words_of(rest) else text


# --- choices -----------------------------------------------------------------------------------

_CHOSEN = re.compile(
    r"\s*(?P<marked>(?i:(?:the )?(?:(?:correct|right) )?(?:answer|option|choice|letter)(?: is)?"
    r"(?: (?:option|choice))?)[\s:]+(?=[(\[]?[A-Ja-e]\b)|(?=[(\[]))?"
    r"(?:[(\[]\s?(?P<bracketed>[A-Ja-e])\s?[)\]]|(?P<bare>[A-Ja-e]))(?P<stop>[).:\s]*)"
)
#: What makes a term, or the first of several, of the letter.
_OPERATOR = re.compile(
    r"\s*(?:[-+*/^=<>!_'\[&,;|]|\\(?:cdot|times|to|le|ge|ne|in|and|cap|cup)(?![A-Za-z]))|\("
)
_GOES_ON = re.compile(r"(?:and|or|to|nor|not|but|is|are|has|was)\b|\(?[A-Z]\)?\Z")
_RIGHT = re.compile(
    r"only|alone|is (?:the )?(?:(?:correct|right|true)(?: (?:answer|option|choice))?|answer)"
)
#: The label of another choice.
_ANOTHER = re.compile(r"\b[A-J][.):]|[(\[][A-J][)\]]")


def choice_label(text: str) -> tuple[str, str]:
    r"""Return the letter and the rest of ``\textbf{(B) } 5``; no letter if there is none."""
    macro = _ALL_TEXT.match(text)
    inner, outer = (macro[1], text[macro.end() :]) if macro else ("", text)
    found = _CHOSEN.match(inner + outer)
    if found is None or _ANOTHER.search(inner + outer, found.end()):
        return "", text
    letter = found["bracketed"] or found["bare"]
    marked = found["marked"] is not None
    rest = (inner + outer)[found.end() :]
    said = _TEXT_MACRO.sub(r" \1 ", rest).strip(" .")
    if not said or _RIGHT.fullmatch(said):
        return (letter.upper(), "") if letter.isupper() or marked else ("", text)
    stopped = found["stop"].strip()
    joined = not stopped and _OPERATOR.match(found["stop"] + rest)
    if letter.islower() or joined or _GOES_ON.match(said) or not (marked or stopped):
        return "", text
    if found.end() < len(inner):
        rest = rf"\text{{{inner[found.end() :]}}}{outer}"
    return letter, rest.strip(" :.")


# --- words -------------------------------------------------------------------------------------

_FUNCTIONS = frozenset(
    ["sqrt", "frac", "binom", "floor", "ceil", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"]
)
_SILENT = frozenset(["a", "an", "the", "is", "are", "be", "that", "all", ",", "."])
_TEXT_MACRO = re.compile(r"\\text\s?\{([^{}]*)\}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s?\{[A-Za-z*]*\}")
_SPELLED = re.compile(r"[A-Za-z]{2}|[^\x00-\xa9]")
_WORD_OR_SIGN = re.compile(rf"\\[A-Za-z]+|{_LETTER}+|[0-9.]+|[^\s{{}}~]")


def words_of(text: str) -> list[str]:
    r"""Return the words and signs of an answer in prose; empty for a formula.

    Prose is what has two letters or more in ``\text{…}``, or a bare word of four.
    """
    spelled = any(_SPELLED.search(inner) for inner in _TEXT_MACRO.findall(text))
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
