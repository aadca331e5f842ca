"""Puts lab runs of several seeds together: ``make lab-results`` writes docs/results/lab.md.

Counts are pooled, intervals are bootstrapped over the problems of all seeds. Nothing is chosen:
every seed named on the command line is in every figure, and a shape that does not hold says so.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midcourse.lab.counts.check import check_counts
from midcourse.metrics import (
    Count,
    Interval,
    accuracy,
    bootstrap,
    mean_pass_at_k,
    paired_difference,
)
from midcourse.records import Condition, GroupCount
from midcourse.report.estimates import ShapeLine
from midcourse.report.shape import shape_lines
from midcourse.report.tables import condition_table, pass_at_k_table, rl_table
from midcourse.table import Table, share

KS = (1, 2, 4, 8, 16, 32)
CONTROLS = {
    "shuffled": "references shuffled among problems",
    "original-step": "SFT on the original wrong step",
}
Report = dict[str, Any]


def main() -> None:
    """Read the runs, check the base model, write the page."""
    folder, seeds = Path(sys.argv[1]), sys.argv[2:]
    reports = [_report(folder / f"lab-seed{seed}") for seed in seeds]
    controls = {
        name: [_report(folder / f"{name}-seed{seed}") for seed in seeds] for name in CONTROLS
    }
    (base,), _ = check_counts("lab", num_problems=100, seed=1000)
    text = _page(reports, [base, _control_table(controls)])
    Path("docs/results/lab.md").write_text(text, "utf-8")


def _report(run: Path) -> Report:
    report: Report = json.loads((run / "report" / "tables.json").read_text("utf-8"))
    return report


def _pool(runs: Sequence[dict[str, list[dict[str, int]]]]) -> dict[str, list[Count]]:
    common = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: [Count(**c) for run in runs for c in run[name]] for name in common}


def _evaluations(reports: Sequence[Report]) -> dict[str, dict[str, list[Count]]]:
    every = [report["counts"]["evaluations"] for report in reports]
    return {eval_set: _pool([e[eval_set] for e in every]) for eval_set in every[0]}


def _conditions(reports: Sequence[Report]) -> dict[Condition, list[Count]]:
    pooled = _pool([report["counts"]["conditions"] for report in reports])
    return {Condition(name): counts for name, counts in pooled.items()}


def _control_table(controls: dict[str, list[Report]]) -> Table:
    rows = []
    for name, reports in controls.items():
        given, held_out = _conditions(reports), _evaluations(reports)["held_out"]
        before = held_out.pop("base")
        (after,) = held_out.values()  # what it is called depends on what it was trained on
        gain = paired_difference(before, after, accuracy)
        cells = (
            share(bootstrap(given[Condition.PREFIX_INTERVENTION], accuracy)),
            *(share(bootstrap(c, accuracy)) for c in (before, after)),
            *(f"{100 * mean_pass_at_k(c, 32):.1f}" for c in (before, after)),
            _points(gain),
            "yes" if gain.low > 0 else "no",
        )
        rows.append((CONTROLS[name], *cells))
    columns = (
        "control", "accuracy given its interventions %", "base pass@1 %", "patched pass@1 %",
        "base pass@32 %", "patched pass@32 %", "gain in pass@1, points", "gains",
    )  # fmt: skip
    note = "Held-out problems, no filter. It gains if the paired interval lies above zero."
    return Table("Controls", columns, tuple(rows), note)


def _points(gain: Interval) -> str:
    return f"{100 * gain.estimate:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def _page(reports: Sequence[Report], extra: Sequence[Table]) -> str:
    conditions, evaluations = _conditions(reports), _evaluations(reports)
    arms: dict[str, list[GroupCount]] = {}
    for report in reports:
        for arm, groups in report["counts"]["arms"].items():
            arms.setdefault(arm, []).extend(GroupCount(**group) for group in groups)
    ks = dict.fromkeys(evaluations, KS)
    pooled = shape_lines(conditions, evaluations, arms, ks)
    tables = [condition_table(conditions, {}), *pass_at_k_table(evaluations, ks), rl_table(arms)]
    facts = reports[0]["facts"]
    versions = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "seed")
    seeds = ", ".join(report["facts"]["seed"] for report in reports)
    lines = [
        "# The lab, measured",
        "",
        "The lab proves mechanism and plumbing on a model of a million parameters. It is no",
        "evidence about large models.",
        "",
        f"Made by `make lab-results` (seeds {seeds}) on {platform.system()} {platform.machine()}, "
        f"2 cores; {versions}. `midcourse lab check` prints the last but one table alone.",
        "",
        "## The paper's shape, all seeds pooled",
        "",
        *_shape_rows(pooled),
        "",
        "## By seed",
        "",
        *_by_seed(reports),
    ]
    for table in (*tables, *extra):
        lines += ["", f"## {table.title}", "", *table.markdown(), "", table.note]
    return "\n".join(lines) + "\n"


def _shape_rows(shape: Sequence[ShapeLine]) -> list[str]:
    rows = [f"| {line.claim} | {line.verdict} | {line.figures} |" for line in shape]
    return ["| expectation | | figures |", "|---|---|---|", *rows]


def _by_seed(reports: Sequence[Report]) -> list[str]:
    rows = []
    for line in zip(*(report["shape"] for report in reports), strict=True):
        rows.append(f"| {line[0]['claim']} | " + " | ".join(x["verdict"] for x in line) + " |")
    head = " | ".join(f"seed {report['facts']['seed']}" for report in reports)
    return [f"| expectation | {head} |", "|---" * (len(reports) + 1) + "|", *rows]


if __name__ == "__main__":
    main()
