"""Makes what is missing of the studies, in slices that resume, and says how things stand.

What is made is kept as data, by recipe and seed; pages are built from that alone. A unit of work is
one experiment at one seed. All recipes of a seed share a run directory, so workers take different
seeds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypedDict

from midcourse.errors import ConfigError, MidcourseError
from midcourse.experiments.catalogue import Experiment
from midcourse.experiments.data import RunData, SeedData, TimeIsUpError
from midcourse.experiments.reproduce import MAKERS
from midcourse.experiments.runner import ExperimentRunner
from midcourse.experiments.studies import RESULTS, RUNS, Study
from midcourse.progress import Reporter, SilentProgress
from midcourse.store.files import load_object


class Read(TypedDict):
    """What an experiment read of one recipe."""

    seeds: list[int]
    keys: list[str]


Wanted = Iterator[tuple[str, int, Sequence[str] | None]]
"""Recipe, seed and keys; None where no run was whole yet that would tell them."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How many of a study's runs (a recipe at a seed) are there, and what is left."""

    there: int
    stale: int
    """Their recipe has changed since."""
    missing: int
    """Not made, or not all that is read of them."""
    seconds: float | None
    """What is left would take on one worker, by like runs; None if there is none."""
    is_bound: bool
    """Whether it takes longer: what some experiment reads of its runs is not known yet."""


@dataclass(frozen=True)
class Evidence:
    """The data of one study, and what it lacks."""

    study: Study
    results: Path = RESULTS
    runs: Path = RUNS
    reporter: Reporter = field(default_factory=SilentProgress)

    @property
    def folder(self) -> Path:
        """Where the files of its experiments lie, next to its page."""
        return self.results / self.study.page

    def runner(self, seeds: Sequence[int], data: RunData) -> ExperimentRunner:
        """Return what reads its runs, or their data."""
        return self.study.runner(seeds, self.reporter, data, self.runs)

    @cached_property
    def _reader(self) -> ExperimentRunner:
        """What tells its recipes and run directories; it reads nothing."""
        return self.runner((1,), self.kept)

    @cached_property
    def kept(self) -> RunData:
        """Its data; no run is opened for it."""
        return RunData(self.study.data_folder(self.results), may_run=False)

    def standing(self) -> Standing:
        """Return how many runs are there. Raises ArtifactError if a file is damaged."""
        wanted: dict[tuple[str, int], set[str]] = {}
        unknown = set[tuple[str, int]]()
        for experiment, seeds in self.study.planned:
            for name, seed, keys in self._wanted(experiment, seeds):
                wanted.setdefault((name, seed), set()).update(keys or ())
                if keys is None:  # Another study of this scale may have read of it what it needs.
                    unknown.add((name, seed))
        found = {unit: self._load(*unit) for unit in wanted}
        whole = {u for u, of in found.items() if of.readings and wanted[u] <= of.readings.keys()}
        there = whole - unknown
        stale = {unit for unit, of in found.items() if of.is_stale}
        left = [unit for unit in wanted if unit not in there]
        seconds = _seconds(found, there, left) if there or not left else None
        return Standing(len(there), len(stale), len(left) - len(stale), seconds, bool(unknown))

    def line(self) -> str:
        """Say how it stands, e.g. ``lab: 12 of 40 runs; about 50 minutes left``."""
        name, study = self.study.name, self.study
        if study.command:
            file = self.results / study.data
            return f"{name}: made by `{study.command}`; {file} is {_there(file)}"
        now = self.standing()
        of = now.there + now.stale + now.missing
        if now.there == of:
            return f"{name}: all {of} runs are there"
        stale = f", {now.stale} more stale: their recipe has changed since" * bool(now.stale)
        unknown = "no run tells how long the rest takes"
        about = "more than" if now.is_bound else "about"
        left = unknown if now.seconds is None else f"{about} {now.seconds / 60:.0f} minutes left"
        return f"{name}: {now.there} of {of} runs{stale}; {left}"

    def make(self, seeds: Sequence[int], deadline: float) -> bool:
        """Make what is missing until the deadline, by `time.monotonic`; False if some failed.

        Raises ConfigError if something is needed that is not there.
        """
        data, failed = RunData(self.kept.folder, deadline=deadline), False
        for experiment, seed in self.missing(seeds):
            self._check_needs()
            try:
                MAKERS[experiment.name](self.runner((seed,), data), experiment)
                self.reporter.say(f"{self.study.name}: {experiment.name}, seed {seed}: there")
            except TimeIsUpError as error:
                self.reporter.say(f"{self.study.name}: stopped before {error}")
                break
            except MidcourseError as error:
                failed = True
                self.reporter.say(f"{self.study.name}: {experiment.name}, seed {seed}: {error}")
        return not failed

    def _check_needs(self) -> None:
        for path, command in self.study.needs.items():
            if not Path(path).exists():
                raise ConfigError(f"{self.study.name} needs {path}: run {command}")

    def missing(self, seeds: Sequence[int] = ()) -> Iterator[tuple[Experiment, int]]:
        """Yield the experiments and seeds of which something is not kept, in order."""
        for experiment, seed in self.study.units(seeds):
            known = built_state(self.folder, experiment).get("seeds")
            if not known or any(
                set(keys or ()) - self._load(name, seed).readings.keys()
                for name, seed, keys in self._wanted(experiment, [seed])
            ):
                yield experiment, seed

    def run_directories(self, seeds: Iterable[int]) -> set[Path]:
        """Return where runs of its seeds lie, those of recipes that had changed too."""
        usual = {self._reader.run_directory(seed) for seed in seeds}
        return usual | {of for path in usual for of in path.parent.glob(f"{path.name}-*")}

    def _wanted(self, experiment: Experiment, seeds: Iterable[int]) -> Wanted:
        """Yield each recipe and seed that an experiment reads, with the keys it was read by.

        As it was when the page was built: a recipe that was then read at some of the seeds only is
        wanted at those. Before a whole seed was there, all recipes that it is said to open, without
        keys.
        """
        state = built_state(self.folder, experiment)
        reads: dict[str, Read] = state.get("reads", {})
        there = state.get("seeds")
        opened = () if there else filter(self._reader.has, experiment.recipes)
        for name in dict.fromkeys((*reads, *opened)):
            of = reads.get(name, Read(seeds=[], keys=[]))
            some = of["seeds"] if there and of["seeds"] != there else seeds
            for seed in seeds:
                if seed in some:
                    yield name, seed, of["keys"] if there else None

    def _load(self, name: str, seed: int) -> SeedData:
        """Return what is kept of a recipe; a round of `iterated` is not a packaged one."""
        try:
            recipe = self._reader.recipe(name, seed)
        except ConfigError:
            return SeedData.load(self.kept.path(name, seed))
        return self.kept.of(recipe)


def built_state(folder: Path, experiment: Experiment) -> dict[str, Any]:
    """Return what the result of an experiment was built from; empty if it was not from data."""
    state: dict[str, Any] = load_object(folder / f"{experiment.name}.json")[0].get("state", {})
    return state if "reads" in state else {}


def prune(every: Iterable[Evidence]) -> list[Path]:
    """Delete the run directories of seeds of which no study lacks anything; return them."""
    done, needed = set[Path](), set[Path]()
    for evidence in every:
        done |= evidence.run_directories({seed for _, of in evidence.study.planned for seed in of})
        needed |= evidence.run_directories({seed for _, seed in evidence.missing()})
    removed = sorted(path for path in done - needed if path.exists())
    for path in removed:
        shutil.rmtree(path)
    return removed


def make_all(
    chosen: Iterable[Evidence], seeds: Sequence[int], minutes: float, workers: int
) -> bool:
    """Make what is missing of studies, one after the other, in so many minutes together.

    False if some of it failed. Raises ConfigError as `Evidence.make` does.
    """
    deadline, succeeded = time.monotonic() + 60 * minutes, True
    for evidence in chosen:
        left = (deadline - time.monotonic()) / 60
        if workers > 1 and left > 0:
            succeeded &= _make_with_workers(evidence.study, seeds, left, workers)
        else:
            succeeded &= evidence.make(seeds, deadline)
    return succeeded


def _make_with_workers(study: Study, seeds: Sequence[int], minutes: float, workers: int) -> bool:
    """Make a study with several processes of one thread, each with its own seeds.

    False if one of them failed.
    """
    every = sorted({seed for _, seed in study.units(seeds)})
    base = [sys.executable, "-m", "midcourse", "evidence", study.name, "--no-pages"]
    parts = [every[place::workers] for place in range(min(workers, len(every)))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [*base, f"--minutes={minutes}", *(f"--seed={seed}" for seed in part)], env=environment
        )
        for part in parts
    ]
    try:
        codes = [process.wait() for process in running]
    finally:
        for process in running:  # Those that still run when this one is stopped.
            process.terminate()
    return not any(codes)


def _there(file: Path) -> str:
    return "there" if file.exists() else "missing"


def _seconds(
    found: Mapping[tuple[str, int], SeedData],
    there: Collection[tuple[str, int]],
    left: Iterable[tuple[str, int]],
) -> float:
    """Return what the units left would take: each as the mean of its recipe, else of all."""
    took: dict[str, list[float]] = {}
    for unit in there:
        took.setdefault(unit[0], []).append(found[unit].seconds)
    typical = fmean([s for of in took.values() for s in of]) if took else 0.0
    return sum(
        max(0.0, fmean(took.get(name, [typical])) - found[name, seed].seconds)
        for name, seed in left
    )
