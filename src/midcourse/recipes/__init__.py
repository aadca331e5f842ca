"""The recipes that come with the package, found by name from any folder.

`lab` is a whole run. `paper/…` says what is done, `scale/…` on what and how large; layer them with
``--with``. `accelerate/…` are configs of ``accelerate launch``. A file of your own wins over a
packaged recipe when it is named as a file, that is with its ``.toml``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from midcourse.errors import ConfigError
from midcourse.printable import printable

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class RecipeInfo:
    """One packaged recipe, e.g. `paper/int`."""

    name: str
    summary: str
    """The first comment line of its file."""
    is_scale: bool
    """Whether it only holds sizes and model names, to be layered on another recipe."""


def find_recipe(name_or_path: str) -> Path:
    """Return an existing ``.toml`` file, else the packaged recipe of that name.

    Raises ConfigError, one line with the nearest names.
    """
    file = Path(name_or_path)
    if file.suffix == ".toml" and file.is_file():
        return file
    return _packaged(name_or_path, ".toml", "recipe")


def find_accelerate(name_or_path: str) -> Path:
    """Return an existing file, else the packaged config of ``accelerate launch`` of that name.

    Raises ConfigError, one line with the nearest names.
    """
    file = Path(name_or_path)
    return file if file.is_file() else _packaged(name_or_path, ".yaml", "accelerate config")


def list_recipes() -> list[RecipeInfo]:
    """Return the packaged recipes, whole runs first, then scales, each by name."""
    found = [_info(name) for name in recipe_names()]
    return sorted(found, key=lambda info: (info.is_scale, info.name.count("/"), info.name))


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes."""
    return list(_names(".toml"))


def recipe_text(name: str) -> str:
    """Return the text of a recipe. Raises ConfigError, one line with the nearest names."""
    return find_recipe(name).read_text("utf-8")


def _info(name: str) -> RecipeInfo:
    first_line = recipe_text(name).partition("\n")[0]
    return RecipeInfo(name, first_line.removeprefix("# "), name.startswith("scale/"))


@cache  # the package does not change while it runs, and a plan asks a thousand times
def _names(suffix: str) -> tuple[str, ...]:
    files = sorted(_FOLDER.rglob(f"*{suffix}"))
    return tuple(file.relative_to(_FOLDER).with_suffix("").as_posix() for file in files)


def _packaged(asked: str, suffix: str, what: str) -> Path:
    """Return the packaged file of that name; only a listed name is one, so no ``..`` leads out."""
    name, names = asked.removesuffix(suffix), _names(suffix)
    if name in names:
        return _FOLDER / f"{name}{suffix}"
    shown = printable(asked, keep="")
    raise ConfigError(
        f"no {what} at {shown}, nor a packaged one of that name: {_hint(name, names)}"
    )


def _hint(name: str, names: Sequence[str]) -> str:
    same_end = [known for known in names if known.rpartition("/")[2] == name.rpartition("/")[2]]
    nearest = same_end or difflib.get_close_matches(name, names, n=3)
    if nearest:
        return f"did you mean {' or '.join(nearest)}?"
    return f"give a file or a packaged name such as {min(names, key=len)}"
