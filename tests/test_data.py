"""Problem files: what is read, and what is said of a broken one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midcourse.data import load_problems, require_references, validate_problems
from midcourse.errors import DataError
from midcourse.grading import Grader

Write = Callable[..., Path]
GOOD = {"id": "p1", "problem": "What is 6 × 7?", "answer": "42", "reference_solution": "6 × 7 = 42"}


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, timeout_seconds=10) as grader:
        yield grader


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*rows: object) -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        file = tmp_path / "mine.jsonl"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file

    return write


def test_a_row_becomes_a_problem(write: Write) -> None:
    [problem] = load_problems(write(GOOD | {"source": "book"}), split="held_out")
    assert problem.problem_id == "p1"
    assert problem.text == "What is 6 × 7?"
    assert (problem.answer, problem.reference_solution) == ("42", "6 × 7 = 42")
    assert (problem.source, problem.split) == ("book", "held_out")


def test_what_is_not_given_has_a_default(write: Write) -> None:
    file = write({"problem": "What is 6 × 7?", "answer": "42", "reference_solution": " "})
    [problem] = load_problems(file)
    assert len(problem.problem_id) == 16
    assert problem.problem_id == load_problems(file)[0].problem_id
    assert (problem.source, problem.split) == ("mine", "train")
    assert problem.reference_solution is None


def test_gsm8k_is_read_as_published(write: Write) -> None:
    worked = "In May 48/2 = <<48/2=24>>24.\nThat is 48+24 = <<48+24=1,072>>72.\n#### 1,072"
    [problem] = load_problems(write({"question": "How many?", "answer": worked}))
    assert (problem.text, problem.answer, problem.source) == ("How many?", "1072", "gsm8k")
    assert problem.reference_solution == "In May 48/2 = 24.\nThat is 48+24 = 72."


@pytest.mark.parametrize("number", ["42", "-3", "0.10", "1e3", "123456789012345678901234567890"])
def test_a_number_is_kept_as_it_was_written(write: Write, number: str) -> None:
    [problem] = load_problems(write(f'{{"id": 7, "problem": "x", "answer": {number}}}'))
    assert (problem.problem_id, problem.answer) == ("7", number)
    assert type(problem.answer) is str


def test_blank_lines_crlf_and_a_byte_order_mark_are_no_faults(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    row = json.dumps(GOOD).encode()
    file.write_bytes(b"\xef\xbb\xbf" + row + b"\r\n\r\n\n" + row.replace(b"p1", b"p2") + b"\r\n")
    assert [problem.problem_id for problem in load_problems(file)] == ["p1", "p2"]


def test_limit_reads_no_further(write: Write) -> None:
    file = write(GOOD, GOOD | {"id": "p2"}, "not JSON")
    assert len(load_problems(file, limit=2)) == 2


BROKEN = {
    "not JSON": ("{oops", "not JSON", "one object per line"),
    "a list": ("[1]", "not an object", "problem"),
    "too deep": ("[" * 100_000, "not JSON", "one object per line"),
    "no number": ('{"problem": "x", "answer": NaN}', "NaN", "one object per line"),
    "no problem": ({"id": "a", "answer": "1"}, "'problem' is missing", "needs one"),
    "no answer": ({"id": "a", "problem": "x"}, "'answer' is missing", "needs one"),
    "empty problem": ({"id": "a", "problem": " ", "answer": "1"}, "'problem' is empty", "needs"),
    "empty answer": ({"id": "a", "problem": "x", "answer": ""}, "'answer' is empty", "needs one"),
    "problem number": ({"id": "a", "problem": 5, "answer": "1"}, "'problem' is no text", "quotes"),
    "answer list": ({"id": "a", "problem": "x", "answer": [1]}, "'answer' is no text", "quotes"),
    "answer bool": ({"id": "a", "problem": "x", "answer": True}, "'answer' is no text", "quotes"),
    "reference": (GOOD | {"reference_solution": [1]}, "'reference_solution' is no text", "quotes"),
    "source": (GOOD | {"source": {}}, "'source' is no text", "quotes"),
    "surrogate": (GOOD | {"problem": "\ud83d"}, "'problem' holds half a character", "write it"),
    "gsm8k without final": ({"question": "x", "answer": "so ####"}, "'answer' is empty", "needs"),
    "duplicate": (GOOD | {"id": "ok"}, "'ok' is that of line 1", "unique"),
}


@pytest.mark.parametrize(("row", "what", "to_do"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_row_is_named_with_file_line_and_remedy(
    write: Write, grader: Grader, row: object, what: str, to_do: str
) -> None:
    file = write(GOOD | {"id": "ok"}, "", row)
    with pytest.raises(DataError) as caught:
        load_problems(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:3: ")
    assert what in message
    assert to_do in message
    assert "\n" not in message
    assert validate_problems(file, grader) == [message]


def test_the_id_is_named_where_there_is_one(write: Write) -> None:
    with pytest.raises(DataError, match=r":1: id 'p1': field 'answer' is missing"):
        load_problems(write({"id": "p1", "problem": "x"}))


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_bytes(b'{"problem": "\xff", "answer": "1"}\n')
    with pytest.raises(DataError, match=r"p\.jsonl:1: not JSON in UTF-8"):
        load_problems(file)


def test_an_empty_file_says_what_belongs_there(write: Write, grader: Grader) -> None:
    file = write("", "  ")
    with pytest.raises(DataError, match="holds no problems: write one JSON object per line"):
        load_problems(file)
    assert len(validate_problems(file, grader)) == 1


def test_a_missing_file_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: no such file: give --set problems.path="):
        load_problems(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no such file"):
        load_problems(tmp_path)
    monkeypatch.setenv("MIDCOURSE_DATA", "/nowhere")
    with pytest.raises(DataError, match=r"/nowhere/p.jsonl: no such file \(MIDCOURSE_DATA is"):
        load_problems("$MIDCOURSE_DATA/p.jsonl")


def test_the_data_folder_is_found_by_its_variable(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIDCOURSE_DATA", str(write(GOOD).parent))
    assert len(load_problems("$MIDCOURSE_DATA/mine.jsonl")) == 1


def test_missing_references_name_the_first_problems(write: Write) -> None:
    rows = [{"id": f"p{n}", "problem": f"x{n}", "answer": "1"} for n in range(5)]
    problems = load_problems(write(*rows, GOOD | {"id": "with"}))
    with pytest.raises(DataError, match=r"5 of 6 problems .*\(first: p0, p1, p2\)"):
        require_references(problems)
    require_references(problems[-1:])


def test_validation_lists_every_complaint_in_the_order_of_the_file(
    write: Write, grader: Grader
) -> None:
    file = write(
        GOOD,
        {"id": "bad", "problem": "", "answer": ""},
        {"id": "odd", "problem": "x", "answer": r"\frac{1}{"},
        GOOD,
        {"id": "prose", "problem": "y", "answer": r"all $(c,v)$ for which $\frac{c}{"},
        {"id": "root", "problem": "z", "answer": r"\sqrt{2}"},
    )
    complaints = validate_problems(file, grader)
    assert [complaint.removeprefix(f"{file}:")[:2] for complaint in complaints] == [
        "2:", "2:", "3:", "4:", "5:",
    ]  # fmt: skip
    assert "id 'odd': field 'answer': the grader cannot read" in complaints[2]
    assert "write it as one LaTeX expression" in complaints[2]


def test_a_sound_file_has_no_complaints(write: Write, grader: Grader) -> None:
    assert validate_problems(write(GOOD, GOOD | {"id": "p2", "answer": "1,000"}), grader) == []
