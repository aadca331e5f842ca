"""Engines: one seam to models. `open_engine` and `open_renderer` make them from a recipe."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from midcourse.config import EngineConfig, ModelConfig
from midcourse.engines.base import Engine
from midcourse.engines.bundled import base_folder
from midcourse.errors import ConfigError, EngineError, MissingExtra
from midcourse.rendering import Renderer

__all__ = [
    "IDENTITY",
    "check_model",
    "model_folder",
    "model_fingerprint",
    "open_engine",
    "open_renderer",
    "resolve_model",
]

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


def check_model(path: str) -> None:
    """Raise ConfigError if `path` is neither a model folder nor shaped like a hub name."""
    resolved = resolve_model(path)
    is_hub_name = resolved.count("/") == 1 and not resolved.startswith((".", "/", "~"))
    if not (Path(resolved) / "config.json").is_file() and not is_hub_name:
        raise ConfigError(f"model.path: no model at {path!r}: give a folder with a config.json")


def model_fingerprint(path: str) -> dict[str, object]:
    """Return what tells one model folder from another: its small JSON files, samples of the rest.

    A fine-tuned model has the files of its base, at their sizes: only the weights differ. Where a
    folder lies, or what it is called, plays no part. A folder that holds an `IDENTITY` is what that
    file says: it may have been made of its adapters again, where rounding differs.

    A hub name stands for itself: its revision is part of the recipe.
    """
    folder = Path(resolve_model(path))
    if not folder.is_dir():
        return {"name": path}
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
    if config.kind == "scripted":
        from midcourse.engines.scripted_engine import ScriptedEngine

        return ScriptedEngine.from_file(Path(config.script))
    if config.kind == "ray":
        from midcourse.engines.ray_engine import RayEngine

        return RayEngine(config, model, path)
    if config.kind == "vllm":
        return _open_vllm(config, model, path)
    if config.kind == "openai":
        from midcourse.engines.openai_engine import OpenAIEngine

        if not config.urls:
            raise ConfigError("engine.urls: give at least one, e.g. http://127.0.0.1:8000/v1")
        return OpenAIEngine(
            config.urls,
            config.served_model,
            api_key_env=config.api_key_env,
            chat=config.chat,
            max_context_tokens=config.max_context_tokens or 32_768,
            concurrency=config.concurrency,
            timeout_seconds=config.timeout_seconds,
            stop_token_ids=() if config.chat else _stop_token_ids(Path(resolve_model(path))),
            renderer=None if config.chat else open_renderer(config, model, path),
        )
    try:
        from midcourse.engines.transformers_engine import TransformersEngine
    except ImportError as error:
        raise MissingExtra(error.name or "transformers", "train") from error
    return TransformersEngine(
        model_folder(path, model.revision),
        device=config.device,
        dtype=model.dtype,
        max_batch_rows=config.max_batch_rows,
        max_context_tokens=config.max_context_tokens,
        kv_cache_gib=config.kv_cache_gib,
    )


def _open_vllm(config: EngineConfig, model: ModelConfig, path: str) -> Engine:
    from midcourse.engines.vllm_engine import ServerSettings, VllmEngine

    dtype = () if model.dtype == "auto" else ("--dtype", model.dtype)
    settings = ServerSettings(
        python=config.server_python,
        devices=config.devices,
        arguments=(*dtype, *config.server_arguments),
        kv_cache_gib=config.kv_cache_gib or 4.0,
    )
    folder = model_folder(path, model.revision)
    return VllmEngine(
        str(folder),
        open_renderer(config, model, path),
        settings,
        stop_token_ids=_stop_token_ids(folder),
        max_context_tokens=config.max_context_tokens,
        concurrency=config.concurrency,
        timeout_seconds=config.timeout_seconds,
    )


def _stop_token_ids(folder: Path) -> list[int]:
    """Return the ids that end a turn as the model folder names them; a hub name's server knows."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        file = folder / name
        ids = json.loads(file.read_text("utf-8")).get("eos_token_id") if file.is_file() else None
        found.update([] if ids is None else [ids] if isinstance(ids, int) else ids)
    return sorted(found)


def open_renderer(config: EngineConfig, model: ModelConfig, path: str) -> Renderer:
    """Load the tokenizer of the model at `path` and dress it as a renderer."""
    if "scripted" in (config.kind, config.inner):
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
