"""A user's own code, by dotted path (``package.module:name``) or by entry point.

A path is looked up where Python finds modules, then in the working folder, so that a module next
to a recipe needs no installation. Only what a *recipe*, or a command's flag, names is ever
imported: a name in a data file may choose among what is installed, and can load nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from midcourse.errors import ConfigError

_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class Plugin:
    """What a path or an entry point leads to."""

    value: Any
    version: str
    """Hash of the module's source: other code is another plugin."""


def is_path(name: str) -> bool:
    """Whether a name is a dotted path to an object, as ``package.module:name``."""
    return _PATH.fullmatch(name) is not None


@cache
def load_path(path: str, key: str) -> Plugin:
    """Import what ``package.module:name`` names; `key` is who asks, e.g. ``steps.rule``.

    Raises ConfigError in one line if there is no such module or name, or if importing it fails.
    """
    name, _, attribute = path.partition(":")
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise ConfigError(f"{key} {path!r}: {name} is Python's own library, not a module of yours")
    module = _module(name, f"{key} {path!r}")
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ConfigError(f"{key} {path!r}: {name} has no {attribute}")
        value = getattr(value, part)
    return Plugin(value, _version(module))


def _module(name: str, asked: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a user's module does when it is imported
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ConfigError(f"{asked}: cannot be imported ({what}); looked in {here} too") from error


def _version(module: ModuleType) -> str:
    source = getattr(module, "__file__", None)
    text = Path(source).read_bytes() if source else module.__name__.encode()
    return hashlib.sha256(text).hexdigest()[:12]


def find(name: str, points: Mapping[str, EntryPoint], key: str) -> Plugin | None:
    """Return what a path, or the name of one of these entry points, leads to; None for neither.

    `key` is who asks, and errors are those of `load_path`.
    """
    if is_path(name):
        return load_path(name, key)
    return load_entry(points[name]) if name in points else None


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group, e.g. ``midcourse.checkers``, by name; none is loaded."""
    return {point.name: point for point in entry_points(group=group)}


def load_entry(point: EntryPoint) -> Plugin:
    """Load an entry point. Raises ConfigError if that fails."""
    return load_path(point.value, f"entry point {point.group}:{point.name}")
