"""Engines: one seam to models. `open_engine` and `open_renderer` make them from a recipe."""

from midcourse.engines.kinds import (
    Use,
    engine_identity,
    engine_use,
    loads_models,
    needs_model,
    open_engine,
    open_renderer,
    scoring_config,
)
from midcourse.engines.models import (
    IDENTITY,
    check_model,
    model_fingerprint,
    model_folder,
    resolve_model,
)

__all__ = [
    "IDENTITY",
    "Use",
    "check_model",
    "engine_identity",
    "engine_use",
    "loads_models",
    "model_fingerprint",
    "model_folder",
    "needs_model",
    "open_engine",
    "open_renderer",
    "resolve_model",
    "scoring_config",
]
