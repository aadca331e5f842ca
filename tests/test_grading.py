r"""The final answer of a response, and whether it equals the gold one."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midcourse.checkers import Comparison, Grader, Pair
from midcourse.checkers.base import readable
from midcourse.checkers.math.equivalence import compare_quickly, tidy
from midcourse.checkers.math.extract import extract_answer, open_box_tail
from midcourse.checkers.math.forms import Shape, normalise, read_form
from midcourse.checkers.math.units import restate
from midcourse.data import load_problems
from midcourse.records import Gold, Verdict

R, W, N = Verdict.CORRECT, Verdict.INCORRECT, Verdict.NO_ANSWER
DATA = Path(os.environ.get("MIDCOURSE_DATA", "/nowhere"))
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no data at {DATA}: set MIDCOURSE_DATA to the data folder"
)


def math(gold: str) -> Gold:
    return Gold("math", gold)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=2, timeout_seconds=10) as grader:
        yield grader


# --- extraction --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{ 42 }", "42"),
        (r"\boxed {42}", "42"),
        (r"\fbox{42}", "42"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} then \fbox{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"a set {1, 2 and a stray } brace } { \boxed{3}", "3"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{\fbox{ \boxed{3} }}", "3"),
        (r"\boxed{x = \fbox{3}}", r"x = \fbox{3}"),
        ("\\boxed{\n3\n}", "3"),
        (r"\\boxed{3}", "3"),
        (r"\\\boxed{3}", "3"),
        (r"\boxed{3} and \boxedness{4}", "3"),
        (r"write \boxed{ first. So \boxed{3}", "3"),
    ],
)
def test_the_last_balanced_box_is_the_answer(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 42.",
        "42",
        r"\boxed 42",
        r"\boxed{42",
        r"\boxed{42} or rather \boxed{4",
        r"\boxed{42} or rather \boxed{\frac{1}{2}",
        r"\boxed{42} or rather \boxed{4\}",
        r"\boxed{42} or rather \boxed{}",
        r"\boxed{42} or rather \boxed{ }",
    ],
)
def test_no_closed_last_box_is_no_answer(text: str) -> None:
    # An earlier box never stands in for the last one (marin#9163).
    assert extract_answer(text) is None


#: By name: the text of size n, and its answer.
LONG_TEXTS: dict[str, Callable[[int], tuple[str, str | None]]] = {
    "long": lambda n: ("x" * 3 * n + r"\boxed{7}", "7"),
    "open braces": lambda n: ("{" * n + r"\boxed{7}", "7"),
    "closed braces": lambda n: (r"\boxed{7}" + "}" * n, "7"),
    "boxes": lambda n: (r"\boxed{4}" * (n // 9) + r"\boxed{7}", "7"),
    "nested": lambda n: (
        r"\boxed{" + "{" * (n // 2) + "7" + "}" * (n // 2) + "}",
        "{" * (n // 2) + "7" + "}" * (n // 2),
    ),
    "huge": lambda n: (r"\boxed{" + "1" * 3 * n + "}", "1" * 3 * n),
    "open": lambda n: (r"\boxed{" * (n // 7), None),
    "backslashes": lambda n: ("\\" * n + r"\boxed{7}", "7"),
}


def cpu_seconds(run: Callable[[], object]) -> float:
    """The least of three runs, in processor time."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.parametrize("make", LONG_TEXTS.values(), ids=LONG_TEXTS.keys())
def test_extraction_is_linear(make: Callable[[int], tuple[str, str | None]]) -> None:
    (text, answer), (twice, _) = make(100_000), make(200_000)
    # Compared with `is` of the truth: a failing assert must not print a megabyte.
    assert (extract_answer(text) == answer) is True
    once, doubled = (
        cpu_seconds(lambda: extract_answer(text)),
        cpu_seconds(lambda: extract_answer(twice)),
    )
    assert doubled < 3 * once + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("make", LONG_TEXTS.values(), ids=LONG_TEXTS.keys())
def test_ten_megabytes_are_read(make: Callable[[int], tuple[str, str | None]]) -> None:
    text, answer = make(3_000_000)
    assert (extract_answer(text) in (answer, None)) is True


@given(st.text(alphabet="\\boxed{}f 1", max_size=60))
def test_extraction_never_fails_and_never_sees_an_open_box(text: str) -> None:
    answer = extract_answer(text)
    assert answer is None or answer in text
    assert extract_answer(text + r"\boxed{9") is None
    assert extract_answer(text + r" \boxed{9}") == "9" or "{" in text


# --- the box that straddles the cut ------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "tail"),
    [
        ("", ""),
        ("no box", ""),
        (r"old \boxed{1} and on", ""),
        (r"so \boxed{4", r"\boxed{4"),
        (r"so \boxed{", r"\boxed{"),
        (r"so \boxed{\frac{1}{", r"\boxed{\frac{1}{"),
        (r"old \boxed{1}, new \boxed{4", r"\boxed{4"),
        (r"stray \boxed{ and old \boxed{1} and on", ""),
    ],
)
def test_only_a_last_box_left_open_is_carried_over(context: str, tail: str) -> None:
    assert open_box_tail(context) == tail


@pytest.mark.parametrize(
    ("prefix", "continuation", "verdict"),
    [
        (r"The answer is \boxed{4", "2}.", R),
        (r"The answer is \boxed{4", "3}.", W),
        (r"The answer is \boxed{42}.", " Done.", N),
        (r"The answer is \boxed{42}.", r" No, \boxed{7}.", W),
        (r"The answer is \boxed{7}.", r" No, \boxed{42}.", R),
        (r"The answer is \boxed{42}, no, \boxed{", "42", N),
    ],
)
def test_an_old_box_in_the_prefix_never_scores(
    grader: Grader, prefix: str, continuation: str, verdict: Verdict
) -> None:
    [result] = grader.grade([(open_box_tail(prefix) + continuation, math("42"))])
    assert result.verdict is verdict


# --- equality ----------------------------------------------------------------------------------

#: Gold answer, what stands in the box, verdict.
PAIRS = [
    # the same number in another form
    ("42", "42.0", R),
    ("42", "42.", R),
    ("42", "+42", R),
    ("42", "$42$", R),
    ("42", r"\(42\)", R),
    ("42", r"\$42", R),
    ("42", "042", R),
    ("42", "**42**", R),
    ("42", r"\text{ }42\,", R),
    ("1234", "1,234", R),
    ("1234", "1{,}234", R),
    ("1234", r"1\,234", R),
    ("1234", r"1\!,\!234", R),
    ("1,234", "1234.00", R),
    ("1234567", "1 234 567", R),
    ("0.5", r"\frac{1}{2}", R),
    ("0.5", r"\dfrac12", R),
    ("0.5", "1/2", R),
    ("0.5", ".50", R),
    ("-0.5", r"-\frac{1}{2}", R),
    ("-0.5", r"\frac{-1}{2}", R),
    ("1.5", r"1\frac{1}{2}", R),
    ("1.5", "1 1/2", R),
    ("1000", "1e3", R),
    ("1500", r"1.5 \times 10^3", R),
    ("1/3", "0.333333", R),
    ("5", "{5}", R),
    ("5", "x = 5", R),
    ("x=5", "5", R),
    ("-42", "\u221242", R),
    ("42", "\u200b4\u200b2", R),
    ("42", "42\x00", R),
    # percent and units
    ("50", r"50\%", R),
    ("0.5", r"50\%", R),
    (r"50\%", "0.5", R),
    (r"50\%", "50 percent", R),
    ("12.5", r"12.5\%", R),
    ("18", "18 dollars", R),
    ("18", r"18 \text{ dollars}", R),
    ("5", r"5\text{ cm}^2", R),
    ("90", r"90^\circ", R),
    ("2000000", "2 million", R),
    (r"\frac{\sqrt{3}}{2}", r"\frac{\sqrt 3}{2}\text{ cm}", R),
    # algebra
    (r"2\sqrt{3}", r"\sqrt{12}", R),
    (r"\frac{\pi}{2}", r"\pi/2", R),
    ("2^{16}+1", "65537", R),
    ("x^2+2x+1", "(x+1)^2", R),
    ("$2-2m$", "2(1-m)", R),
    ("$(n-2)2^n +1$", "1+2^n(n-2)", R),
    (r"\binom{5}{2}", "10", R),
    ("3!", "6", R),
    ("3:2", "6:4", R),
    # lists, sets, tuples, intervals, relations, words
    ("1,3,5", "5, 3, 1", R),
    (r"\{1,2\}", "2, 1", R),
    ("8, 9", r"8 \text{ and } 9", R),
    ("(2,251,252)", "(2, 251, 252)", R),
    (r"\left(\frac12, 3\right)", "(0.5, 3)", R),
    (r"n \ge 2", r"n\geq2", R),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", R),
    (r"\text{Yes}", "yes", R),
    # near, and wrong
    ("42", "43", W),
    ("42", "-42", W),
    ("42", "4.2", W),
    ("42", "420", W),
    ("42", "4 2", W),
    ("42", "4\x002", W),
    ("42", "\u202e24", W),
    ("5", "1 4", W),
    ("12", "1,2", W),
    ("1234", "1,23", W),
    ("1/3", "0.33", W),
    (r"\frac{1}{2}", r"\frac{2}{1}", W),
    ("0.5", r"5\%", W),
    ("0.5", r"0.5\%", W),
    ("18", r"18\text{ million}", W),
    ("5", "5x", W),
    ("5", r"5\pi", W),
    ("5", r"\frac{5}{0}", W),
    ("7", r"\text{seven}", W),
    ("99999999999999999999", "99999999999999999998", W),
    ("0", "0.0000001", W),
    (r"\pi", "3.14", W),
    ("4", r"4\sqrt{2}", W),
    (r"2\sqrt{3}", r"3\sqrt{2}", W),
    ("x^2+2x+1", "(x-1)^2", W),
    ("$2-2m$", "2", W),
    ("2^{16}+1", "65536", W),
    ("(1,2)", "(2,1)", W),
    ("[1,2)", "(1,2)", W),
    ("1,3,5", "1,3", W),
    ("1,3", "1,3,5", W),
    ("5", r"3 \text{ or } 5", W),
    (r"n \ge 2", "n > 2", W),
    (r"\text{Yes}", "no", W),
    (r"n\text{ even}", r"n\text{ odd}", W),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}", W),
]


def test_answers_in_other_forms_are_right_and_near_ones_are_wrong(grader: Grader) -> None:
    responses = [
        (rf"So \boxed{{1}}? No: \boxed{{{answer}}}.", math(gold)) for gold, answer, _ in PAIRS
    ]
    verdicts = [result.verdict for result in grader.grade(responses)]
    surprises = [
        (gold, answer, verdict.value)
        for (gold, answer, expected), verdict in zip(PAIRS, verdicts, strict=True)
        if verdict is not expected
    ]
    assert len(PAIRS) >= 90
    assert surprises == []


@pytest.mark.parametrize("response", ["42", "The answer is 42.", "$42$", "**42**", r"box{42}"])
def test_a_right_answer_that_is_not_boxed_is_not_credited(grader: Grader, response: str) -> None:
    [result] = grader.grade([(response, math("42"))])
    assert (result.verdict, result.extracted_answer) == (N, None)


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("72", "72", Comparison.EQUAL),
        ("72", "71", Comparison.DIFFERENT),
        ("1/3", "0.333333", Comparison.EQUAL),
        ("0.3333333", "0.333333", Comparison.EQUAL),
        ("0.333334", "0.333333", Comparison.DIFFERENT),
        ("123456.79", "123456.8", Comparison.DIFFERENT),
        ("5 \\text{ cm}", "5 \\text{ m}", None),
        ("x+1", "1+x", None),
        ("5", "2 + 3", None),
        ("5", "3, 5", None),
        ("", "5", Comparison.GOLD_UNPARSEABLE),
    ],
)
def test_the_fast_path_settles_plain_numbers_and_nothing_else(
    gold: str, answer: str, expected: Comparison | None
) -> None:
    assert compare_quickly(gold=gold, answer=answer) is expected


@given(st.fractions(max_denominator=1000))
def test_every_fraction_equals_its_own_latex(value: object) -> None:
    top, _, bottom = str(value).partition("/")
    latex = rf"\frac{{{top}}}{{{bottom or 1}}}"
    assert compare_quickly(gold=str(value), answer=latex) is Comparison.EQUAL
    assert compare_quickly(gold=latex, answer=str(value) + "1") is Comparison.DIFFERENT


@given(st.text(max_size=200), st.text(max_size=200))
def test_the_fast_path_never_fails(gold: str, answer: str) -> None:
    compare_quickly(gold=gold, answer=answer)
    assert tidy(tidy(gold)).count("  ") == 0


@pytest.mark.parametrize("sign", ["1", "1 ", "1,", " ", "{", "a "])
def test_the_fast_path_is_linear_on_long_garbage(sign: str) -> None:
    def cost(length: int) -> float:
        garbage = sign * (length // len(sign))
        return cpu_seconds(lambda: compare_quickly(gold=garbage, answer=garbage + "x"))

    assert cost(4000) < 3 * cost(2000) + 0.01


def test_what_is_too_long_or_too_deep_is_not_read() -> None:
    assert readable("(" * 50 + "1" + ")" * 50)
    assert not readable("(" * 100 + "1" + ")" * 100)
    assert not readable("1" * 10_000)


# --- real gold answers -------------------------------------------------------------------------


def _unreadable(grader: Grader, golds: list[str]) -> list[str]:
    """The golds that the grader cannot read: the same text alone is no proof here."""
    checked = grader.check_golds(Pair(gold, math(gold)) for gold in golds)
    return [g for g, result in zip(golds, checked, strict=True) if result.verdict is not R]


@needs_data
def test_every_gsm8k_and_svamp_gold_answer_is_readable(grader: Grader) -> None:
    parts = [DATA / "gsm8k" / "train.jsonl", DATA / "gsm8k" / "test.jsonl", DATA / "problems.jsonl"]
    problems = [problem for part in parts for problem in load_problems(part)]
    assert len(problems) == 7473 + 1319 + 600
    assert _unreadable(grader, [problem.answer for problem in problems]) == []


@needs_data
def test_every_imo_gold_answer_is_readable(grader: Grader) -> None:
    lines = (DATA / "imo_answerbench_80.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [json.loads(line)["answer"] for line in lines]
    assert len(golds) == 80
    assert _unreadable(grader, golds) == []
    # A grader that accepts anything would pass that: no gold may equal another one's.
    others = [*golds[1:], golds[0]]
    graded = grader.grade(
        (rf"\boxed{{{other}}}", math(g)) for g, other in zip(golds, others, strict=True)
    )
    assert [g for g, r in zip(golds, graded, strict=True) if r.verdict is not W] == []


# --- hand-made pairs ---------------------------------------------------------------------------

PAIRS_FILE = Path(__file__).parent / "data" / "answer_pairs.jsonl"
#: Equal, and refused: letters that may be free, remarks.
REFUSED = {
    ("n=4k+3", "4m+3"),
    ("f(x) = cx", "f(x)=kx"),
    (r"x=2, y=\pm 1", "(2,1),(2,-1)"),
    ("7", r"7 \text{ (as required)}"),
    (r"f(x) = \frac{1}{x}", r"f(x) = \frac{1}{x}, x \neq 0"),
    ("n=2^k", r"\text{powers of } 2"),
    (r"(k, k+1) \text{ for } k \ge 1", "(k, k+1)"),
}


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_the_confusion_on_hand_made_pairs(grader: Grader, every: int) -> None:
    pairs = [json.loads(line) for line in PAIRS_FILE.read_text(encoding="utf-8").splitlines()]
    assert len({(pair["gold"], pair["answer"]) for pair in pairs}) == len(pairs) >= 600
    pairs = pairs[::every]
    responses = [(rf"\boxed{{{pair['answer']}}}", math(pair["gold"])) for pair in pairs]
    surprises: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for pair, result in zip(pairs, grader.grade(responses), strict=True):
        if result.verdict is not (R if pair["equal"] else W):
            surprises[pair["equal"]].add((pair["gold"], pair["answer"]))
    refused = REFUSED & {(pair["gold"], pair["answer"]) for pair in pairs}
    assert surprises == {True: refused, False: set()}
    assert refused


@given(st.text(alphabet="\\{}()[]<>=,;:.|0123xyabfor txeand^_+-*/", max_size=80))
def test_reading_a_form_never_fails(text: str) -> None:
    form = read_form(normalise(tidy(text)))
    assert form.parts or form.shape in (Shape.LIST, Shape.RESIDUES)


@pytest.mark.parametrize(
    ("unit", "other", "restated"),
    [
        ("m", "cm", r"(2)\cdot\frac{100}{1}"),
        ("square meters", "cm^2", r"(2)\cdot\frac{10000}{1}"),
        ("km/h", "m/s", r"(2)\cdot\frac{5}{18}"),
        ("mph", "miles per hour", "2"),
        ("N m", "J", "2"),
        ("fahrenheit", "celsius", r"(2)\cdot\frac{5}{9}+\frac{-160}{9}"),
        ("kg", "s", None),
        ("apples", "cm", None),
        ("cm", "apples", None),
        ("red apples", "apples", "2"),
    ],
)
def test_known_units_are_converted(unit: str, other: str, restated: str | None) -> None:
    assert restate("2", unit, other) == restated
