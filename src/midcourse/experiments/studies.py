"""The studies as data, from ``studies.toml``: which experiments at which scale, and how many runs.

A study is a page of ``docs/results``. Its data lies in ``docs/results/data``, by scale: studies at
one scale share run directories and readings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from midcourse.errors import ConfigError
from midcourse.experiments.catalogue import Experiment, experiments
from midcourse.experiments.data import RunData
from midcourse.experiments.runner import ExperimentRunner
from midcourse.progress import Reporter
from midcourse.recipes import find_recipe

#: Where pages and data are committed, and where runs lie.
RESULTS, RUNS = Path("docs/results"), Path("runs/evidence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One page of results, and the runs that it is made of."""

    name: str = ""
    title: str
    page: str = ""
    """Its file without ``.md``; default: its name."""
    world: str = "lab"
    """Where it measures: the column of the page of all results."""
    variant: str = ""
    """How it differs from the world's main study, e.g. "one slip": its lines there say so."""
    scale: str = ""
    overlays: tuple[str, ...] = ()
    experiments: Mapping[str, int] = field(default_factory=dict)
    """By experiment the number of runs planned: seeds 1, 2, …"""
    recipes: tuple[str, ...] = ()
    """Rows of these recipes alone; left out, every row of an experiment."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """By path what has to be there before, and the command that makes it."""
    command: str = ""
    """What makes the study, page and all, where it is not `experiments`."""
    data: str = ""
    """What `command` leaves in `RESULTS`. Of a JSON file, ``claims`` (claim, verdict, figures and,
    if there are any, runs: "3 of 3") can stand on the page of all results."""

    @property
    def where(self) -> str:
        """Its world, and its variant of it."""
        return f"{self.world}, {self.variant}" if self.variant else self.world

    @property
    def planned(self) -> list[tuple[Experiment, range]]:
        """Each experiment with its seeds, in the order of the file."""
        known = experiments()
        return [
            (known[name].of_recipes(self.recipes) if self.recipes else known[name], range(1, n + 1))
            for name, n in self.experiments.items()
        ]

    def units(self, seeds: Sequence[int] = ()) -> list[tuple[Experiment, int]]:
        """Return experiments and seeds in the order in which they are made; `seeds` only, if any.

        All experiments of a seed come before the next seed, so that what is interrupted has whole
        pairs of arms.
        """
        found = [(e, seed) for e, of in self.planned for seed in of if not seeds or seed in seeds]
        return sorted(found, key=lambda unit: (-self.experiments[unit[0].name], unit[1]))

    def runner(
        self, seeds: Sequence[int], reporter: Reporter, data: RunData, runs: Path = RUNS
    ) -> ExperimentRunner:
        """Return where it runs, with what is kept of it."""
        return ExperimentRunner(
            scale=find_recipe(self.scale),
            overlays=tuple(map(find_recipe, self.overlays)),
            seeds=tuple(seeds),
            reporter=reporter,
            runs=runs,
            data=data,
        )

    @property
    def scale_name(self) -> str:
        """As `ExperimentRunner.scale_name`."""
        return "-".join(find_recipe(name).stem for name in (self.scale, *self.overlays))

    def data_folder(self, results: Path = RESULTS) -> Path:
        """Return where its readings lie, by scale."""
        return results / "data" / self.scale_name


@cache
def studies() -> Mapping[str, Study]:
    """Return every study by name, in order."""
    text = (resources.files("midcourse.experiments") / "studies.toml").read_text("utf-8")
    adapter = TypeAdapter(dict[str, Study], config=ConfigDict(extra="forbid"))
    read = adapter.validate_python(tomllib.loads(text))
    return {name: replace(of, name=name, page=of.page or name) for name, of in read.items()}


def choose_studies(name: str) -> list[Study]:
    """Return the study of that name, or ``all``. Raises ConfigError."""
    known = studies()
    if name != "all" and name not in known:
        raise ConfigError(f"no study {name!r}: choose from all, {', '.join(known)}")
    return [study for study in known.values() if name in ("all", study.name)]
