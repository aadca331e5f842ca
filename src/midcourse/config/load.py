"""Reads a recipe: layers of TOML, overrides, and what is wrong with them in one line."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from midcourse.config.base import Section, without_credentials
from midcourse.config.engines import ENGINES, engine_kind
from midcourse.config.keys import is_named, sections_in
from midcourse.config.recipe import Recipe
from midcourse.errors import ConfigError
from midcourse.recipes import find_recipe


def load_recipe(
    recipe: str | Path, overrides: Sequence[str] = (), overlays: Sequence[str | Path] = ()
) -> Recipe:
    """Read a recipe, layer `overlays` on it in order, then ``key.sub=value`` overrides.

    Each is a file or the name of a packaged recipe; what it ``extends`` comes first, unless it is
    there already. Tables merge key by key; any other value replaces what was there. Raises
    ConfigError, one line.
    """
    data: dict[str, Any] = {}
    seen: set[Path] = set()
    for layer in (recipe, *overlays):
        for part in _layers(find_recipe(str(layer)), seen):
            _lay_over(data, part)
    return make_recipe(data, overrides, " with ".join(map(str, (recipe, *overlays))))


def make_recipe(data: dict[str, Any], overrides: Sequence[str], where: str) -> Recipe:
    """Check a recipe given as nested tables; `where` is what an error blames."""
    layer: dict[str, Any] = {}
    for override in overrides:
        _add_override(layer, override)
    _lay_over(data, layer)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, Recipe)}") from error


def _layers(path: Path, seen: set[Path]) -> Iterator[dict[str, Any]]:
    """Yield a recipe's own keys after those of what it extends."""
    seen.add(path)
    data = _read_toml(path)
    below = data.pop("extends", None)
    if below is not None and (extended := find_recipe(str(below))) not in seen:
        yield from _layers(extended, seen)
    yield data


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _lay_over(data: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Merge `layer` into `data`: tables key by key, everything else replaces.

    Where a layer names another ``kind`` of engine, keys below it that this kind lacks are dropped.
    """
    for key, value in layer.items():
        below = data.get(key)
        if not isinstance(value, dict) or not isinstance(below, dict):
            data[key] = value
            continue
        kind = ENGINES.get(str(value.get("kind")))
        if kind is not None and engine_kind(below) != value["kind"]:
            data[key] = below = {k: v for k, v in below.items() if k in kind.model_fields}
        _lay_over(below, value)


def _add_override(layer: dict[str, Any], override: str) -> None:
    """Set one dotted key; the value is read as JSON if it is JSON, else as text."""
    name, separator, text = override.partition("=")
    shown = without_credentials(override)
    if not separator:
        raise ConfigError(f"--set {shown!r}: write key=value, e.g. sample.num_rollouts=8")
    *sections, key = name.strip().split(".")
    for section in sections:
        layer = layer.setdefault(section, {})
        if not isinstance(layer, dict):
            raise ConfigError(f"--set {shown!r}: {section} is a value, not a section")
    try:
        layer[key] = json.loads(text)
    except json.JSONDecodeError:
        layer[key] = text


def explain(error: ValidationError, model: type[Section]) -> str:
    """Say the first complaint of pydantic in one line, with the nearest known key."""
    first = error.errors()[0]
    path, _ = _located(model, first["loc"])
    where = ".".join(path)
    if first["type"] == "missing":
        hint = " a folder, a hub name, or 'lab'" if where.startswith("model") else ""
        return f"{where}: is missing: give it a value{':' if hint else ''}{hint}"
    if first["type"] == "union_tag_invalid":
        kinds = ", ".join(ENGINES)
        return f"{where}.kind: there is no such engine ({first['ctx']['tag']!r}): choose {kinds}"
    if first["type"] == "value_error":  # a sentence of ours
        said = first["msg"].removeprefix("Value error, ")
        return f"{where}: {said}" if where else said
    if first["type"] != "extra_forbidden":
        given = without_credentials(repr(first["input"]))
        return f"{where}: {first['msg']} (given: {given})"
    *sections, key = path
    _, section = _located(model, first["loc"][:-1])
    known = list(section.model_fields)
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {'.'.join([*sections, near[0]])!r}?" if near else ""
    return f"unknown key {where!r}; {hint or 'known keys: ' + ', '.join(known)}"


def _located(
    model: type[Section], location: Sequence[int | str]
) -> tuple[list[str], type[Section]]:
    """Return the dotted path of an error, without the kinds of engines, and the section there."""
    path: list[str] = []
    sections, is_name = [model], False
    for part in map(str, location):
        if is_name:  # a name that the recipe gives, not a key
            path.append(part)
            is_name = False
            continue
        if len(sections) > 1 and part in ENGINES:  # an engine's kind, not a key
            sections = [ENGINES[part]]
            continue
        path.append(part)
        field = sections[0].model_fields.get(part) if sections else None
        sections = sections_in(field.annotation) if field else []
        is_name = field is not None and is_named(field.annotation)
    return path, sections[0] if sections else model
