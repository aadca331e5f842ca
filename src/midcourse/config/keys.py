"""Every key of a recipe, with default, allowed values and meaning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from midcourse.config.base import Section, is_tunable
from midcourse.config.recipe import Recipe
from midcourse.config.wanted import choices_of


def is_named(annotation: Any) -> bool:
    """Whether a key holds sections by names that the recipe gives."""
    return get_origin(annotation) is dict and bool(sections_in(annotation))


def sections_in(annotation: Any) -> list[type[Section]]:
    """Return the sections that a key's type may hold: one, or an engine's union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One line of the table of keys."""

    name: str
    default: str
    allowed: str
    """Of an enumeration its values; else empty."""
    tunable: bool
    meaning: str


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


def key_table() -> list[str]:
    """Return the lines of a Markdown table of every key."""
    head = "| key | default | allowed values | may change at a resume | meaning |"
    rows = [
        f"| `{key.name}` | `{key.default}` | {key.allowed} | {'yes' if key.tunable else ''} "
        f"| {key.meaning} |"
        for key in describe_keys()
    ]
    return [head, "|---|---|---|---|---|", *rows]


def _describe(name: str, field: FieldInfo, default: object, of: str = "") -> Key:
    meaning = " ".join((field.description or "").split())
    return Key(
        name=name,
        default="required" if field.is_required() else json.dumps(default, default=_plain),
        allowed=", ".join(f"`{value}`" for value in _allowed(field.annotation)),
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
    kinds = ", ".join(f"`{kind.model_fields['kind'].default}`" for kind in sections)
    keys = [
        Key(
            name=f"{prefix}kind",
            default='"transformers"',
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
