"""What ``pip install`` gives, away from the repository: the wheel, built and used from nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midcourse.recipes import list_recipes, recipe_text
from test_cli import ROOT, toml

pytestmark = pytest.mark.slow

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel holds, built of a copy so that nothing stale gets in."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=skipped)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("midcourse-*.whl")
    unpacked = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(unpacked)
    return unpacked


@pytest.fixture
def call(installed: Path, tmp_path: Path) -> Call:
    """Run the wheel's ``midcourse`` in an empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "midcourse", *arguments], cwd=folder, text=True,
            capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(installed)},
        )  # fmt: skip

    return run


def test_the_wheel_holds_every_file_of_the_package(installed: Path) -> None:
    source = ROOT / "src" / "midcourse"
    wanted = {
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    package = installed / "midcourse"
    held = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    assert wanted == held


def test_recipes_are_found_from_an_empty_folder(call: Call) -> None:
    listed = call("recipes")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(listed.stdout.splitlines()) == len(list_recipes())
    assert call("recipes", "show", "lab").stdout == recipe_text("lab")
    planned = call("plan", "paper/int", "--with", "scale/paper", "--with", "scale/paper-8gpu")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert "Plan of int" in planned.stdout
    assert "Plan of lab" in call("plan", "lab").stdout


def test_a_run_on_a_script_needs_the_wheel_alone(
    call: Call, tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    recipe = tmp_path / "own.toml"
    base_alone = {"models": ["base"], "num_rollouts": 1, "ks": [1]}
    recipe.write_text(toml({**recipe_data, "evaluate": base_alone}))
    done = call("run", str(recipe))
    assert (done.returncode, done.stderr) == (0, "")
    run = tmp_path / "empty" / "runs" / "scripted"
    assert (run / "report" / "report.html").is_file()
    assert "nothing to do" in call("run", str(recipe)).stdout
