"""The primary claims as data, from ``claims.toml``: named before the runs, judged on all of them.

A claim says that `ours` is above every one of `theirs`, or within a margin of it, in one measure
over a fixed number of runs. What decides it and what refutes it is written there, not here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Primary:
    """What ``claims.toml`` holds."""

    worlds: Mapping[str, World]
    claim: tuple[PrimaryClaim, ...]


@cache
def primary_claims() -> Primary:
    """Return the claims that are packaged."""
    text = (resources.files("midcourse.experiments") / "claims.toml").read_text("utf-8")
    return read_claims(text)


def read_claims(text: str) -> Primary:
    """Read claims from TOML. Raises ConfigError, one line, if one names what there is not."""
    adapter = TypeAdapter(Primary, config=ConfigDict(extra="forbid"))
    try:
        found = adapter.validate_python(tomllib.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"claims.toml: {where}: {first['msg']}, not {first['input']!r}") from None
    for place, claim in enumerate(found.claim, start=1):
        if claim.world not in found.worlds:
            known = ", ".join(found.worlds)
            raise ConfigError(f"claims.toml: claim {place}: no world {claim.world!r}: {known}")
        for row in claim.rows:
            if f"paper/{row.recipe}" not in recipe_names():
                raise ConfigError(f"claims.toml: claim {place}: no recipe paper/{row.recipe}")
    return found
