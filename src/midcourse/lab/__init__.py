"""The lab: a controlled world and a small base model, to see the method work in minutes."""

from __future__ import annotations

from pathlib import Path

__all__ = ["base_folder"]


def base_folder() -> Path:
    """Return the folder of the bundled base model."""
    return Path(__file__).parent / "base"
