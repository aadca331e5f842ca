r"""What is only appearance: characters, fonts, sizes, colours, spacing, lines that are aligned.

Whatever is written here changes how an answer looks and never what it says, so both sides are
read without it. A superscript character is not appearance: ``x²`` is a power, and stays one.

    >>> plain(r"\therefore \Large\boldsymbol{x} = ５\,\checkmark")
    'x = 5'
    >>> plain("10⁻³ m₁")
    '10^{-3} m_{1}'
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby, pairwise

# --- characters --------------------------------------------------------------------------------

#: A character and its command, by turns.
_COMMAND_OF = """
    ∞ infty  ≤ le  ⩽ le  ≦ le  ≥ ge  ⩾ ge  ≧ ge  ≠ ne  ≈ approx  ≡ equiv  ± pm  ∓ mp
    × times  · cdot  ⋅ cdot  ∙ cdot  ∪ cup  ∩ cap  ∅ emptyset  ∈ in  ∉ notin  ⊂ subset  ⊆ subseteq
    ∖ setminus  … ldots  ⋯ ldots  ⌊ lfloor  ⌋ rfloor  ⌈ lceil  ⌉ rceil  ⟨ langle  ⟩ rangle
    〈 langle  〉 rangle  ∧ land  ∨ lor  ∀ forall  → to  ⇒ Rightarrow  ⟹ implies  ∴ therefore
    ∑ sum  ∏ prod  ∫ int  ∂ partial  ∠ angle  ∡ angle  △ triangle  ∆ Delta  ∣ mid  ∥ parallel
    ⊥ perp  ✓ checkmark  ✔ checkmark  ✅ checkmark  ∎ qed  ■ qed  □ qed
    α alpha  β beta  γ gamma  δ delta  ε epsilon  ζ zeta  η eta  θ theta  ι iota  κ kappa  λ lambda
    μ mu  ν nu  ξ xi  π pi  ρ rho  σ sigma  ς sigma  τ tau  υ upsilon  φ phi  χ chi  ψ psi  ω omega
    Γ Gamma  Δ Delta  Θ Theta  Λ Lambda  Ξ Xi  Π Pi  Σ Sigma  Φ Phi  Ψ Psi  Ω Omega
""".split()  # noqa: SIM905 - a table of words reads better as text
_CHARACTERS = str.maketrans(
    {
        **{
            sign: rf"\{name} "
            for sign, name in zip(_COMMAND_OF[::2], _COMMAND_OF[1::2], strict=True)
        },
        **{letter: rf"\mathbb{{{plain}}}" for letter, plain in zip("ℝℤℕℚℂ", "RZNQC", strict=True)},
        **dict.fromkeys("°º˚", r"^\circ "),
        **dict.fromkeys("÷∕⁄", "/"),
        **dict.fromkeys("、﹑", ", "),
        **dict.fromkeys("“”", '"'),
        **dict.fromkeys("‘’′", "'"),
        **{"√": r"\sqrt ", "∛": r"\sqrt[3] ", "∜": r"\sqrt[4] ", "∗": "*", "∶": ":", "−": "-"},
        **{"｛": r"\{", "｝": r"\}", "。": "."},
    }
)
_ROOT = re.compile(r"([√∛∜])\s?([0-9.]+|[A-Za-z])")
_RAISED, _LOWERED, _FRACTION = "<super>", "<sub>", "<fraction>"
_TEXT = r"\\(?:text|mathrm|operatorname)\s?\{[^{}]*\}"
#: A word that ASCII cannot spell, where no macro says that it is text.
_FOREIGN = re.compile(rf"{_TEXT}|[A-Za-z]*[^\W\d_A-Za-z](?:[^\W\d_]|[^\x00-\x7f\s])*")


def _in_ascii(text: str) -> str:
    r"""Write an answer in ASCII and LaTeX; words stay as they are, in ``\text{…}``."""
    text = text.replace("³√", "∛").replace("⁴√", "∜").replace("∛(", "cbrt(").replace("√(", "sqrt(")
    text = _ROOT.sub(r"\1{\2}", unicodedata.normalize("NFC", text)).translate(_CHARACTERS)
    pieces = []
    for kind, group in groupby(text, _decomposition):
        run = "".join(map(_compatible, group))
        pieces.append({_RAISED: f"^{{{run}}}", _LOWERED: f"_{{{run}}}"}.get(kind, run))
    return _FOREIGN.sub(
        lambda word: word[0] if word[0].startswith("\\") else rf"\text{{{word[0]}}}",
        "".join(pieces),
    )


def _decomposition(character: str) -> str:
    """Return how a character stands for others: raised, lowered, or any other way ("")."""
    kind = unicodedata.decomposition(character).partition(" ")[0]
    return kind if kind in (_RAISED, _LOWERED) else ""


def _compatible(character: str) -> str:
    kind, *codes = unicodedata.decomposition(character).split() or [""]
    if kind == _FRACTION:
        top, _, bottom = unicodedata.normalize("NFKC", character).partition("⁄")
        return rf"\frac{{{top}}}{{{bottom or 1}}}"
    if kind == "<circle>":  # ① is the first of several and no number; Ⓐ is a choice
        within = _compatible(chr(int(codes[0], 16)))
        return f"({within})" if within.isalpha() else character
    if kind.startswith("<"):
        return "".join(_raised_within(chr(int(code, 16))) for code in codes).translate(_CHARACTERS)
    return str(unicodedata.decimal(character, character))


def _raised_within(character: str) -> str:
    """Return a part of a composed character: the 2 of ㎡ stays a power."""
    part = _compatible(character)
    return f"^{{{part}}}" if _decomposition(character) == _RAISED else part


# --- commands ----------------------------------------------------------------------------------

_PIECE = re.compile(r"\\(?P<name>[A-Za-z]+)\*?\s*|\\.|[{}]|[^\\{}]+|\\", re.DOTALL)
_OPTION = re.compile(r"\[[^\[\]]*\]\s*")

#: Commands that say nothing, with what they take: it goes with them.
_DROPPED = {
    **dict.fromkeys(
        """
        tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge
        bf it rm sf tt sl sc em bfseries itshape rmfamily boldmath unboldmath
        displaystyle textstyle scriptstyle scriptscriptstyle limits nolimits
        mathstrut strut quad qquad enspace thinspace medspace thickspace negthinspace hfill hfil
        newline linebreak noindent centering par smallskip medskip bigskip allowbreak nobreak
        nonumber notag hline relax protect checkmark qed blacksquare square Box
        """.split(),  # noqa: SIM905 - a table of words reads better as text
        0,
    ),
    **dict.fromkeys(["tag", "label", "color", "textcolor", "colorbox", "href"], 1),
    **dict.fromkeys(["overset", "stackrel", "raisebox", "scalebox", "footnote"], 1),
    **dict.fromkeys(["phantom", "vphantom", "hphantom", "hspace", "vspace", "mspace"], 1),
    "fcolorbox": 2,
}
#: Commands of whose argument only the looks change.
_UNWRAPPED = frozenset(
    """
    boldsymbol bm pmb bold mathbf mathsf mathit mathtt mathnormal ensuremath framebox fbox
    boxed ovalbox shadowbox doublebox makebox circled underline underbar uline smash mathclap rlap
    llap
    mathop mathord mathrel mathbin mathopen mathclose mathpunct mathinner
    """.split()  # noqa: SIM905 - a table of words reads better as text
)
#: Commands whose argument is text.
_SET_AS_TEXT = frozenset(
    """
    text textbf textit textrm textup texttt textsc textsf textsl textmd textnormal emph mbox hbox
    """.split()  # noqa: SIM905 - a table of words reads better as text
)
#: Alphabets of their own for letters, and not for digits.
_ALPHABET = re.compile(r"math(?:cal|scr|frak|bb|ds|rm)")
_DIGITS = re.compile(r"\s*\{?[0-9.,]+(?![A-Za-z])")
_VARIANT = re.compile(r"var(epsilon|theta|phi|rho|sigma|kappa|pi)")
_PLAIN_ARGUMENT = re.compile(r"\{([^\\{}]*)\}")
#: A word, or a label in brackets: what makes text of the argument of a font for formulas.
_WORDED = re.compile(r"(?=[A-Za-z]{0,40}[AEIOUaeiou])[A-Za-z]{3}|\A\s*(?:[Nn]o\s*\Z|\([A-Za-z]\))")
_TWO_LETTERS = re.compile(r"[A-Za-z]{2}|\([A-Za-z]\)")


class _Writer:
    """Writes an answer again, piece by piece, without the commands that say nothing."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._written: list[str] = []
        #: For each open brace, whether it is left out.
        self._left_out: list[bool] = []

    def write(self) -> str:
        """Return the answer without them."""
        while found := _PIECE.match(self._text, self._at):
            self._at = found.end()
            if name := found["name"]:
                self._command(name, found[0])
            elif found[0] == "{":
                self._open(left_out=False)
            elif found[0] == "}":
                self._written.append("" if self._left_out and self._left_out.pop() else "}")
            else:
                self._written.append(found[0])
        return "".join(self._written)

    def _command(self, name: str, written: str) -> None:
        if name in _DROPPED:
            for _ in range(_DROPPED[name]):
                self._skip_argument()
            self._unwrap()
        elif variant := _VARIANT.fullmatch(name):
            self._written.append(rf"\{variant[1]} ")
        elif name in _UNWRAPPED or (
            _ALPHABET.fullmatch(name) and _DIGITS.match(self._text, self._at)
        ):
            self._unwrap()
        elif name in _SET_AS_TEXT:
            self._text_macro()
        else:
            self._written.append(written)

    def _open(self, *, left_out: bool) -> None:
        self._left_out.append(left_out)
        self._written.append(" " if left_out else "{")

    def _unwrap(self) -> None:
        self._skip_option()
        argument = _PLAIN_ARGUMENT.match(self._text, self._at)
        if argument and _WORDED.search(argument[1]):
            self._written.append(r"\text")
        elif not self._text.startswith("{", self._at):
            self._written.append(" ")
        elif not "".join(self._written[-1:]).rstrip().endswith(("^", "_")):
            self._at += 1
            self._open(left_out=True)

    def _text_macro(self) -> None:
        after = self._text[self._at : self._at + 1]
        if after == "{" and not _PLAIN_ARGUMENT.match(self._text, self._at):
            self._at += 1
            self._open(left_out=True)  # what it sets as text is a formula
            return
        self._written.append(r"\text")
        if after not in ("", "{", "\\"):
            self._written.append(f"{{{after}}}")
            self._at += 1

    def _skip_option(self) -> None:
        if option := _OPTION.match(self._text, self._at):
            self._at = option.end()

    def _skip_argument(self) -> None:
        self._skip_option()
        depth = 0
        for piece in _PIECE.finditer(self._text, self._at):
            depth += (piece[0] == "{") - (piece[0] == "}")
            if depth == 0:
                self._at = piece.end() if piece[0] == "}" else self._at
                return


# --- the whole ---------------------------------------------------------------------------------

#: ``{\rm cm}``: a group in another font is text.
_FONT_GROUP = re.compile(r"\{\s?\\(?:rm|bf|it|sf|tt|sc|sl|em)(?![A-Za-z])\s?([^\\{}]*)\}")
_SPACE = re.compile(
    r"\\(?:hskip|vskip|kern|mkern|mskip)\s?-?[0-9.]+\s?(?:pt|em|ex|mu|cm|mm|in)(?![A-Za-z])"
)
_EMPHASIS = re.compile(r"(\*{1,3}|_{1,2})(?![\s*_])(.*[^\s*_])\1", re.DOTALL)
_SYSTEM = re.compile(
    r"\\left\s?\\(?:\{|lbrace)\s?\\begin\s?\{(array|aligned|matrix|gathered|split)\}"
    r"(?:\s?\{[^{}]*\}|\s?\[[^\[\]]*\])?((?:(?!\\begin|\\end).)*)\\end\s?\{\1\}\s?\\right\s?(?:\.|\Z)"
)
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\left\s?\|([^|]*)\\right\s?(?:\.|\Z)", r"|\1"),
        (r"\\(?:left|right)\s?(?:\.|\Z)", ""),
        (
            r"\\(?:left|right|[bB]igg?[lr]?)\s?(?=[()\[\]]|\\[{}]|\\[lr](?:brace|angle)(?![A-Za-z]))",
            "",
        ),
        (r"\\left\s?<", "("),
        (r"\\right\s?>", ")"),
        (r"\\(?:middle|[bB]igg?[lrm]?)\s?\|", r"\\mid "),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"(?<![A-Za-z}\]])\{\s?\}(?!\s?[\^_])", " "),
        (r" +", " "),
    ]
]
_ALIGNED = re.compile(
    r"\\begin\s?\{(aligned|align|alignedat|alignat|gathered|gather|split|equation|multline|center"
    r"|math|displaymath)\*?\}((?:(?!\\begin|\\end).)*)\\end\s?\{\1\*?\}"
)
_AMPERSAND = re.compile(r"(?<!\\)&")
_FIRST, _LAST = (
    re.compile(pattern)
    for pattern in (
        r"(?:\s|\\\\|[=:]|#{2,}|`|\\(?:implies|therefore|iff|to|[lL]?(?:ong)?[rR]ightarrow"
        r"|Leftrightarrow|bullet|star|cdot)(?![A-Za-z])"
        r"|[=-]>)+",
        r"(?<![\s`\\])[\s`\\]+\Z",
    )
)


@lru_cache(maxsize=1024)
def plain(answer: str) -> str:
    """Return an answer without what is only appearance."""
    text = answer if answer.isascii() else _in_ascii(answer)
    if "\\" in text:
        text = _SYSTEM.sub(r"\\begin{cases}\2\\end{cases}", text)
        text = _FONT_GROUP.sub(_as_text, _SPACE.sub(" ", text))
        text = _ALIGNED.sub(_in_one_line, _Writer(text).write())
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    first = _FIRST.match(text)
    text = _LAST.sub("", text[first.end() if first else 0 :])
    marked = _EMPHASIS.fullmatch(text)
    return marked[2] if marked else text


def _as_text(group: re.Match[str]) -> str:
    return rf"\text{{{group[1]}}}" if _TWO_LETTERS.search(group[1]) else f"{{{group[1]}}}"


def _in_one_line(lines: re.Match[str]) -> str:
    """Put aligned lines one after the other; one that begins with a sign goes on with the last."""
    rows = [_AMPERSAND.sub(" ", row).strip(" ,") for row in lines[2].split(r"\\")]
    rows = [row for row in rows if row]
    joints = [" " if after[0] in "=<>+-" else ", " for _, after in pairwise(rows)]
    return "".join(row + joint for row, joint in zip(rows, [*joints, ""], strict=True))
