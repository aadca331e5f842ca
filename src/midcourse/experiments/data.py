"""What was read of finished runs, as small files that are committed: a page needs no run.

A run directory is large and goes away; what an experiment takes from it (counts by problem, groups
of RL, likelihoods) is kept in ``FOLDER/RECIPE/seed<N>.json``, one file a recipe and seed, with what
made it. A file belongs to the settings that it names: under other settings it is stale, and what it
holds is read of a run again.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import TypeAdapter

from midcourse.config import Recipe
from midcourse.errors import ArtifactError, MidcourseError
from midcourse.experiments.catalogue import Row
from midcourse.pipeline import Method, Session
from midcourse.records import content_id
from midcourse.run import code_revision, package_versions
from midcourse.store.files import load_object, make_folder, write_durably

T = TypeVar("T")


class MissingDataError(MidcourseError):
    """What a page needs was not read of any run yet, or of one with other settings."""


@dataclass(frozen=True)
class Reading(Generic[T]):
    """Takes something from one recipe of one seed, for a row; what the run lacks is made."""

    take: Callable[[Session, Method, Row], T]
    """Its name and return type say how it is kept."""
    about: str = ""
    """What else decides it, e.g. an evaluation set."""

    def key(self, row: Row) -> str:
        """Return what it is called in a file, e.g. ``role_counts held_out, patched + RL``."""
        name = self.take.__name__.strip("_")
        return ", ".join((f"{name} {self.about}".strip(), row.key))

    @cached_property
    def adapter(self) -> TypeAdapter[T]:
        """How it is written and read back: by its return type."""
        return TypeAdapter(get_type_hints(self.take)["return"])


@dataclass(slots=True)
class SeedData:
    """The readings of one recipe at one seed, as JSON values by key."""

    path: Path
    recipe_id: str
    """What tells its settings from others."""
    readings: dict[str, Any] = field(default_factory=dict)
    is_stale: bool = False
    """Whether there is a file, of other settings."""

    @classmethod
    def load(cls, path: Path, recipe: Recipe) -> SeedData:
        """Read a file. Raises ArtifactError if it is damaged."""
        found = cls(path, content_id(recipe.identity()))
        if path.is_file():
            content, problem = load_object(path)
            if problem or not isinstance(content.get("readings"), dict):
                raise ArtifactError(f"{path} {problem or 'holds no readings'}: remove it")
            found.is_stale = content.get("recipe") != found.recipe_id
            found.readings = {} if found.is_stale else content["readings"]
        return found

    def save(self) -> None:
        """Write the file, a reading a line, with the code and versions of the last of them."""
        made = {"code": code_revision(), "machine": platform.machine(), **package_versions()}
        lines = [
            f" {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
            for key, value in sorted(self.readings.items())
        ]
        head = f'{{"recipe": "{self.recipe_id}",\n"made": {json.dumps(made)},\n"readings": {{\n'
        make_folder(self.path.parent)
        write_durably(self.path, (head + ",\n".join(lines) + "\n}}\n").encode())
        self.is_stale = False


@dataclass(frozen=True, slots=True)
class RunData:
    """Where the files of one scale lie, and whether a run may be opened for what they lack."""

    folder: Path
    may_run: bool = True

    def of(self, recipe: Recipe) -> SeedData:
        """Return what is kept of a recipe at its seed."""
        return SeedData.load(self.folder / recipe.name / f"seed{recipe.seed}.json", recipe)

    def check(self, kept: SeedData, key: str) -> None:
        """Raise MissingDataError if a reading is not kept, and no run may be opened for it."""
        if key not in kept.readings and not self.may_run:
            state = "stale: the recipe has changed since" if kept.is_stale else "missing"
            raise MissingDataError(f"{kept.path}: {key} is {state}")
