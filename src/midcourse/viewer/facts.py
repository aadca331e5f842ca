"""What was run, what the page holds of it, and what it does not hold, line by line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from midcourse.viewer.builder import PageBuilder
from midcourse.viewer.data import Kind
from midcourse.viewer.files import RunFiles

#: So many names are listed, the others are counted.
_LISTED = 6
_NOTES = 10


def name_of(files: RunFiles) -> str:
    """Return what a run is called: its recipe, or its folder if it has several."""
    names = [str(recipe.get("name", "")) for recipe in files.recipes]
    return names[0] if len(names) == 1 and names[0] else files.directory.resolve().name


def facts_of(builder: PageBuilder) -> Sequence[tuple[str, str]]:
    """Return the facts of a page that holds all that it is to hold."""
    files = builder.files
    told = (*_recipe(files.recipes), *_work(files), *_counts(builder), *builder.room.facts())
    return [*told, *(("cannot be read", note) for note in _notes(files))]


def _notes(files: RunFiles) -> list[str]:
    """Return what could not be read, each once; of very much, how much more there is."""
    within = f"{files.directory}/"
    notes = list(dict.fromkeys(note.replace(within, "") for note in files.notes))
    more = len(notes) - _NOTES
    return [*notes[:_NOTES], f"and {more} more"] if more > 0 else notes


def _recipe(recipes: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    if recipes:
        yield "recipe", _listed(recipe.get("name") for recipe in recipes)
        yield "model", _listed((recipe.get("model") or {}).get("path") for recipe in recipes)
        yield "seed", _listed(recipe.get("seed") for recipe in recipes)


def _work(files: RunFiles) -> Iterator[tuple[str, str]]:
    """Say when and with which code it was made, and what is not complete."""
    manifests = [step.manifest for step in files.steps if step.manifest]
    times = sorted(
        str(m[end])[:19] for m in manifests for end in ("started", "finished") if end in m
    )
    if times:
        yield "made", f"{times[0]} to {times[-1]} UTC"
        yield "code", _listed(manifest.get("code_revision") for manifest in manifests)
    if under_way := [f"{step.name} {step.label}" for step in files.steps if not step.manifest]:
        yield "under way", _listed(under_way)
    if files.num_waiting:
        yield "not begun", f"{files.num_waiting} of {len(files.steps) + files.num_waiting} stages"


def _counts(builder: PageBuilder) -> Iterator[tuple[str, str]]:
    proposals = [item for item in builder.items if item.kind is Kind.PROPOSAL]
    verified = sum(bool(item.verified) for item in proposals)
    trained = sum(item.trained for item in proposals)
    yield "proposals", f"{len(proposals):,}: {verified:,} verified, {trained:,} became rows"
    for kind, what in ((Kind.ROLLOUT, "rollouts"), (Kind.RL, "rollouts of RL")):
        yield what, f"{builder.number(kind):,}"


def _listed(values: Iterable[object]) -> str:
    found = list(dict.fromkeys(str(value) for value in values))
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return ", ".join(found[:_LISTED]) + more
