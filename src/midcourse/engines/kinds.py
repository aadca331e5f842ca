"""What opens an engine of each kind, and what it is.

The engine of kind X is made by ``from_config`` of the module ``X_engine``. What a plan or a
pipeline asks of a kind is said by its settings (`midcourse.config`). How to add an engine is said
in docs/engines.md.
"""

from __future__ import annotations

from importlib import import_module

from midcourse.config import EngineConfig, ModelConfig, OpenAIConfig, ScriptedConfig, single_engine
from midcourse.engines import models
from midcourse.engines.base import Engine
from midcourse.engines.scripted_engine import ByteTokenizer, read_script
from midcourse.errors import ConfigError, MissingExtra
from midcourse.rendering import Renderer


def open_engine(config: EngineConfig, model: ModelConfig, path: str) -> Engine:
    """Make the engine of `config` for the model at `path`. Raises MidcourseError."""
    try:  # imported only now: it may be heavy
        module = import_module(f"midcourse.engines.{config.kind}_engine")
    except ImportError as error:
        raise MissingExtra(error.name or "transformers", "train") from error
    engine: Engine = module.from_config(config, model, path)
    return engine


def open_renderer(config: EngineConfig, model: ModelConfig, path: str) -> Renderer:
    """Return the renderer of what `config` samples from the model at `path`."""
    if isinstance(single_engine(config), ScriptedConfig):
        return Renderer(ByteTokenizer())
    return models.open_renderer(model, path)


def engine_identity(config: EngineConfig) -> dict[str, object]:
    """Return what of an engine decides what it samples: a cluster is what its actors hold.

    Raises ConfigError for a script that cannot be read.
    """
    single = single_engine(config)
    script = {"script": read_script(single)} if isinstance(single, ScriptedConfig) else {}
    return single.identity() | script


def check_model(config: EngineConfig, path: str) -> None:
    """Raise ConfigError if `path` is neither a model folder nor shaped like a hub name.

    An engine that does not load models, or has none, takes any path.
    """
    if isinstance(single_engine(config), OpenAIConfig | ScriptedConfig):
        return
    models.require_model(path)


def check_servers(config: EngineConfig) -> None:
    """Raise ConfigError if servers that somebody else runs are not named, or their key not set."""
    single = single_engine(config)
    if isinstance(single, OpenAIConfig):
        from midcourse.engines.openai_engine import key_of

        key_of(single)


def check_context(config: EngineConfig, model: ModelConfig) -> None:
    """Raise ConfigError if the policy is to have more context than it has positions.

    Of a server that somebody else runs, the server says how many it takes.
    """
    single = single_engine(config)
    if isinstance(single, OpenAIConfig | ScriptedConfig) or single.max_context_tokens is None:
        return
    own = models.context_length(model.path, model.revision)
    if own is not None and own < single.max_context_tokens:
        raise ConfigError(
            f"engine.max_context_tokens is {single.max_context_tokens:,}, but {model.path} has "
            f"{own:,} positions: set it to {own} at most"
        )
