"""What a run is made of may not change under it, and nothing from outside gets out of its place."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from rich.console import Console

import midcourse
from conftest import PROPOSAL
from midcourse.config import OpenAIConfig, Recipe, without_credentials
from midcourse.engines.openai_engine import OpenAIEngine
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.engines.served import differences
from midcourse.errors import ArtifactError, EngineError
from midcourse.export import FORMATS, export_run
from midcourse.pipeline import Method, Session, open_run
from midcourse.plan.measure import Clock as MeasuredTime
from midcourse.plan.measure import measure
from midcourse.rendering import Renderer
from midcourse.report.show import find, panels, read_view
from midcourse.store.stage import read_manifest
from runs import ready, run_to
from test_cli import toml

PACKAGE = Path(midcourse.__file__).parent
CLOCKS: tuple[MeasuredTime, ...] = ("wall", "cpu")

Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]

CHANGES: list[tuple[str, Change, str]] = [
    ("answer", lambda rows: [{**rows[0], "answer": "5"}, *rows[1:]], "p0 has another answer"),
    ("text", lambda rows: [*rows[:2], {**rows[2], "problem": "2?"}], "p2 has another text"),
    (
        "both",
        lambda rows: [{**rows[0], "problem": "2?", "reference_solution": "x"}, *rows[1:]],
        "p0 has another text and reference_solution",
    ),
    ("gone", lambda rows: rows[1:], "p0 is gone"),
    ("new", lambda rows: [*rows, {**rows[0], "id": "p9", "problem": "9?"}], "p9 is new"),
    ("order", lambda rows: [rows[1], rows[0], rows[2]], "they stand in another order"),
    ("many", lambda rows: [{**row, "id": row["id"] + "\x1b"} for row in rows], "and 3 more"),
]


def rewrite(path: Path, change: Change) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))


@pytest.mark.parametrize(("change", "said"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_problems_that_changed_under_a_run_are_refused_by_name(
    tmp_path: Path, recipe: Recipe, problem_file: Path, change: Change, said: str
) -> None:
    run_to(tmp_path / "run", recipe, ready)
    before = problem_file.read_text()
    folders = sorted(path.name for path in (tmp_path / "run").glob("*/*"))
    rewrite(problem_file, change)
    uses = (lambda run: run_to(run, recipe, ready)), open_run
    for use in uses:
        with pytest.raises(ArtifactError, match=said) as caught:
            use(tmp_path / "run")
        assert "--run-dir" in str(caught.value)
        assert str(caught.value).isprintable()
    assert sorted(path.name for path in (tmp_path / "run").glob("*/*")) == folders
    problem_file.write_text(before)
    assert run_to(tmp_path / "run", recipe, ready)


def test_problems_that_changed_under_a_half_done_run_are_refused(
    tmp_path: Path, recipe: Recipe, problem_file: Path
) -> None:
    run_to(tmp_path / "run", recipe, lambda session, made: session.complete(made.train.rollouts))
    rewrite(problem_file, CHANGES[0][1])
    with pytest.raises(ArtifactError, match="p0 has another answer"):
        run_to(tmp_path / "run", recipe, ready)


def test_held_out_problems_may_not_change_either(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path
) -> None:
    held_out = tmp_path / "held_out.jsonl"
    text = problem_file.read_text().replace("What is", "How much is").replace(': "p', ': "h')
    held_out.write_text(text)
    recipe_data["problems"]["held_out_path"] = str(held_out)
    recipe = Recipe.model_validate(recipe_data)
    run_to(tmp_path / "run", recipe, ready)
    rewrite(held_out, CHANGES[0][1])
    with pytest.raises(ArtifactError, match=r"held_out\.parquet holds other held_out problems"):
        run_to(tmp_path / "run", recipe, ready)


def test_a_file_written_in_another_way_holds_the_same_problems(
    tmp_path: Path, recipe: Recipe, problem_file: Path
) -> None:
    rows = run_to(tmp_path / "run", recipe, ready)
    texts = [json.loads(line) for line in problem_file.read_text().splitlines()]
    turned = [dict(reversed(row.items())) for row in texts]
    problem_file.write_text("\n\n".join(json.dumps(row, indent=None) for row in turned) + "\n")
    assert run_to(tmp_path / "run", recipe, ready) == rows


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 5_000], ids=["empty", "cut", "other"])
def test_kept_problems_that_are_damaged_are_one_line(
    tmp_path: Path, recipe: Recipe, damage: bytes
) -> None:
    rows = run_to(tmp_path / "run", recipe, ready)
    kept = tmp_path / "run" / "problems" / "train.parquet"
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    with pytest.raises(ArtifactError, match=r"train\.parquet cannot be read: delete it if"):
        run_to(tmp_path / "run", recipe, ready)
    kept.unlink()
    assert run_to(tmp_path / "run", recipe, ready) == rows
    assert not kept.exists()
    run_to(tmp_path / "run", recipe, lambda s, m: s.complete(m.interventions.reestimated.grades))
    assert kept.read_bytes() == whole


def test_a_shared_directory_keeps_the_problems_of_each_recipe(
    tmp_path: Path, recipe: Recipe, problem_file: Path
) -> None:
    other = recipe.model_copy(update={"name": "other"})
    run_to(tmp_path / "run", recipe, ready, shared=True)
    rewrite(problem_file, CHANGES[0][1])
    run_to(tmp_path / "run", other, ready, shared=True)
    with pytest.raises(ArtifactError, match="p0 has another answer"):
        run_to(tmp_path / "run", recipe, ready, shared=True)


# --- what answers ------------------------------------------------------------------------------


class Serving(BaseHTTPRequestHandler):
    """Serves chat and completions under one name, whatever is behind it."""

    says: ClassVar[dict[str, object]]
    greedy: ClassVar[list[int]]
    num_left: ClassVar[int]
    num_until_other: ClassVar[int]

    def do_GET(self) -> None:
        self._reply(200, {"data": [{"id": "other"}, {"id": "m", "created": 1, **self.says}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("chat/completions"):
            type(self).num_left -= 1
            type(self).num_until_other -= 1
            if self.num_until_other == 0:
                type(self).says = {"root": "/models/b"}
            message = {"message": {"content": PROPOSAL}, "finish_reason": "stop"}
            self._reply(200 if self.num_left >= 0 else 400, {"choices": [message]})
        elif self.path.endswith("/completions"):
            self._reply(200, {"choices": [{"text": "", "token_ids": self.greedy}]})
        else:
            self._reply(404, {})

    def _reply(self, status: int, content: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def url() -> Iterator[str]:
    Serving.says, Serving.greedy = {"root": "/models/a"}, [1, 2]
    Serving.num_left, Serving.num_until_other = 1_000, -1
    with ThreadingHTTPServer(("127.0.0.1", 0), Serving) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


def propose(session: Session, made: Method) -> Path:
    session.complete(made.proposals)
    return session.run.path(made.proposals)


def test_another_model_under_the_same_name_is_not_mixed_into_a_stage(
    tmp_path: Path, recipe_data: dict[str, Any], url: str
) -> None:
    engine = {"kind": "openai", "chat": True, "urls": [url], "served_model": "m"}
    recipe, run = Recipe.model_validate({**recipe_data, "proposer_engine": engine}), tmp_path / "r"
    Serving.num_left = 5
    with pytest.raises(EngineError):
        run_to(run, recipe, propose)
    Serving.num_left, Serving.says = 1_000, {"root": "/models/b"}
    with pytest.raises(EngineError, match=r"root: '/models/a' → '/models/b'.*delete") as caught:
        run_to(run, recipe, propose)
    assert "\n" not in str(caught.value)
    Serving.says = {"root": "/models/a", "created": 2, "owned_by": "us"}
    folder = run_to(run, recipe, propose)
    assert read_manifest(folder)["num_resumed"] > 0
    noted = json.loads((folder / "served.json").read_text())
    assert noted == {"m": [{"id": "m", "root": "/models/a"}]}
    Serving.says = {"root": "/models/b"}
    assert run_to(run, recipe, propose) == folder  # what is complete is not asked for


def test_another_model_that_comes_while_a_stage_is_made_is_noticed_before_it_is_sealed(
    tmp_path: Path, recipe_data: dict[str, Any], url: str
) -> None:
    engine = {"kind": "openai", "chat": True, "urls": [url], "served_model": "m"}
    recipe, run = Recipe.model_validate({**recipe_data, "proposer_engine": engine}), tmp_path / "r"
    Serving.num_until_other = 5
    with pytest.raises(EngineError, match=r"root: '/models/a' → '/models/b'.*may be of both"):
        run_to(run, recipe, propose)
    assert not list(run.glob("propose/*/manifest.json"))
    (note,) = run.glob("propose/*/served.json")
    note.unlink()  # it is said to be the same
    assert read_manifest(run_to(run, recipe, propose))["num_resumed"] > 0


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"m": 3}', b"\xff"])
def test_a_note_of_servers_that_is_damaged_is_one_line(
    tmp_path: Path, recipe_data: dict[str, Any], url: str, damage: bytes
) -> None:
    engine = {"kind": "openai", "chat": True, "urls": [url], "served_model": "m"}
    recipe, run = Recipe.model_validate({**recipe_data, "proposer_engine": engine}), tmp_path / "r"
    Serving.num_left = 5
    with pytest.raises(EngineError):
        run_to(run, recipe, propose)
    (note,) = run.glob("*/*/served.json")
    note.write_bytes(damage)
    with pytest.raises(ArtifactError, match=r"served\.json cannot be read: delete it if"):
        run_to(run, recipe, propose)


def test_weights_in_the_same_place_are_told_apart_by_greedy_tokens(url: str) -> None:
    config = OpenAIConfig(urls=(url, "http://127.0.0.1:9/v1"), served_model="m")
    engine = OpenAIEngine(config, Renderer(ByteTokenizer()))
    before = engine.served()
    assert before == [{"id": "m", "root": "/models/a", "greedy": [1, 2]}]
    Serving.greedy = [1, 3]
    assert list(differences(before, engine.served())) == ["greedy: [1, 2] → [1, 3]"]


A, B = {"id": "m", "root": "a"}, {"id": "m", "root": "b"}


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ([A], [A], []),
        ([A], [B], ["root: 'a' → 'b'"]),
        ([], [A], []),
        ([A], [], []),
        ([A], [{"id": "m"}], []),
        ([{"id": "m"}], [A], []),
        ([A, B], [B], []),  # one of two servers is gone
        ([A], [A, B], ["root: 'a' → 'b'"]),
        ([{**A, "max_model_len": 9}], [{**A, "max_model_len": 8}], ["max_model_len: 9 → 8"]),
    ],
)
def test_servers_are_compared_by_what_both_say(
    before: list[dict[str, object]], now: list[dict[str, object]], found: list[str]
) -> None:
    assert list(differences(before, now)) == found


def test_another_script_is_never_mixed_into_a_stage(
    tmp_path: Path, recipe: Recipe, script_file: Path
) -> None:
    def sample(session: Session, made: Method) -> Path:
        session.complete(made.train.rollouts)
        return session.run.path(made.train.rollouts)

    first = run_to(tmp_path / "run", recipe, sample)
    script_file.write_text(json.dumps([[".", "The answer is \\boxed{7}.", "It is \\boxed{7}."]]))
    second = run_to(tmp_path / "run", recipe, sample)
    assert second != first
    assert read_manifest(second)["num_resumed"] == 0


# --- clocks ------------------------------------------------------------------------------------


@dataclass
class JumpingClock:
    """Stands in for `datetime` where times are taken: each reading is `step` after the last."""

    now_is: datetime
    step: timedelta

    def now(self, zone: object) -> datetime:
        self.now_is += self.step
        return self.now_is


@pytest.mark.parametrize(
    "step",
    [timedelta(0), timedelta(days=-700), timedelta(days=700), timedelta(seconds=-1)],
    ids=["stands still", "years back", "years on", "a second back"],
)
def test_a_run_under_a_clock_that_jumps_is_made_and_measured(
    tmp_path: Path, recipe: Recipe, step: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "midcourse.run.datetime", JumpingClock(datetime(2026, 1, 1, tzinfo=UTC), step)
    )
    assert run_to(tmp_path / "run", recipe, ready)
    for time in CLOCKS:
        found = measure(tmp_path / "run", time)
        assert all(isfinite(value) and value >= 0 for value in found.values.values())
        assert isfinite(found.seconds)
        assert found.seconds >= 0


# --- nothing from outside is run, nothing leaves the run directory -----------------------------


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_of_ours_runs_code_of_a_file(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {ast.unparse(call.func) for call in calls}
    assert not names & {"eval", "exec", "compile", "yaml.load", "os.system"}
    if "sandbox/inside" not in path.as_posix():  # which is there to run programs, apart
        assert not [name for name in names if name.startswith("builtins.")]
    for call in calls:
        if ast.unparse(call.func) == "torch.load":  # of weights only, it runs nothing
            assert "weights_only=True" in map(ast.unparse, call.keywords)
    assert not [n for n in names if n.split(".")[0] in {"pickle", "marshal", "shelve", "joblib"}]
    given = [keyword for call in calls for keyword in call.keywords]
    assert not [
        k for k in given if k.arg == "trust_remote_code" and ast.unparse(k.value) != "False"
    ]
    assert not [k for k in given if k.arg == "shell" and ast.unparse(k.value) != "False"]


IDS = [
    "../../escaped", "/escaped", "..", ".", "a/../../../escaped", "~/escaped", "C:\\escaped",
    "nul\x00nul", "new\nline", "$(touch escaped)", "`touch escaped`", "; touch escaped", "%2e%2e/x",
    "\u202e\x1b[2J", "con", " ", "-rf", "x" * 5_000,
]  # fmt: skip


@pytest.fixture
def hostile_run(tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path) -> Path:
    """The run of problems whose ids want to be paths, its rows built, alone in a folder."""
    (like,) = [json.loads(line) for line in problem_file.read_text().splitlines()][:1]
    rows = [{**like, "id": name, "problem": f"2 + 2, {i}?"} for i, name in enumerate(IDS)]
    problem_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_to(tmp_path / "in" / "run", Recipe.model_validate(recipe_data), ready)
    return tmp_path / "in" / "run"


def outside(tmp_path: Path) -> list[str]:
    return sorted(str(path) for path in tmp_path.rglob("*") if tmp_path / "in" not in path.parents)


def test_ids_that_want_to_be_paths_stay_ids(
    tmp_path: Path, hostile_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile_run.parent)
    before = outside(tmp_path)
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"run"}
    names = {p.problem_id for p in open_run(hostile_run).method.setup.problems.train}
    assert names == set(IDS)
    for name in FORMATS:
        out = tmp_path / "in" / f"out-{name}"
        assert export_run(hostile_run, name, out)
    for name in IDS:
        console = Console(file=io.StringIO())
        view = read_view(hostile_run, with_rollouts=True)
        console.print(panels(view, find(view, name)))
    assert outside(tmp_path) == before
    assert {path.name for path in (tmp_path / "in").iterdir()} == {
        "run", *(f"out-{name}" for name in FORMATS)
    }  # fmt: skip


@pytest.mark.parametrize("name", ["../x", "a/b", "/abs", "x\n", "", ".", "..", "a\x00b", "a" * 300])
def test_a_recipe_s_name_is_no_path(recipe_data: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Recipe.model_validate({**recipe_data, "name": name})


# --- secrets -----------------------------------------------------------------------------------

PASSWORD, KEY = "pass-f00dcafe", "sk-canary-0123456789"
ENVIRONMENT = {
    "CANARY_KEY": KEY, "OPENAI_API_KEY": f"{KEY}-openai", "HF_TOKEN": f"{KEY}-hf",
    "AWS_SECRET_ACCESS_KEY": f"{KEY}-aws", "WANDB_API_KEY": f"{KEY}-wandb",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pass@host:8/v1", "http://host:8/v1"),
        ("at https://token@host, http://a:b@c/d@e", "at https://host, http://c/d@e"),
        ("http://u:p@ss@host/v1", "http://host/v1"),
        ("http://host/v1?mail=a@b", "http://host/v1?mail=a@b"),
        ("a@b ://", "a@b ://"),
    ],
)
def test_users_and_passwords_of_urls_are_not_shown(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def contents(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield every file as text; what is compressed is read."""
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            yield path, str(pq.read_table(path).to_pydict()) + str(pq.read_schema(path).metadata)
        elif path.is_file():
            yield path, path.read_text("utf-8", "replace")


@pytest.mark.slow
def test_no_secret_is_in_what_a_run_writes_or_prints(
    tmp_path: Path, recipe_data: dict[str, Any], problem_file: Path, url: str
) -> None:
    held_out = tmp_path / "held_out.jsonl"
    text = problem_file.read_text().replace("What is", "How much is").replace(': "p', ': "h')
    held_out.write_text(text)
    recipe_data["problems"]["held_out_path"] = str(held_out)
    recipe_data["evaluate"] = {"models": ["base"], "num_rollouts": 2, "ks": [1]}
    recipe, run = tmp_path / "r.toml", tmp_path / "run"
    recipe.write_text(toml(recipe_data))
    secret_url = url.replace("http://", f"http://user:{PASSWORD}@")
    engine = {"kind": "openai", "chat": True, "served_model": "m", "api_key_env": "CANARY_KEY"}
    settings = [f"proposer_engine.{name}={json.dumps(value)}" for name, value in engine.items()]

    def midcourse(*arguments: str, **changes: object) -> str:
        given = [*settings, *(f"{name}={json.dumps(value)}" for name, value in changes.items())]
        sets = [part for one in given for part in ("--set", one)] if changes else []
        done = subprocess.run(
            [sys.executable, "-m", "midcourse", *arguments, *sets], capture_output=True, text=True,
            check=False, env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(PACKAGE.parent)},
        )  # fmt: skip
        return done.stdout + done.stderr

    urls = "proposer_engine.urls"
    whole = str(recipe), "--run-dir", str(run)
    said = [
        midcourse("run", *whole, **{urls: [secret_url]}),
        midcourse("run", *whole, **{urls: [secret_url]}),
        midcourse("report", *whole, **{urls: [secret_url]}),
        midcourse("run", *whole, **{urls: [secret_url], "seed": 7}),
        midcourse("run", *whole, **{urls: f"{secret_url} is not a list"}),
        midcourse("status", str(run)),
        midcourse("show", str(run)),
        midcourse("export", str(run), "--format", "jsonl", "--out", str(tmp_path / "out")),
    ]
    Serving.says = {"id": "another"}
    dead = secret_url.rpartition(":")[0] + ":9/v1"
    for place in (secret_url, dead, f"{secret_url}/nowhere"):
        other = str(recipe), "--run-dir", str(tmp_path / "other")
        said.append(midcourse("propose", *other, **{urls: [place]}))
    assert "The report is" in said[0], said[0]
    assert "nothing to do" in said[1]
    assert "seed: 0 → 7" in said[3]
    assert all(text for text in said)
    written = dict(contents(tmp_path))
    assert {"report.html", "config.resolved.json"} <= {path.name for path in written}
    for text in [*written.values(), *said]:
        assert PASSWORD not in text
        assert KEY not in text
