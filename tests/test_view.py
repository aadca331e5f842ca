"""``midcourse view`` and the report write the page of a run directory, and say where."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from browser import headless, needs_chromium, opened
from made_runs import made_run
from midcourse.cli import app
from midcourse.config import Recipe
from midcourse.errors import ArtifactError
from midcourse.pipeline import Method, Session
from midcourse.report.write import is_reported, write_report
from midcourse.store.repair import check_run
from runs import run_to


def view(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["view", *map(str, arguments)])


def plain(result: Result) -> str:
    """Return what was said on one line."""
    return " ".join(result.output.split())


def test_the_page_is_in_the_report_folder_and_its_place_is_said(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 3).directory
    result = view(run)
    file = run / "report" / "view.html"
    assert result.exit_code == 0
    assert "proposals: 3: 3 verified" in plain(result)
    assert re.search(rf"view: {re.escape(str(file))} \([\d.]+ MB\)", plain(result))
    assert file.read_bytes().startswith(b"<!doctype html>")
    assert not check_run(run)


def test_it_can_be_written_elsewhere(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 1).directory
    assert view(run, "--out", tmp_path / "new" / "page.html").exit_code == 0
    assert view(run, "--out", tmp_path).exit_code == 0
    assert (tmp_path / "new" / "page.html").read_bytes() == (tmp_path / "view.html").read_bytes()
    assert not (run / "report").exists()


def test_a_link_to_a_trace_is_printed(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 1).directory
    result = view(run, "--id", "r0-0")
    assert f"{(run / 'report' / 'view.html').as_uri()}#r0-0 (" in plain(result)
    unknown = view(run, "--id", "r7")
    assert isinstance(unknown.exception, ArtifactError)
    assert "has no proposal or rollout 'r7'" in str(unknown.exception)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 2).directory
    result = view(run, "--rollouts", "none")
    assert "left out: 2 of 2 rollouts: --rollouts none leaves them out" in plain(result)
    assert view(run, "--rollouts", "some").exit_code == 2


def test_what_is_no_run_directory_is_one_line(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        result = view(place)
        assert isinstance(result.exception, ArtifactError)
        assert str(result.exception).startswith(f"{place} is not a run directory")
    assert not [*tmp_path.iterdir()]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_run_needs_another_place(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 1).directory
    run.chmod(0o555)
    result = view(run)
    assert "cannot be written: give the file with --out" in str(result.exception)
    assert view(run, "--out", tmp_path / "page.html").exit_code == 0


def test_a_directory_of_several_recipes_is_one_page(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 2).directory
    (run / "recipes").mkdir()
    (run / "config.resolved.json").rename(run / "recipes" / "made.json")
    (run / "problems" / "made").mkdir()
    (run / "problems" / "train.parquet").rename(run / "problems" / "made" / "train.parquet")
    assert "proposals: 2: 2 verified" in plain(view(run))


@pytest.mark.slow
@needs_chromium
def test_a_browser_shows_what_was_collected(tmp_path: Path) -> None:
    long = "Two and two, as everybody knows, are never five.\n\nSo 2 + 2 = 5.\n\nThe end."
    run = made_run(tmp_path / "run", 2, num_proposals=3, text=lambda _: long).directory
    assert view(run).exit_code == 0
    with headless() as browser, opened(browser, run / "report" / "view.html", "#r1-2") as seen:
        said = seen.page.locator("#trace").inner_text()
        assert "Proposal r1-2" in said
        assert "2 + 2 is four, r1-2." in said
        assert said.count("as everybody knows") >= 2, "steps and continuations share the text"
        assert "1 of 4 correct" in said
        seen.quiet()


@pytest.mark.slow
def test_neither_torch_nor_a_model_is_loaded(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", 1).directory
    code = (
        "import sys; from midcourse.cli import app; "
        "app(sys.argv[1:], standalone_mode=False); "
        "print('loaded', *sorted({'torch', 'transformers', 'matplotlib'} & {*sys.modules}))"
    )
    command = [sys.executable, "-c", code, "view", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded\n")


@pytest.mark.slow
def test_a_report_comes_with_its_viewer(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    recipe = Recipe.model_validate({**recipe_data, "evaluate": {"models": ["base"]}})
    directory = tmp_path / "run"

    def report(session: Session, made: Method) -> None:
        for steps in made.steps():
            session.complete(*steps)
        write_report(session, made)

    run_to(directory, recipe, report)
    file = directory / "report" / "view.html"
    assert file.is_file()
    file.unlink()
    assert is_reported(directory), "the viewer is made of the records: it may go, or be made again"
    assert view(directory).exit_code == 0
    assert is_reported(directory)
