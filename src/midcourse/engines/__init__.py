"""Engines: one seam to models. `open_engine` and `open_renderer` make them from a recipe."""

from midcourse.engines.kinds import (
    check_context,
    check_model,
    check_servers,
    engine_identity,
    open_engine,
    open_renderer,
)
from midcourse.engines.models import (
    CARD_MARK,
    IDENTITY,
    is_card,
    is_model,
    model_fingerprint,
    model_folder,
    own_template,
    require_undamaged,
    resolve_model,
    told_templates,
)

__all__ = [
    "CARD_MARK",
    "IDENTITY",
    "check_context",
    "check_model",
    "check_servers",
    "engine_identity",
    "is_card",
    "is_model",
    "model_fingerprint",
    "model_folder",
    "open_engine",
    "open_renderer",
    "own_template",
    "require_undamaged",
    "resolve_model",
    "told_templates",
]
