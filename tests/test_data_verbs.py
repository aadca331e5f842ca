"""validate and curate as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from midcourse.cli import app
from midcourse.errors import ConfigError, DataError

ROWS = "uid,question,final,level\nu1,What is 6 times 7?,42,easy\nu2,What is 1 over 2?,,hard\n"
MAP = ("--column", "problem=question", "--column", "answer=final", "--column", "id=uid")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text(ROWS)
    return file


def test_validate_takes_the_columns_and_the_limit_of_curate(mine: Path) -> None:
    named = run("validate", mine, *MAP)
    assert named.exit_code == 1
    assert named.output.splitlines()[-1] == "1 complaint"
    first = run("validate", mine, *MAP, "--limit", 1)
    assert (first.exit_code, first.output) == (0, f"{mine}: every problem is sound\n")
    unnamed = run("validate", mine)
    assert isinstance(unnamed.exception, DataError)
    assert "give --column problem=question --column answer=final" in str(unnamed.exception)
    half = run("validate", mine, "--column", "answer")
    assert isinstance(half.exception, ConfigError)


def test_validate_says_the_same_as_json(mine: Path) -> None:
    found = run("validate", mine, *MAP, "--json")
    said = json.loads(found.output)
    assert (found.exit_code, said["is_sound"], len(said["complaints"])) == (1, False, 1)
    assert (
        "has no 'answer', but"
        in json.loads(run("validate", mine, "--json").output)["complaints"][0]
    )


def test_curate_keeps_columns_says_what_it_dropped_and_overwrites_nothing(
    mine: Path, tmp_path: Path
) -> None:
    out, dropped = tmp_path / "out.jsonl", tmp_path / "dropped.jsonl"
    asked = ("curate", mine, *MAP, "--no-need-reference", "--out", out, "--dropped", dropped)
    assert run(*asked).exit_code == 0
    [kept] = map(json.loads, out.read_text().splitlines())
    assert (kept["id"], kept["answer"], kept["level"]) == ("u1", "42", "easy")
    [row] = map(json.loads, dropped.read_text().splitlines())
    assert (row["outcome"], row["row"]["uid"]) == ("no answer", "u2")
    again = run(*asked)
    assert isinstance(again.exception, ConfigError)
    assert str(again.exception) == f"{out} is there already: give --force to overwrite it"
    assert run(*asked, "--force").exit_code == 0


def test_a_file_that_cannot_be_written_is_refused_before_any_work(
    mine: Path, tmp_path: Path
) -> None:
    for verb in (("curate", mine, *MAP, "--out"), ("init", "--problems", mine, "--model", "lab")):
        nowhere = run(*verb, tmp_path / "none" / "x.toml")
        assert isinstance(nowhere.exception, ConfigError)
        assert "none is not a folder that can be written to" in str(nowhere.exception)
    inside = run("curate", mine, *MAP, "--out", tmp_path, "--force")
    assert str(inside.exception) == f"{tmp_path} is a folder: give the name of a file"


def test_curate_fails_and_writes_nothing_if_nothing_is_left(mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    empty = run("curate", mine, *MAP, "--out", out)
    assert isinstance(empty.exception, DataError)
    assert "no problem is left" in str(empty.exception)
    assert not out.exists()
