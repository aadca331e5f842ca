"""What a key takes, in words: "a whole number ≥ 1" rather than a type and its constraints."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from midcourse.config.base import Section
from midcourse.records import TABLE_1, Condition

_SINGULAR = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text in quotes",
    date: "a date such as 2024-07-26",
}
_SIGNS = {Gt: ">", Ge: "≥", Lt: "<", Le: "≤"}
_PLURAL = {int: "whole numbers", float: "numbers", bool: "true or false", str: "texts in quotes"}


def wanted(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """Return what a type takes, its constraints included: "a number from 0 to 1"."""
    annotation, metadata = _bare(annotation, metadata)
    if choices := choices_of(annotation):
        return f"one of {', '.join(choices)}"
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple:
        number = "" if Ellipsis in arguments else f"{len(arguments)} "
        return f"a list of {number}{_several(arguments[0])}"
    if get_origin(annotation) is dict and not _is_section(arguments[1]):
        return f"a table of {_several(arguments[1])} by name"
    if annotation in _SINGULAR:
        return f"{_SINGULAR[annotation]}{_bounds(metadata)}"
    return "a section" if _is_section(annotation) or arguments else "a value of another type"


def inside(annotation: Any, location: tuple[int | str, ...]) -> Any:
    """Return the type of what stands at a place within a list or a table."""
    for part in location:
        arguments = get_args(_bare(annotation, ())[0])
        if not arguments:
            return annotation
        if part == "[key]":
            return arguments[0]
        if isinstance(part, str):
            # The name of an entry, or the entry whose name is wrong.
            annotation = arguments[0] if location[-1] == "[key]" else arguments[-1]
        else:
            annotation = arguments[0]
    return annotation


def choices_of(annotation: Any) -> list[str]:
    """Return the values of an enumeration; of another type, none."""
    annotation = _bare(annotation, ())[0]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    # Those that write solutions are not rows of Table 1, which a recipe may name.
    return [str(row) for row in TABLE_1] if annotation is Condition else []


def _bare(annotation: Any, metadata: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Return a type without None and without what annotates it, which is added to `metadata`."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        fields = [field.metadata for field in arguments[1:] if isinstance(field, FieldInfo)]
        return _bare(arguments[0], (*metadata, *(one for field in fields for one in field)))
    if type(None) in arguments:
        one, *others = (argument for argument in arguments if argument is not type(None))
        return (annotation, metadata) if others else _bare(one, metadata)
    return annotation, metadata


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _several(annotation: Any) -> str:
    bare, metadata = _bare(annotation, ())
    if choices := choices_of(bare):
        return f"values out of {', '.join(choices)}"
    return f"{_PLURAL.get(bare, 'values')}{_bounds(metadata)}"


def _bounds(metadata: tuple[Any, ...]) -> str:
    """Return constraints as they follow a noun: " ≥ 1", " from 0 to 1"."""
    known = (m for m in metadata if type(m) in _SIGNS)
    signs = [(_SIGNS[type(m)], getattr(m, type(m).__name__.lower())) for m in known]
    said = " and ".join(f"{sign} {value}" for sign, value in signs)
    if [sign for sign, _ in signs] == ["≥", "≤"]:
        said = f"from {signs[0][1]} to {signs[1][1]}"
    return f" {said}" if said else ""
