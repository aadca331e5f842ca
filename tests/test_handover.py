"""Model cards, and what `midcourse push` sends: to a hub of our own on this machine."""

from __future__ import annotations

import json
import re
import shutil
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import scripted_recipe, write_problems, write_script
from midcourse.cli import app
from midcourse.config import Recipe
from midcourse.engines import model_fingerprint
from midcourse.engines.bundled import base_folder
from midcourse.errors import ArtifactError, ConfigError, EngineError
from midcourse.export import export_run
from midcourse.export.cards import hub_name, write_cards
from midcourse.export.push import HuggingFaceHub, Upload, prepare, push
from midcourse.pipeline import Method, Session, open_run
from midcourse.run import WorkTimer
from midcourse.store.repair import check_run
from runs import run_to


def train_by_hand(session: Session, made: Method) -> None:
    """Complete the patched model as if a trainer had, and what evaluates it."""
    session.complete(made.models.rows)
    training = made.models.patched.trained
    assert training is not None
    folder = session.run.path(training) / "final"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(100))
    (folder.parent / "README.md").write_text("what TRL says of itself")
    session.run.announce([training])
    session.run.finish(training, WorkTimer.begin(), {"num_rows": 3.0, "num_steps": 4.0})


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    data = scripted_recipe(write_problems(folder), write_script(folder))
    run_to(folder / "run", Recipe.model_validate(data), train_by_hand)
    finished = open_run(folder / "run")
    assert len(write_cards(finished.run, finished.method)) == 1
    return folder / "run"


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A run directory with a patched model and its card."""
    return shutil.copytree(trained_once, tmp_path / "run")


def model_folder(run_dir: Path) -> Path:
    (folder,) = run_dir.glob("checkpoints/*/final")
    return folder


def test_a_card_says_what_a_model_was_made_of(trained: Path) -> None:
    card = (model_folder(trained) / "README.md").read_text()
    assert "3 interventions in its own failed attempts (verified), by SFT" in card
    assert "| learning_rate | 1e-06 |" in card
    assert "Not evaluated in this run." in card
    assert not (model_folder(trained).parent / "README.md").exists()


def test_a_card_tells_how_a_model_did(
    tmp_path: Path, recipe_data: dict[str, Any], held_out_file: Path
) -> None:
    recipe_data["problems"]["held_out_path"] = str(held_out_file)
    recipe_data["evaluate"] = {"num_rollouts": 4, "ks": [1], "models": ["base", "patched"]}

    def evaluate(session: Session, made: Method) -> None:
        train_by_hand(session, made)
        for drawn in made.evaluation.all.values():
            session.complete(drawn.rollouts, drawn.grades)

    run_to(tmp_path / "run", Recipe.model_validate(recipe_data), evaluate)
    finished = open_run(tmp_path / "run")
    (path,) = write_cards(finished.run, finished.method)
    row = "| `held_out` | 3 | 12 | 0.0% [0.0%, 24.2%] | 0.0% [0.0%, 24.2%] |"
    assert row in path.read_text()


def test_a_card_names_a_base_on_the_hub_and_no_folder(tmp_path: Path) -> None:
    assert hub_name("Qwen/Qwen3-4B-Instruct-2507") == "Qwen/Qwen3-4B-Instruct-2507"
    folders = ["lab", "/gone/model", "../models/x", "./models/x", "a/b/c", str(tmp_path)]
    hostile = ["a/b\nlicense: mit", "a/b: c", "a/b #"]
    assert {hub_name(path) for path in folders + hostile} == {None}


def test_a_card_damages_nothing_and_is_no_part_of_a_model(trained: Path) -> None:
    folder = model_folder(trained)
    card, before = folder / "README.md", model_fingerprint(str(model_folder(trained)))
    assert check_run(trained) == []
    card.write_text(card.read_text() + "More is known now.\n")
    assert check_run(trained) == []
    assert model_fingerprint(str(folder)) == before
    card.unlink()
    assert model_fingerprint(str(folder)) == before
    card.write_text("# A card that came with a model\n")
    assert model_fingerprint(str(folder)) != before


def test_a_manifest_that_is_written_again_lists_no_card(trained: Path) -> None:
    manifest = model_folder(trained).parent / "manifest.json"
    run_to(trained, open_run(trained).run.recipe, lambda session, made: _finish(session, made))
    listed = [file["file"] for file in json.loads(manifest.read_text())["files"]]
    assert listed == ["final/config.json", "final/model.safetensors"]


def _finish(session: Session, made: Method) -> None:
    assert made.models.patched.trained is not None
    session.run.finish(made.models.patched.trained, WorkTimer.begin(), {"num_rows": 3.0})


@pytest.mark.slow
def test_the_snippet_of_a_card_runs(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (model_folder(trained) / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(base_folder())
    exec(compile(snippet, "card", "exec"), {})
    assert capsys.readouterr().out.strip()


# --- push ----------------------------------------------------------------------------------------


@dataclass
class FakeHub:
    """Remembers what it was given."""

    private: bool | None = None
    pushed: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def is_private(self, upload: Upload) -> bool | None:
        self.asked.append("is_private")
        return self.private

    def create(self, upload: Upload) -> None:
        self.asked.append(f"create {upload.kind} {upload.repo}")
        self.private = upload.private

    def commit(self, upload: Upload) -> str:
        self.asked.append("commit")
        self.pushed = {name: (upload.folder / name).read_bytes() for name in upload.files}
        return f"https://hub/{upload.repo}"


def prepared(source: Path, **changes: Any) -> Upload:
    arguments = {"what": None, "role": "", "private": True, "scratch": source.parent / "scratch"}
    return prepare(source, repo="me/it", **{**arguments, **changes})


def test_a_model_is_pushed_with_its_card_and_nothing_else(trained: Path) -> None:
    hub = FakeHub()
    assert push(prepared(trained), hub) == "https://hub/me/it"
    assert set(hub.pushed) == {"README.md", "config.json", "model.safetensors"}
    assert hub.asked == ["is_private", "create model me/it", "commit"]
    assert hub.private is True
    assert prepared(model_folder(trained)).kind == "model"


def test_rows_and_exports_are_pushed_as_data_sets(trained: Path, tmp_path: Path) -> None:
    upload = prepared(trained, what="rows")
    assert (upload.kind, set(upload.files)) == (
        "dataset", {"README.md", "sft.parquet", "grpo.parquet", "reward.py"},
    )  # fmt: skip
    export_run(trained, "proposals", tmp_path / "out")
    upload = prepared(tmp_path / "out")
    assert upload.kind == "dataset"
    assert upload.files == ("README.md", "proposals.jsonl", "proposals.parquet")


def test_what_is_private_does_not_go_to_a_public_place(trained: Path) -> None:
    hub = FakeHub(private=False)
    with pytest.raises(ConfigError, match="me/it is there and public: give --public"):
        push(prepared(trained), hub)
    assert hub.pushed == {}
    push(prepared(trained, private=False), hub)
    assert hub.pushed


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", "my token is hf_" + 34 * "a"),
        ("notes.md", "x" * (2**20 - 10) + " sk-" + 40 * "b"),
        ("deep/key.json", "-----BEGIN RSA PRIVATE KEY-----"),
        ("origin.txt", "https://me:secret@example.org/x"),
        (".env", "A=1"),
        ("id_rsa", ""),
    ],
)
def test_a_folder_with_a_key_in_it_stays_here(trained: Path, name: str, content: str) -> None:
    path = model_folder(trained) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(ArtifactError, match="looks like it holds a key") as refused:
        prepared(trained)
    assert "aaaa" not in str(refused.value)


def test_words_that_look_a_little_like_keys_may_go(trained: Path) -> None:
    said = "task-completion-of-a-long-problem, hf_model, https://example.org:80/a@b"
    (model_folder(trained) / "notes.md").write_text(said)
    (model_folder(trained) / ".git").mkdir()
    (model_folder(trained) / ".git" / "config").write_text("")
    assert prepared(trained).files[2:] == ("model.safetensors", "notes.md")


def test_refusals_of_push_are_one_line(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'it' is not OWNER/NAME"):
        prepare(trained, None, "", "it", private=True, scratch=tmp_path / "scratch")
    with pytest.raises(ConfigError, match="no trained model 'x': there are patched"):
        prepared(trained, role="x")
    with pytest.raises(ArtifactError, match=r"patched \+ RL is not complete"):
        prepared(trained, role="patched + RL")
    with pytest.raises(ConfigError, match="takes the folder of an export"):
        prepared(trained, what="export")
    with pytest.raises(ArtifactError, match="there is no folder"):
        prepared(tmp_path / "nowhere")
    (model_folder(trained) / "link").symlink_to("/etc/hostname")
    with pytest.raises(ArtifactError, match="is a link"):
        prepared(trained)
    (model_folder(trained) / "README.md").unlink()
    with pytest.raises(ArtifactError, match="has no README"):
        prepared(trained)


def test_a_dry_run_lists_what_would_go(trained: Path) -> None:
    said = CliRunner().invoke(app, ["push", str(trained), "--to", "me/it", "--dry-run"]).output
    assert "model.safetensors  100 bytes" in said
    assert "would go to model me/it, private if new; nothing was sent" in said
    said = CliRunner().invoke(app, ["push", str(trained), "--to", "me/it", "--what", "x"]).output
    assert "Invalid value" in said


@dataclass
class HubServer:
    """Speaks as much of the hub's protocol as a push needs, and remembers the files."""

    url: str = ""
    tokens: set[str] = field(default_factory=set)
    created: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    refuses: bool = False

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        if self.refuses:
            return 403, {"error": "you may not write here"}
        if method == "GET":
            return (200, {"id": "me/it", "private": True}) if self.created else (404, {})
        if path.endswith("/repos/create"):
            self.created = json.loads(body)
            return 200, {"url": f"{self.url}/datasets/me/it"}
        if path.endswith("/validate-yaml"):
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [{"path": file["path"], **mode} for file in asked]}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = b64decode(line["value"]["content"])
        commit = {
            "commitUrl": f"{self.url}/datasets/me/it/commit/1",
            "commitOid": "1",
            "success": True,
        }
        return 200, commit


@contextmanager
def hub_server() -> Iterator[HubServer]:
    state = HubServer()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.tokens.add(self.headers.get("Authorization", ""))
            status, content = state.answer(self.command, self.path.partition("?")[0], body)
            said = json.dumps(content).encode()
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_HEAD = answer

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield state
        server.shutdown()


@pytest.mark.slow
def test_huggingface_hub_pushes_to_a_server_of_ours(trained: Path) -> None:
    from huggingface_hub import HfApi

    with hub_server() as server:
        api = HfApi(endpoint=server.url, token="hf_secret")
        upload = prepared(trained, what="rows")
        url = push(upload, HuggingFaceHub(api))
        assert url.endswith("/commit/1")
        created = (server.created["name"], server.created["organization"], server.created["type"])
        assert created == ("it", "me", "dataset")
        assert server.created.get("private") is True or server.created["visibility"] == "private"
        assert server.tokens == {"Bearer hf_secret"}
        expected = {name: (upload.folder / name).read_bytes() for name in upload.files}
        assert server.files == expected
        server.refuses = True
        with pytest.raises(EngineError, match="cannot put files into me/it") as refused:
            push(upload, HuggingFaceHub(api))
        assert "hf_secret" not in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(EngineError, match="cannot put files into me/it"):
        push(upload, HuggingFaceHub(api))  # nothing answers there any more
