"""Engines: one seam to models. `open_engine` and `open_renderer` make them from a recipe.

Each engine's module has a ``from_config``; what else is asked of a kind is said by its settings
(`midcourse.config.EngineSection`). Another engine is a module, a section of the union, and a line
of `_MODULES`.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path

from midcourse.config import (
    EngineConfig,
    ModelConfig,
    OpenAIConfig,
    RayConfig,
    ScriptedConfig,
    TransformersConfig,
    VllmConfig,
)
from midcourse.engines.base import Engine
from midcourse.engines.bundled import base_folder
from midcourse.errors import ConfigError, EngineError, MissingExtra
from midcourse.rendering import Renderer

_MODULES: dict[type[EngineConfig], str] = {
    TransformersConfig: "transformers_engine",
    VllmConfig: "vllm_engine",
    OpenAIConfig: "openai_engine",
    RayConfig: "ray_engine",
    ScriptedConfig: "scripted_engine",
}
#: A file in a model folder that names the training which made it.
IDENTITY = "identity.json"
#: Files beside a hub model's safetensors that nothing here loads.
_NOT_LOADED = ["original/*", "onnx/*", "*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack"]


def resolve_model(path: str) -> str:
    """Return the folder or hub name of `path`; ``lab`` is the model in the package."""
    return str(base_folder()) if path == "lab" else path


def model_folder(path: str, revision: str | None = None) -> Path:
    """Return a model's folder; one of the hub is fetched at its revision, or found in the cache.

    Whoever loads a model starts from here, so that sampling, training and a server of ours all have
    the same revision. Raises EngineError if the hub has no such model or cannot be reached.
    """
    resolved = Path(resolve_model(path))
    if resolved.is_dir():
        return resolved
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "train") from error
    try:
        return Path(snapshot_download(path, revision=revision, ignore_patterns=_NOT_LOADED))
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors, a bad name a ValueError
        at = f" at revision {revision!r}" if revision else ""
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"model.path: cannot get {path!r}{at} from the hub: {reason}") from error


def engine_identity(config: EngineConfig) -> dict[str, object]:
    """Return what of an engine decides what it samples: a cluster is what its actors hold.

    Raises ConfigError for a script that cannot be read.
    """
    if isinstance(config, RayConfig):
        return engine_identity(config.inner)
    if not isinstance(config, ScriptedConfig):
        return config.identity()
    try:
        script = Path(config.script).read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"engine.script: cannot read {config.script!r}: {error}") from error
    return {"kind": config.kind, "script": script}


def check_model(config: EngineConfig, path: str) -> None:
    """Raise ConfigError if `path` is neither a model folder nor shaped like a hub name."""
    if not config.loads_models or isinstance(config.scoring, ScriptedConfig):
        return
    resolved = resolve_model(path)
    is_hub_name = resolved.count("/") == 1 and not resolved.startswith((".", "/", "~"))
    if not (Path(resolved) / "config.json").is_file() and not is_hub_name:
        raise ConfigError(
            f"model.path: there is no model at {path!r}: give a folder with a config.json"
        )


def model_fingerprint(path: str, revision: str | None = None) -> dict[str, object]:
    """Return what tells one model folder from another: its small JSON files, samples of the rest.

    A fine-tuned model has the files of its base, at their sizes: only the weights differ. Where a
    folder lies, or what it is called, plays no part. A folder that holds an `IDENTITY` is what that
    file says: it may have been made of its adapters again, where rounding differs.

    A model of the hub is its commit: the same name may hold other weights tomorrow. Raises
    EngineError if the hub has no such model or cannot be reached.
    """
    folder = Path(resolve_model(path))
    if not folder.is_dir():
        return {"name": path, "commit": model_folder(path, revision).name}
    if (folder / IDENTITY).is_file():
        return {"identity": (folder / IDENTITY).read_text("utf-8")}
    files = sorted(file for file in folder.iterdir() if file.is_file())
    small = [f for f in files if f.suffix == ".json" and f.stat().st_size < 100_000]
    return {
        "files": {file.name: _sampled_sha(file) for file in files if file not in small},
        "json": {file.name: file.read_text("utf-8") for file in small},
    }


def _sampled_sha(file: Path, num_blocks: int = 256, block_bytes: int = 65_536) -> str:
    """Hash a file's size and evenly spread blocks of it: all of a small one, 16 MiB of a large.

    Training moves every weight a little, so that a sample tells; a large file is not read whole.
    """
    size = file.stat().st_size
    step = max(block_bytes, size // num_blocks)
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as content:
        for start in range(0, size, step):
            content.seek(start)
            digest.update(content.read(block_bytes))
    return digest.hexdigest()[:16]


def open_engine(config: EngineConfig, model: ModelConfig, path: str) -> Engine:
    """Make the engine of `config` for the model at `path`. Raises MidcourseError."""
    try:
        module = import_module(f"midcourse.engines.{_MODULES[type(config)]}")
    except ImportError as error:
        raise MissingExtra(error.name or "transformers", "train") from error
    engine: Engine = module.from_config(config, model, path)
    return engine


def open_renderer(config: EngineConfig, model: ModelConfig, path: str) -> Renderer:
    """Load the tokenizer of the model at `path` and wrap it in a Renderer."""
    if isinstance(config.scoring, ScriptedConfig):
        from midcourse.engines.scripted_engine import ByteTokenizer

        return Renderer(ByteTokenizer())
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "train") from error
    folder = str(model_folder(path, model.revision))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise EngineError(f"no tokenizer at {folder!r}: {str(error).splitlines()[0]}") from error
    if tokenizer.chat_template is None:
        raise EngineError(f"the tokenizer at {folder!r} has no chat template")
    return Renderer(tokenizer)
