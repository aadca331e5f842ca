"""What a run is made of may not change under it, and nothing from outside gets out of its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import Recipe
from midcourse.errors import ArtifactError
from midcourse.pipeline import open_run
from runs import ready, run_to

Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]

CHANGES: list[tuple[str, Change, str]] = [
    ("answer", lambda rows: [{**rows[0], "answer": "5"}, *rows[1:]], "p0 has another answer"),
    ("text", lambda rows: [*rows[:2], {**rows[2], "problem": "2?"}], "p2 has another text"),
    (
        "both",
        lambda rows: [{**rows[0], "problem": "2?", "reference_solution": "x"}, *rows[1:]],
        "p0 has another text and reference_solution",
    ),
    ("gone", lambda rows: rows[1:], "p0 is gone"),
    ("new", lambda rows: [*rows, {**rows[0], "id": "p9", "problem": "9?"}], "p9 is new"),
    ("order", lambda rows: [rows[1], rows[0], rows[2]], "they stand in another order"),
    ("many", lambda rows: [{**row, "id": row["id"] + "\x1b"} for row in rows], "and 3 more"),
]


def rewrite(path: Path, change: Change) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))


@pytest.mark.parametrize(("change", "said"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_problems_that_changed_under_a_run_are_refused_by_name(
    tmp_path: Path, recipe: Recipe, problem_file: Path, change: Change, said: str
) -> None:
    run_to(tmp_path / "run", recipe, ready)
    before = problem_file.read_text()
    folders = sorted(path.name for path in (tmp_path / "run").glob("*/*"))
    rewrite(problem_file, change)
    uses = (lambda run: run_to(run, recipe, ready)), open_run
    for use in uses:
        with pytest.raises(ArtifactError, match=said) as caught:
            use(tmp_path / "run")
        assert "--run-dir" in str(caught.value)
        assert str(caught.value).isprintable()
    assert sorted(path.name for path in (tmp_path / "run").glob("*/*")) == folders
    problem_file.write_text(before)
    assert run_to(tmp_path / "run", recipe, ready)


def test_problems_that_changed_under_a_half_done_run_are_refused(
    tmp_path: Path, recipe: Recipe, problem_file: Path
) -> None:
    run_to(tmp_path / "run", recipe, lambda session, made: session.complete(made.train.rollouts))
    rewrite(problem_file, CHANGES[0][1])
    with pytest.raises(ArtifactError, match="p0 has another answer"):
        run_to(tmp_path / "run", recipe, ready)


def test_held_out_problems_may_not_change_either(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path
) -> None:
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(problem_file.read_text().replace("What is", "How much is"))
    recipe_data["problems"]["held_out_path"] = str(held_out)
    recipe = Recipe.model_validate(recipe_data)
    run_to(tmp_path / "run", recipe, ready)
    rewrite(held_out, CHANGES[0][1])
    with pytest.raises(ArtifactError, match=r"held_out\.parquet holds other held_out problems"):
        run_to(tmp_path / "run", recipe, ready)


def test_a_file_written_in_another_way_holds_the_same_problems(
    tmp_path: Path, recipe: Recipe, problem_file: Path
) -> None:
    rows = run_to(tmp_path / "run", recipe, ready)
    texts = [json.loads(line) for line in problem_file.read_text().splitlines()]
    turned = [dict(reversed(row.items())) for row in texts]
    problem_file.write_text("\n\n".join(json.dumps(row, indent=None) for row in turned) + "\n")
    assert run_to(tmp_path / "run", recipe, ready) == rows


def test_a_shared_directory_keeps_the_problems_of_each_recipe(
    tmp_path: Path, recipe: Recipe, problem_file: Path
) -> None:
    other = recipe.model_copy(update={"name": "other"})
    run_to(tmp_path / "run", recipe, ready, shared=True)
    rewrite(problem_file, CHANGES[0][1])
    run_to(tmp_path / "run", other, ready, shared=True)
    with pytest.raises(ArtifactError, match="p0 has another answer"):
        run_to(tmp_path / "run", recipe, ready, shared=True)
