"""Every key of a recipe, with default, allowed values and meaning."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from midcourse.config.base import Section, is_tunable
from midcourse.config.recipe import Recipe
from midcourse.config.wanted import choices_of, wanted
from midcourse.errors import ConfigError


def is_named(annotation: Any) -> bool:
    """Whether a key holds sections by names that the recipe gives."""
    return get_origin(annotation) is dict and bool(sections_in(annotation))


def sections_in(annotation: Any) -> list[type[Section]]:
    """Return the sections that a key's type may hold: one, or an engine's union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


_REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One line of the table of keys."""

    name: str
    default: str
    """As JSON; "required" where there is none."""
    takes: str
    """What a value must be, in words."""
    allowed: tuple[str, ...]
    """Of an enumeration its values; else empty."""
    tunable: bool
    meaning: str

    def plain(self) -> dict[str, object]:
        """Return it as JSON has it, the default as a value."""
        required = self.default == _REQUIRED
        default = None if required else json.loads(self.default)
        return {**asdict(self), "default": default, "required": required}


def describe_keys(
    section: type[Section] | None = None, prefix: str = "", given: Section | None = None
) -> list[Key]:
    """Return a line for every key of a recipe; `given` holds a section's own defaults."""
    keys: list[Key] = []
    for name, field in (section or Recipe).model_fields.items():
        if name == "kind" and len(get_args(field.annotation)) == 1:
            continue  # nothing to choose
        default = getattr(given, name) if given is not None else field.default
        sections = sections_in(field.annotation)
        if is_named(field.annotation):
            keys += describe_keys(sections[0], f"{prefix}{name}.NAME.")
        elif len(sections) > 1 and default is not None:
            keys += _describe_engines(sections, f"{prefix}{name}.")
        elif sections and (isinstance(default, Section) or field.is_required()):
            nested = default if isinstance(default, Section) else None
            keys += describe_keys(sections[0], f"{prefix}{name}.", nested)
        else:
            keys.append(_describe(f"{prefix}{name}", field, default))
    return keys


def find_keys(text: str = "") -> list[Key]:
    """Return a key or the keys of a section, else those that hold `text`; "" for all.

    Raises ConfigError if there is none.
    """
    keys = describe_keys()
    found = [key for key in keys if f"{key.name}.".startswith(f"{text}." if text else "")]
    found = found or [key for key in keys if text in key.name]
    if not found:
        parts = {name for key in keys for name in (key.name, key.name.partition(".")[0])}
        near = difflib.get_close_matches(text, parts, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "'midcourse keys' lists them all"
        raise ConfigError(f"no key {text!r}: {hint}")
    return found


def key_table(keys: Sequence[Key] | None = None) -> list[str]:
    """Return the lines of a Markdown table, of every key by default."""
    head = "| key | default | allowed values | may change at a resume | meaning |"
    rows = [
        f"| `{key.name}` | `{key.default}` | {', '.join(f'`{value}`' for value in key.allowed)} "
        f"| {'yes' if key.tunable else ''} | {key.meaning} |"
        for key in (describe_keys() if keys is None else keys)
    ]
    return [head, "|---|---|---|---|---|", *rows]


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe's file, which may be a layer: nothing is required."""
    schema = Recipe.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        section.pop("required", None)
    below = {"type": "string", "description": "A recipe, by name or file, to layer this one on."}
    schema["properties"]["extends"] = below
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _describe(name: str, field: FieldInfo, default: object, of: str = "") -> Key:
    meaning = " ".join((field.description or "").split())
    return Key(
        name=name,
        default=_REQUIRED if field.is_required() else json.dumps(default, default=_plain),
        takes=wanted(field.annotation, tuple(field.metadata)),
        allowed=tuple(_allowed(field.annotation)),
        tunable=is_tunable(field),
        meaning=f"{of}{meaning}",
    )


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, Section) else str(value)


def _allowed(annotation: Any) -> list[str]:
    """Return the values of an enumeration, or of a list of them."""
    inner = (found for part in get_args(annotation) for found in _allowed(part))
    return choices_of(annotation) or list(inner)


def _describe_engines(sections: Sequence[type[Section]], prefix: str) -> list[Key]:
    """Return the keys of an engine's union, each with the kinds that have it."""
    kinds = tuple(kind.model_fields["kind"].default for kind in sections)
    keys = [
        Key(
            name=f"{prefix}kind",
            default='"transformers"',
            takes=f"one of {', '.join(kinds)}",
            allowed=kinds,
            tunable=False,
            meaning="Which engine makes completions.",
        )
    ]
    for kind in sections:
        name_of_kind = kind.model_fields["kind"].default
        for name, field in kind.model_fields.items():
            if name != "kind":
                key = _describe(f"{prefix}{name}", field, field.default, f"``{name_of_kind}``: ")
                keys.append(key)
    return keys
