"""Problem files: what is read, and what is said of a broken one."""

import ast
import csv
import importlib.util
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from midcourse.checkers import Grader, Pair
from midcourse.checkers.reasoning_gym import NAME, TASKS, entry_of
from midcourse.data import (
    SOURCES,
    CurationOutcome,
    curate,
    load_problems,
    require_references,
    validate_problems,
    write_problems,
)
from midcourse.data.columns import columns_of, suggest_columns
from midcourse.data.rows import RawRow
from midcourse.data.task_references import WRITERS as WORKED
from midcourse.errors import DataError
from midcourse.records import Gold, UngradedCause, Verdict
from midcourse.steps import split_steps

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


@pytest.mark.parametrize(
    ("final", "answer"),
    [
        ("1,234,567", "1234567"),
        ("$1,200", "$1200"),
        ("-3,000.50", "-3000.50"),
        ("42", "42"),
        ("1,072 dollars", "1072 dollars"),
        ("2,3", "2,3"),
        ("1, 2, 3", "1, 2, 3"),
        ("12,34", "12,34"),
        ("(3,4)", "(3,4)"),
        ("[1,000, 2]", "[1,000, 2]"),
        ("[100,200]", "[100,200]"),
        ("1,2345", "1,2345"),
        ("x=2, y=3", "x=2, y=3"),
        ("1,000, 2,000", "1,000, 2,000"),
    ],
)
def test_only_the_commas_of_one_number_leave_it(write: Write, final: str, answer: str) -> None:
    [problem] = load_problems(write({"question": "How many?", "answer": f"So.\n#### {final}"}))
    assert problem.answer == answer


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
    "problem number": ({"id": "a", "problem": 5, "answer": "1"}, "'problem' is not text", "quotes"),
    "answer list": (
        {"id": "a", "problem": "x", "answer": [1, 2]},
        "'answer' is not text",
        "quotes",
    ),
    "answer bool": ({"id": "a", "problem": "x", "answer": True}, "'answer' is not text", "quotes"),
    "reference": (GOOD | {"reference_solution": [1]}, "'reference_solution' is not text", "quotes"),
    "source": (GOOD | {"source": {}}, "'source' is not text", "quotes"),
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


NO_ANSWERS = [
    "not found",
    "Not_Found",
    "NOTFOUND",
    "nan",
    "NaN",
    "null",
    "N/A",
    "n.a.",
    "NA",
    "<NA>",
    "#N/A",
    "none given",
    "Not available.",
    "not applicable",
    "unknown",
    "Unspecified",
    "TBD",
    "todo",
    "-",
    "--",
    "—",
    "?",
    "...",
    "…",
    "see solution",
    "See the solution above.",
    "(see below)",
    "refer to the figure",
    "see explanation: part 2",
    "as above",
    "omitted",
    "proof",
    "Proof.",
    "Q.E.D.",
    "the proof is complete",
    r"\text{See solution}",
    r"\boxed{\text{N/A}}",
    "$\\text{nan}$",
    "**unknown**",
    "no answer",
    "No final answer provided",
    "no solution provided",
    "[answer]",
    "answers may vary",
    "N/A (proof)",
    "Answer: not found",
    "the answer is missing",
    "not given in the source",
    "#VALUE!",
    "unable to answer",
    "failed to extract answer",
    "could not extract",
    "cannot extract the answer",
    "Error: could not parse",
    "NoAnswer",
    "without answer",
    "null answer",
    "T.B.D.",
    "FIXME",
    "-nan",
    "\\N",
    "nul",
    "skipped",
    "not answered",
    "Not a number",
    "no data",
    "open-ended",
    "answers vary",
    "Hence proved.",
    "It is proved",
    "\u200b",
    "略",
    "证明略",
    "证明见解析",
    "无",
    "pending",
    r"\boxed{}",
    "not applicable - proof question",
    "to be determined",
    "I don't know",
    "parsing failed",
    "None",
    r"\text{None}",
]


@pytest.mark.parametrize("answer", NO_ANSWERS)
def test_what_stands_for_a_missing_answer_is_not_an_answer(
    write: Write, grader: Grader, answer: str
) -> None:
    file = write(GOOD | {"answer": answer})
    with pytest.raises(DataError, match="which is not an answer: leave the problem out"):
        load_problems(file)
    assert len(validate_problems(file, grader)) == 1
    assert curate(file, grader).outcomes[CurationOutcome.NO_ANSWER] == 1


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        ("Find all real x with x^2 = -1.", "None"),
        ("Which of the numbers are prime?", "none"),
        ("For what values of a is it odd?", r"\text{None}"),
        ("Is the sum + or -?", "-"),
        ("What is the sign of cos 3?", "-"),
        ("What metal is it?", "Na"),
        *(
            (GOOD["problem"], answer)
            for answer in (
                "no solution",
                "no solutions",
                "does not exist",
                "undefined",
                r"\emptyset",
                r"\{\}",
                "[]",
                "empty",
                "infinity",
                "No",
                "0",
                "-1",
                "none of the above",
                "N",
                "A",
                "not prime",
                "cannot be determined",
                "the statement is true",
                "n",
                "x",
                "\\text{no real roots}",
                "no",
                "not necessarily",
                "unknown quantity 3",
                "proofreading",
                "the answer is 12",
                "x = 3 (none)",
                "2:3",
                "cannot be determined",
                "value of x",
                "no value of x works",
                "solution set {1}",
                "answer 5",
                "nano",
                "∅",
                r"\varnothing",
                "none of these",
                "There are no such numbers",
                "no such integer exists",
                "impossible",
                "indeterminate",
                "diverges",
                "neither",
                "no real data fit",
                "an error of 5%",
                "missing 3 coins",
                "skip 3",
                "open interval",
                "无穷",
                "无解",
                "n^2",
            )
        ),
    ],
)
def test_a_real_answer_is_kept_though_it_says_no(write: Write, problem: str, answer: str) -> None:
    [read] = load_problems(write(GOOD | {"problem": problem, "answer": answer}))
    assert read.answer == answer


def test_none_is_not_the_answer_to_how_many(write: Write) -> None:
    for asks in ("How many of all solutions are there?", "Find the number of roots of any f."):
        with pytest.raises(DataError, match="'None', which is not an answer"):
            load_problems(write(GOOD | {"problem": asks, "answer": "None"}))


def test_another_checker_knows_its_own_answers(write: Write) -> None:
    [problem] = load_problems(write(GOOD | {"answer": "-", "checker": NAME, "entry": ENTRY}))
    assert problem.answer == "-"


@pytest.mark.parametrize(
    "text", ["nan", "None", "null", "N/A", "not available", "-", "Proof.", " " * 99]
)
def test_what_stands_for_a_missing_reference_is_none(write: Write, text: str) -> None:
    [problem] = load_problems(write(GOOD | {"reference_solution": text}))
    assert problem.reference_solution is None


@pytest.mark.parametrize("text", ["None of these.", "x is unknown, so x = 2", "42", "No."])
def test_a_short_reference_is_kept(write: Write, text: str) -> None:
    [problem] = load_problems(write(GOOD | {"reference_solution": text}))
    assert problem.reference_solution == text


def test_a_gap_is_not_a_problem(write: Write) -> None:
    for text in ("nan", "None", "null"):
        with pytest.raises(DataError, match="which is not a problem: leave the row out"):
            load_problems(write(GOOD | {"problem": text}))


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["2"], "2"),
        ('["2"]', "2"),
        ([r"$\\frac{1}{2}$"], r"$\\frac{1}{2}$"),
        ([7], "7"),
        ([0.10], "0.1"),
        ("[2]", "[2]"),
        ('["2", "3"]', '["2", "3"]'),
        ("[0, 1]", "[0, 1]"),
        ('["2"', '["2"'),
    ],
)
def test_an_answer_in_a_list_of_one_is_that_answer(write: Write, given: object, read: str) -> None:
    [problem] = load_problems(write(GOOD | {"answer": given}))
    assert problem.answer == read


@pytest.mark.parametrize("given", [["2", "3"], [], [["2"]], [{"a": 1}], [None], {"value": "2"}])
def test_an_answer_of_several_or_of_no_texts_is_a_complaint(write: Write, given: object) -> None:
    with pytest.raises(DataError, match="'answer' is not text: write it in quotes"):
        load_problems(write(GOOD | {"answer": given}))


def test_a_column_may_be_mapped_where_the_problem_is_a_question(write: Write) -> None:
    file = write({"question": "What is 6 × 7?", "final_answer": ["42"], "answer": "worked"})
    [problem] = load_problems(file, columns={"answer": "final_answer"})
    assert (problem.text, problem.answer) == ("What is 6 × 7?", "42")


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
    with pytest.raises(DataError, match=r"none.jsonl: no such file: give a .jsonl, .json, .csv"):
        load_problems(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is a folder: give a file in it"):
        load_problems(tmp_path)
    monkeypatch.delenv("MIDCOURSE_DATA", raising=False)
    with pytest.raises(DataError, match=r"MIDCOURSE_DATA/p.jsonl: MIDCOURSE_DATA is not set: set"):
        load_problems("$MIDCOURSE_DATA/p.jsonl")
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


# --- places: kinds of files, data sets, columns ------------------------------------------------


def _as_csv(rows: list[dict[str, str]], file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _as_parquet(rows: list[dict[str, str]], file: Path) -> None:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    write_table(Table.from_pylist(rows), file)


WRITERS: dict[str, Callable[[list[dict[str, str]], Path], object]] = {
    "csv": _as_csv,
    "parquet": _as_parquet,
    "json": lambda rows, file: file.write_text(json.dumps(rows)),
    "jsonl": lambda rows, file: file.write_text("".join(json.dumps(row) + "\n" for row in rows)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_gives_the_same_problems(tmp_path: Path, kind: str) -> None:
    rows = [GOOD, GOOD | {"id": "p2", "problem": 'Say "6,\n7"', "answer": r"\frac{1}{2}"}]
    file = tmp_path / f"mine.{kind}"
    WRITERS[kind](rows, file)
    problems = load_problems(file)
    assert [p.problem_id for p in problems] == ["p1", "p2"]
    assert [p.text for p in problems] == [row["problem"] for row in rows]
    assert [p.answer for p in problems] == ["42", r"\frac{1}{2}"]
    assert {p.source for p in problems} == {"mine"}


def test_columns_of_another_file_are_mapped(write: Write) -> None:
    file = write({"q": "What is 6 × 7?", "final": 42, "key": "a", "problem": "not this"})
    columns = {"problem": "q", "answer": "final", "id": "key"}
    [problem] = load_problems(file, columns=columns)
    assert (problem.text, problem.answer, problem.problem_id) == ("What is 6 × 7?", "42", "a")
    with pytest.raises(DataError, match="columns: no field 'gold': the fields are problem, answer"):
        load_problems(file, columns={"gold": "final"})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.parquet", b"not parquet", "not a Parquet file"),
        ("p.json", b'{"problem": "x"}', "not an array"),
        ("p.csv", b"problem,answer\n\xff,1\n", "not CSV in UTF-8"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_named(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_problems(tmp_path / name)


@pytest.mark.slow
def test_a_data_set_is_read_by_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "owner" / "contest"
    folder.mkdir(parents=True)
    _as_parquet([{"problem_idx": 1, "problem": "6 × 7?", "answer": 42}], folder / "test.parquet")  # type: ignore[dict-item]
    monkeypatch.chdir(tmp_path)
    [problem] = load_problems("hmmt-feb-2025:hub:owner/contest@test")
    assert (problem.problem_id, problem.answer) == ("hmmt-feb-2025/1", "42")
    [plain] = load_problems("hub:owner/contest@test")
    assert (plain.source, plain.answer) == ("hub:owner/contest@test", "42")
    with pytest.raises(DataError, match=r"hub:owner/contest@validation: cannot be loaded: .*split"):
        load_problems("hub:owner/contest@validation")
    with pytest.raises(DataError, match="write hub:OWNER/NAME"):
        load_problems("hub:a:b:c")


# --- sources -----------------------------------------------------------------------------------

WRAPPED = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
    'What is 6 × 7?\n\nRemember to put your answer on its own line after "Answer:".'
)
TAIL = (
    "\nAfter solving the above problem, please output your final answer in the following format:\n"
    "### The final answer is: $\\boxed{<your answer>}$"
)
ASKED = "What is 6 × 7?"
#: A row of each source with the fields as published; id and reference as they should come out.
PUBLISHED: dict[str, tuple[dict[str, object], str | None, str | None]] = {
    "gsm8k": ({"question": ASKED, "answer": "6*7=<<6*7=42>>42\n#### 42"}, None, "6*7=42"),
    "math": (
        {"problem": ASKED, "solution": r"It is $\boxed{42}$.", "level": "Level 1", "type": "P"},
        None,
        r"It is $\boxed{42}$.",
    ),
    "omni-math": (
        {"domain": ["A"], "difficulty": 5.0, "problem": ASKED, "solution": "s", "answer": "42"},
        None,
        "s",
    ),
    "deepscaler": ({"problem": ASKED, "answer": "42", "solution": ""}, None, None),
    "polaris": ({"problem": ASKED, "answer": "42", "difficulty": "3/8"}, None, None),
    "acereason-math": ({"problem": ASKED, "answer": "42"}, None, None),
    "imo-answerbench": (
        {"Problem ID": "imo-bench-a-1", "Problem": ASKED, "Short Answer": "42", "Category": "A"},
        "imo-answerbench/imo-bench-a-1",
        None,
    ),
    "imo-answerbench-v1": (
        {"Problem ID": "imo-bench-a-1", "Problem": ASKED, "Short Answer": "42", "Category": "A"},
        "imo-answerbench-v1/imo-bench-a-1",
        None,
    ),
    "amo-bench": (
        {
            "question_id": 3, "prompt": ASKED + TAIL, "solution": "s", "answer": r"\boxed{42}",
            "answer_type": "number",
        },
        "amo-bench/3",
        "s",
    ),
    "olymmath-easy": (
        {"problem": ASKED, "answer": "42", "subject": "Algebra", "unique_id": "E-0-EN"},
        "olymmath-easy/E-0-EN",
        None,
    ),
    "olymmath-hard": (
        {"problem": ASKED, "answer": "42", "subject": "Algebra", "unique_id": "H-0-EN"},
        "olymmath-hard/H-0-EN",
        None,
    ),
    "aime-2025": ({"problem_idx": 1, "problem": ASKED, "answer": 42}, "aime-2025/1", None),
    "beyond-aime": ({"problem": ASKED, "answer": 42}, None, None),
    "dapo": (
        {
            "data_source": "math_dapo", "prompt": [{"content": WRAPPED, "role": "user"}],
            "ability": "MATH", "reward_model": {"ground_truth": "42", "style": "rule"},
            "extra_info": {"index": "9a9b"},
        },
        "dapo/9a9b",
        None,
    ),
    "svamp": (
        {
            "ID": "chal-1", "Body": "There are 6 rows of 7", "Question": ASKED,
            "Equation": "( 6.0 * 7.0 )", "Answer": 42.0, "Type": "Multiplication",
        },
        "svamp/chal-1",
        "( 6.0 * 7.0 ) = 42",
    ),
}  # fmt: skip
PUBLISHED |= {
    name: ({"problem_idx": 1, "problem": ASKED, "answer": "42"}, f"{name}/1", None)
    for name in ("hmmt-feb-2025", "hmmt-nov-2025", "apex-shortlist", "brumo-2025", "cmimc-2025")
}


def test_every_source_has_a_published_row_here() -> None:
    assert set(PUBLISHED) == set(SOURCES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_row_becomes_a_problem(write: Write, name: str) -> None:
    row, identifier, reference = PUBLISHED[name]
    [problem] = load_problems(f"{name}:{write(row)}")
    assert problem.text == ("There are 6 rows of 7. " * (name == "svamp") + ASKED)
    assert (problem.answer, problem.source) == ("42", name)
    assert problem.reference_solution == reference
    assert problem.problem_id == identifier or (
        identifier is None and len(problem.problem_id) == 16
    )


def test_rows_that_are_published_many_times_are_read_once(write: Write) -> None:
    row, _, _ = PUBLISHED["dapo"]
    other = row | {"extra_info": {"index": "other"}}
    assert len(load_problems(f"dapo:{write(row, row, other, row)}")) == 2


SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
USER = {"role": "user", "content": WRAPPED}
ASIDE = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]
PARTS = {"role": "user", "content": [{"type": "text", "text": ASKED}, {"type": "image"}]}
REWARD = {"ground_truth": "42", "style": "rule"}


@pytest.mark.parametrize(
    "prompt",
    [
        [USER],
        [SYSTEM, USER],
        [SYSTEM, *ASIDE, USER],
        [USER, {"role": "assistant", "content": ""}],
        [SYSTEM, PARTS],
        [{"role": "human", "content": WRAPPED}],
        [{"from": "system", "value": "Help."}, {"from": "human", "value": WRAPPED}],
        [SYSTEM, {"role": "User", "content": WRAPPED}],
        json.dumps([SYSTEM, USER]),
        " " + json.dumps([USER], indent=1),
        WRAPPED,
        ASKED,
    ],
)
@pytest.mark.parametrize(
    "reward",
    [
        REWARD,
        json.dumps(REWARD),
        {"ground_truth": ["42"]},
        {"ground_truth": '["42"]'},
        {"ground_truth": 42},
        '{"ground_truth": 42}',
    ],
)
def test_a_row_of_verl_is_read_however_it_is_wrapped(
    write: Write, prompt: object, reward: object
) -> None:
    row = {"prompt": prompt, "reward_model": reward, "extra_info": '{"index": 7}'}
    [problem] = load_problems(f"dapo:{write(row)}")
    assert (problem.text, problem.answer, problem.problem_id) == (ASKED, "42", "dapo/7")


def test_a_conversation_is_a_problem_in_any_column(write: Write) -> None:
    file = write({"messages": [SYSTEM, PARTS], "gold": "42"})
    [problem] = load_problems(file, columns={"problem": "messages", "answer": "gold"})
    assert problem.text == ASKED


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": [SYSTEM]}, "'problem' is not text"),
        ({"prompt": []}, "'problem' is not text"),
        ({"prompt": [SYSTEM, {"role": "user"}]}, "'problem' is missing"),
        ({"reward_model": "{ground_truth: 42}"}, "'answer' is missing"),
        ({"reward_model": "[1]"}, "'answer' is missing"),
        ({"reward_model": ["42"]}, "'answer' is missing"),
        ({"reward_model": "[" * 100_000}, "'answer' is missing"),
        ({"reward_model": '{"ground_truth": "N/A"}'}, "which is not an answer"),
    ],
)
def test_a_row_of_verl_that_cannot_be_read_is_one_complaint(
    write: Write, grader: Grader, fields: dict[str, object], said: str
) -> None:
    row = {"prompt": [USER], "reward_model": REWARD, **fields}
    (complaint,) = validate_problems(f"dapo:{write(row)}", grader)
    assert said in complaint


def test_a_source_on_no_hub_asks_for_the_file() -> None:
    with pytest.raises(DataError, match="download it and write imo-answerbench:FILE"):
        load_problems("imo-answerbench")


# --- curation ----------------------------------------------------------------------------------

LONG = " ".join(f"word{chr(97 + n)} and {n}" for n in range(20))


def test_every_row_has_one_outcome_and_the_funnel_adds_up(
    write: Write, grader: Grader, tmp_path: Path
) -> None:
    benchmark = tmp_path / "benchmark.jsonl"
    benchmark.write_text(
        json.dumps({"problem": f"{LONG}?", "answer": "1"})
        + "\n"
        + json.dumps({"problem": "Short one: $6 + 1$?", "answer": "7"})
    )
    reference = {"reference_solution": "Because."}
    file = write(
        GOOD,
        {"problem": "Find x.", "answer": "", **reference},
        {"problem": "Find y.", **reference},
        {"problem": "Find z.", "answer": "3"},
        {"problem": "Let n be odd. Prove that n^2 is odd.", "answer": "n^2 = 1", **reference},
        {"problem": "Is it?", "answer": "See the solution.", **reference},
        {"problem": "Show that x exists and find x.", "answer": "5", **reference},
        GOOD | {"problem": "Another?"},
        GOOD | {"id": "p9", "problem": "WHAT is 6 × 7 ?!"},
        {"problem": f"Now: {LONG} in all?", "answer": "2", **reference},
        {"problem": r"short one $6+1$", "answer": "7", **reference},
        {"problem": "What of words?", "answer": "many words " * 20, **reference},
        "no JSON",
    )
    curation = curate(file, grader, against=[benchmark])
    assert [problem.text for problem in curation.kept] == [
        "What is 6 × 7?", "Show that x exists and find x.",
    ]  # fmt: skip
    assert curation.outcomes == {
        CurationOutcome.KEPT: 2, CurationOutcome.BROKEN: 1, CurationOutcome.NO_ANSWER: 3,
        CurationOutcome.NO_REFERENCE: 1, CurationOutcome.PROOF_STYLE: 1,
        CurationOutcome.DUPLICATE: 2, CurationOutcome.OVERLAP: 2,
        CurationOutcome.GOLD_UNREADABLE: 1,
    }  # fmt: skip
    assert curation.num_rows == 13
    assert "mine.jsonl:13" in curation.examples[CurationOutcome.BROKEN]
    loose = curate(file, grader, require_reference=False, limit=4)
    assert (loose.num_rows, loose.outcomes[CurationOutcome.KEPT]) == (4, 2)


def test_what_is_written_is_read_again(write: Write, tmp_path: Path) -> None:
    problems = load_problems(write(GOOD, GOOD | {"id": "p2", "split": "dev", "source": "s"}))
    write_problems(problems, tmp_path / "again.jsonl")
    assert load_problems(tmp_path / "again.jsonl") == problems


# --- tasks with verifiers ----------------------------------------------------------------------

needs_gym = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed"
)


EQUATION = re.compile(r"(-?\d+(?: [-+*/] \d+)+) = (-?\d+)|(\d+) = (\d+ \* \d+ \+ \d+)")


@needs_gym
@pytest.mark.parametrize("task", WORKED)
def test_a_worked_reference_of_a_task_is_right_at_every_step(task: str) -> None:
    problems = load_problems(f"reasoning-gym:{task}@9", limit=15)
    with Grader(num_workers=1, timeout_seconds=20) as grader:
        graded = grader.grade((str(p.reference_solution), p.gold) for p in problems)
        assert {result.verdict for result in graded} == {Verdict.CORRECT}
    for problem in problems:
        steps = split_steps(str(problem.reference_solution))
        assert len(steps) >= 2
        for step in steps:
            for whole, result, left, parts in EQUATION.findall(step):
                assert eval(whole or left) == eval(result or parts), step


@needs_gym
@pytest.mark.slow
def test_tasks_are_graded_by_their_own_verifiers(tmp_path: Path) -> None:
    problems = load_problems("reasoning-gym:leg_counting,jugs@3", limit=4)
    assert problems == load_problems("reasoning-gym:leg_counting,jugs@3", limit=4)
    assert problems != load_problems("reasoning-gym:leg_counting,jugs@4", limit=4)
    assert [p.source.rpartition("/")[2] for p in problems] == ["leg_counting", "jugs"] * 2
    write_problems(problems, tmp_path / "tasks.jsonl")
    assert load_problems(tmp_path / "tasks.jsonl") == problems
    legs, jugs = problems[:2]
    [factors] = load_problems("reasoning-gym:prime_factorization@3", limit=1)
    with Grader(num_workers=1, timeout_seconds=20) as grader:
        checked = grader.check_golds(Pair(p.answer, p.gold) for p in problems)
        assert {result.verdict for result in checked} == {Verdict.CORRECT}
        pairs = [
            (rf"\boxed{{{legs.answer}}}", legs.gold),
            (r"\boxed{1}", legs.gold),
            (legs.answer, legs.gold),
            (r"\boxed{fill A}", jugs.gold),
            (r"\boxed{1}", Gold(NAME, entry_of("no_such_task", {"answer": "1"}))),
            (r"\boxed{no idea}", factors.gold),
            (r"\boxed{7}", Gold(NAME, entry_of("prime_factorization", {"answer": "broken"}))),
        ]
        results = list(grader.grade(pairs))
    assert [(r.verdict, r.cause) for r in results] == [
        (Verdict.CORRECT, None),
        (Verdict.INCORRECT, None),
        (Verdict.NO_ANSWER, None),
        (Verdict.INCORRECT, None),
        (Verdict.UNGRADED, UngradedCause.GRADER_ERROR),
        (Verdict.INCORRECT, None),
        (Verdict.UNGRADED, UngradedCause.GRADER_ERROR),
    ]


@needs_gym
def test_an_unknown_task_is_named() -> None:
    with pytest.raises(DataError, match="reasoning-gym:no_such_task: no such task"):
        load_problems("reasoning-gym:no_such_task")
    with pytest.raises(DataError, match="write reasoning-gym:TASK"):
        load_problems("reasoning-gym:A B")


#: What turns a text into code, in the words of Python and of sympy.
EVALUATES = {"eval", "exec", "compile", "parse_expr", "sympify", "S", "lambdify", "__import__"}
EVALUATES |= {"nsimplify", "Poly", "system", "popen", "Popen", "run"}


def called_names(task: str) -> set[str]:
    """Return what the verifier of a task calls, by name, over all functions of its module."""
    from reasoning_gym.factory import DATASETS

    module = inspect.getmodule(DATASETS[task][0])
    assert module is not None
    functions: dict[str, list[ast.AST]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.FunctionDef):
            functions.setdefault(node.name, []).append(node)
    waiting, called = ["score_answer"], set[str]()
    while waiting:
        for function in functions.pop(waiting.pop(), []):
            for node in ast.walk(function):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func).rpartition(".")[2]
                    called.add(name)
                    waiting.append(name)
    return called


@needs_gym
def test_the_verifiers_that_are_asked_evaluate_nothing() -> None:
    """The table was made for one version: a verifier that changes must be read again."""
    from reasoning_gym.factory import DATASETS

    assert set(DATASETS) >= TASKS
    # propositional_logic's parse_expr is a parser of its own, written out in its module.
    offenders = {task for task in DATASETS if called_names(task) & EVALUATES}
    assert offenders - {"propositional_logic"} == {
        "binary_matrix", "bitwise_arithmetic", "countdown", "intermediate_integration", "n_queens",
        "number_sorting", "polynomial_multiplication", "puzzle24", "simple_integration",
        "spiral_matrix", "string_insertion",
    }  # fmt: skip
    assert set(DATASETS) - TASKS - offenders == {"codeio", "composite"}


CANARY = '[(E:=exec),(N:=chr),E(N(111)+N(112)+N(101)+N(110)+"({path!r},{mode!r})")]'


@needs_gym
@pytest.mark.slow
@pytest.mark.parametrize("where", ["answer of a model", "entry of a file", "answer of a file"])
def test_no_text_from_outside_runs(tmp_path: Path, where: str) -> None:
    """Each refused task, its check gone round: the worker itself must not evaluate."""
    canary = tmp_path / "ran"
    code = CANARY.format(path=str(canary), mode="w")
    refused = ("number_sorting", "countdown", "puzzle24", "string_insertion", "spiral_matrix",
               "n_queens", "binary_matrix", "bitwise_arithmetic", "composite")  # fmt: skip
    with Grader(num_workers=1, timeout_seconds=20) as grader:
        for task in refused:
            says = {"problem": "1", "valid_answers": [], "source_dataset": "gcd"}
            entry: dict[str, object] = {"answer": "1", "metadata": says}
            if where == "entry of a file":
                entry = {"answer": code, "metadata": {**says, "problem": code}}
            gold = Gold(NAME, entry_of(task, entry))
            if where == "answer of a file":
                file = tmp_path / "p.jsonl"
                fields = {"task": task, "answer": code}
                for row, said in (
                    ({"answer": json.dumps(fields)}, "cannot read"),
                    ({"answer": "1", "checker": NAME, "entry": fields}, f"task {task!r} may run"),
                ):
                    file.write_text(json.dumps({"problem": "?", **row}) + "\n")
                    (complaint,) = validate_problems(file, grader)
                    assert said in complaint
                continue
            pairs = [(rf"\boxed{{{answer}}}", gold) for answer in (code, '["1"]')]
            assert {r.verdict for r in grader.grade(pairs)} == {Verdict.UNGRADED}
    assert not canary.exists()


ENTRY = {"task": "gcd", "question": "?", "answer": "4", "metadata": {"numbers": [8, 12], "f": 0.5}}


def test_a_checker_and_its_entry_are_fields_of_a_file(write: Write, tmp_path: Path) -> None:
    gym, plain = load_problems(
        write(GOOD | {"checker": NAME, "entry": ENTRY}, GOOD | {"id": "p2", "entry": 7})
    )
    assert gym.gold == Gold(NAME, json.dumps(ENTRY))
    assert plain.gold == Gold("math", "42"), "an entry without a checker is a column like any other"
    write_problems([gym, plain], tmp_path / "again.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert [(row["checker"], row.get("entry")) for row in lines] == [(NAME, ENTRY), ("math", None)]
    assert load_problems(tmp_path / "again.jsonl") == [gym, plain]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"checker": "chess"}, "field 'checker': no checker is called 'chess': choose one of math"),
        ({"checker": ["math"]}, "field 'checker' is not text"),
        ({"checker": "math", "entry": ENTRY}, "field 'entry': checker 'math' takes no entry"),
        ({"checker": NAME}, "field 'entry': is not an entry"),
        ({"checker": NAME, "entry": "gcd"}, "field 'entry': is not an entry"),
        ({"checker": NAME, "entry": {"task": 3, "answer": "1"}}, "field 'entry': is not an entry"),
        ({"checker": NAME, "entry": ENTRY | {"task": "codeio"}}, "task 'codeio' may run"),
        ({"checker": NAME, "entry": ENTRY | {"task": "no_such"}}, "task 'no_such' may run"),
    ],
)
def test_a_wrong_checker_or_entry_is_one_complaint(
    write: Write, grader: Grader, fields: dict[str, object], said: str
) -> None:
    (complaint,) = validate_problems(write(GOOD | fields), grader)
    assert "mine.jsonl:1: id 'p1': " in complaint
    assert said in complaint


def test_a_number_without_end_in_an_entry_is_a_complaint(write: Write, grader: Grader) -> None:
    row = json.dumps(GOOD | {"checker": NAME, "entry": ENTRY}).replace("0.5", "1" * 5000)
    (complaint,) = validate_problems(write(row), grader)
    assert "field 'entry' cannot be read" in complaint


def test_an_answer_never_names_a_checker(write: Write, grader: Grader) -> None:
    text = f"{NAME}\n{json.dumps(ENTRY)}"
    [problem] = load_problems(write(GOOD | {"answer": text}))
    assert problem.gold == Gold("math", text)


@needs_gym
def test_a_refused_task_is_one_clear_line() -> None:
    with pytest.raises(DataError, match="countdown: the verifier of task 'countdown' may run"):
        load_problems("reasoning-gym:countdown")


# --- columns called otherwise ------------------------------------------------------------------

FINALS = "uid,question,final,worked,level\n" + "".join(
    f'u{n},What is {n} plus {n} in the end?,{2 * n},"So {n} + {n} = {2 * n}.",easy\n'
    for n in range(1, 5)
)
MAP = {"problem": "question", "answer": "final"}


def test_a_file_with_other_columns_lists_them_and_says_the_map(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(FINALS)
    with pytest.raises(DataError) as caught:
        load_problems(file)
    assert str(caught.value) == (
        f"{file}: has no 'answer', but uid, question, final, worked, level: give --column "
        "problem=question --column answer=final --column id=uid --column reference_solution=worked "
        '(in a recipe: columns = { problem = "question", answer = "final", id = "uid", '
        'reference_solution = "worked" })'
    )
    assert [p.answer for p in load_problems(file, columns=MAP)] == ["2", "4", "6", "8"]
    with pytest.raises(DataError, match="has no 'finl', but uid"):
        load_problems(file, columns={"problem": "question", "answer": "finl"})


def test_a_column_that_is_empty_at_first_is_there(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("problem,answer,level\n" + "x,,1\n" * 30)
    with pytest.raises(DataError, match="row 1: field 'answer' is missing"):
        load_problems(file)


def test_columns_are_guessed_by_name_and_then_by_what_they_hold() -> None:
    def guessed(*rows: Mapping[str, object]) -> dict[str, str]:
        return suggest_columns(columns_of([RawRow("x", dict(row)) for row in rows]))

    worked = r"We add both and so we are done. \boxed{4}"
    odd = [{"a": f"What is the sum of {n} and 2?", "b": str(n), "c": worked} for n in (1, 2)]
    assert guessed(*odd) == {"problem": "a", "answer": "b", "reference_solution": "c"}
    dapo = [{"prompt": "What?", "reward_model": {"ground_truth": "4"}, "solution": worked}]
    assert guessed(*dapo) == {
        "problem": "prompt", "answer": "reward_model.ground_truth",
        "reference_solution": "solution",
    }  # fmt: skip
    short = [{"question": "What is it?", "solution": text} for text in ("4", "5")]
    assert guessed(*short) == {"problem": "question", "answer": "solution"}


def test_a_column_within_an_object_has_a_dotted_name(write: Write) -> None:
    file = write({"said": {"text": "What is 6 × 7?"}, "final": {"value": 42}})
    columns = {"problem": "said.text", "answer": "final.value"}
    [problem] = load_problems(file, columns=columns)
    assert (problem.text, problem.answer) == ("What is 6 × 7?", "42")


def test_a_slip_in_a_source_s_name_and_a_file_of_no_source_are_told(write: Write) -> None:
    with pytest.raises(DataError, match="gsm9k: no such file and no such source: did you mean 'gs"):
        load_problems("gsm9k")
    with pytest.raises(
        DataError, match=r"under 'question': it has id, problem, .*leave out 'gsm8k"
    ):
        load_problems(f"gsm8k:{write(GOOD)}")


def test_curation_keeps_other_columns_and_what_it_dropped(write: Write, grader: Grader) -> None:
    file = write(
        {"question": "What is 6 × 7?", "final": 42, "level": 3, "tags": ["a"]},
        {"question": "What is 6 × 8?", "final": "see figure", "level": 0.50},
    )
    curation = curate(file, grader, require_reference=False, columns=MAP)
    [problem] = curation.kept
    assert curation.others == {problem.problem_id: {"level": "3", "tags": ["a"]}}
    write_problems(curation.kept, file.with_name("kept.jsonl"), curation.others)
    kept = json.loads(file.with_name("kept.jsonl").read_text())
    assert (kept["level"], kept["tags"], kept["problem"]) == (3, ["a"], "What is 6 × 7?")
    [dropped] = map(json.loads, (row.line() for row in curation.dropped))
    assert dropped["outcome"] == "no answer"
    assert dropped["where"] == f"{file}:2"
    assert "'see figure', which is not an answer" in dropped["why"]
    assert dropped["row"]["level"] == 0.5
