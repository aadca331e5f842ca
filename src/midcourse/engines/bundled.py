"""The models that come with the package: the bases of the lab's two worlds."""

from __future__ import annotations

from pathlib import Path

import midcourse

_FOLDERS = {"lab": "base", "lab2": "rules/base"}
BUNDLED = tuple(_FOLDERS)
"""What a recipe calls them."""


def base_folder(name: str = "lab") -> Path:
    """Return the folder of a bundled model."""
    return Path(midcourse.__file__).parent / "lab" / _FOLDERS[name]
