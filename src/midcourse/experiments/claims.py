"""The primary claims as data, from ``claims.toml``: named before any is judged, on all runs.

A claim says that `ours` is above every one of `theirs`, or within a margin of it, in one measure
over a fixed number of runs. What decides it and what refutes it is written there, not here.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError

from midcourse.errors import ConfigError
from midcourse.experiments.catalogue import Measure, Row
from midcourse.experiments.studies import Study
from midcourse.recipes import recipe_names


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where claims are tested: a scale, and what is layered on it."""

    scale: str
    overlays: tuple[str, ...] = ()

    @property
    def is_there(self) -> bool:
        """Whether its recipes are packaged; a claim may be named before its world is built."""
        return {self.scale, *self.overlays} <= set(recipe_names())

    def is_at(self, scale_name: str) -> bool:
        """Whether it is the world of `ExperimentRunner.scale_name`."""
        return self.is_there and self.study.scale_name == scale_name

    @property
    def study(self) -> Study:
        """What reads its runs."""
        return Study(title="", scale=self.scale, overlays=self.overlays)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryClaim:
    """One statement about training, with all that its verdict depends on."""

    words: str
    world: str
    measure: Measure
    ours: Row
    theirs: tuple[Row, ...]
    """With several it must be above each."""
    on: str = ""
    """The evaluation set; none for continuations and groups of RL."""
    within: float = 0.0
    """That they differ by less than this, as a share, instead."""
    no: str
    """What would count as a no, in words."""
    runs: int = 10
    """Seeds 1, 2, …; 0 was a pilot."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """All arms, ours first."""
        return (self.ours, *self.theirs)


class Primary(NamedTuple):
    """What ``claims.toml`` holds."""

    worlds: dict[str, World]
    claims: tuple[PrimaryClaim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restated:
    """Statements of an experiment that ask what a claim asks, of some of its runs."""

    claim: int
    """Its place, from 1."""
    study: str
    experiment: str
    statements: tuple[str, ...]


@cache
def primary_claims() -> Primary:
    """Return the claims that are packaged."""
    return read_claims(_packaged())


@cache
def all_restated() -> tuple[Restated, ...]:
    """Return what is said again elsewhere: the claim judges it, nothing else does."""
    adapter = TypeAdapter(tuple[Restated, ...], config=ConfigDict(extra="forbid"))
    return adapter.validate_python(tomllib.loads(_packaged())["restated"])


def claims_restated_in(study: str, experiment: str) -> dict[str, int]:
    """Return the places of claims by the statements of an experiment that say them again."""
    return {
        statement: of.claim
        for of in all_restated()
        if (of.study, of.experiment) == (study, experiment)
        for statement in of.statements
    }


def _packaged() -> str:
    return (resources.files("midcourse.experiments") / "claims.toml").read_text("utf-8")


def read_claims(text: str) -> Primary:
    """Read claims from TOML. Raises ConfigError, one line, if one names what there is not."""
    adapter = TypeAdapter(Primary, config=ConfigDict(extra="forbid"))
    content = tomllib.loads(text)
    try:
        found = adapter.validate_python((content["world"], content["claim"]))
    except ValidationError as error:
        raise ConfigError(_first_line(error)) from None
    for place, claim in enumerate(found.claims, start=1):
        if claim.world not in found.worlds:
            known = ", ".join(found.worlds)
            raise ConfigError(f"claims.toml: claim {place}: no world {claim.world!r}: {known}")
        for row in claim.rows:
            if f"paper/{row.recipe}" not in recipe_names():
                raise ConfigError(f"claims.toml: claim {place}: no recipe paper/{row.recipe}")
    return found


def _first_line(error: ValidationError) -> str:
    """Say where the first mistake is, e.g. ``claim 3: measure``, and what it is."""
    first = error.errors()[0]
    part, place, *keys = first["loc"]
    where = f"claim {int(place) + 1}" if part else f"world {place}"
    key = ".".join(map(str, keys))
    return f"claims.toml: {where}: {key}: {first['msg']}, not {first['input']!r}"
