"""What opens an engine of each kind, and what it is: one table.

What a plan or a pipeline asks of a kind is said by its settings (`midcourse.config`). How to add an
engine is said in docs/engines.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from midcourse.config import (
    EngineConfig,
    ModelConfig,
    OpenAIConfig,
    RayConfig,
    ScriptedConfig,
    Section,
    TransformersConfig,
    VllmConfig,
    single_engine,
)
from midcourse.engines import models, scripted_engine
from midcourse.engines.base import Engine
from midcourse.errors import MissingExtra
from midcourse.rendering import Renderer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One kind of engine."""

    module: str
    """Has a ``from_config``; imported when an engine is opened: it may be heavy."""
    needs_model: bool = True
    """Must find the model's weights itself."""
    renderer: Callable[[ModelConfig, str], Renderer] = models.open_renderer
    content: Callable[[Any], dict[str, object]] = lambda config: {}
    """What the settings point to, where it decides results."""


_KINDS: dict[type[Section], _Kind] = {
    TransformersConfig: _Kind(module="transformers_engine"),
    VllmConfig: _Kind(module="vllm_engine"),
    OpenAIConfig: _Kind(module="openai_engine", needs_model=False),
    RayConfig: _Kind(module="ray_engine"),
    ScriptedConfig: _Kind(
        module="scripted_engine",
        needs_model=False,
        renderer=scripted_engine.open_renderer,
        content=lambda config: {"script": scripted_engine.read_script(config)},
    ),
}


def open_engine(config: EngineConfig, model: ModelConfig, path: str) -> Engine:
    """Make the engine of `config` for the model at `path`. Raises MidcourseError."""
    name = _KINDS[type(config)].module
    try:
        module = import_module(f"midcourse.engines.{name}")
    except ImportError as error:
        raise MissingExtra(error.name or "transformers", "train") from error
    engine: Engine = module.from_config(config, model, path)
    return engine


def open_renderer(config: EngineConfig, model: ModelConfig, path: str) -> Renderer:
    """Return the renderer of what `config` samples from the model at `path`."""
    return _KINDS[type(single_engine(config))].renderer(model, path)


def engine_identity(config: EngineConfig) -> dict[str, object]:
    """Return what of an engine decides what it samples: a cluster is what its actors hold.

    Raises ConfigError for a script that cannot be read.
    """
    single = single_engine(config)
    return {**single.identity(), **_KINDS[type(single)].content(single)}


def check_model(config: EngineConfig, path: str) -> None:
    """Raise ConfigError if `path` is neither a model folder nor shaped like a hub name.

    An engine that does not load models, or has none, takes any path.
    """
    if not _KINDS[type(single_engine(config))].needs_model:
        return
    models.require_model(path)
