from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import Recipe
from midcourse.grading import Grader

REPLY = "Two and two.\n\nSo 2 + 2 = 5.\n\nThe answer is \\boxed{5}."
FIXED = "The answer is \\boxed{4}."
PROPOSAL = '<intervention>{"content": "So 2 + 2 makes four.", "location": 2}</intervention>'


@pytest.fixture(scope="session")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, timeout_seconds=10.0) as shared:
        yield shared


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"p{i}",
            "problem": f"What is 2 + 2, {i}?",
            "answer": "4",
            "reference_solution": "4.",
        }
        for i in range(3)
    ]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def script_file(tmp_path: Path) -> Path:
    """Wrong at first, right after the intervention; proposes when asked to review."""
    rules = [
        [r"Compare and intervene", PROPOSAL],
        [r"makes four\.\n\n$", FIXED],
        [r".", REPLY, REPLY + " "],
    ]
    path = tmp_path / "script.json"
    path.write_text(json.dumps(rules))
    return path


@pytest.fixture
def recipe_data(problem_file: Path, script_file: Path) -> dict[str, Any]:
    """A recipe that runs on the scripted engine, without torch."""
    return {
        "name": "scripted",
        "prompts": "lab",
        "problems": {"path": str(problem_file)},
        "engine": {"kind": "scripted", "script": str(script_file)},
        "sample": {"num_rollouts": 4},
        "propose": {"turns": "single", "num_rollouts": 2, "num_proposals": 2},
        "verify": {
            "num_continuations": 4,
            "conditions": ["problem", "prefix", "prefix_error", "prefix_intervention"],
        },
    }


@pytest.fixture
def recipe(recipe_data: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(recipe_data)
