"""From one's own files to a first run: what init writes, and what doctor finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fake_server import FakeServer, Listener
from midcourse.cli import app
from midcourse.config import Recipe, load_recipe
from midcourse.data.columns import as_options, as_toml
from midcourse.errors import ConfigError, DataError
from midcourse.records import Problem
from midcourse.sandbox import Outcome, Report, Sandbox
from midcourse.start.checks import Check, Level
from midcourse.start.doctor import examine, recipe_checks
from midcourse.start.init import FirstRun, Sizes, recipe_text
from midcourse.start.init import Proposer as Server
from midcourse.start.problems import Survey

ROWS = 20
INTERVENTION = '<intervention>{"content": "Let me count again.", "location": 1}</intervention>'


class Proposer(FakeServer):
    """Speaks messages: an intervention whatever it is asked."""

    model = "big"
    heard: list[dict[str, Any]] = []  # noqa: RUF012 - of this server alone

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        self.heard.append(body)
        said = f"{len(self.heard)}. {INTERVENTION}"
        return {"index": 0, "message": {"content": said}, "finish_reason": "stop"}

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body.get("stream"):
            self._reply(400, b"stream is not supported")
        else:
            self._reply(200, json.dumps({"choices": [self._choice(body)]}).encode())


@pytest.fixture
def server() -> Iterator[str]:
    Proposer.heard = []
    listener = Listener(("127.0.0.1", 0), Proposer)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_port}/v1"
    listener.shutdown()
    listener.server_close()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """20 problems of one's own, under other names than ours."""
    file = tmp_path / "mine.csv"
    rows = [
        f'u{n},"Which digit is number {n} of my list?",{n % 10},"I look it up: it is {n % 10}."'
        for n in range(ROWS)
    ]
    file.write_text("uid,question,final,worked\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    rows = [
        {"id": f"h{n}", "problem": f"Which digit is {n} of another list?", "answer": str(n),
         "reference_solution": "I look it up."}
        for n in range(4)
    ]  # fmt: skip
    file = tmp_path / "held_out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def guesser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import make_guesser

    folder = tmp_path_factory.mktemp("guesser")
    make_guesser(folder)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def levels(checks: list[Check]) -> dict[str, set[Level]]:
    found: dict[str, set[Level]] = {}
    for check in checks:
        found.setdefault(check.name, set()).add(check.level)
    return found


@pytest.mark.slow
def test_the_recipe_of_init_runs_as_it_is_from_own_problems_to_a_report(
    tmp_path: Path, guesser: Path, mine: Path, held_out: Path, server: str
) -> None:
    recipe = tmp_path / "my.toml"
    written = run(
        "init", recipe, "--model", guesser, "--problems", mine, "--held-out", held_out,
        "--proposer", server, "--proposer-model", "big",
    )  # fmt: skip
    assert written.exit_code == 0, written.output
    assert f"Next: midcourse doctor {recipe}, then midcourse run {recipe}" in written.output
    assert len(recipe.read_text().splitlines()) <= 40
    assert load_recipe(recipe).problems.columns == {
        "problem": "question", "answer": "final", "id": "uid", "reference_solution": "worked",
    }  # fmt: skip
    found = list(examine(str(recipe), run_dir=tmp_path / "run"))
    assert not [check for check in found if check.level is Level.PROBLEM]
    done = subprocess.run(
        [sys.executable, "-m", "midcourse", "run", recipe, "--run-dir", tmp_path / "run"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "report" / "report.html").is_file()


@pytest.mark.slow
def test_init_says_what_it_found_and_overwrites_nothing(
    tmp_path: Path, guesser: Path, mine: Path
) -> None:
    recipe = tmp_path / "my.toml"
    asked = ("init", recipe, "--model", guesser, "--problems", mine)
    first = run(*asked)
    assert "  question  = problem " in first.output
    assert "  20 problems, all with a reference solution" in first.output
    assert first.output.count("held out: what training gained is measured on training") == 1
    again = run(*asked)
    assert isinstance(again.exception, ConfigError)
    assert "--force" in str(again.exception)


def test_the_documented_recipe_is_what_init_writes() -> None:
    problem = Problem(
        problem_id="u0", text="?", answer="0", reference_solution="0", source="mine", split="train"
    )
    columns = {"problem": "question", "answer": "final"}
    train = Survey("mine.csv", (), columns, (problem,) * ROWS, ())
    held_out = Survey("held_out.jsonl", (), {}, (problem,), ())
    sizes = Sizes.of(has_gpu=False, context=8192, prompt=300, parameters=135_000_000)
    proposer = Server("http://127.0.0.1:8000/v1", "big")
    words = "135.0 million parameters, 8,192 tokens of context"
    plan = FirstRun("my", "./my-model", words, "transformers", train, held_out, proposer, sizes)
    page = Path(__file__).parent.parent / "docs" / "recipes.md"
    assert f"```toml\n{recipe_text(plan)}```" in page.read_text()


def test_init_asks_nothing_without_a_terminal(tmp_path: Path, mine: Path) -> None:
    asked = run("init", tmp_path / "my.toml", "--problems", mine)
    assert str(asked.exception) == "midcourse init: give --model: there is no terminal to ask on"
    assert not (tmp_path / "my.toml").exists()


def test_init_names_the_command_that_takes_bad_rows_out(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("question,final\nWhat is 1 + 1 in all?,2\nWhat is 2 + 2 in all?,see figure\n")
    refused = run("init", tmp_path / "my.toml", "--model", "lab", "--problems", file)
    assert isinstance(refused.exception, DataError)
    said = str(refused.exception)
    assert "1 row of 2 cannot be used" in said
    assert "curate" in said
    assert "--column problem=question --column answer=final" in said


def test_doctor_looks_at_a_machine_without_a_recipe() -> None:
    found = list(examine(None))
    assert {"python", "packages", "cpu", "disk"} <= {check.name for check in found}
    assert "TRL takes" in next(check.fact for check in found if check.name == "vllm")


def test_a_gpu_is_told_with_its_memory_and_makes_the_first_run_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "NVIDIA H100 80GB HBM3, 81559, 81079"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts = [check.fact for check in examine(None) if check.name == "gpu"]
    assert facts == ["NVIDIA H100 80GB HBM3, 80 GiB, 79 free"]
    small = Sizes.of(has_gpu=False, context=4096, prompt=300, parameters=10**6)
    large = Sizes.of(has_gpu=True, context=4096, prompt=300, parameters=4 * 10**9)
    assert (small.max_tokens, small.lora_rank, small.limit) == (512, 0, 20)
    assert 512 < large.max_tokens < 4096 - 300
    assert (large.lora_rank, large.limit) == (32, 200)


def test_a_column_s_name_is_quoted_where_it_has_to_be() -> None:
    columns = {"problem": "Problem ID", "answer": 'say "4"'}
    assert as_options(columns) == "--column 'problem=Problem ID' --column 'answer=say \"4\"'"
    assert tomllib.loads(f"columns = {as_toml(columns)}")["columns"] == columns
    assert as_toml({}) == "{}"


def test_doctor_says_what_is_wrong_with_a_recipe(
    tmp_path: Path, recipe_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_cli import toml

    monkeypatch.delenv("MY_KEY", raising=False)
    recipe_data["problems"]["held_out_path"] = recipe_data["problems"]["path"]
    recipe_data["proposer_engine"] = {
        "kind": "openai", "urls": ["http://me:secret@127.0.0.1:9/v1"], "served_model": "big",
        "chat": True, "api_key_env": "MY_KEY",
    }  # fmt: skip
    file = tmp_path / "bad.toml"
    file.write_text(toml(recipe_data))
    said = run("doctor", file, "--json", "--run-dir", tmp_path / "run")
    assert said.exit_code == 1
    found = {check["name"]: check for check in json.loads(said.output)}
    assert "3 of 3 held_out problems are training problems too" in found["overlap"]["fact"]
    assert found["proposer server"]["level"] == "problem"
    assert "MY_KEY is not set" in found["proposer server"]["fact"]
    assert "secret" not in said.output
    assert found["grader"]["level"] == "ok"
    assert not (tmp_path / "run").exists()
    file.write_text("name = 1\n[sampel]\n")
    assert levels(list(examine(str(file))))["recipe"] == {Level.PROBLEM}


def test_doctor_says_where_programs_would_run(
    tmp_path: Path, recipe_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = {"tests": [{"code": "assert f() == 1"}]}
    row = {"id": "p", "problem": "Write `f`.", "checker": "unit-tests", "entry": tests}
    Path(recipe_data["problems"]["path"]).write_text(json.dumps(row))
    monkeypatch.setattr(Sandbox, "run", lambda *_: Report(Outcome.REFUSED, "not permitted"))
    checks = recipe_checks(Recipe.model_validate(recipe_data), tmp_path / "run")
    (found,) = (check for check in checks if check.name == "sandbox")
    assert found.level is Level.PROBLEM
    assert "cannot be had here (not permitted)" in found.fact


def test_doctor_and_its_recipe_checks_work_without_the_training_libraries(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    from test_cli import toml

    file = tmp_path / "r.toml"
    file.write_text(toml(recipe_data))
    absent = ("torch", "transformers", "trl", "huggingface_hub", "datasets", "packaging")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}));"
        "from midcourse.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor", file], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "steps can be made" in done.stdout


@pytest.mark.slow
def test_doctor_reads_template_and_lengths_of_a_model(
    tmp_path: Path, guesser: Path, held_out: Path
) -> None:
    file = tmp_path / "r.toml"
    file.write_text(
        f'name = "r"\nmodel.path = "{guesser}"\nproblems.path = "{held_out}"\n'
        "sample.sampling.max_tokens = 8192\n"
    )
    found = list(examine(str(file), run_dir=tmp_path / "run"))
    facts = "\n".join(check.fact for check in found)
    assert "8,192 tokens of context" in facts
    assert "a second turn is possible" in facts
    [lengths] = [check for check in found if check.name == "lengths"]
    assert lengths.level is Level.WARNING
    assert lengths.fix.startswith("set sample.sampling.max_tokens = ")
