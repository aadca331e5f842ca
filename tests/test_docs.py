"""Every command of README and docs parses; the cheap ones are run, with a script for a model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import FIXED
from documented import (
    OWN_RECIPE,
    PAGES,
    ROOT,
    block_commands,
    blocks,
    check_command,
    check_span,
    inline_commands,
)
from midcourse.recipes import find_accelerate, find_recipe
from test_cli import toml

COMMANDS = sorted({command.text for page in PAGES for command in block_commands(page)})
SPANS = sorted({command.text for page in PAGES for command in inline_commands(page)})
MARKDOWN = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "results").glob("*.md"))]
PYTHON = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"))
]

#: What is run, and a piece of what it says or the file that it leaves.
RUN = {
    "midcourse recipes": "scale/paper-8gpu",
    "midcourse recipes show lab": 'name = "lab"',
    "midcourse recipes show lab > my.toml": "",
    "midcourse validate problems.jsonl": "every problem is sound",
    "midcourse curate gsm8k:train.jsonl --out problems.jsonl --against gsm8k:test.jsonl":
        "problems.jsonl: 2 problems",
    "midcourse propose my.toml --set sample.num_rollouts=128": "propose: complete in runs/my",
    "midcourse status runs/my": "build-sft",
    "midcourse show runs/my": "accepted",
    "midcourse view runs/my": "report/view.html",
    "midcourse export runs/my --format trl --out handover/trl": "handover/trl/sft.parquet",
    "midcourse localize first_error.jsonl --baselines-only": "most common",
    "midcourse plan paper/int --with scale/paper-8gpu": "Plan of int",
    "midcourse plan my.toml --assume rollout_tokens=5000 --assume hard_share=0.042 --device h200":
        "Plan of my",
}  # fmt: skip

#: What is not run, by how it begins, and why.
NOT_RUN = {
    "make ": "sets up an environment, or runs for minutes to hours",
    "midcourse view runs/my --id": "opens a browser, at an id of a run",
    "midcourse run lab": "minutes of training; the lab's tests and the wheel's run the verb",
    "midcourse run my.toml": "trains; tests/test_wheel.py runs the verb",
    "midcourse run paper/int": "minutes of training",
    "midcourse reproduce": "many runs of minutes; tests/test_experiments.py makes small ones",
    "midcourse plan lab --from": "needs a finished run of the lab; tests/test_planning.py has one",
    "midcourse plan my.toml --from": "as above",
    "midcourse plan my.toml --device my-gpu.toml": "tests/test_planning.py writes a data sheet",
    "midcourse propose my.toml --set engine.kind=ray": "needs a Ray cluster and GPUs",
    "midcourse propose lab": "a minute of sampling, with prompts made by the line before it",
    "midcourse localize first_error.jsonl first_error_span.jsonl": "needs a model",
    "midcourse localize first_error.jsonl --model": "needs a model",
    "midcourse localize first_error.jsonl --recipe": "tests/test_localize.py asks a script",
    "midcourse localize olympiadbench.json": "needs a server and a data set",
    "midcourse lab pretrain": "minutes of training",
    "midcourse curate gsm8k --out": "downloads a data set",
    "midcourse curate polaris": "downloads a data set",
}
#: What must not be there before; all other commands find a run of `my.toml` in runs/my.
NEEDS_NO_RUN = {"midcourse propose my.toml --set sample.num_rollouts=128"}


@pytest.mark.parametrize("text", COMMANDS)
def test_a_documented_command_exists(text: str) -> None:
    check_command(text)


@pytest.mark.parametrize("text", SPANS)
def test_a_command_named_in_a_sentence_exists(text: str) -> None:
    check_span(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("midcourse sampel lab", "no verb 'sampel'"),
        ("midcourse train ppo lab", "no verb 'ppo'"),
        ("midcourse run", "Missing parameter: recipe"),
        ("midcourse run labb", "did you mean lab"),
        ("midcourse run lab --sets seed=1", "No such option: --sets"),
        ("midcourse run lab --set sample.num_rollout=1", "did you mean 'sample.num_rollouts'"),
        ("midcourse run paper/int --with scale/labb", "did you mean scale/lab"),
        ("midcourse reproduce table1 --scale labb", "did you mean lab"),
        ("midcourse recipes show labb", "did you mean lab"),
        ("make rune", "no make target"),
    ],
)
def test_a_command_that_does_not_exist_is_found(text: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        check_command(text)


@pytest.mark.parametrize("text", ["midcourse sampel RECIPE", "midcourse plan RECIPE --pass-rate …"])
def test_a_span_that_names_what_does_not_exist_is_found(text: str) -> None:
    with pytest.raises(ValueError, match="has no"):
        check_span(text)


def test_every_command_is_run_or_says_why_not() -> None:
    assert len(COMMANDS) > 20
    excused = {text for text in COMMANDS if text.startswith(tuple(NOT_RUN))}
    assert set(RUN) | excused == set(COMMANDS)
    assert not excused & set(RUN)
    stale = {start for start in NOT_RUN if not any(text.startswith(start) for text in COMMANDS)}
    assert not stale


def test_recipes_named_in_sentences_exist() -> None:
    name = re.compile(r"`((?:paper|scale|accelerate)/[\w/-]+)`")
    named = {found for page in PAGES for found in name.findall(page.read_text("utf-8"))}
    assert {"paper/int", "scale/lab", "accelerate/fsdp2"} <= named
    for found in named:
        find = find_accelerate if found.startswith("accelerate/") else find_recipe
        assert find(found).is_file()


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def test_every_promise_of_reliability_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = re.findall(r"\[([^]]+)\]\(\.\./(tests/[^)]+\.py)\)", page)
    assert len(named) > 100
    for sentence, file in named:
        text = (ROOT / file).read_text("utf-8")
        assert f"def test_{sentence.replace(' ', '_')}(" in text, (sentence, file)


def anchors(page: Path) -> set[str]:
    """Return a page's own anchors, and those that GitHub makes of its headings."""
    text = page.read_text("utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    of_headings = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}
    return of_headings | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader's could be: problems, a recipe on a script, and a run of it."""
    folder = tmp_path_factory.mktemp("reader")
    problems = [
        {"id": f"p{i}", "problem": f"What is 2 + 2, {i}?", "answer": "4", "reference_solution": "4"}
        for i in range(3)
    ]
    _write_lines(folder / "problems.jsonl", problems)
    for name, numbers in (("train", (1, 2)), ("test", (3,))):
        rows = [
            {
                "question": f"Ann has {i} nuts and finds 2. How many?",
                "answer": f"{i}+2\n#### {i + 2}",
            }
            for i in numbers
        ]
        _write_lines(folder / f"{name}.jsonl", rows)
    marked = {"problem": "What is 2 + 2?", "steps": ["Two.", "So 5."], "label": 1, "id": "a",
              "final_answer_correct": False, "generator": "g"}  # fmt: skip
    _write_lines(folder / "first_error.jsonl", [marked])
    (folder / "script.json").write_text(json.dumps(_SCRIPT))
    (folder / OWN_RECIPE).write_text(toml(_RECIPE))
    done = _shell(folder, f"midcourse build-sft {OWN_RECIPE}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("text", RUN)
def test_a_documented_command_does_what_its_page_says(
    text: str, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(finished, folder)
    if text in NEEDS_NO_RUN:
        shutil.rmtree(folder / "runs")
    done = _shell(folder, text)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert RUN[text] in done.stdout


@pytest.mark.parametrize("block", PYTHON)
def test_documented_python_runs(
    block: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "reader")
    monkeypatch.chdir(tmp_path / "reader")
    exec(compile(block, "a page", "exec", dont_inherit=True), {"__name__": "page"})


def test_python_is_documented() -> None:
    assert len(PYTHON) >= 9


_PROPOSAL = '<intervention>{"content": "So 2 + 2 makes four.", "location": 2}</intervention>'
_SCRIPT = [
    ["Compare and intervene", _PROPOSAL],
    [r"makes four\.\n\n$", FIXED],
    [".", "Two and two.\n\nSo 2 + 2 = 5.\n\nThe answer is \\boxed{5}.", "5. So \\boxed{5}."],
]
_RECIPE: dict[str, Any] = {
    "name": "my",
    "prompts": "lab",
    "problems": {"path": "problems.jsonl"},
    "model": {"path": "lab"},
    "engine": {"kind": "scripted", "script": "script.json"},
    "sample": {"num_rollouts": 4},
    "propose": {"turns": "single", "num_rollouts": 1, "num_proposals": 1},
    "verify": {"num_continuations": 2},
}


def _write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _shell(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run one command as a reader's shell would."""
    program = f'midcourse() {{ {sys.executable} -m midcourse "$@"; }}; {text}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        ["bash", "-c", program], cwd=folder, env=environment, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
