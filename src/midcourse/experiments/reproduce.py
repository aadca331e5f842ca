"""Runs experiments and writes what they come to: Markdown, JSON, CSV, SVG, PNG.

A result is written once per state of code, recipes and seeds: the JSON file, written last, names
all three, and the same command then does nothing. Artifacts are kept whatever the code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from midcourse.errors import ConfigError
from midcourse.experiments import (
    interventions,
    lab,
    league,
    mechanism,
    outcomes,
    patches,
    rl,
    verification,
)
from midcourse.experiments.catalogue import Experiment, experiments
from midcourse.experiments.page import NOT_YET, result_lines
from midcourse.experiments.results import Result
from midcourse.experiments.runner import ExperimentRunner
from midcourse.report.estimates import ShapeLine
from midcourse.report.plots import FORMATS, Figure, can_draw, csv_text, draw, figure_csv
from midcourse.run import code_revision, package_versions
from midcourse.store.files import write_json_atomic

MAKERS = {
    **interventions.MAKERS,
    **patches.MAKERS,
    **rl.MAKERS,
    **lab.MAKERS,
    **mechanism.MAKERS,
    **league.MAKERS,
    **outcomes.MAKERS,
    **verification.MAKERS,
}


def choose(names: Sequence[str]) -> list[Experiment]:
    """Return the experiments of `names`, each once; ``all`` is every one. Raises ConfigError."""
    known = experiments()
    wanted = list(known) if "all" in names else list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise ConfigError(f"no experiment {name!r}: choose from all, {', '.join(known)}")
    return [known[name] for name in wanted]


def default_folder(runner: ExperimentRunner) -> Path:
    """Return where results go: the run directory of one seed, else a folder named by the seeds."""
    if len(runner.seeds) == 1:
        return runner.run_directory(runner.seeds[0]) / "report"
    joined = "-".join(map(str, runner.seeds))
    return runner.runs / f"reproduce-{runner.scale_name}-seeds-{joined}"


def reproduce(chosen: Sequence[Experiment], runner: ExperimentRunner, out: Path) -> None:
    """Run what is missing of each chosen experiment and write its result under `out`."""
    say = runner.reporter.say
    for experiment in chosen:
        name, page = experiment.name, out / f"{experiment.name}.md"
        if experiment.needs_lab and not runner.is_lab:
            say(f"{name}: left out, only the lab knows the first error")
            continue
        state = {
            "recipes": runner.identity(experiment.recipes),
            "seeds": list(runner.seeds),
            "scale": runner.scale_name,
            "code": code_revision(),
            "drawn": can_draw(),
        }
        if _state(page.with_suffix(".json")) == state:
            say(f"{name}: nothing to do, {page}")
            continue
        result = MAKERS[name](runner, experiment)
        write_result(experiment, result, state, package_versions(), out)
        say(f"{name}: {page}")
        for claim in result.claims:
            say(f"  {claim.verdict:<14} {claim.claim}: {claim.figures}")


def _state(path: Path) -> object:
    """Return what an earlier result was made of; the JSON file is written last."""
    return json.loads(path.read_text("utf-8"))["state"] if path.is_file() else None


def _judged(
    claims: Iterable[ShapeLine], state: Mapping[str, Any], primary: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield claims with their verdicts; without one until all runs that were planned are there.

    Whoever may look at any number of runs can choose what is found. What a primary claim judges
    names it instead: on fewer runs the same statement would get another verdict.
    """
    waits = set(state.get("planned", ())) - set(state["seeds"])
    for claim in claims:
        judged: dict[str, Any] = {"verdict": claim.verdict}
        if place := primary.get(claim.claim):
            judged = {"holds": None, "verdict": f"claim {place}", "primary": place}
        elif waits:
            judged = {"holds": None, "verdict": NOT_YET}
        yield asdict(claim) | judged


def write_result(
    experiment: Experiment,
    result: Result,
    state: dict[str, Any],
    versions: dict[str, str],
    out: Path,
    primary: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Write every file of a result, the JSON last; `versions` made what it rests on.

    `primary` has the places of the primary claims that judge some of its statements.
    """
    out.mkdir(parents=True, exist_ok=True)
    name, figure = experiment.name, Figure(experiment.name, tuple(result.panels))
    if figure.panels:
        (out / f"{name}.csv").write_text(figure_csv(figure), "utf-8")
        for file_format in FORMATS if can_draw() else ():
            (out / f"{name}.{file_format}").write_bytes(draw(figure, file_format))
    for index, table in enumerate(result.tables, start=1):
        suffix = "" if len(result.tables) == 1 and not figure.panels else f"-table{index}"
        (out / f"{name}{suffix}.csv").write_text(csv_text(table.columns, table.rows), "utf-8")
    content = {
        "state": state,
        "versions": versions,
        "title": experiment.title,
        "unit": experiment.unit.said,
        "stated_in": experiment.stated_in,
        "judged_on": experiment.judged_on,
        "recipes": experiment.recipes,
        "tables": [asdict(table) for table in result.tables],
        "claims": list(_judged(result.claims, state, primary)),
        "figure": asdict(figure) if figure.panels else None,
    }
    seeds, recipes = ", ".join(map(str, state["seeds"])), ", ".join(experiment.recipes)
    made = f"Scale {state['scale']}, seeds {seeds}, code {state['code']}. Recipes: {recipes}."
    lines = [f"# {experiment.title}", "", made, *result_lines(content, name, out, "", "##")]
    (out / f"{name}.md").write_text("\n".join(lines) + "\n", "utf-8")
    write_json_atomic(out / f"{name}.json", content)
