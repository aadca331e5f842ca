r"""Undoes the escapes of JSON in a text full of LaTeX, and leaves the LaTeX alone.

JSON and LaTeX both begin with a backslash, and models mix them. What a backslash means follows from
what stands behind it and from the rest of the text:

* ``\b`` and ``\f`` before a letter are LaTeX: nobody writes a backspace. So is ``\r`` before a
  small letter. ``\n`` and ``\t`` are LaTeX where the letters that follow make a command
  (``\neq``, ``\times``), and escapes where they do not (``\nThen``).
* ``\\`` is one backslash, as in JSON (``\\frac``), unless the text writes its commands with a
  single one: then ``\\`` ends a row of a matrix and stays. ``\\\\`` is ``\\`` everywhere.
"""

from __future__ import annotations

import re

#: Commands that JSON would read as a newline, a tab or a return, and a rest.
_LIKE_ESCAPES = frozenset(
    """
    nabla natnums natural ne nearrow neg negmedspace negthickspace negthinspace newcommand newline
    nexists nhookrightarrow ni nicefrac nni nobreak nobreakspace noindent nolimits nonumber norm
    normalfont normalsize not notag notin notni nthroot nu num nwarrow
    tag tan tanh tau tbinom tfrac therefore theta thetasym thickapprox thicksim thickspace thinspace
    tilde times tiny to top triangle triangledown triangleleft trianglelefteq triangleq
    triangleright trianglerighteq ttfamily twoheadleftarrow twoheadrightarrow
    rBrace rBrack rVert rVERT
    """.split()  # noqa: SIM905 - a table of words reads better as text
)
#: Relations that an "n" negates: ``\nleq``, ``\nsubseteqq``.
_NEGATED = re.compile(
    "n(?:[lLrR](?:eft|ight)(?:right|left)?arrow|(?:up|down)arrow|[vV][dD]ash|short(?:mid|parallel)"
    "|eq|equiv|cong|mid|parallel|approx|asymp|smile|sime?q?|[lg]eq(?:q|slant)?"
    "|(?:less|gtr)(?:sim|gtr|less)?|(?:prec|succ)(?:curly)?(?:eq|approx|sim)?"
    "|(?:sq)?su[bp]set(?:eqq?)?|triangle(?:left|right)(?:eq)?(?:slant)?)"
)
#: ``\textnormal``; but a tab and "extra", "external", "extend" are a tab and a word.
_TEXT = re.compile(r"text(?!e[mnr]|r[ae])[a-z]*")
#: Other commands that interventions are full of: they tell a ``\\frac`` that was written for JSON
#: from the end of a row, in a text that has both.
_OTHER = frozenset(
    """
    alpha angle approx arccos arcsin arctan bar begin beta big bigg bigl bigr binom bmod boldsymbol
    bot boxed bullet cap cdot cdots ceil chi choose circ color cong cos cosh cot csc cup ddots deg
    delta Delta det dfrac displaystyle div dots ell emph end epsilon equiv eta exists exp floor
    forall frac gamma Gamma gcd ge geq hat hbox hspace iff Im implies in inf infty int iota kappa
    lambda Lambda land langle lceil lcm ldots le left leftarrow leftrightarrow leq lfloor lim limits
    ln log longrightarrow Longrightarrow lor lvert mapsto mathbb mathbf mathcal mathfrak mathit
    mathop mathrm mathsf max mid min mod mp mu odot omega Omega operatorname oplus otimes overline
    overrightarrow partial perp phi Phi pi Pi pm pmod prime prod propto psi Psi quad qquad rangle
    rbrace rceil rfloor rho right rightarrow Rightarrow rvert sec setminus sigma Sigma sim simeq sin
    sinh sqrt square star subset subseteq sum sup supset underbrace underline uparrow upsilon
    varepsilon varnothing varphi vdots vec vee wedge widehat widetilde xi zeta
    """.split()  # noqa: SIM905
)
#: What follows a doubled backslash where one is meant: no row of a matrix begins like this.
_AFTER_DOUBLED = frozenset("{},;:!%)]")
_AFTER_ROW = frozenset(" \n&-0123456789")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_RUN = re.compile(r"(?P<run>\\+)(?P<after>u(?P<code>[0-9a-fA-F]{4})|[A-Za-z]+|.|\Z)", re.DOTALL)
_CODE_ESCAPE = re.compile(r"\\(?:u(?P<code>[0-9a-fA-F]{4})|(?P<after>.))", re.DOTALL)
#: What an accent stands on, ``\'e``; ``Bob\'s`` and ``f\'(x)`` have an apostrophe.
_ACCENT = re.compile(r"(?!(?:s|t|ll|re|ve|d|m)\b)\{?(?:[A-Za-z]|\\[ij]\b)")
_SENTENCE_BEFORE = re.compile(r"(?:[.:;!?]|[A-Za-z]{2})\Z")


def unescape_code(raw: str, quote: str = '"') -> str:
    r"""Return what `raw` says where it is code: by JSON's escapes alone; other backslashes stay."""
    meant = {**_ESCAPES, "\\": "\\", "/": "/", quote: quote}

    def read(found: re.Match[str]) -> str:
        code = found["code"]
        return chr(int(code, 16)) if code else meant.get(found["after"], found[0])

    return _CODE_ESCAPE.sub(read, raw).replace("\r\n", "\n")


def unescape(raw: str, quote: str = '"') -> str:
    r"""Return what `raw`, written between two `quote`\ s, says; lines end in ``\n``."""
    runs = list(_RUN.finditer(raw))
    singles = [run["after"] for run in runs if _is_single_command(run)]
    # Where commands are doubled, a single backslash before "n" or "t" may be an escape of JSON.
    is_json = any(map(_is_doubled, runs)) and all(after[0] in "nt" for after in singles)
    has_single = bool(singles) and not is_json
    has_rows = "begin{" in raw and "\\" * 4 not in raw

    def read(run: re.Match[str]) -> str:
        length, after = len(run["run"]), run["after"]
        pairs = length // 2
        ends_row = (has_single and not _is_doubled(run)) or (has_rows and after in _AFTER_ROW)
        if (length == 2 and ends_row) or (length == 3 and (has_single or has_rows)):
            pairs = 2
        return "\\" * pairs + (_escaped(run, quote, is_json) if length % 2 else after)

    halves = _RUN.sub(read, raw)
    text = halves.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text.replace("\r\n", "\n")


def is_command(letters: str) -> bool:
    """Whether letters are a LaTeX command that JSON would read as an escape and a rest."""
    forms = (_TEXT, _NEGATED)
    return letters in _LIKE_ESCAPES or any(form.fullmatch(letters) for form in forms)


def _is_single_command(run: re.Match[str]) -> bool:
    if len(run["run"]) % 2 == 0 or run["code"] or run["after"] in ("", "'"):
        return False
    return _escaped(run, '"', is_json=False).startswith("\\")


def _is_doubled(run: re.Match[str]) -> bool:
    after = run["after"]
    is_known = len(after) > 1 and (after in _OTHER or is_command(after))
    return len(run["run"]) == 2 and (is_known or after in _AFTER_DOUBLED)


def _escaped(run: re.Match[str], quote: str, is_json: bool) -> str:
    """Return what a single backslash and what follows it mean."""
    after = run["after"]
    if run["code"]:
        return chr(int(run["code"], 16))
    is_apostrophe = after == "'" and not _ACCENT.match(run.string, run.end())
    if after in ('"', "/", quote) or is_apostrophe:
        return after
    if after[:1] not in _ESCAPES or _is_latex(run, is_json):
        return f"\\{after}"
    return _ESCAPES[after[0]] + after[1:]


def _is_latex(run: re.Match[str], is_json: bool) -> bool:
    """Whether letters that begin like an escape are a command."""
    after, rest = run["after"], run["after"][1:]
    if after[0] in "bfr":
        return is_command(after) or (rest.islower() if after[0] == "r" else bool(rest))
    if after in ("ne", "ni", "nu"):
        return not _begins_line(run.string[: run.start()], is_json)
    return is_command(after)


def _begins_line(before: str, is_json: bool) -> bool:
    r"""Whether ``\nu`` begins a line with "u", as in ``substitute:\nu = 2x``, outside of $…$."""
    if is_json and not before[-1:].isspace():
        return True
    return before.count("$") % 2 == 0 and _SENTENCE_BEFORE.search(before[-2:]) is not None
