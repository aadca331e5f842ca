"""Runs side by side: what differs, differences with intervals, and seeds put together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import scripted_recipe, write_problems, write_script
from midcourse.cli import app
from midcourse.config import Recipe
from midcourse.errors import ConfigError
from midcourse.pipeline import Method, Session
from midcourse.report.compare import ComparedRun, differences, read_runs, sides_of
from midcourse.report.compare_page import compare, comparison_page
from midcourse.report.findings import Verdict
from midcourse.report.html import render_html
from midcourse.report.markdown import render_markdown
from midcourse.table import Table
from runs import run_to

pytestmark = pytest.mark.slow  # each makes runs
WORTH = "accuracy on hard problems given prefix + intervention"
MakeRun = Callable[..., Path]


def verified(session: Session, made: Method) -> None:
    """Complete what Table 1 needs, and nothing after it."""
    for drawn in made.interventions.verified.values():
        session.complete(drawn.rollouts, drawn.grades)


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    folder = tmp_path_factory.mktemp("compare")
    problems = {0: write_problems(folder), 7: write_problems(folder, "others", first=7)}
    script = write_script(folder)

    def make(name: str, first: int = 0, **changes: Any) -> Path:
        data = scripted_recipe(problems[first], script)
        for key, value in changes.items():
            section, _, field = key.rpartition("__")
            (data[section] if section else data)[field] = value
        if not (folder / name).is_dir():
            run_to(folder / name, Recipe.model_validate(data), verified)
        return folder / name

    return make


def table(tables: dict[str, list[Table]], title: str) -> dict[str, list[str]]:
    """Return the rows of a table by their first cell."""
    (found,) = (one for under in tables.values() for one in under if one.title == title)
    return {row[0]: list(row[1:]) for row in found.rows}


def compared(*runs: Path, seeds: bool | None = None) -> tuple[list[ComparedRun], dict[str, Any]]:
    read = read_runs(runs)
    return read, dict(compare(sides_of(read, seeds)).tables)


def test_settings_that_decide_results_are_told_from_those_of_speed(make_run: MakeRun) -> None:
    other = make_run("fewer", verify__num_continuations=2, grade={"num_workers": 1})
    _, tables = compared(make_run("a"), other)
    assert table(tables, "Settings that differ") == {"verify.num_continuations": ["4", "2"]}
    place = table(tables, "Settings of speed and place that differ")
    assert place == {"grade.num_workers": ["2", "1"]}


def test_of_an_unfinished_run_what_is_there_is_shown(make_run: MakeRun) -> None:
    (run, _), tables = compared(make_run("a"), make_run("b", verify__num_continuations=2))
    assert 0 < run.num_complete < run.num_steps
    assert table(tables, "Runs")["complete"][0] == f"{run.num_complete} of {run.num_steps} stages"
    counts = table(tables, "Counts by stage")
    assert counts["continuations: correct"] == ["24", "12"]
    assert "candidates for a row" not in counts
    assert table(tables, "Table 1, accuracy")["+ prefix + intervention"][0].endswith("(3/3)")
    assert "pass@k on held_out, %" not in str(tables)


def test_the_same_problems_are_paired_and_others_of_the_same_number_are_not(
    make_run: MakeRun,
) -> None:
    first, paired, apart = read_runs(
        [make_run("a"), make_run("b", verify__num_continuations=2), make_run("c", first=7)]
    )
    by_run = [differences(sides_of([first, other], None)) for other in (paired, apart)]
    assert {"paired by problem, n = 3 problems" in one.sentence for one in by_run[0]} == {True}
    assert {"unpaired, 3 and 3 problems" in one.sentence for one in by_run[1]} == {True}
    assert {one.verdict for found in by_run for one in found} == {Verdict.FEW}


def test_seeds_of_one_recipe_are_put_together_and_the_unit_is_the_run(make_run: MakeRun) -> None:
    runs = [make_run(f"seed{seed}", seed=seed) for seed in (1, 2, 3)]
    read, tables = compared(*runs)
    (side,) = sides_of(read, None)
    assert [run.recipe.seed for run in side.runs] == [1, 2, 3]
    (seeds,) = tables["Seeds"]
    assert seeds.columns[1:] == (
        "seed 1", "seed 2", "seed 3", "mean over runs", "SD", "pooled problems"
    )  # fmt: skip
    row = table(tables, "Seeds of scripted")[
        "accuracy on hard problems given prefix + intervention"
    ]
    assert row[:5] == ["100.0", "100.0", "100.0", "100.0", "0.0"], "no spread, no interval"
    assert [len(sides_of(read, False)), len(sides_of(read[:2], None))] == [3, 1]
    (two,) = compare(sides_of(read[:2], None)).tables["Seeds"]
    assert two.rows[0][3] == "100.0", "two runs have no interval"


def test_seeds_are_refused_where_there_are_none_and_copies_are_named(make_run: MakeRun) -> None:
    first, other = read_runs([make_run("a"), make_run("b", verify__num_continuations=2)])
    with pytest.raises(ConfigError, match="no two of these runs are seeds of one recipe"):
        sides_of([first, other], True)
    with pytest.raises(ConfigError, match="named twice"):
        read_runs([make_run("a"), make_run("a")])
    copy = read_runs([make_run("a"), make_run("copy")])
    sides = sides_of(copy, None)
    assert "a and copy are of one recipe and seed" in comparison_page(sides, compare(sides)).summary


def test_three_runs_a_side_are_compared_over_runs(make_run: MakeRun) -> None:
    runs = [make_run(f"seed{seed}", seed=seed) for seed in (1, 2, 3)]
    runs += [make_run(f"y{seed}", seed=seed, verify__num_continuations=2) for seed in (1, 2, 3)]
    found = differences(sides_of(read_runs(runs), None))
    assert {(one.n, one.n_unit) for one in found} == {(3, "pairs of runs")}
    assert all("Student's t over pairs of runs of one seed" in one.sentence for one in found)
    pooled = differences(sides_of(read_runs(runs[:2] + runs[3:]), None))
    assert {one.n_unit for one in pooled} == {"problems"}
    assert all("not about training" in one.sentence for one in pooled)


def test_the_command_writes_what_it_says(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [str(make_run("a")), str(make_run("b", verify__num_continuations=2))]
    done = CliRunner().invoke(app, ["compare", *runs, "--json", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said == json.loads((tmp_path / "out" / "compare.json").read_text())
    worth = next(
        one for one in said["findings"] if one["name"].endswith("given prefix + intervention")
    )
    assert (worth["estimate"], worth["n"], worth["verdict"]) == (0.0, 3, "too few")
    page = (tmp_path / "out" / "compare.html").read_text()
    assert escape(worth["sentence"]) in page
    assert "| verify.num_continuations | 4 | 2 |" in (tmp_path / "out" / "compare.md").read_text()
    alone = CliRunner().invoke(app, ["compare", runs[0]])
    assert isinstance(alone.exception, ConfigError)


def test_names_of_others_are_text_in_html_and_in_markdown(make_run: MakeRun) -> None:
    read = read_runs([make_run("a"), make_run("b", verify__num_continuations=2)])
    evil = "{0} <img src=x onerror=alert(1)> | [x](javascript:y) `z`"
    sides = [sides_of(read, None)[0], type(sides_of(read, None)[1])(evil, read[1:])]
    page = comparison_page(sides, compare(sides))
    assert "<img" not in render_html(page)
    assert "\\<img" in render_markdown(page)
    assert "[x]\\(javascript:y)" in render_markdown(page)
    assert not any(math.isnan(one.estimate) for one in differences(sides))
