"""Everything that is wrong with a section, a recipe above all, in words of its own.

pydantic stops at the sections it cannot read and then compares none of them with each other. So
what is wrong is taken out and the rest is read again; what is said then counts where it is about
no key that was taken out.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from midcourse.config.base import Contradictions, Section, without_credentials
from midcourse.config.engines import ENGINES
from midcourse.config.keys import is_named, sections_in
from midcourse.config.wanted import choices_of, inside, wanted
from midcourse.printable import printable

Path = tuple[str, ...]
#: How often what is left is read again.
_ROUNDS = 5
#: Characters of a value that are shown.
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, in one line."""

    text: str
    places: tuple[Path, ...]
    """The keys that it is about."""
    guesses: tuple[Path, ...] = ()
    """Keys that may have been meant instead."""
    missing: object = None
    """What may stand in for a value that is missing, to read on."""

    @property
    def doubtful(self) -> set[Path]:
        """What cannot be judged any further: of an engine's wrong kind all of its keys."""
        named = {*self.places, *self.guesses}
        return {place[:-1] if place[1:] and place[-1] == "kind" else place for place in named}


def find_mistakes(model: type[Section], data: dict[str, Any]) -> list[Mistake]:
    """Return everything that is wrong with the values of a section."""
    data, found, doubtful = deepcopy(data), list[Mistake](), set[Path]()
    for _ in range(_ROUNDS):
        try:
            model.model_validate(data)
            break
        except ValidationError as error:
            new = _mistakes_of(model, error)
        found += (mistake for mistake in new if not _overlap(mistake.places, doubtful))
        for mistake in new:
            doubtful |= mistake.doubtful
            for place in mistake.doubtful:
                _replace(data, place, mistake.missing)
    return found


def explain(error: ValidationError, model: type[Section]) -> str:
    """Say what pydantic complains about in one line."""
    return "; ".join(mistake.text for mistake in _mistakes_of(model, error))


def _overlap(places: tuple[Path, ...], others: set[Path]) -> bool:
    pairs = ((place, other) for place in places for other in others)
    return any(a[: len(b)] == b or b[: len(a)] == a for a, b in pairs)


def _replace(data: dict[str, Any], place: Path, value: object) -> None:
    """Take out what stands at a place, or put a value there."""
    *sections, last = place
    for name in sections:
        inner = data.get(name)
        if not isinstance(inner, dict):
            return
        data = inner
    data.pop(last, None)
    if value is not None:
        data[last] = value


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a complaint of pydantic is."""

    path: Path
    """The key, without the kinds of engines."""
    holder: type[Section]
    """The section that has the key."""
    field: FieldInfo | None
    """None of a key that does not exist, or a name that the recipe gives."""
    rest: tuple[int | str, ...]
    """Where in the value."""

    @property
    def name(self) -> str:
        """The dotted key."""
        return ".".join(self.path)


def _locate(model: type[Section], location: tuple[int | str, ...]) -> _Place:
    path: list[str] = []
    annotation: Any = model
    holder, field = model, None
    for number, part in enumerate(location):
        sections = sections_in(annotation)
        if is_named(annotation):
            path.append(str(part))
            annotation, field = get_args(annotation)[1], None
        elif len(sections) > 1 and part in ENGINES:
            annotation = ENGINES[str(part)]
        elif len(sections) == 1:
            holder = sections[0]
            path.append(str(part))
            field = holder.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            return _Place(tuple(path), holder, field, location[number:])
    return _Place(tuple(path), holder, field, ())


def _mistakes_of(model: type[Section], error: ValidationError) -> list[Mistake]:
    found = [mistake for one in error.errors() for mistake in _explained(model, one)]
    # An item that is wrong several times in a list is said once.
    return list({mistake.text: mistake for mistake in found}.values())


def _explained(model: type[Section], error: ErrorDetails) -> Iterator[Mistake]:
    place, what = _locate(model, error["loc"]), error["type"]
    if what == "value_error":
        yield from _sentences(place, error)
    elif what == "extra_forbidden":
        yield _unknown(model, place, error["input"])
    elif what == "missing" and not place.rest:
        yield _missing(place)
    else:
        yield _wrong(place, error)


def _sentences(place: _Place, error: ErrorDetails) -> Iterator[Mistake]:
    """Yield what our own validators say."""
    cause, start = error["ctx"]["error"], f"{place.name}: " if place.path else ""
    if isinstance(cause, Contradictions):
        for complaint in cause.complaints:
            keys = (tuple(key.split(".")) for key in complaint.keys)
            places = tuple(place.path + key for key in keys)
            yield Mistake(_line(f"{start}{complaint.text}"), places)
    else:
        yield Mistake(_line(f"{start}{cause}"), (place.path,))


def _missing(place: _Place) -> Mistake:
    hint = ": a folder, a hub name, or 'lab'" if place.path[0] == "model" else ""
    is_section = place.field is not None and bool(sections_in(place.field.annotation))
    text = f"{place.name}: is missing: give it a value{hint}"
    return Mistake(_line(text), (place.path,), missing={} if is_section else "x")


def _unknown(model: type[Section], place: _Place, given: object) -> Mistake:
    *above, key = place.path
    known = list(place.holder.model_fields)
    guesses = [(*above, near) for near in difflib.get_close_matches(key, known, n=1)]
    guesses = guesses or [path for path in _paths(model) if path[-1] == key][:3]
    if isinstance(given, dict):
        kind, sign = "section", "[{}]"
    else:
        kind, sign = "key", "'{}'"
    named = " or ".join(sign.format(".".join(guess)) for guess in guesses)
    hint = f"did you mean {named}?" if guesses else f"known keys: {', '.join(known)}"
    text = f"unknown {kind} {sign.format(place.name)}; {hint}"
    return Mistake(_line(text), (place.path,), tuple(guesses))


def _paths(section: type[Section], above: Path = ()) -> Iterator[Path]:
    """Yield every key there is, by the names that are the same in each recipe; of engines none."""
    for name, field in section.model_fields.items():
        yield (*above, name)
        sections = sections_in(field.annotation)
        if len(sections) == 1 and not is_named(field.annotation):
            yield from _paths(sections[0], (*above, name))


def _wrong(place: _Place, error: ErrorDetails) -> Mistake:
    """Return what a key takes instead of the value that was given."""
    if error["type"] == "union_tag_invalid":  # an engine's kind
        kinds = error["ctx"]["expected_tags"].replace("'", "").split(", ")
        must = f"must be one of {', '.join(kinds)}"
        return _refused((*place.path, "kind"), must, error["ctx"]["tag"], kinds)
    # A list of another length is wrong as a whole.
    rest = () if error["type"] in ("missing", "too_long") else place.rest
    of_key = place.field.annotation if place.field else place.holder
    metadata = tuple(place.field.metadata) if place.field and not rest else ()
    annotation = inside(of_key, rest)
    names = tuple(part for part in rest if isinstance(part, str))
    if rest and rest[-1] == "[key]":
        names, must = (), "a name in it must be"
    else:
        must = "must be" if names == rest else "each must be"
    must = f"{must} {wanted(annotation, metadata)}"
    return _refused((*place.path, *names), must, error["input"], choices_of(annotation))


def _refused(path: Path, must: str, given: object, choices: list[str]) -> Mistake:
    near = difflib.get_close_matches(str(given), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return Mistake(_line(f"{'.'.join(path)}: {must}, not {_shown(given)}{hint}"), (path,))


def _shown(value: object) -> str:
    """Return a value as a recipe would hold it, in short."""
    if isinstance(value, bool):
        return json.dumps(value)
    text = without_credentials(repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _line(text: str) -> str:
    """Return it as one line, whatever keys and values hold."""
    return printable(text, keep="")
