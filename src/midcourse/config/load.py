"""Reads a recipe: layers of TOML, overrides, and where in them what is wrong stands."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from midcourse.config.base import without_credentials
from midcourse.config.engines import ENGINES, engine_kind
from midcourse.config.lines import key_lines
from midcourse.config.mistakes import Mistake, find_mistakes
from midcourse.config.recipe import Recipe
from midcourse.errors import ConfigError
from midcourse.printable import printable
from midcourse.recipes import find_recipe


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one file says, or all of ``--set`` together."""

    name: str
    data: dict[str, Any]
    text: str = ""
    """Empty where there are no lines."""

    def place(self, path: Sequence[str]) -> tuple[str, int] | None:
        """Return file and line of a key, 0 if it has none; None if it does not stand here."""
        data: Any = self.data
        for part in path:
            if not isinstance(data, dict) or part not in data:
                return None
            data = data[part]
        return self.name, key_lines(self.text).get(tuple(path), 0)


def load_recipe(
    recipe: str | Path, overrides: Sequence[str] = (), overlays: Sequence[str | Path] = ()
) -> Recipe:
    """Read a recipe, layer `overlays` on it in order, then ``key.sub=value`` overrides.

    Each is a file or the name of a packaged recipe; what it ``extends`` comes first, unless it is
    there already. Tables merge key by key; any other value replaces what was there. Raises
    ConfigError: a line for everything that is wrong, after a line that counts if it is several.
    """
    seen: set[Path] = set()
    names = [str(layer) for layer in (recipe, *overlays)]
    layers = [part for name in names for part in _layers(name, seen)]
    return _make(layers, overrides, " with ".join(names))


def make_recipe(data: dict[str, Any], overrides: Sequence[str], where: str) -> Recipe:
    """Check a recipe given as nested tables; `where` is what an error blames."""
    return _make([_Layer(where, data)], overrides, where)


def _make(layers: Sequence[_Layer], overrides: Sequence[str], where: str) -> Recipe:
    given, wrong = _read_overrides(overrides)
    layers = [*layers, _Layer("--set", given)]
    data: dict[str, Any] = {}
    for layer in layers:
        _lay_over(data, layer.data)
    try:
        made = Recipe.model_validate(data)
    except ValidationError:
        wrong += _located(find_mistakes(Recipe, data), layers, where)
    if wrong:
        count = f"{len(wrong)} mistakes in {printable(where, keep='')}:"
        raise ConfigError("\n  ".join([count, *wrong]) if len(wrong) > 1 else wrong[0])
    return made


def _located(mistakes: Sequence[Mistake], layers: Sequence[_Layer], where: str) -> list[str]:
    """Return a line for each mistake, in the order in which they stand in the layers."""
    said = []
    for mistake in mistakes:
        number, name, line = _find(mistake, layers) or (-1, where, 0)
        place = printable(f"{name}:{line}" if line else name, keep="")
        said.append((number, line, f"{place}: {mistake.text}"))
    return [text for _, _, text in sorted(said, key=lambda one: one[:2])]


def _find(mistake: Mistake, layers: Sequence[_Layer]) -> tuple[int, str, int] | None:
    """Return the layer, its name and the line of what a mistake is about, or of its section."""
    above = [path[:length] for path in mistake.places for length in range(len(path) - 1, 0, -1)]
    for path in (*mistake.places, *above):
        for number in reversed(range(len(layers))):
            # The value that counts is that of the last layer.
            if found := layers[number].place(path):
                return number, *found
    return None


def _layers(name: str, seen: set[Path]) -> Iterator[_Layer]:
    """Yield a recipe's own keys after those of what it extends."""
    path = find_recipe(name)
    seen.add(path)
    layer = _read_toml(name, path)
    below = layer.data.pop("extends", None)
    if below is not None:
        try:
            extended = find_recipe(str(below))
        except ConfigError as error:
            line = key_lines(layer.text)["extends",]
            raise ConfigError(f"{name}:{line}: extends: {error}") from error
        if extended not in seen:
            yield from _layers(str(below), seen)
    yield layer


def _read_toml(name: str, path: Path) -> _Layer:
    try:
        text = path.read_text("utf-8-sig")
        # After a last newline the end is not where an error in the last line is.
        return _Layer(name, tomllib.loads(f"{text}\n"), text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not TOML: {error}: save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_error(name, text, str(error))) from error


def _syntax_error(name: str, text: str, said: str) -> str:
    """Say where a text is not TOML, with the line and what to look at."""
    place = re.search(r" \(at line (\d+), column (\d+)\)$", said)
    if place is None:  # "(at end of document)"
        return f"{name} is not TOML: {said}: a quote or bracket may be open"
    line = text.split("\n")[int(place[1]) - 1].strip()
    hint = "write sections as [name], keys as key = value, and texts in quotes"
    if "overwrite" in said or "twice" in said or "declare" in said:
        hint = "it stands there twice: keep one"
    start = f"{name}:{place[1]}:{place[2]}: is not TOML: {said[: place.start()]}"
    return printable(f"{start}: {line[:80]!r}: {hint}", keep="")


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


def _read_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what ``--set`` says as nested tables, and a line for each that cannot be read.

    A value is read as JSON if it is JSON, else as text.
    """
    data: dict[str, Any] = {}
    wrong: list[str] = []
    for override in overrides:
        name, separator, text = override.partition("=")
        start = f"--set {without_credentials(override)!r}: "
        if not separator:
            wrong.append(f"{start}write key=value, e.g. sample.num_rollouts=8")
            continue
        *sections, key = name.strip().split(".")
        table: Any = data
        for section in sections:
            table = table.setdefault(section, {}) if isinstance(table, dict) else table
        if not isinstance(table, dict):
            wrong.append(f"{start}{'.'.join(sections)} is a value, not a section")
            continue
        try:
            table[key] = json.loads(text)
        except json.JSONDecodeError:
            table[key] = text
    return data, wrong
