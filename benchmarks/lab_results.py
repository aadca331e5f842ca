"""Puts lab runs of several seeds together: ``lab_results.py RUN…`` writes docs/results/lab.md.

Counts are pooled, intervals are bootstrapped over the problems of all seeds. Nothing is chosen:
every run named on the command line is in every figure, and a shape that does not hold says so.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midcourse.metrics import Count
from midcourse.records import Condition, GroupCount
from midcourse.report.shape import ShapeLine, shape_lines
from midcourse.report.tables import Table, condition_table, pass_at_k_table, rl_table

KS = (1, 2, 4, 8, 16, 32)


def main() -> None:
    """Read the runs, write the page."""
    reports = [json.loads((Path(p) / "report" / "tables.json").read_text()) for p in sys.argv[1:]]
    conditions = _pool([r["counts"]["conditions"] for r in reports])
    evaluations: dict[str, dict[str, list[Count]]] = {}
    for eval_set in reports[0]["counts"]["evaluations"]:
        evaluations[eval_set] = _pool([r["counts"]["evaluations"][eval_set] for r in reports])
    arms: dict[str, list[GroupCount]] = {}
    for report in reports:
        for arm, groups in report["counts"]["arms"].items():
            arms.setdefault(arm, []).extend(GroupCount(**group) for group in groups)
    by_condition = {Condition(name): counts for name, counts in conditions.items()}
    tables = [condition_table(by_condition), *pass_at_k_table(evaluations, KS), rl_table(arms)]
    pooled = shape_lines(by_condition, evaluations, arms, KS)
    Path("docs/results/lab.md").write_text(_page(reports, pooled, tables), "utf-8")


def _pool(runs: Sequence[dict[str, list[dict[str, int]]]]) -> dict[str, list[Count]]:
    return {name: [Count(**c) for run in runs for c in run[name]] for name in runs[0]}


def _page(
    reports: Sequence[dict[str, Any]], pooled: Sequence[ShapeLine], tables: Sequence[Table]
) -> str:
    facts = reports[0]["facts"]
    versions = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "seed")
    seeds = ", ".join(report["facts"]["seed"] for report in reports)
    lines = [
        "# The lab, measured",
        "",
        "The lab proves mechanism and plumbing on a model of about a million parameters. It is no",
        "evidence about large models.",
        "",
        f"Made by `make lab-seeds` (seeds {seeds}) on {platform.system()} {platform.machine()}, "
        f"2 cores; {versions}.",
        "",
        "## The paper's shape, all seeds pooled",
        "",
        *_shape_rows(pooled),
        "",
        "## By seed",
        "",
        *_by_seed(reports),
    ]
    for table in tables:
        lines += ["", f"## {table.title}", "", *_markdown(table), "", table.note]
    return "\n".join(lines) + "\n"


def _shape_rows(shape: Sequence[ShapeLine]) -> list[str]:
    rows = [f"| {line.claim} | {line.verdict} | {line.figures} |" for line in shape]
    return ["| expectation | | figures |", "|---|---|---|", *rows]


def _by_seed(reports: Sequence[dict[str, Any]]) -> list[str]:
    rows = []
    for line in zip(*(report["shape"] for report in reports), strict=True):
        rows.append(f"| {line[0]['claim']} | " + " | ".join(x["verdict"] for x in line) + " |")
    head = " | ".join(f"seed {report['facts']['seed']}" for report in reports)
    return [f"| expectation | {head} |", "|---" * (len(reports) + 1) + "|", *rows]


def _markdown(table: Table) -> list[str]:
    head = "| " + " | ".join(table.columns) + " |"
    return [
        head,
        "|---" * len(table.columns) + "|",
        *("| " + " | ".join(r) + " |" for r in table.rows),
    ]


if __name__ == "__main__":
    main()
