"""Pushes a trained model or an export to a hub: only when asked, private unless told otherwise.

Exactly the files that are listed go, after they were looked through; nothing else of a run
directory does. The token is the hub library's own: of ``HF_TOKEN``, or of a login.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from midcourse.engines import require_undamaged
from midcourse.errors import ArtifactError, ConfigError, EngineError, MissingExtra
from midcourse.export import export_run
from midcourse.pipeline import FinishedRun, Model, open_run

What = Literal["model", "rows", "export"]
_CARD = "README.md"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: Names of files that hold keys, whatever is in them.
_SECRET_NAME = re.compile(
    r"\.env(\..*)?|.*\.(pem|key|p12|pfx)|id_(rsa|ed25519|ecdsa)|\.netrc|\.npmrc|\.pypirc"
    r"|credentials(\.json)?|stored_tokens|token(\.txt)?"
)
#: What keys look like: of the hub, of model APIs, of clouds, of code hosts; private keys, and
#: passwords in URLs.
_SECRET = re.compile(
    rb"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}"
    rb"|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,}|xox[bap]-[A-Za-z0-9-]{20,}"
    rb"|AIza[A-Za-z0-9_-]{35})|-----BEGIN [A-Z ]*PRIVATE KEY-----|://[\w.-]+:[^\s/@\"]+@"
)
_NOT_TEXT = {".safetensors", ".parquet", ".arrow", ".eval"}
#: Folders that tools leave behind.
_TOOLS = {".git", ".cache", "__pycache__"}
_BLOCK = 1 << 20
#: As long as anything that has to be recognised across two blocks.
_OVERLAP = 256


@dataclass(frozen=True, slots=True)
class Upload:
    """What goes where, e.g. 6 files of ``checkpoints/…/final`` to a private model repository."""

    folder: Path
    files: tuple[str, ...]
    """Relative to the folder, and to the repository."""
    repo: str
    """``OWNER/NAME``."""
    kind: Literal["model", "dataset"]
    private: bool

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each file with its bytes."""
        return ((name, (self.folder / name).stat().st_size) for name in self.files)


class Hub(Protocol):
    """What is asked of a hub."""

    def is_private(self, upload: Upload) -> bool | None:
        """Return whether the repository is private; None if there is none yet."""

    def create(self, upload: Upload) -> None:
        """Make the repository."""

    def commit(self, upload: Upload) -> str:
        """Put the files into it; return where they are to be seen."""


@dataclass(frozen=True, slots=True)
class HuggingFaceHub:
    """The Hugging Face hub, or what speaks its protocol at ``HF_ENDPOINT``."""

    api: Any
    """A `huggingface_hub.HfApi`."""

    def is_private(self, upload: Upload) -> bool | None:
        """Return whether the repository is private; None if there is none that we may see."""
        with _in_one_line(upload):
            if not self.api.repo_exists(upload.repo, repo_type=upload.kind):
                return None
            return bool(self.api.repo_info(upload.repo, repo_type=upload.kind).private)

    def create(self, upload: Upload) -> None:
        """Make the repository."""
        with _in_one_line(upload):
            self.api.create_repo(upload.repo, repo_type=upload.kind, private=upload.private)

    def commit(self, upload: Upload) -> str:
        """Put the files into it as one commit."""
        from huggingface_hub import CommitOperationAdd

        files = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(upload.folder / name))
            for name in upload.files
        ]
        said = "Add files made by midcourse"
        with _in_one_line(upload):
            made = self.api.create_commit(
                upload.repo, files, commit_message=said, repo_type=upload.kind
            )
        return str(made.commit_url)


@contextmanager
def _in_one_line(upload: Upload) -> Iterator[None]:
    """Turn what the hub's library raises, of its own or of its HTTP client's, into EngineError."""
    # The base of all errors of its HTTP client, which has been another one in every major release.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EngineError(f"push: cannot put files into {upload.repo}: {reason}") from error


def open_hub() -> HuggingFaceHub:
    """Return the hub with the token of the environment or of a login.

    Raises MissingExtra without huggingface_hub, ConfigError without a token.
    """
    try:
        from huggingface_hub import HfApi, get_token
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "train") from error
    if not get_token():
        raise ConfigError("push: no token: set HF_TOKEN, or run  hf auth login")
    return HuggingFaceHub(HfApi())


def push(upload: Upload, hub: Hub) -> str:
    """Make the repository if there is none, and put the files into it; return where they are.

    Raises ConfigError if it is public and that was not asked for, EngineError if the hub refuses.
    """
    is_private = hub.is_private(upload)
    if is_private is False and upload.private:
        raise ConfigError(
            f"push: {upload.repo} is there and public: give --public, or another --to"
        )
    if is_private is None:
        hub.create(upload)
    return hub.commit(upload)


def prepare(
    source: Path, what: What | None, role: str, repo: str, *, private: bool, scratch: Path
) -> Upload:
    """Return what will be pushed, looked through; rows of a run are exported to `scratch`.

    Raises MidcourseError in one line if there is no such thing, or if it must not leave.
    """
    if not _REPO.fullmatch(repo):
        raise ConfigError(f"push: --to {repo!r} is not OWNER/NAME")
    is_run = (source / "config.resolved.json").is_file()
    chosen: What = what or ("model" if is_run or (source / "config.json").is_file() else "export")
    folder = _of_run(open_run(source), chosen, role, scratch) if is_run else source
    if not is_run and (chosen == "model") != (folder / "config.json").is_file():
        raise ArtifactError(f"push: {folder} is not a folder of --what {chosen}")
    kind: Literal["model", "dataset"] = "model" if chosen == "model" else "dataset"
    return Upload(folder, tuple(_checked_files(folder)), repo, kind, private)


def _of_run(finished: FinishedRun, what: What, role: str, scratch: Path) -> Path:
    run = finished.run
    if what == "export":
        raise ConfigError(
            "push: --what export takes the folder of an export: run  midcourse export  first"
        )
    if what == "rows":
        export_run(run.directory, "trl", scratch)
        return scratch
    model = _model(finished, role)
    assert model.trained is not None
    run.require(model.trained)
    folder = run.path(model.trained) / model.folder
    require_undamaged(folder)
    return folder


def _model(finished: FinishedRun, role: str) -> Model:
    """Return the trained model of a name, or the last that is there of those compared."""
    run = finished.run
    trained = {model.label: model for model in finished.method.models.compared if model.trained}
    there = [name for name, m in trained.items() if m.trained and run.is_complete(m.trained)]
    if role and role not in trained:
        raise ConfigError(f"push: no trained model {role!r}: there are {', '.join(trained)}")
    if not (role or there):
        raise ArtifactError(f"push: {run.directory} has no trained model yet")
    return trained[role or there[-1]]


def _checked_files(folder: Path) -> Iterator[str]:
    """Yield the files of a folder, in order of name.

    Raises ArtifactError for one without a card, with links, or with what looks like a key.
    """
    if not folder.is_dir():
        raise ArtifactError(f"push: there is no folder {folder}")
    if not (folder / _CARD).is_file():
        raise ArtifactError(
            f"push: {folder} has no {_CARD}: a model's is written by 'midcourse report RECIPE', a "
            "data set's by 'midcourse export'"
        )
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not _TOOLS.isdisjoint(name.parts):
            continue
        if path.is_symlink():
            raise ArtifactError(f"push: {path} is a link: put the file itself there")
        if path.is_file():
            if _SECRET_NAME.fullmatch(path.name) or _holds_secret(path):
                raise ArtifactError(f"push: {path} looks like it holds a key: remove it")
            yield name.as_posix()


def _holds_secret(path: Path) -> bool:
    """Whether a file holds what looks like a key; neither weights nor what is compressed does."""
    if path.suffix in _NOT_TEXT:
        return False
    with path.open("rb") as content:
        before = b""
        while block := content.read(_BLOCK):
            if _SECRET.search(before + block):
                return True
            before = block[-_OVERLAP:]
    return False
