r"""Whether an intervention gives the answer away.

A plain substring test throws innocents away (a "2" stands in one text of ten) and misses
``\frac{1}{2}`` for ``0.5``. By default a text leaks if it *asserts* an expression equal to the
answer (boxed, "the answer is", or a final "= …"), or if an answer of more than two characters
stands in it as a whole token. The substring rule stays for parity with the authors' runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from midcourse.checkers.base import Pair
from midcourse.checkers.math.equivalence import tidy
from midcourse.checkers.math.extract import boxed_answers
from midcourse.records import DEFAULT_CHECKER, Gold

#: Longer than any expression that a sentence asserts.
_MAX_CLAIM_CHARS = 300
_ANSWER_IS = re.compile(
    r"\b(?:answer|result)s?\b(?:\s(?!is\b|are\b)[a-z]{1,12}){0,5}\s{0,2}"
    r"(?:\bis\b|\bare\b|\bequals\b|:|=)\s{0,2}(?::|equal to\s|(?:thus|therefore|then|simply)\s)?"
    r"(?P<claim>[^\n]{1,300})",
    re.IGNORECASE,
)
_MATH = re.compile(r"\s?(?:\*\*)?\s?(?:\$\$?([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\])")
#: Where a claim ends in prose: a stop that is not a decimal point, or a word that goes on.
_CLAUSE_END = re.compile(
    r"[.!?](?![0-9])|[;\n]|,\s|\s(?:and|so|because|since|which|as|but|when|where|for|if|not)\s"
)
_LEADING_NUMBER = re.compile(r"[\s*$]{0,4}([+-]?[0-9][0-9.,]*[0-9]|[+-]?[0-9])(?=[\s*$.,;:!)]|$)")
_GOES_ON = re.compile(r"\s*[-+*/^=<>\\×·÷]")
_EQUALS = re.compile(r"(?<![<>!=:\\])=(?!=)")
_CLOSING = re.compile(r"(?:[\s.!*$]|\\[)\]])+\Z")
_PROSE_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")
_SEPARATED = re.compile(r"(?<=[0-9])(?:,|\{,\}|\\,)(?=[0-9]{3}(?![0-9]))")


def leaks_answer(text: str, answer: str, equal: Callable[[Pair], bool]) -> bool:
    """The default rule: the text asserts the answer, or quotes a longer one as a whole token."""
    gold = Gold(DEFAULT_CHECKER, answer)
    return _stands_in(text, answer) or any(
        equal(Pair(claim, gold)) for claim in asserted_answers(text)
    )


def asserted_answers(text: str) -> Iterator[str]:
    """Yield the expressions that `text` puts forward as the answer; some twice, some readings."""
    yield from boxed_answers(text)
    for match in _ANSWER_IS.finditer(text):
        yield from _readings(match["claim"])
    end = _CLOSING.sub("", text[-2 * _MAX_CLAIM_CHARS :])
    *before, last = _EQUALS.split(end)
    # Words after the last "=" mean that the text went on: nothing final was said.
    if before and len(last) <= _MAX_CLAIM_CHARS and len(_PROSE_WORD.findall(last)) <= 2:
        yield last.strip()


def _readings(claim: str) -> Iterator[str]:
    """Yield what "the answer is …" may mean: its formula, its first number, its whole clause."""
    if formula := _MATH.match(claim):
        yield next(group for group in formula.groups() if group is not None)
        return
    number = _LEADING_NUMBER.match(claim)
    if number and not _GOES_ON.match(claim, number.end()):
        yield number[1]
        return
    clause = _CLAUSE_END.split(claim, maxsplit=1)[0].strip(" *$")
    if clause and len(_PROSE_WORD.findall(clause)) <= 2:
        yield clause


def _stands_in(text: str, answer: str) -> bool:
    """Whether `answer`, if longer than two characters, stands in `text` as a whole token."""
    answer = _plain(answer)
    if len(answer) <= 2:
        return False
    start, end = r"(?<![A-Za-z0-9_\\])(?<![0-9][.,])", r"(?![A-Za-z0-9_])(?![.,][0-9])"
    return re.search(start + re.escape(answer) + end, _plain(text)) is not None


def _plain(text: str) -> str:
    """Return `text` tidied, with numbers written without separators."""
    return _SEPARATED.sub("", tidy(text))
