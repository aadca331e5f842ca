"""The model that comes with the package: the lab's base."""

from __future__ import annotations

from pathlib import Path

import midcourse


def base_folder() -> Path:
    """Return the folder of the lab's base model."""
    return Path(midcourse.__file__).parent / "lab" / "base"
