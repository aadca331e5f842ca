"""What a model or a data file writes is read by the grader, and never run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from midcourse.checkers import Grader
from midcourse.records import Gold, Verdict

#: Would leave a file behind. Numerals too must not go through ``eval``.
CODE = [
    "__import__('os').system('touch {canary}')",
    '__import__("os").system("touch {canary}")',
    "open('{canary}','w')",
    "().__class__.__base__.__subclasses__()",
    "exec('open(chr(99),chr(119))')",
    "31337",
    "31,337.5",
    "3.1337e5",
]
SLOTS = [
    "{}", "{}+1", "({})", "[0, {})", r"\{{ {}, 2 \}}", "x = {}", "f(x) = {}", "x_{{{}}}",
    "f_{{{}}}(3)", r"\text{{{}}}", r"\mathrm{{{}}}", r"\operatorname{{{}}}(3)", "5^{{{}}}",
    r"\frac{{{}}}{{2}}", r"\sqrt[{}]{{2}}", r"\gcd({}, \sqrt{{2}})", r"5\text{{ {} }}", "5 {}",
    r"{}\%", "1e{}", "x < {}", r"\sum_{{k=1}}^{{\infty}} \frac{{{}}}{{k^2}}",
    r"\int_0^1 {} dx", r"\begin{{pmatrix}} {} \\ 2 \end{{pmatrix}}", r"n \equiv {} \pmod 7",
    r"{} \bmod 7", "1, 2, \\ldots, {}", r"\log_{{{}}} 2", r"{}^\circ 30'", r"\${}",
    r"\begin{{cases}} {} & x > 0 \\ 1 & x < 0 \end{{cases}}",
]  # fmt: skip


def planted(canary: Path, codes: list[str] = CODE) -> list[str]:
    codes = [code.replace("{canary}", str(canary)) for code in codes]
    return [slot.format(code) for slot in SLOTS for code in codes]


def test_planted_code_in_answers_and_golds_does_not_run(tmp_path: Path, grader: Grader) -> None:
    canary = tmp_path / "canary"
    answers = planted(canary)
    pairs = [(answer, "7") for answer in answers] + [("7", answer) for answer in answers]
    results = list(grader.grade((rf"\boxed{{{a}}}", Gold("math", gold)) for a, gold in pairs))
    assert len(results) == len(pairs) > 400
    assert not canary.exists()
    assert not any(result.verdict is Verdict.CORRECT for result in results)


#: Says which of the texts that are compiled hold something of an answer.
WATCHED = """
import json, sys
from midcourse.checkers.math.symbolic import compare_symbolically

compiled = []

def watch(event, arguments):
    if event == "compile" and any(mark in str(arguments[0]) for mark in ("1337", "canary")):
        compiled.append(str(arguments[0]))

sys.addaudithook(watch)
if sys.argv[1:]:
    from sympy import sympify
    sympify("31337 + 1")
for answer in json.load(sys.stdin):
    for pair in ({"gold": "8", "answer": answer}, {"gold": answer, "answer": "8"}):
        try:
            compare_symbolically(**pair)
        except Exception:
            pass
print(json.dumps(compiled))
"""


def compiled_texts(answers: list[str], *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments],
        input=json.dumps(answers),
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    texts: list[str] = json.loads(done.stdout)
    return texts


def test_no_text_of_an_answer_reaches_the_compiler(tmp_path: Path) -> None:
    assert compiled_texts(planted(tmp_path / "canary", [CODE[0], *CODE[-2:]])) == []


def test_the_watch_on_the_compiler_sees_what_sympy_compiles() -> None:
    assert compiled_texts([], "sympify") != []


@pytest.mark.parametrize("text", ["31337", "1337.25", "1.5e400", "1.5e-400", "2(3.5)"])
def test_numerals_are_still_read(grader: Grader, text: str) -> None:
    [result] = grader.grade([(rf"\boxed{{{text}+x}}", Gold("math", f"x+{text}"))])
    assert result.verdict is Verdict.CORRECT
