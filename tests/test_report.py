from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from midcourse.config import Recipe
from midcourse.errors import ArtifactError
from midcourse.metrics import Count
from midcourse.pipeline import Method, Session, open_run
from midcourse.printable import printable
from midcourse.records import Condition, GroupCount, Likelihood
from midcourse.report.estimates import ShapeLine
from midcourse.report.shape import shape_lines
from midcourse.report.show import (
    Wanted,
    as_objects,
    choose,
    find,
    item_table,
    panels,
    read_view,
)
from midcourse.report.status import status_table
from midcourse.report.tables import (
    condition_table,
    funnel_table,
    likelihood_table,
    pass_at_k_table,
    rl_table,
)
from midcourse.report.write import write_report
from runs import run_to

EVIL = "</script><img src=x onerror=alert(1)> [/bold] \u2028 \x1b]0;owned\x07 & <b>"


def groups(correct: list[int], num_problems: int = 1) -> list[GroupCount]:
    """One group of every problem an iteration."""
    return [
        GroupCount(iteration=i, problem_id=f"p{problem}", num_correct=c, num_incorrect=8 - c,
                   num_ungraded=0)
        for i, c in enumerate(correct)
        for problem in range(num_problems)
    ]  # fmt: skip


def holds(lines: list[ShapeLine]) -> dict[str, bool | None]:
    return {line.claim: line.holds for line in lines}


def test_the_shape_is_computed_both_ways() -> None:
    good, bad = [Count(320, 64)] * 20, [Count(320, 0)] * 20
    ks = (1, 8)

    def lines(ours: list[Count], theirs: list[Count]) -> dict[str, bool | None]:
        conditions = {Condition.PREFIX_ERROR: theirs, Condition.PREFIX_INTERVENTION: ours}
        evaluations = {
            "held_out": {
                "base": theirs, "patched": ours, "base + RL": theirs, "patched + RL": ours
            },
            "known": {
                "base": [Count(8, 8)] * 150,
                "patched": [Count(8, 8 if ours is good else 6)] * 150,
            },
            "control": {
                "base": [Count(8, 0)] * 150,
                "patched": [Count(8, 0 if ours is good else 4)] * 150,
            },
        }  # fmt: skip
        up, down = groups([4] * 10, 40), groups([0, 0, 0, 1, 1, 0, 1, 1, 1, 1], 40)
        arms = {"base + RL": down, "patched + RL": up} if ours is good else {
            "base + RL": up, "patched + RL": down}  # fmt: skip
        return holds(shape_lines(conditions, evaluations, arms, dict.fromkeys(evaluations, ks)))

    right, wrong = lines(good, bad), lines(bad, good)
    start = "the base starts RL at 3-15 % reward"
    assert right.pop(start) is True
    assert wrong.pop(start) is False
    assert set(right.values()) == {True}
    assert set(wrong.values()) == {False}
    assert len(right) == 8


def test_the_shape_of_problems_that_could_not_be_graded_is_of_the_k_that_are_left() -> None:
    def claims(num_graded: int) -> str:
        some = [Count(8, 2)] * 9 + [Count(num_graded, 0)]
        held_out = {"base": some, "patched": [Count(8, 6)] * 10}
        lines = shape_lines({}, {"held_out": held_out}, {}, {"held_out": (1, 8)})
        return " ".join(line.figures for line in lines) or "none"

    assert "@8" in claims(8)
    assert "@1" in claims(7)
    assert "@8" not in claims(7)
    assert claims(0) == "none"


def test_table_1_counts_problems_and_samples() -> None:
    table = condition_table({Condition.PREFIX: [Count(32, 8), Count(32, 0), Count(0, 0)]}, {})
    (row,) = table.rows
    assert row[:3] == ("+ correct prefix", "1/3", "8/64")
    assert row[3].startswith("12.50 [")


def test_no_success_of_a_few_samples_is_no_certain_zero() -> None:
    table = condition_table({Condition.PREFIX_ERROR: [Count(32, 0)] * 3}, {})
    (row,) = table.rows
    assert row[3:5] == ("0.00 [0.00, 3.85]", "0.00 [0.00, 3.85]")


def test_pass_at_k_and_rl_tables() -> None:
    results = {"held_out": {"base": [Count(4, 2), Count(8, 0)]}, "a": {"base": [Count(8, 2)]}}
    table, other = pass_at_k_table(results, {"held_out": (1, 4, 8), "a": (8,)})
    assert (other.title, [row[0] for row in other.rows]) == ("pass@k on a, %", ["8"])
    assert table.columns == ("k", "base")
    assert [row[0] for row in table.rows] == ["1", "4"]
    assert table.rows[0][1].startswith("25.0 [")
    assert table.note.startswith("2 problems, 12 samples")
    rows = rl_table({"base + RL": groups([0, 0, 8, 4, 4, 8])}).rows
    assert [row[1] for row in rows] == ["1-5", "6-10"]
    assert rows[0][4:] == ("40", "40", "20")


def test_likelihood_names_both_probabilities() -> None:
    item = Likelihood(
        item_id="i", problem_id="p", model="sft:1", what="intervention", num_tokens=3, nll=0.5,
        entropy=0.1, mean_probability=0.7,
    )  # fmt: skip
    table = likelihood_table([item, item], {"sft:1": "patched"})
    assert table.rows == (("intervention", "patched", "2", "0.500", "0.100", "0.700", "0.607"),)


def test_a_funnel_that_does_not_add_up_is_an_error() -> None:
    assert funnel_table({"x": {"a": 1, "b": 2, "total": 3}}).rows[0][1] == "3"
    with pytest.raises(ValueError, match="does not add up at x"):
        funnel_table({"x": {"a": 1, "total": 3}})


def test_status_and_show_read_files_alone(tmp_path: Path, finished_run: Path) -> None:
    finished = open_run(finished_run)
    proposal = finished.method.interventions.candidates().read(finished.run)[0]
    table = status_table(finished_run)
    stages = {row[0] for row in table.rows}
    assert {"sample", "grade", "select", "propose", "build-sft"} <= stages
    assert {row[3] for row in table.rows} == {"complete"}
    view = read_view(finished_run, with_rollouts=False)
    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    console.print(item_table(view, choose(view, Wanted()), 50).rich())
    console.print(panels(view, find(view, proposal.proposal_id[:9])))
    shown = console.export_text()
    console.file.close()
    assert shown.count(proposal.proposal_id) == 2
    assert "→  So 2 + 2 makes four.   [intervention]" in shown
    assert "So 2 + 2 = 5.   [first error]" in shown
    assert "prefix_intervention: " in shown
    assert "answer: 4" in shown


def test_show_chooses_by_outcome_words_and_verification(finished_run: Path) -> None:
    view = read_view(finished_run, with_rollouts=False)
    every = choose(view, Wanted())
    outcomes = Counter(item.outcome for item in every)
    for outcome, number in outcomes.items():
        assert len(choose(view, Wanted(outcome=outcome))) == number
    verified = choose(view, Wanted(verified=True))
    assert verified
    assert all(item.num_correct for item in verified)
    assert len(verified) < len(every)
    found = choose(view, Wanted(words="MAKES FOUR"))
    assert {item.id for item in found} <= {item.id for item in every}
    with pytest.raises(ArtifactError, match=r"there are: .*accepted"):
        choose(view, Wanted(words="never said"))
    with pytest.raises(ArtifactError, match="no proposal and no rollout for 'zzz'"):
        find(view, "zzz")


def test_show_gives_programs_whole_traces(finished_run: Path) -> None:
    view = read_view(finished_run, with_rollouts=False)
    items = choose(view, Wanted())
    told = json.loads(json.dumps(as_objects(view, items)))
    assert [one["id"] for one in told] == [item.id for item in items]
    assert {"problem_id", "steps", "intervention", "continuations", "turns"} <= told[0].keys()


def test_a_report_only_reads_and_counts_what_the_grades_say(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    held_out = tmp_path / "held_out.jsonl"
    problem = {"id": "h", "problem": "What is 2 + 2, 7?", "answer": "4", "reference_solution": "4."}
    held_out.write_text(json.dumps(problem) + "\n")
    recipe_data["problems"]["held_out_path"] = str(held_out)
    recipe_data["evaluate"] = {"models": ["base"], "num_rollouts": 4, "ks": [1, 2]}

    def report(session: Session, made: Method) -> None:
        with pytest.raises(ArtifactError, match="grade held_out base is not complete: run it"):
            write_report(session, made)
        for steps in made.steps():
            session.complete(*steps)
        before = written(session.run.directory)
        write_report(session, made)
        after = written(session.run.directory)
        assert before
        assert {path: time for path, time in after.items() if "report" not in path.parts} == before

    run_to(tmp_path / "run", Recipe.model_validate(recipe_data), report)
    folder = tmp_path / "run" / "report"
    content = json.loads((folder / "tables.json").read_text())
    assert len(content["tables"]) == 4
    counts = content["counts"]
    assert counts["evaluations"] == {"held_out": {"base": [{"num_samples": 4, "num_correct": 0}]}}
    right = counts["conditions"]["prefix_intervention"]
    assert right == [{"num_samples": 8, "num_correct": 8}] * 3
    assert "own_rollout" in (folder / "report.html").read_text()


def written(folder: Path) -> dict[Path, int]:
    """Return when each file of a folder was last written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in files}


def test_control_characters_are_shown_not_obeyed() -> None:
    assert printable("a\x1b]0;x\x07\nb") == "a\\x1b]0;x\\x07\nb"
