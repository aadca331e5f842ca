"""A second opinion on a run's grades: what differs, and which labels would change with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from midcourse.checkers import Grader
from midcourse.checkers.registry import checker_named
from midcourse.config import Recipe
from midcourse.records import Gold, Verdict
from midcourse.report.audit import audit_grades, audit_tables, disagreements
from runs import run_to
from test_cli import midcourse, toml

#: Told apart by their problem: math-verify rounds the numbers of `tiny` to six decimals.
PROBLEMS = [("tiny", "0.0000012"), ("sum", "4"), ("words", "4")]
SCRIPT = [
    ["tiny", r"It is \boxed{0.0000014}."],
    ["sum", r"It is \boxed{4}."],
    ["words", "So the answer is $4$."],
]


def recipe_of(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    rows = [
        {"id": name, "problem": f"Solve {name}.", "answer": answer, "reference_solution": "So."}
        for name, answer in PROBLEMS
    ]
    (folder / "audited.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "audited.json").write_text(json.dumps(SCRIPT))
    engine = {"kind": "scripted", "script": str(folder / "audited.json")}
    sample = {"num_rollouts": 2, "max_duplicate_share": 1.0}
    problems = {"path": str(folder / "audited.jsonl")}
    return {**data, "problems": problems, "engine": engine, "sample": sample}


def test_disagreements_that_change_a_label_come_first(
    recipe_data: dict[str, Any], tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(recipe_of(recipe_data, tmp_path))

    def opinions(session: Any, made: Any) -> Any:
        session.complete(made.train.grades)
        problems = session.setup.problems.train
        with Grader(num_workers=1) as grader:
            return audit_grades(session, made.train, problems, grader)

    found = run_to(tmp_path / "run", recipe, opinions)
    assert len(found) == 6
    told = [(o.problem_id, o.verdict, o.second, o.label) for o in disagreements(found)]
    assert told == [
        *[("tiny", Verdict.INCORRECT, Verdict.CORRECT, "hard → solved")] * 2,
        *[("words", Verdict.NO_ANSWER, Verdict.CORRECT, "hard → solved")] * 2,
    ]
    counts, listed = audit_tables(found)
    assert counts.rows == (("correct", "2"), ("incorrect", "2"), ("no_answer", "2"))
    assert listed.title == "4 disagreements, 2 labels would change"
    assert len(listed.rows) == 4


@pytest.mark.slow
def test_the_verb_prints_and_writes_them(recipe_data: dict[str, Any], tmp_path: Path) -> None:
    recipe = tmp_path / "audited.toml"
    recipe.write_text(toml(recipe_of(recipe_data, tmp_path)))
    run_dir = tmp_path / "run"
    done = midcourse("grade", str(recipe), "--audit", "--run-dir", str(run_dir))
    assert done.returncode == 0, done.stderr
    assert "4 disagreements, 2 labels would change" in done.stdout
    lines = [json.loads(line) for line in (run_dir / "audit.jsonl").read_text().splitlines()]
    assert {line["problem_id"] for line in lines} == {"tiny", "words"}


def test_the_second_opinion_reads_responses_by_itself_and_grades_no_problem() -> None:
    gold = Gold("math-verify", r"\frac{1}{2}")
    texts = [r"So it is \boxed{0.5}.", "So the answer is $0.5$.", r"\boxed{0.6}"]
    with Grader(num_workers=1) as grader:
        verdicts = [result.verdict for result in grader.grade((text, gold) for text in texts)]
    assert verdicts == [Verdict.CORRECT, Verdict.CORRECT, Verdict.INCORRECT]
    assert "grades no problems" in checker_named("math-verify").complaint_about(None)
