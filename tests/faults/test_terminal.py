"""What reaches a terminal: foreign text is inert, odd encodings and broken outputs cost nothing."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from midcourse.printable import printable
from midcourse.progress import ConsoleProgress
from midcourse.table import Table
from test_cli import toml

SOURCE = Path(__file__).parents[2] / "src"
#: Sets the title, clears the screen, rings, links, forges a line; C1 and bidi; markup.
HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31mred \x9b31m \x1b]8;;http://x.example\x07link \x07 a\rb "
    "\u202egnp.\u2066 \u200b\ufeff \x00 \x7f [bold red]markup[/] [link=http://x.example]x[/link] "
)
DRIVING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")


def midcourse(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "midcourse", *arguments], capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
    )  # fmt: skip


@pytest.fixture
def recipe_file(tmp_path: Path, recipe_data: dict[str, Any]) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(toml(recipe_data))
    return path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("over\rwritten", "over\\rwritten"),
        ("\u202egnp", "\\u202egnp"),
        ("\ud83d half an emoji", "\\ud83d half an emoji"),
        ("\U000e0041 tag", "\\U000e0041 tag"),
        ("3\u00a0000 \u2264 \u221e, Zoë, 数, 👍", "3\u00a0000 \u2264 \u221e, Zoë, 数, 👍"),
    ],
)
def test_what_is_not_seen_as_itself_is_written_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_part_of_one_line_stays_one_line() -> None:
    assert printable("a\nb\tc", keep="") == "a\\nb\\tc"


@given(st.text())
def test_no_control_character_is_printable(text: str) -> None:
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs"} - {"\n", "\t"}
                and c not in "\n\t"]  # fmt: skip
    assert printable(shown) == shown
    shown.encode()


def drawn(use: Any) -> str:
    file = io.StringIO()
    use(Console(file=file, force_terminal=True, width=200, color_system="truecolor"))
    text = file.getvalue()
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\r", "", text)  # rich's own


def test_tables_and_progress_say_foreign_text_as_it_is() -> None:
    table = Table(HOSTILE, (HOSTILE, "b"), ((HOSTILE, HOSTILE),), HOSTILE)

    def report(console: Console) -> None:
        console.print(table.rich())
        progress = ConsoleProgress(console)
        progress.say(HOSTILE)
        with progress.task(HOSTILE, 2) as task:
            task.advance(note=HOSTILE)

    text = drawn(report)
    assert not DRIVING.search(text.replace("\n", "").replace("\t", ""))
    assert "[bold red]" in text


def foreign_problems(folder: Path) -> Path:
    rows = [
        {"id": f"{HOSTILE}{i}", "problem": f"{HOSTILE} 2 + 2, {i}?", "answer": "4",
         "reference_solution": f"{HOSTILE} 4."}
        for i in range(3)
    ]  # fmt: skip
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def foreign_script(folder: Path) -> Path:
    wrong = f"{HOSTILE} Two.\n\nSo 5.\n\nThe answer is \\boxed{{5}}."
    proposal = json.dumps({"content": f"{HOSTILE} So four.", "location": 2})
    rules = [
        ["Compare and intervene", f"<intervention>{proposal}</intervention>"],
        [".", wrong, f"{wrong} "],
    ]
    path = folder / "script.json"
    path.write_text(json.dumps(rules))
    return path


def test_nothing_of_data_or_models_drives_the_terminal(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    problems, script = foreign_problems(tmp_path), foreign_script(tmp_path)
    recipe_data |= {"problems": {"path": str(problems)}}
    recipe_data |= {"engine": {"kind": "scripted", "script": str(script)}}
    recipe, run = tmp_path / "r.toml", str(tmp_path / "run")
    recipe.write_text(toml(recipe_data))
    built = midcourse("build-sft", str(recipe), "--run-dir", run)
    assert built.returncode == 0, built.stderr
    index = tmp_path / "run" / "stages.json"
    labels = json.loads(index.read_text())
    folder = next(iter(labels))
    labels[folder]["label"] = HOSTILE
    index.write_text(json.dumps({**labels, f"x/{HOSTILE.replace('/', ' ')}": labels[folder]}))
    manifest = tmp_path / "run" / folder / "manifest.json"
    counts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**counts, "counts": {HOSTILE: 1}}))
    listed = midcourse("show", run)
    shown = midcourse("show", run, f"{HOSTILE}0".replace("\x00", "")), listed
    bad = tmp_path / f"bad{HOSTILE[:9]}.jsonl"
    bad.write_text(json.dumps({"id": HOSTILE, "problem": "x?", "answer": f"4 {HOSTILE}"}) + "\n")
    twice = tmp_path / "twice.jsonl"
    twice.write_text(json.dumps({"id": HOSTILE, "problem": "x?", "answer": "4"}) + "\n" * 1)
    twice.write_text(twice.read_text() * 2)
    said = [
        built, *shown, midcourse("status", run), midcourse("validate", str(bad)),
        midcourse("validate", str(twice)),
        midcourse("curate", str(bad), "--out", str(tmp_path / "kept.jsonl"), "--no-need-reference"),
        midcourse("sample", str(recipe), "--set", f"engine.script=/no{HOSTILE[:9]}"),
    ]  # fmt: skip
    for each in said:
        text = (each.stdout + each.stderr).decode()
        assert text
        assert not DRIVING.search(text.replace("\n", "").replace("\t", "")), each.args


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.faults),
        pytest.param({"PYTHONIOENCODING": "latin-1"}, marks=pytest.mark.faults),
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "latin-1", "posix"],
)
def test_a_locale_without_unicode_costs_no_work(
    tmp_path: Path, recipe_file: Path, environment: dict[str, str]
) -> None:
    run = str(tmp_path / "run")
    shown = midcourse("keys", **environment)
    assert (shown.returncode, shown.stderr) == (0, b"")
    built = midcourse("build-sft", str(recipe_file), "--run-dir", run, **environment)
    assert (built.returncode, built.stderr) == (0, b"")
    for command in (["status", run], ["show", run], ["show", run, "p0"]):
        done = midcourse(*command, **environment)
        assert (done.returncode, done.stderr) == (0, b""), command


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_output_that_is_full_is_one_line(tmp_path: Path, recipe_file: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "midcourse", "sample", str(recipe_file),
             "--run-dir", str(tmp_path / "run")],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("midcourse: cannot write the output: No space left on device; ")
    assert done.stderr.count("\n") == 1
    again = midcourse("sample", str(recipe_file), "--run-dir", str(tmp_path / "run"))
    assert again.returncode == 0


@pytest.mark.parametrize("command", [["keys"], ["recipes"]])
def test_a_pipe_that_is_closed_is_no_traceback(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "midcourse", *command], stdout=writing, stderr=subprocess.PIPE,
        text=True, check=False, env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_closed_outputs_are_no_traceback(tmp_path: Path, recipe_file: Path) -> None:
    run = tmp_path / "run"
    arguments = f"-m midcourse sample {recipe_file} --run-dir {run}"
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} {arguments} >&- 2>&-"], check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert done.returncode == 0
    assert list(run.glob("sample/*/manifest.json"))
