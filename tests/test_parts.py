"""Training and held-out problems share nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import Recipe, load_recipe
from midcourse.data.parts import require_disjoint
from midcourse.errors import DataError
from midcourse.lab.problems import lab_problems
from midcourse.pipeline import Setup
from midcourse.records import Problem


def problem(name: str, text: str) -> Problem:
    return Problem(
        problem_id=name, text=text, answer="4", reference_solution=None, source="s", split="train"
    )


TRAIN = [problem(f"t{n}", f"What is {n} + 4?") for n in range(9)]


def test_what_differs_is_not_an_overlap() -> None:
    others = [problem("h1", "What is 1 + 5?"), problem("h2", "What is 1 +4?")]
    require_disjoint(TRAIN, {"held_out": others, "known": []})


def test_the_same_text_is_an_overlap_however_it_is_laid_out() -> None:
    others = [problem(f"h{n}", f" What\tis {n}\n+  4? ") for n in range(3, 12)]
    with pytest.raises(DataError) as caught:
        require_disjoint(TRAIN, {"held_out": others})
    said = "6 of 9 held_out problems are training problems too (first: h3, h4, h5): take them out"
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_the_same_id_with_another_text_is_an_overlap_too() -> None:
    with pytest.raises(DataError, match=r"1 of 2 held_out problems have the id .* \(first: t3\)"):
        require_disjoint(TRAIN, {"held_out": [problem("t3", "Else?"), problem("h", "Or?")]})


def test_no_work_starts_on_problems_that_are_trained_and_held_out(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path
) -> None:
    held_out = tmp_path / "held.jsonl"
    row = json.loads(problem_file.read_text().splitlines()[1])
    held_out.write_text(json.dumps(row | {"id": "other", "problem": f"  {row['problem']}"}))
    recipe_data["problems"]["held_out_path"] = str(held_out)
    with pytest.raises(DataError, match=r"1 of 1 held_out problems are training problems too"):
        Setup.of(Recipe.model_validate(recipe_data))
    recipe_data["problems"]["limit"] = 1  # what is not trained on may be evaluated on
    assert Setup.of(Recipe.model_validate(recipe_data)).problems.train[0].problem_id == "p0"


@pytest.mark.parametrize("seed", range(5))
def test_the_lab_never_evaluates_what_it_trains_on(seed: int) -> None:
    lab = lab_problems(load_recipe("lab").problems, seed)
    require_disjoint(lab.train, lab.evaluation)
