"""Builds the pages of studies from committed data alone: no run, no torch.

The same data gives the same files, whatever made them: a page names the code that made its data,
not the code that builds it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from midcourse.errors import ConfigError
from midcourse.experiments.catalogue import Experiment
from midcourse.experiments.claims import claims_restated_in
from midcourse.experiments.claims_page import write_claims
from midcourse.experiments.data import MissingDataError, RunData, SeedData
from midcourse.experiments.evidence import Evidence, Read
from midcourse.experiments.index import write_index
from midcourse.experiments.page import write_page
from midcourse.experiments.reproduce import MAKERS, write_result
from midcourse.experiments.results import Result
from midcourse.report.plots import FORMATS, can_draw


def build_pages(every: Iterable[Evidence], results: Path) -> None:
    """Build the pages of some studies, then those that are over all: the claims and the index."""
    for evidence in every:
        build(evidence)
    write_claims(results)
    write_index(results)


def build(evidence: Evidence) -> bool:
    """Build the page of a study and the files next to it; False if there is no data for it."""
    study = evidence.study
    if not any(evidence.kept.folder.glob("*/seed*.json")):
        return False
    for experiment, seeds in study.planned:
        _build(evidence, experiment, seeds)
    chosen = [experiment for experiment, _ in study.planned]
    write_page(study.title, chosen, evidence.results / f"{study.page}.md")
    return True


def _build(evidence: Evidence, experiment: Experiment, planned: Sequence[int]) -> None:
    """Write the result of an experiment over the planned seeds of which everything is kept."""
    asked = set[tuple[str, int, str]]()
    data = replace(evidence.kept, asked=asked)
    seeds, result = list(planned), Result(claims=())
    while seeds:
        try:
            result = MAKERS[experiment.name](evidence.runner(seeds, data), experiment)
            break
        except MissingDataError as error:
            seeds.remove(error.seed)
        except ConfigError as error:
            evidence.reporter.say(f"{evidence.study.name}: {experiment.name}: {error}")
            seeds.clear()
    reads = {name: _read(name, seeds, asked) for name in sorted({of[0] for of in asked})}
    made = list(_made(data, reads))
    state = {
        "scale": evidence.runner(planned, data).scale_name,
        "seeds": seeds,
        "planned": list(planned),
        "code": _joined(made, "code"),
        "machine": _joined(made, "machine"),
        "reads": reads,
    }
    _clear(evidence.folder, experiment.name)
    packages = {name for by in made for name in by} - {"code", "machine", "seconds"}
    versions = {name: _joined(made, name) for name in sorted(packages)}
    primary = claims_restated_in(evidence.study.name, experiment.name)
    write_result(experiment, result, state, versions, evidence.folder, primary)


def _read(name: str, seeds: Sequence[int], asked: Collection[tuple[str, int, str]]) -> Read:
    """Return what of a recipe was asked for: its keys, and at which of the seeds."""
    of_recipe = [(seed, key) for of, seed, key in asked if of == name]
    return {
        "seeds": sorted({seed for seed, _ in of_recipe} & set(seeds)),
        "keys": sorted({key for _, key in of_recipe}),
    }


def _made(data: RunData, reads: Mapping[str, Read]) -> Iterable[dict[str, Any]]:
    """Yield what made the readings of some recipes at some seeds."""
    for name, of in reads.items():
        for seed in of["seeds"]:
            made = SeedData.load(data.path(name, seed)).made
            yield from (by for by in made if by["seconds"].keys() & set(of["keys"]))


def _joined(made: Iterable[Mapping[str, Any]], key: str) -> str:
    return ", ".join(sorted({str(by[key]) for by in made if key in by}))


def _clear(folder: Path, name: str) -> None:
    """Delete the files of an earlier result; figures stay where none can be drawn."""
    kept = () if can_draw() else tuple(f".{of}" for of in FORMATS)
    for file in (*folder.glob(f"{name}.*"), *folder.glob(f"{name}-table*")):
        if file.suffix not in kept:
            file.unlink()
