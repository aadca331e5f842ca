"""What was read of finished runs, as small files that are committed: a page needs no run.

A run directory is large and goes away; what an experiment takes from it (counts by problem, groups
of RL, likelihoods) is kept in ``FOLDER/RECIPE/seed<N>.json``, one file a recipe and seed, with the
code and machine that made each reading, and how long it took. A file belongs to the settings that
it names: under other settings it is stale, and what it holds is read of a run again.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
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

    def __init__(self, message: str, seed: int) -> None:
        super().__init__(message)
        self.seed = seed


class TimeIsUpError(MidcourseError):
    """The time given is over; what was read until then is kept."""


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
    made: list[dict[str, Any]] = field(default_factory=list)
    """What made them: code, machine and versions, and by reading the seconds that it took."""
    is_stale: bool = False
    """Whether there is a file, of other settings."""

    @classmethod
    def load(cls, path: Path, recipe: Recipe | None = None) -> SeedData:
        """Read a file, of any settings if no recipe is given. Raises ArtifactError if damaged."""
        found = cls(path, content_id(recipe.identity()) if recipe else "")
        if path.is_file():
            content, problem = load_object(path)
            if problem or not isinstance(content.get("readings"), dict):
                raise ArtifactError(f"{path} {problem or 'holds no readings'}: remove it")
            found.is_stale = recipe is not None and content.get("recipe") != found.recipe_id
            if not found.is_stale:
                found.readings, found.made = content["readings"], content["made"]
        return found

    @property
    def seconds(self) -> float:
        """What all readings took, with what was made for them."""
        return math.fsum(s for by in self.made for s in by["seconds"].values())

    def keep(self, key: str, value: Any, seconds: float) -> None:
        """Write the file with one more reading, under the code and versions that made it."""
        now = _maker()
        self.readings[key] = value
        for by in self.made:
            by["seconds"].pop(key, None)
        same = [by for by in self.made if {k: v for k, v in by.items() if k != "seconds"} == now]
        if not same:
            self.made.append(now | {"seconds": {}})
        (*same, self.made[-1])[0]["seconds"][key] = round(seconds, 2)
        self.made = [by for by in self.made if by["seconds"]]
        self._save()

    def _save(self) -> None:
        made = ",\n".join(f" {json.dumps(by)}" for by in self.made)
        lines = ",\n".join(
            f" {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
            for key, value in sorted(self.readings.items())
        )
        head = f'{{"recipe": "{self.recipe_id}",\n"made": [\n{made}\n],\n'
        text = f'{head}"readings": {{\n{lines}\n}}}}\n'
        make_folder(self.path.parent)
        write_durably(self.path, text.encode())
        self.is_stale = False


@cache
def _maker() -> dict[str, str]:
    """Return what this process makes readings with; the code is that which it loaded."""
    machine = f"{platform.system()} {platform.machine()} with {os.cpu_count()} CPU cores"
    return {"code": code_revision(), "machine": machine, **package_versions()}


@dataclass(frozen=True, slots=True)
class RunData:
    """Where the files of one scale lie, and whether a run may be opened for what they lack."""

    folder: Path
    may_run: bool = True
    deadline: float = math.inf
    """No run is opened after it, by `time.monotonic`."""
    asked: set[tuple[str, int, str]] = field(default_factory=set)
    """The recipe, seed and key of every reading that was asked for."""

    def path(self, name: str, seed: int) -> Path:
        """Return the file of one recipe at one seed."""
        return self.folder / name / f"seed{seed}.json"

    def of(self, recipe: Recipe) -> SeedData:
        """Return what is kept of a recipe at its seed."""
        return SeedData.load(self.path(recipe.name, recipe.seed), recipe)

    def check(self, kept: SeedData, recipe: Recipe, key: str) -> None:
        """Note that a reading is asked for.

        Raises MissingDataError if it is not kept and no run may be opened for it, TimeIsUpError if
        none may be opened any more.
        """
        self.asked.add((recipe.name, recipe.seed, key))
        if key in kept.readings:
            return
        if not self.may_run:
            state = "stale: the recipe has changed since" if kept.is_stale else "missing"
            raise MissingDataError(f"{kept.path}: {key} is {state}", recipe.seed)
        if time.monotonic() > self.deadline:
            raise TimeIsUpError(f"{recipe.name}, seed {recipe.seed}: no time left")
