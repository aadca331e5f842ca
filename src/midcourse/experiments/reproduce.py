"""Runs experiments and writes what they come to: Markdown, JSON, CSV, SVG, PNG.

A result is written once per state of code, recipes and seeds: the JSON file, written last, names
all three, and the same command then does nothing. Artifacts are kept whatever the code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from midcourse.errors import ConfigError
from midcourse.experiments import (
    appendix_g,
    beyond,
    errors,
    memorisation,
    patches,
    rl,
    table1,
    tokens,
)
from midcourse.experiments.bench import WHOLE_METHOD, Bench
from midcourse.experiments.results import Experiment, Result, claim_lines, table_lines
from midcourse.report.plots import can_draw, csv_text, draw, figure_csv
from midcourse.run import code_revision, package_versions
from midcourse.store import write_json_atomic

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        table1.TABLE_1,
        patches.TABLE_2,
        rl.TABLE_3,
        rl.TABLE_4,
        table1.TABLE_7,
        appendix_g.TABLE_8,
        errors.FIGURE_2,
        table1.FIGURE_4,
        patches.FIGURE_6,
        tokens.FIGURE_7,
        tokens.FIGURE_8,
        tokens.FIGURE_9,
        errors.FIGURE_10,
        rl.FIGURE_11,
        rl.FIGURE_12,
        appendix_g.FIGURE_19,
        appendix_g.FIGURE_20,
        memorisation.APPENDIX_F,
        beyond.SHIFT,
        beyond.LOCALISATION,
        beyond.ZERO_ADVANTAGE,
        beyond.ITERATED,
        beyond.EQUAL_HINTS,
    )
}


def choose(names: Sequence[str]) -> list[Experiment]:
    """Return the experiments of `names`, each once; ``all`` is every one. Raises ConfigError."""
    wanted = list(EXPERIMENTS) if "all" in names else list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in EXPERIMENTS]
    if unknown:
        raise ConfigError(
            f"no experiment {unknown[0]!r}: choose from all, {', '.join(EXPERIMENTS)}"
        )
    return [EXPERIMENTS[name] for name in wanted]


def default_folder(bench: Bench) -> Path:
    """Return where results go: the run directory of one seed, else a folder named by the seeds."""
    if len(bench.seeds) == 1:
        return bench.run_directory(bench.seeds[0]) / "report"
    joined = "-".join(map(str, bench.seeds))
    return bench.runs / f"reproduce-{bench.scale_name}-seeds-{joined}"


def reproduce(experiments: Sequence[Experiment], bench: Bench, out: Path) -> None:
    """Run what is missing of each experiment and write its result under `out`."""
    is_lab = bench.recipe(WHOLE_METHOD, bench.seeds[0]).problems.kind == "lab"
    for experiment in experiments:
        if experiment.needs_lab and not is_lab:
            bench.reporter.say(f"{experiment.name}: left out, only the lab knows the first error")
            continue
        state = _state(experiment, bench)
        path = out / f"{experiment.name}.json"
        if _is_written(path, state):
            bench.reporter.say(f"{experiment.name}: nothing to do, {path.with_suffix('.md')}")
            continue
        result = experiment.make(bench)
        _write(experiment, result, state, out)
        bench.reporter.say(f"{experiment.name}: {path.with_suffix('.md')}")
        for claim in result.claims:
            bench.reporter.say(f"  {claim.verdict:<14} {claim.claim}: {claim.figures}")


@dataclass(frozen=True, slots=True)
class State:
    """What decides a result: the same state makes the same files."""

    recipes: str
    """Hash of the settings of every recipe and seed."""
    seeds: tuple[int, ...]
    scale: str
    code: str
    drawn: bool
    """Whether figures could be drawn."""


def _state(experiment: Experiment, bench: Bench) -> State:
    return State(
        bench.identity(experiment.recipes), bench.seeds, bench.scale_name, code_revision(),
        can_draw(),
    )  # fmt: skip


def _is_written(path: Path, state: State) -> bool:
    """Whether a result of this state is there; the JSON file is written last."""
    if not path.is_file():
        return False
    there = json.loads(path.read_text("utf-8"))["state"]
    return bool(there == json.loads(json.dumps(asdict(state))))


def _write(experiment: Experiment, result: Result, state: State, out: Path) -> None:
    """Write every file of a result, the JSON last."""
    out.mkdir(parents=True, exist_ok=True)
    name = experiment.name
    (out / f"{name}.md").write_text(_markdown(experiment, result, state), "utf-8")
    if result.figure is not None:
        (out / f"{name}.csv").write_text(figure_csv(result.figure), "utf-8")
        if can_draw():
            (out / f"{name}.svg").write_bytes(draw(result.figure, "svg"))
            (out / f"{name}.png").write_bytes(draw(result.figure, "png"))
    for index, table in enumerate(result.tables, start=1):
        suffix = "" if len(result.tables) == 1 and result.figure is None else f"-table{index}"
        (out / f"{name}{suffix}.csv").write_text(csv_text(table.columns, table.rows), "utf-8")
    content = {
        "state": asdict(state),
        "versions": package_versions(),
        "title": experiment.title,
        "recipes": experiment.recipes,
        "tables": [asdict(table) for table in result.tables],
        "claims": [{**asdict(claim), "verdict": claim.verdict} for claim in result.claims],
        "figure": None if result.figure is None else asdict(result.figure),
    }
    write_json_atomic(out / f"{name}.json", content)


def _markdown(experiment: Experiment, result: Result, state: State) -> str:
    seeds = ", ".join(map(str, state.seeds))
    made = f"Scale {state.scale}, seeds {seeds}, code {state.code}."
    recipes = f"Recipes: {', '.join(experiment.recipes)}."
    lines = [f"# {experiment.title}", "", f"{made} {recipes}"]
    lines += claim_lines(result.claims)
    if result.figure is not None and can_draw():
        lines += ["", f"![{experiment.title}]({experiment.name}.svg)"]
    for table in result.tables:
        lines += table_lines(table)
    return "\n".join(lines) + "\n"
