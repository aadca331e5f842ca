"""Puts the GSM8K runs into one page: ``make gsm8k`` writes docs/results/gsm8k-smollm2.md.

Reads what the runs left: the warm-up's measure, the loop's report, and the two runs of Table 1
row 7. Every figure comes from there; a run that is missing is named as missing.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from midcourse.config import Recipe
from midcourse.metrics import accuracy, bootstrap, coverage, wilson
from midcourse.pipeline import Graded, open_run
from midcourse.pipeline.interventions import INTERVENTION
from midcourse.report.collect import count_by_problem
from midcourse.run import read_recipe
from midcourse.store.stage import read_manifest
from midcourse.table import Table, share

PAGE = Path("docs/results/gsm8k-smollm2.md")
ROW_7 = {
    "before": "row 7, before verification training",
    "after": "row 7, after verification training",
}


def main() -> None:
    """Read the runs of one set of recipes, e.g. ``runs/gsm8k-cpu``; write the page."""
    runs = sys.argv[1]
    warmup, loop = Path(f"{runs}-warmup"), Path(f"{runs}-smollm2")
    recipe = read_recipe(loop / "config.resolved.json")
    lines = [*_head(runs, warmup, loop, recipe), *_section(_warmup_rows(warmup))]
    lines += _section(_table(_read(warmup / "check" / "table.json")))
    report = _read(loop / "report" / "tables.json")
    lines += [line for table in report["tables"] for line in _section(_table(table))]
    lines += _section(_row_7(runs, loop)) + _figures(loop)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")


def _figures(loop: Path) -> list[str]:
    """Copy the report's figures next to the page; return the lines that show them."""
    folder = PAGE.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["", "## Figures", ""]
    for figure in sorted((loop / "report").glob("*.svg")):
        shutil.copyfile(figure, folder / figure.name)
        lines.append(f"![{figure.stem.replace('_', ' ')}]({folder.name}/{figure.name})")
    return lines


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def _table(data: dict[str, Any]) -> Table:
    rows = tuple(tuple(row) for row in data["rows"])
    return Table(data["title"], tuple(data["columns"]), rows, data["note"])


def _section(table: Table) -> list[str]:
    return ["", f"## {table.title}", "", *table.markdown(), "", table.note]


def _head(runs: str, warmup: Path, loop: Path, recipe: Recipe) -> list[str]:
    facts = _read(loop / "report" / "tables.json")["facts"]
    versions = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "recipe")
    name, problems = Path(runs).name, recipe.problems
    warmed_by = read_manifest(warmup / "verification" / "model")["code_revision"]
    made = (loop / "checkpoints").glob("*/manifest.json")
    looped_by = ", ".join(sorted({read_manifest(file.parent)["code_revision"] for file in made}))
    return f"""# SmolLM2-135M-Instruct on GSM8K

Made by `make gsm8k GSM8K={name}`: `midcourse warmup {name}-warmup`, then
`midcourse run {name}-smollm2`, then `scripts/gsm8k_row7.sh {name}`,
on {platform.system()} {platform.machine()}; report: {versions};
warm-up by code {warmed_by}, trainings of the loop by {looped_by}.

"Base" is the model after the warm-up, not SmolLM2 as published. The loop has {problems.limit}
problems of GSM8K train, {recipe.sample.num_rollouts} rollouts each; held out are the first
{problems.held_out_limit} problems of GSM8K test, {recipe.evaluate.num_rollouts} rollouts each.
The three parts of GSM8K train share no problem; nothing was chosen by looking at test problems.
""".splitlines()


def _warmup_rows(warmup: Path) -> Table:
    """Build what each training of the warm-up saw, from its manifests."""
    rows = []
    for label in ("worked", "verification"):
        trained = read_manifest(warmup / label / "model")
        made = read_manifest(warmup / "rows" / trained["inputs"][f"rows {label}"])
        counts, losses = made["counts"], trained["counts"]
        rows.append(
            (
                label,
                ", ".join(f"{count} {name}" for name, count in counts.items()),
                f"{losses['num_steps']:.0f}",
                f"{losses['first_loss']:.2f}",
                f"{losses['last_loss']:.2f}",
            )
        )
    columns = ("training", "rows", "optimiser steps", "first loss", "last loss")
    note = "Loss in nats per token of the replies, of the first and the last step's rows."
    return Table("Warm-up", columns, tuple(rows), note)


def _row_7(runs: str, loop: Path) -> Table:
    rows = [_counts("row 4, reference shown", loop)]
    for which, name in ROW_7.items():
        run = Path(f"{runs}-row7-{which}")
        missing = (name, "not run", *("–",) * 4)
        rows.append(_counts(name, run) if (run / "select").is_dir() else missing)
    columns = ("proposer", "proposals", "coverage", "correct", "accuracy %, by problem", "Wilson")
    note = (
        "Continuations of the base from prefix + intervention. Row 7's proposer sees no reference. "
        "95 % intervals. The paper, row 4 and row 7: 80/334, 1.56 % and 47/334, 0.171 %."
    )
    return Table("Table 1 row 7: without the reference", columns, tuple(rows), note)


def _counts(name: str, directory: Path) -> tuple[str, ...]:
    """Return one line of Table 1."""
    finished = open_run(directory)
    made = finished.method
    outcomes = Counter(str(p.outcome) for p in finished.read(made.proposals, ("turns",)))
    graded = made.interventions.verified[INTERVENTION]
    if not isinstance(graded, Graded):
        raise TypeError("a search has no accuracy")
    counts = count_by_problem(finished.run, graded, made.hard.read(finished.run))
    said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    samples, correct = (
        sum(getattr(c, field) for c in counts) for field in ("num_samples", "num_correct")
    )
    return (
        name,
        said,
        f"{coverage(counts)}/{len(counts)}",
        f"{correct}/{samples}",
        share(bootstrap(counts, accuracy)),
        share(wilson(correct, samples)),
    )


if __name__ == "__main__":
    main()
