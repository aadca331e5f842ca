"""Models on disk and of the hub: where one is, what tells it from another, how its text is encoded.

Whoever loads a model starts from `model_folder`, so that sampling, training and a server of ours
all have the same commit.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from textwrap import shorten

from midcourse.config import ModelConfig
from midcourse.engines.bundled import BUNDLED, base_folder
from midcourse.errors import ConfigError, EngineError, MissingExtra
from midcourse.records import content_id
from midcourse.rendering import Renderer
from midcourse.store.checksums import require_whole

#: A file in a model folder that names the training which made it.
IDENTITY = "identity.json"
#: How the card begins that we write next to the weights of a trained model.
CARD_MARK = "---\n# Written by midcourse."
#: Files next to a hub model's safetensors that nothing here loads.
_NOT_LOADED = ("original/*", "onnx/*", "*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack")


def resolve_model(path: str) -> str:
    """Return the folder or hub name of `path`; ``lab`` and ``lab2`` are in the package."""
    return str(base_folder(path)) if path in BUNDLED else path


def is_model(path: str) -> bool:
    """Whether `path` is a model folder, or shaped like a hub name."""
    resolved = resolve_model(path)
    is_hub_name = resolved.count("/") == 1 and not resolved.startswith((".", "/", "~"))
    return is_hub_name or (Path(resolved) / "config.json").is_file()


def require_model(path: str) -> None:
    """Raise ConfigError unless `path` is a model folder, or shaped like a hub name."""
    if not is_model(path):
        raise ConfigError(
            f"there is no model at {path!r}: give a folder with a config.json, a hub name such as "
            "Qwen/Qwen3-4B-Instruct-2507, lab or lab2"
        )


def model_folder(path: str, revision: str | None = None) -> Path:
    """Return a model's folder; one of the hub is fetched at its revision, or found in the cache.

    Raises EngineError if the hub has no such model or cannot be reached.
    """
    resolved = Path(resolve_model(path))
    return resolved if resolved.is_dir() else _fetch(path, hub_commit(path, revision))


def context_length(path: str, revision: str | None = None) -> int | None:
    """Return the positions a model has, prompt and completion together; None if it states none.

    Raises EngineError if the hub has no such model or cannot be reached.
    """
    folder = Path(resolve_model(path))
    if not folder.is_dir():
        folder = _fetch(path, hub_commit(path, revision), ("config.json",))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config = config.get("text_config") or config
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    stated = config.get("max_position_embeddings")
    stretched = rope.get("original_max_position_embeddings", 0) * rope.get("factor", 1)
    return max(int(stated), int(stretched)) if stated else None


def require_undamaged(folder: Path) -> None:
    """Raise ArtifactError if a model that was trained here is not what its training wrote.

    It is read once per process. Other models have no checksums to compare.
    """
    if (folder.parent / "job.json").is_file():
        require_whole(folder.parent, folder.name)


@cache
def hub_commit(name: str, revision: str | None) -> str:
    """Return the commit that a revision stands for; without the hub, the one fetched last.

    Asked once per process: an upload during a run changes nothing. Raises EngineError.
    """
    return _fetch(name, revision, ("config.json",)).name


def _fetch(name: str, revision: str | None, files: tuple[str, ...] = ()) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "train") from error
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(files) or None,
            ignore_patterns=list(_NOT_LOADED),
        )
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors, a bad name a ValueError
        at = f" at revision {revision!r}" if revision else ""
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"model.path: cannot get {name!r}{at} from the hub: {reason}") from error
    return Path(folder)


def model_fingerprint(path: str, revision: str | None = None) -> dict[str, object]:
    """Return what tells one model from another. Raises MidcourseError if there is no such model.

    Of a hub model it is name and commit; of a folder, wherever it lies, its small JSON files and
    samples of the rest: a fine-tuned model differs from its base in the weights only. A folder that
    holds an `IDENTITY` is what that file says: it may have been made of its adapters again, where
    rounding differs.
    """
    folder = Path(resolve_model(path))
    if not folder.is_dir():
        require_model(path)
        return {"name": path, "commit": hub_commit(path, revision)}
    if (folder / IDENTITY).is_file():
        return {"identity": (folder / IDENTITY).read_text("utf-8")}
    files = sorted(file for file in folder.iterdir() if file.is_file() and not is_card(file))
    small = [f for f in files if f.suffix == ".json" and f.stat().st_size < 100_000]
    return {
        "files": {file.name: _sampled_sha(file) for file in files if file not in small},
        "json": {file.name: file.read_text("utf-8") for file in small},
    }


def is_card(file: Path) -> bool:
    """Whether a file is a card of ours: written again when more is known, it tells no models apart.

    A card that came with a model of the hub is a file like any other.
    """
    if file.name != "README.md":
        return False
    with file.open("rb") as content:
        return content.read(len(CARD_MARK)) == CARD_MARK.encode()


def _sampled_sha(file: Path, num_blocks: int = 256, block_bytes: int = 65_536) -> str:
    """Hash a file's size and evenly spread blocks: training moves every weight, a sample tells."""
    size = file.stat().st_size
    step = max(block_bytes, size // num_blocks)
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as content:
        for start in range(0, size, step):
            content.seek(start)
            digest.update(content.read(block_bytes))
    return digest.hexdigest()[:16]


def stop_token_ids(path: str) -> list[int]:
    """Return the ids that end a turn as the model folder names them; a hub name's server knows."""
    found = set[int]()
    for name in ("generation_config.json", "config.json"):
        file = Path(resolve_model(path)) / name
        ids = json.loads(file.read_text("utf-8")).get("eos_token_id") if file.is_file() else None
        found.update([] if ids is None else [ids] if isinstance(ids, int) else ids)
    return sorted(found)


def own_template(model: ModelConfig) -> str | None:
    """Return the chat template that a recipe brings along; None for the model's own.

    Raises ConfigError.
    """
    if not model.chat_template:
        return None
    try:
        return Path(model.chat_template).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"model.chat_template: cannot read {model.chat_template!r} ({error}): give a file of "
            "Jinja in UTF-8"
        ) from error


def told_templates(model: ModelConfig) -> dict[str, object]:
    """Return what a recipe changes about a model's chat template, but for the date."""
    own, arguments = own_template(model), model.template_arguments
    told: dict[str, object] = {"template_arguments": arguments} if arguments else {}
    return told if own is None else {**told, "chat_template": content_id(own)}


def open_renderer(model: ModelConfig, path: str) -> Renderer:
    """Load the tokenizer of the model at `path` and wrap it in a renderer.

    Raises MidcourseError if there is none, or if its template does not read what it is told.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "train") from error
    folder = str(model_folder(path, model.revision))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"no tokenizer can be read at {folder!r}: copy tokenizer.json and "
            "tokenizer_config.json of the model it was made from into that folder "
            f"({shorten(str(error), 200)})"
        ) from error
    if (own := own_template(model)) is not None:
        tokenizer.chat_template = own
    if tokenizer.chat_template is None:
        raise EngineError(
            f"the tokenizer at {folder!r} has no chat template: use an instruction-tuned model, or "
            "set model.chat_template to a file of Jinja"
        )
    renderer = Renderer(tokenizer, model.template_date, model.template_arguments)
    renderer.check_arguments()
    if own is not None:
        renderer.around_user()  # says what is wrong with it
    return renderer
