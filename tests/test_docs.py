"""Every command of README and docs parses; the cheap ones are run, with a script for a model.

What is not run says why: here for all pages, or next to its block, ``<!-- not run: why -->``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import walkthrough
from conftest import FIXED
from documented import (
    DOCS,
    OWN_RECIPE,
    PAGES,
    ROOT,
    TUTORIAL,
    Command,
    block_commands,
    blocks,
    check_command,
    check_span,
    inline_commands,
    is_ours,
    unknown_keys,
)
from midcourse import records
from midcourse.recipes import find_accelerate, find_recipe
from midcourse.training.rl.agreement import Agreement
from midcourse.training.rl.groups import group_metrics
from test_cli import toml

IN_BLOCKS = [command for page in PAGES for command in block_commands(page)]
OURS = [command for command in IN_BLOCKS if is_ours(command.text)]
COMMANDS = sorted({one.text for one in OURS})
SPANS = sorted({command.text for page in PAGES for command in inline_commands(page)})
MARKDOWN = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((DOCS / "results").glob("*.md"))]
TOML = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "toml"))
]
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
    "midcourse curate gsm8k:train.jsonl --out kept.jsonl --against gsm8k:test.jsonl":
        "kept.jsonl: 2 problems",
    "midcourse sample my.toml": "sample: complete in runs/my",
    "midcourse grade my.toml": "grade: complete in runs/my",
    "midcourse select my.toml": "select: complete in runs/my",
    "midcourse reference my.toml": "reference: complete in runs/my",
    "midcourse propose my.toml": "propose: complete in runs/my",
    "midcourse verify my.toml": "verify: complete in runs/my",
    "midcourse build-sft my.toml": "build-sft: complete in runs/my",
    "midcourse propose my.toml --set select.subset=3 --set propose.num_rollouts=1 "
    "--set propose.num_proposals=1 --run-dir runs/trial": "propose: complete in runs/trial",
    "midcourse plan my.toml": "Plan of my",
    "midcourse repair runs/my --check": "",
    "midcourse repair runs/my": "",
    "midcourse status runs/my": "build-sft",
    "midcourse show runs/my": "accepted",
    "midcourse view runs/my": "report/view.html",
    "midcourse export runs/my --format trl --out handover/trl": "handover/trl/sft.parquet",
    "midcourse export runs/my --format proposals --out handover/proposals":
        "handover/proposals/proposals.parquet",
    "midcourse localize first_error.jsonl --baselines-only": "most common",
    "midcourse keys": "| `seed` | `0` |",
    "midcourse keys train_rl": "| `train_rl.loss` |",
    "midcourse keys train_rl --json": '"name": "train_rl.loss"',
    "midcourse keys --schema > recipe.schema.json": "",
    "midcourse plan paper/int --with scale/paper-8gpu --json": '"recipe": "int"',
    "midcourse plan paper/int --with scale/paper-8gpu": "Plan of int",
    "midcourse plan my.toml --assume rollout_tokens=5000 --assume hard_share=0.042 --device h200":
        "Plan of my",
}  # fmt: skip

#: What is not run, by how it begins, and why.
NOT_RUN = {
    "make ": "sets up an environment, or runs for minutes to hours",
    "midcourse init": "needs a model and a server; tests/test_start.py runs what it writes",
    "midcourse doctor my.toml": "as above",
    "midcourse validate mine.csv": "tests/test_data_verbs.py runs it on such a file",
    "midcourse view runs/my --id": "opens a browser, at an id of a run",
    "midcourse run lab": "minutes of training; the lab's tests and the wheel's run the verb",
    "midcourse run my.toml": "trains; the tutorial's test runs the verb",
    "midcourse train": "trains; the tutorial's test trains both by `run`",
    "midcourse evaluate my.toml": "trains first; the tutorial's test evaluates by `run`",
    "midcourse likelihood my.toml": "trains first; the tutorial's test scores by `run`",
    "midcourse report my.toml": "needs a whole run; tests/test_report.py writes reports",
    "midcourse grade my.toml --audit": "tests/test_audit.py audits a run",
    "midcourse show runs/my --rl": "needs RL; tests/test_rl_records.py shows its groups",
    "midcourse show runs/trial": "needs the line before it",
    "midcourse repair runs/my --failed": "tests/faults repairs what a server failed",
    "midcourse run paper/int": "minutes of training",
    "midcourse compare": "needs two runs; tests/test_compare.py makes them",
    "midcourse evidence": "needs the repository; tests/test_studies.py runs it on data made up",
    "midcourse reproduce": "many runs of minutes; tests/test_experiments.py makes small ones",
    "midcourse plan lab --from": "needs a finished run of the lab; tests/test_planning.py has one",
    "midcourse plan my.toml --from": "as above",
    "midcourse plan my.toml --device my-gpu.toml": "tests/test_planning.py writes a data sheet",
    "midcourse push runs/my": "needs a trained model; tests/test_handover.py has one",
    "midcourse propose my.toml --set engine.kind=ray": "needs a Ray cluster and GPUs",
    "midcourse propose lab": "a minute of sampling, with prompts made by the line before it",
    "midcourse localize first_error.jsonl first_error_span.jsonl": "needs a model",
    "midcourse localize first_error.jsonl --recipe": "tests/test_localize.py asks a script",
    "midcourse localize olympiadbench.json": "needs a server and a data set",
    "midcourse credit": "minutes of sampling; tests/test_credit.py maps a small run and a script",
    "midcourse lab pretrain": "minutes of training",
    "midcourse curate polaris": "downloads a data set",
    "midcourse warmup": "minutes of training; the tests of the warm-up run it in miniature",
}
#: What must not be there before; all other commands find a run of `my.toml` in runs/my.
NEEDS_NO_RUN = {"midcourse propose my.toml"}


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
    elsewhere = [one for one in IN_BLOCKS if one.page != TUTORIAL.name]
    assert len(elsewhere) > 20
    unexplained = [one for one in elsewhere if one.text not in RUN and not _why_not(one)]
    assert not unexplained
    assert set(RUN) <= {one.text for one in elsewhere}
    stale = {start for start in NOT_RUN if not any(o.text.startswith(start) for o in elsewhere)}
    assert not stale


def _why_not(command: Command) -> str:
    """Return why a command is not run: what the page says, or what is said here."""
    reasons = [why for start, why in NOT_RUN.items() if command.text.startswith(start)]
    return command.why_not or "".join(reasons[:1])


@pytest.mark.parametrize("block", TOML)
def test_keys_of_a_documented_recipe_exist(block: str) -> None:
    assert unknown_keys(block) == set()


def test_a_key_that_does_not_exist_is_found() -> None:
    assert unknown_keys("[sample]\nnum_rollout = 1\n") == {"sample.num_rollout"}


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


#: The rows that the pages of the stages show (scripts/stage_rows.py), and their classes.
ROWS = {
    "problem": records.Problem,
    "rollout": records.Rollout,
    "grade": records.Grade,
    "status": records.ProblemStatus,
    "reference": records.Reference,
    "proposal": records.Proposal,
    "continuation": records.Rollout,
    "continuation_grade": records.Grade,
    "sft_row": records.SftRow,
    "rl_sample": records.RlSample,
    "likelihood": records.Likelihood,
}
STAGES = {page.stem: page.read_text("utf-8") for page in (DOCS / "stages").glob("*.md")}
_ROW = re.compile(r"<!-- row: (\w+) -->\n\n```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FORM = ["## A row", "## In the paper", "## What can go wrong"]


def test_rows_of_the_stages_have_the_fields_of_their_records() -> None:
    shown = {name: row for text in STAGES.values() for name, row in _ROW.findall(text)}
    assert set(ROWS) < set(shown)
    for name, record in ROWS.items():
        assert list(json.loads(shown[name])) == [field.name for field in fields(record)], name


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_stage_has_a_page_of_one_form(stage: str) -> None:
    headings = re.findall(r"^## .+$", STAGES[stage], re.MULTILINE)
    assert [heading for heading in headings if heading in _FORM] == _FORM
    assert f"midcourse {stage.replace('train-', 'train ')} my.toml" in STAGES[stage]
    assert "**What differs:**" in STAGES[stage]


@pytest.mark.parametrize(
    ("stage", "outcomes"),
    [
        ("sample", records.FinishReason),
        ("grade", records.Verdict),
        ("grade", records.UngradedCause),
        ("select", records.Solvability),
        ("reference", records.ReferenceOutcome),
        ("propose", records.ProposalOutcome),
        ("verify", records.TABLE_1),
        ("build-sft", records.RowOutcome),
    ],
)
def test_the_page_of_a_stage_explains_every_outcome(stage: str, outcomes: Any) -> None:
    assert {str(one) for one in outcomes} <= set(re.findall(r"`([a-z_]+)`", STAGES[stage]))


def test_the_page_of_rl_explains_every_number_that_is_logged() -> None:
    explained = set(re.findall(r"`([\w/]+)`", STAGES["train-rl"] + STAGES["train-sft"]))
    ours = {*group_metrics([], 0, "keep"), *Agreement(0.0, 0.0, 0.0).metrics()}
    trainer = (ROOT / "src/midcourse/training/rl/trainer.py").read_text("utf-8")
    online = (ROOT / "src/midcourse/training/rl/online.py").read_text("utf-8")
    ours |= set(re.findall(r'"((?:sampler|online)/\w+)"', trainer + online))
    logged = json.loads(dict(_ROW.findall(STAGES["train-rl"]))["rl_metrics"])
    logged |= json.loads(dict(_ROW.findall(STAGES["train-sft"]))["sft_metrics"])
    assert len(ours) > 15
    assert not (ours | set(logged)) - explained


def test_every_field_of_a_manifest_is_explained(finished: Path) -> None:
    pages = (DOCS / "stages.md").read_text("utf-8") + "".join(STAGES.values())
    explained = set(re.findall(r"`(\w+)(?:\.\w+)?`", pages))
    for file in (finished / "runs" / "my").rglob("manifest.json"):
        assert not set(json.loads(file.read_text("utf-8"))) - explained, file


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_for_nothing_from_outside(
    tmp_path: Path,
) -> None:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 50
    loads = re.compile(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="?((?:https?:)?//[^" >]+)')
    for page in pages:
        assert not loads.findall(page.read_text("utf-8")), page.name
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text("utf-8"))


@pytest.mark.parametrize(
    ("slow", "fast"),
    [
        ("finished 320 · 8,768    1 min 8 s   981 B\n    tok/s",
         "finished 320 · 12.0    8 s   1.1 kB\n    k tok/s"),
        ("320 done in 1 min 2 s · 9,742/s · correct 9", "320 done in 8 s · 12.0 k/s · correct 9"),
        ("(9,800), 8 s, 9,121 tokens in", "(1.20 M), 8 s, 16.1 k tokens in"),
    ],
)  # fmt: skip
def test_a_faster_machine_shows_the_same_words_of_the_tutorial(slow: str, fast: str) -> None:
    assert walkthrough.masked(slow) == walkthrough.masked(fast)


def test_other_words_than_the_tutorials_are_told() -> None:
    said = "sample  complete  finished 320 · 12.0 k/s"
    assert walkthrough.masked(said) != walkthrough.masked(said.replace("complete", "not begun"))
    assert walkthrough.masked(said) != walkthrough.masked(said.replace("k/s", "k tok/s"))


@pytest.mark.slow
@pytest.mark.timeout(900)  # 97 s of processor time
def test_the_tutorial_says_what_its_page_shows(tmp_path: Path) -> None:
    shown = [one.text for one in walkthrough.blocks() if one.mark.startswith("output")]
    said = walkthrough.run(tmp_path)
    assert len(shown) >= 5
    for page, shell in zip(shown, said, strict=True):
        assert walkthrough.masked(page) == walkthrough.masked(shell)


def test_every_promise_of_reliability_names_tests_that_exist() -> None:
    page = (DOCS / "reliability.md").read_text("utf-8")
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
