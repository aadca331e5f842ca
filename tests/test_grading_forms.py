r"""Answers in many forms: each gold answer with ways to write it, and with near misses.

`data/answer_forms.jsonl` has one gold answer a line. What is right is the same answer in another
notation; what is wrong differs in one branch, bound, letter, index or sign.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midcourse.checkers import Grader
from midcourse.checkers.math.brackets import partition_last, split
from midcourse.checkers.math.forms import Shape, normalise, read_form
from midcourse.checkers.math.layouts import Kind, read_layout
from midcourse.checkers.math.notation import standard
from midcourse.checkers.math.sets import read_builder
from midcourse.checkers.math.typography import plain
from midcourse.checkers.math.wording import choice_label, meaning, words_of
from midcourse.records import Gold, Verdict

FORMS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "answer_forms.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]


def pairs_of(form: str) -> list[tuple[str, str, Verdict]]:
    """Return gold answer, answer and verdict of every pair of one form."""
    return [
        (entry["gold"], answer, verdict)
        for entry in FORMS
        if entry["form"] == form
        for verdict, key in ((Verdict.CORRECT, "right"), (Verdict.INCORRECT, "wrong"))
        for answer in entry[key]
    ]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=2, timeout_seconds=10) as grader:
        yield grader


@pytest.mark.slow
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", sorted({entry["form"] for entry in FORMS}))
def test_another_way_to_write_an_answer_is_right_and_a_near_miss_is_wrong(
    grader: Grader, form: str, every: int
) -> None:
    pairs = pairs_of(form)[::every]
    graded = grader.grade((rf"\boxed{{{answer}}}", Gold("math", gold)) for gold, answer, _ in pairs)
    surprises = [
        (gold, answer, result.verdict.value)
        for (gold, answer, expected), result in zip(pairs, graded, strict=True)
        if result.verdict is not expected
    ]
    assert surprises == []


def test_every_form_has_answers_to_refuse() -> None:
    wrong = defaultdict[str, int](int)
    for entry in FORMS:
        wrong[entry["form"]] += len(entry["wrong"])
    assert min(wrong.values()) >= 4
    assert sum(wrong.values()) >= 250


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\Large\textcolor{red}{\mathbf{7}}\checkmark", "7"),
        (r"\begin{aligned} x &= 1+2 \\ &= 3 \end{aligned}", "x = 1+2 = 3"),
        (r"\begin{gathered} x = 1 \\ y = 2 \end{gathered}", "x = 1, y = 2"),
        (r"\left\{\begin{array}{l} x=1 \end{array}\right.", r"\begin{cases} x=1 \end{cases}"),
        ("x²³", "x^{23}"),
        ("x₁₀", "x_{10}"),
        ("㎡", "m^{2}"),
        ("４½", r"4\frac{1}{2}"),
        ("2⁄3", "2/3"),
        ("（甲）", r"(\text{甲})"),
        (r"\text{甲乙}", r"\text{甲乙}"),
        (r"5\ {\rm cm}", r"5\ \text{cm}"),
        (r"2^\bm{10}", "2^{10}"),
        (r"\phantom{8}9", "9"),
    ],
)
def test_what_is_only_appearance_goes(text: str, expected: str) -> None:
    assert " ".join(plain(text).split()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqrt(2+sqrt(3))", r"\sqrt{2+\sqrt{3}}"),
        ("abs(floor(x))", r"\left|\lfloor x\rfloor\right|"),
        ("12C5", r"\binom{12}{5}"),
        (r"{}_{7}P_2", r"\frac{(7)!}{(7-2)!}"),
        ("C_1^2 + C_2^2", "C_1^2 + C_2^2"),
        ("A(1, 2), C(3, 4)", "A(1, 2), C(3, 4)"),
        (r"\text{log 5}", r"\text{log 5}"),
        ("cost", "cost"),
        ("7 min", "7 min"),
        ("sqrt(2", r"\sqrt (2"),
    ],
)
def test_functions_and_counts_get_the_notation_of_latex(text: str, expected: str) -> None:
    assert standard(text) == expected


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("(B)", ("B", "")),
        ("B. 7", ("B", "7")),
        (r"\text{Option (B)}", ("B", "")),
        ("option b", ("B", "")),
        (r"\text{B) }\frac12", ("B", r"\frac12")),
        ("Option B is correct", ("B", "")),
        ("b", ("", "b")),
        ("B = 7", ("", "B = 7")),
        ("B and C", ("", "B and C")),
        ("(B)(C)", ("", "(B)(C)")),
        ("A. 5, B. 6", ("", "A. 5, B. 6")),
        ("Option B is wrong", ("", "Option B is wrong")),
    ],
)
def test_a_choice_is_one_letter_and_what_it_says(text: str, label: tuple[str, str]) -> None:
    assert choice_label(text) == label


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\text{there are no real roots}", r"\emptyset"),
        ("No such n exists", r"\emptyset"),
        (r"\text{None of the above}", r"\text{None of the above}"),
        ("no", "no"),
        (r"\text{Infinitely many solutions}", r"\text{infinitely many}"),
        (r"\text{finitely many}", r"\text{finitely many}"),
    ],
)
def test_a_phrase_stands_for_a_set(text: str, expected: str) -> None:
    assert meaning(text) == expected


def test_words_of_other_scripts_are_words() -> None:
    assert words_of(r"\text{甲}") == ["甲"]
    assert words_of(normalise("Größe")) == ["größe"]
    assert words_of(r"\text{n}") == []


def test_brackets_hold_what_is_inside_together() -> None:
    assert split(r"\begin{cases} 1, 2 \end{cases}, [3, 4)", frozenset({","})) == [
        r"\begin{cases} 1, 2 \end{cases}",
        "[3, 4)",
    ]
    assert partition_last("a = b_{c=d} = e", "=") == ("a = b_{c=d} ", " e")
    assert partition_last("abc", "=") == ("", "abc")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (r"\begin{cases} 1 & x > 0 \\ 0 & \text{else} \end{cases}", Kind.CASES),
        (r"\begin{cases} x &= 1 \\ y &= 2 \end{cases}", Kind.SYSTEM),
        (r"(\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array})", Kind.MATRIX),
        (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", None),
        (r"\begin{pmatrix} 1 & 2 \\ 3 \end{pmatrix}", None),
        (r"2\begin{pmatrix} 1 & 2 \end{pmatrix}", None),
    ],
)
def test_rows_are_cases_equations_or_a_matrix(text: str, kind: Kind | None) -> None:
    layout = read_layout(text)
    assert (layout.kind if layout else None) is kind


def test_a_set_of_whole_numbers_is_not_one_of_reals() -> None:
    integers, reals = (read_builder(rf"n \in \mathbb{{{over}}} : n > 3") for over in "ZR")
    assert integers is not None and reals is not None
    assert reals.of_reals and not integers.of_reals
    assert integers.may_equal("n > 3") and not integers.may_equal(r"(3,\infty)")


@pytest.mark.parametrize(
    "pump", ["\\text{", "\\left|", "\\bm{", "C_", "², ", "个", ", ", "no real "]
)
def test_reading_a_long_answer_takes_no_more_than_its_length(pump: str) -> None:
    def cost(length: int) -> float:
        text = "x" + pump * (length // len(pump))
        taken = []
        for _ in range(3):
            plain.cache_clear()
            normalise.cache_clear()
            start = time.process_time()
            read_form(normalise(text))
            taken.append(time.process_time() - start)
        return min(taken)

    assert cost(4000) < 3 * cost(2000) + 0.02


@given(st.text(alphabet="\\{}()[]&=<>,:;|.²₃５é甲 αbegincasxtorAC_^12", max_size=80))
def test_reading_any_text_never_fails(text: str) -> None:
    form = read_form(normalise(text))
    assert form.parts or form.shape in (Shape.LIST, Shape.RESIDUES)
