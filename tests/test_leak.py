r"""Does an intervention give the answer away? Under the default rule and under the authors'."""

from collections.abc import Iterator

import pytest

from midcourse.checkers import Grader, checker_named


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, timeout_seconds=10) as grader:
        yield grader


def leaks(text: str, answer: str, grader: Grader) -> bool:
    return checker_named("math").leaks(text, answer, grader.equal)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # boxed
        (r"so we get \boxed{\frac{1}{2}} and more", "0.5"),
        (r"\boxed{0.5}, or was it \boxed{7}?", "0.5"),
        (r"so \fbox{2}", "2"),
        # "the answer is"
        (r"so the answer is \frac{1}{2}", "0.5"),
        (r"The final answer is $\frac{1}{2}$, since the halves are equal.", "0.5"),
        ("Answer: 2", "2"),
        ("The answer to the whole problem is therefore 2 apples.", "2"),
        ("The answer is **2**.", "2"),
        ("the answer is 2.\n\n", "2"),
        (r"the answer is \(2\).", "2"),
        ("the answer is x + 1", "1 + x"),
        ("the answer is 1,200 dollars", "1200"),
        # a final "= …"
        ("Then x + y = 2.", "2"),
        ("Then x + y = 2.\n\n", "2"),
        ("Then $x + y = 2$.", "2"),
        (r"Then \[x + y = 1 + 1 = 2\]", "2"),
        (r"which is = \frac{4}{2}", "2"),
        ("She has 40 - 38 = 2 apples.", "2"),
        # a long answer as a whole token
        ("Note that 150 works, so we go on.", "150"),
        ("We need (150) of them.", "150"),
        ("There are 1,200 of them in all.", "1200"),
        (r"where \frac{1}{2} of it is left", r"\frac{1}{2}"),
        (r"where \dfrac{1}{2} of it is left", r"\frac{1}{2}"),
        ("It is a Tuesday then.", "Tuesday"),
    ],
)
def test_what_is_asserted_leaks(grader: Grader, text: str, answer: str) -> None:
    assert leaks(text, answer, grader)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so we get \frac{1}{2} of the sum, and go on", "0.5"),
        ("There are 2 cases to look at.", "2"),
        ("By step 2, both sides have 2 factors; take x = 2 and y, then look at the sum.", "2"),
        ("Then x = 12.", "2"),
        ("Then x = 2y.", "2"),
        ("Then x = -2.", "2"),
        ("Then x >= 2.", "2"),
        (r"Then x \ne 2.", "2"),
        ("The answer is not 2.", "2"),
        ("The answer is 2 + x.", "2"),
        ("The answer is 12.", "2"),
        ("The answer is more than what 2 of them have.", "2"),
        (r"so \boxed{12}", "2"),
        ("It is 1500 or 0.150 or 2150 or 150.5 or 1,150.", "150"),
        ("We have x = 150y on the left.", "150"),
        ("Look at the Tuesdays.", "Tuesday"),
        ("", "2"),
    ],
)
def test_what_is_not_asserted_is_innocent(grader: Grader, text: str, answer: str) -> None:
    assert not leaks(text, answer, grader)


def test_an_answer_that_cannot_be_read_leaks_only_word_for_word(grader: Grader) -> None:
    gold = r"all $n$ with \underbrace{2\cdots2}_{n}1"
    assert leaks(rf"These are {gold}, as one sees.", gold, grader)
    assert not leaks("So the answer is 5", gold, grader)


def test_an_answer_is_found_by_value_and_not_as_a_substring(grader: Grader) -> None:
    innocent, hidden = "There are 2 cases.", r"so \boxed{\frac{1}{2}}"
    assert not leaks(innocent, "2", grader)
    assert leaks(hidden, "0.5", grader)


def test_plain_text_never_needs_a_worker() -> None:
    with Grader() as grader:
        assert leaks("Then x + y = 2.", "2", grader)
        assert not leaks("Then x = 12 and we go on. The answer is 13.", "2", grader)
        assert grader._pool is None


def test_long_texts_are_read_in_linear_time(grader: Grader) -> None:
    for text in ("answer " * 100_000, "=" * 300_000, "answer is " * 50_000, "$" * 300_000):
        assert not leaks(text, "2", grader)
