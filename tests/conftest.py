from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from midcourse.checkers import Grader
from midcourse.config import Recipe, VllmConfig
from midcourse.engines.bundled import base_folder
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.engines.vllm_engine import VllmEngine
from midcourse.pipeline import Method, Session
from midcourse.rendering import Renderer
from runs import ready, run_to

REPLY = "Two and two.\n\nSo 2 + 2 = 5.\n\nThe answer is \\boxed{5}."
FIXED = "The answer is \\boxed{4}."
PROPOSAL = '<intervention>{"content": "So 2 + 2 makes four.", "location": 2}</intervention>'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Faults take their time: none of their tests is part of `make test-fast`."""
    for item in items:
        if Path(__file__).parent / "faults" in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, timeout_seconds=10.0) as shared:
        yield shared


StartVllm = Callable[[str], VllmEngine]


@pytest.fixture(scope="session")
def vllm_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An executable that passes for an interpreter with vLLM."""
    path = tmp_path_factory.mktemp("bin") / "python-with-vllm"
    fake = Path(__file__).parent / "fake_server.py"
    # What a program given by -c asks of the environment, ours answers.
    program = f'test "$1" = -c && exec {sys.executable} "$@"\nexec {sys.executable} {fake} "$@"'
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    return path


def over_stand_in(python: Path) -> VllmEngine:
    """Make an engine whose server is our stand-in for vLLM."""
    config = VllmConfig(server_python=str(python), concurrency=4)
    return VllmEngine(config, "m", Renderer(ByteTokenizer()), start_seconds=60.0)


@pytest.fixture(scope="session")
def shared_vllm(vllm_python: Path) -> Iterator[VllmEngine]:
    """One engine for every test that asks for nothing special.

    ``MIDCOURSE_VLLM_PYTHON`` names a real one: then it serves the lab's base model.
    """
    real = os.environ.get("MIDCOURSE_VLLM_PYTHON")
    if real:
        from transformers import AutoTokenizer

        arguments = ("--dtype", "float32", "--enforce-eager")
        config = VllmConfig(
            server_python=real, server_arguments=arguments, kv_cache_gib=1, max_context_tokens=400
        )
        renderer = Renderer(AutoTokenizer.from_pretrained(base_folder()))
        engine = VllmEngine(config, str(base_folder()), renderer)
    else:
        engine = over_stand_in(vllm_python)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def random_gemma2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that `FastBatch` cannot run: soft caps, and windows shorter than a row."""
    from tiny import make_random

    folder = tmp_path_factory.mktemp("gemma2")
    make_random(folder, "gemma2", attn_logit_softcapping=5.0, sliding_window=24)
    return folder


@pytest.fixture
def start_vllm(vllm_python: Path, monkeypatch: pytest.MonkeyPatch) -> StartVllm:
    """Make an engine over a stand-in for vLLM that misbehaves as told."""

    def start(misbehaviour: str) -> VllmEngine:
        monkeypatch.setenv("FAKE_VLLM", misbehaviour)
        return over_stand_in(vllm_python)

    return start


def write_problems(folder: Path, name: str = "problems", first: int = 0) -> Path:
    """Write three problems that differ in their number alone."""
    rows = [
        {
            "id": f"p{i}",
            "problem": f"What is 2 + 2, {i}?",
            "answer": "4",
            "reference_solution": "4.",
        }
        for i in range(first, first + 3)
    ]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_script(folder: Path) -> Path:
    """Wrong at first, right after the intervention; proposes when asked to review."""
    rules = [
        [r"Compare and intervene", PROPOSAL],
        [r"makes four\.\n\n$", FIXED],
        [r".", REPLY, REPLY + " "],
    ]
    path = folder / "script.json"
    path.write_text(json.dumps(rules))
    return path


def scripted_recipe(problem_file: Path, script_file: Path) -> dict[str, Any]:
    """A recipe that runs on the scripted engine, without torch."""
    return {
        "name": "scripted",
        "prompts": "lab",
        "problems": {"path": str(problem_file)},
        "model": {"path": "lab"},
        "engine": {"kind": "scripted", "script": str(script_file)},
        "sample": {"num_rollouts": 4},
        "propose": {"turns": "single", "num_rollouts": 2, "num_proposals": 2},
        "verify": {
            "num_continuations": 4,
            "conditions": ["problem", "prefix", "prefix_error", "prefix_intervention"],
        },
    }


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    return write_problems(tmp_path)


@pytest.fixture
def held_out_file(tmp_path: Path) -> Path:
    """Three other problems."""
    return write_problems(tmp_path, "held_out", first=3)


@pytest.fixture
def script_file(tmp_path: Path) -> Path:
    return write_script(tmp_path)


@pytest.fixture
def recipe_data(problem_file: Path, script_file: Path) -> dict[str, Any]:
    return scripted_recipe(problem_file, script_file)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of the scripted recipe, its rows built: only to be read."""
    folder = tmp_path_factory.mktemp("scripted")
    data = scripted_recipe(write_problems(folder), write_script(folder))
    run_to(folder / "run", Recipe.model_validate(data), ready)
    return folder / "run"


@pytest.fixture(scope="session")
def verified_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, continued from under every condition of its recipe: only to be read."""
    folder = tmp_path_factory.mktemp("verified")
    data = scripted_recipe(write_problems(folder), write_script(folder))

    def verify(session: Session, made: Method) -> None:
        for drawn in made.interventions.verified.values():
            session.complete(drawn.rollouts, drawn.grades)
        session.complete(made.models.rows)

    run_to(folder / "run", Recipe.model_validate(data), verify)
    return folder / "run"


@pytest.fixture
def recipe(recipe_data: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(recipe_data)
