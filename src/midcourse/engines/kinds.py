"""What the rest of the program asks about an engine by its settings, without opening it.

A new engine is a module with a ``from_config``, its settings in `midcourse.config`, and an entry
of `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
)
from midcourse.engines import models, scripted_engine
from midcourse.engines.base import Engine
from midcourse.errors import MissingExtra
from midcourse.rendering import Renderer


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What an engine takes of devices, for plans."""

    kind: str
    rows: int
    """Rows decoded at once on a device."""
    devices: int = 1
    in_process: bool = False
    """Whether it runs in our process; else it is a server."""
    gpu_share: float = 0.9
    """Of a device's memory, for weights and cache of a server; vLLM's own default."""
    kv_cache_gib: float | None = None
    max_context_tokens: int | None = None
    on_cpu: bool = False
    """Whether the settings ask for a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One kind of engine."""

    module: str
    """Has a ``from_config``; imported when an engine is opened: it may be heavy."""
    use: Callable[[Any], Use]
    loads_models: bool = True
    """Samples any model on disk, so also one that was just trained."""
    needs_model: bool = True
    """Must find the model's weights itself."""
    inner: Callable[[Any], EngineConfig] = lambda config: config
    """The engine that does the work: another one's settings for an engine of engines."""
    renderer: Callable[[ModelConfig, str], Renderer] = models.open_renderer
    content: Callable[[Any], dict[str, object]] = lambda config: {}
    """What the settings point to, where it decides results."""
    scorer: Callable[[Any], EngineConfig | None] = lambda config: config
    """The settings of what scores tokens of the same models."""


def _use_of_transformers(config: TransformersConfig) -> Use:
    return Use(
        kind=config.kind,
        rows=config.max_batch_rows,
        in_process=True,
        kv_cache_gib=config.kv_cache_gib,
        max_context_tokens=config.max_context_tokens,
        on_cpu=config.device == "cpu",
    )


def _use_of_vllm(config: VllmConfig) -> Use:
    from midcourse.engines.vllm_engine import gpu_share

    return Use(
        kind=config.kind,
        rows=config.concurrency,
        devices=max(1, len(config.devices)),
        gpu_share=gpu_share(config),
        kv_cache_gib=config.kv_cache_gib,
        max_context_tokens=config.max_context_tokens,
    )


def _use_of_openai(config: OpenAIConfig) -> Use:
    return Use(
        kind=config.kind,
        rows=config.concurrency,
        devices=max(1, len(config.urls)),
        max_context_tokens=config.max_context_tokens,
    )


def _use_of_ray(config: RayConfig) -> Use:
    return replace(engine_use(config.inner), devices=config.num_actors)


_KINDS: dict[type[Section], _Kind] = {
    TransformersConfig: _Kind(module="transformers_engine", use=_use_of_transformers),
    VllmConfig: _Kind(
        module="vllm_engine", use=_use_of_vllm, scorer=lambda config: TransformersConfig()
    ),
    OpenAIConfig: _Kind(
        module="openai_engine",
        use=_use_of_openai,
        loads_models=False,
        needs_model=False,
        scorer=lambda config: None,
    ),
    RayConfig: _Kind(module="ray_engine", use=_use_of_ray, inner=lambda config: config.inner),
    ScriptedConfig: _Kind(
        module="scripted_engine",
        use=lambda config: Use(kind=config.kind, rows=scripted_engine.CONCURRENCY),
        needs_model=False,
        renderer=scripted_engine.open_renderer,
        content=lambda config: {"script": scripted_engine.read_script(config)},
    ),
}


def _inner(config: EngineConfig) -> tuple[_Kind, EngineConfig]:
    """Return the kind and the settings of the engine that does the work."""
    inner = _KINDS[type(config)].inner(config)
    return _KINDS[type(inner)], inner


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
    kind, _ = _inner(config)
    return kind.renderer(model, path)


def engine_identity(config: EngineConfig) -> dict[str, object]:
    """Return what of the settings decides results. Raises ConfigError if a script is missing."""
    kind, inner = _inner(config)
    return {**inner.identity(), **kind.content(inner)}


def loads_models(config: EngineConfig) -> bool:
    """Whether the engine samples a model folder that was just trained."""
    kind, _ = _inner(config)
    return kind.loads_models


def needs_model(config: EngineConfig) -> bool:
    """Whether the engine must find the model itself: then `check_model` it before any work."""
    kind, _ = _inner(config)
    return kind.needs_model


def scoring_config(config: EngineConfig) -> EngineConfig | None:
    """Return the settings of a `Scorer` for models on disk; None if there is none to be had."""
    kind, inner = _inner(config)
    return kind.scorer(inner)


def engine_use(config: EngineConfig) -> Use:
    """Return what the engine takes of devices."""
    return _KINDS[type(config)].use(config)
