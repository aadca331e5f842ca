"""Builds the pages of studies from committed data alone: no run, no torch.

The same data gives the same files, whatever made them: a page names the code that made its data,
not the code that builds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from midcourse.errors import ConfigError
from midcourse.experiments.catalogue import Experiment
from midcourse.experiments.data import MissingDataError, RunData, SeedData
from midcourse.experiments.evidence import Evidence
from midcourse.experiments.page import write_page
from midcourse.experiments.reproduce import MAKERS, write_result
from midcourse.experiments.results import Result
from midcourse.report.plots import FORMATS, can_draw


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
    asked = set[tuple[str, str]]()
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
    reads: dict[str, list[str]] = {}
    for name, key in sorted(asked):
        reads.setdefault(name, []).append(key)
    made = list(_made(data, reads, seeds))
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
    write_result(experiment, result, state, versions, evidence.folder)


def _made(
    data: RunData, reads: Mapping[str, Iterable[str]], seeds: Iterable[int]
) -> Iterable[dict[str, Any]]:
    """Yield what made the readings of some recipes at some seeds."""
    for seed in seeds:
        for name, keys in reads.items():
            made = SeedData.load(data.path(name, seed)).made
            yield from (by for by in made if by["seconds"].keys() & set(keys))


def _joined(made: Iterable[Mapping[str, Any]], key: str) -> str:
    return ", ".join(sorted({str(by[key]) for by in made if key in by}))


def _clear(folder: Path, name: str) -> None:
    """Delete the files of an earlier result; figures stay where none can be drawn."""
    kept = () if can_draw() else tuple(f".{of}" for of in FORMATS)
    for file in (*folder.glob(f"{name}.*"), *folder.glob(f"{name}-table*")):
        if file.suffix not in kept:
            file.unlink()
