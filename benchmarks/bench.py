"""Every benchmark, one table of ratios: ``make bench``, or ``bench.py search grading``.

Machines are noisy, so nothing here is a time to be compared with another day's: each row sets
ours against a named alternative in the same run, with the floor that nothing can beat next to it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from rows import Row

from midcourse.progress import open_console
from midcourse.run import code_revision, package_versions
from midcourse.table import Table

#: Benchmarks by name; each module has a function ``rows`` that yields what it measured.
MODULES = {
    "search": "bench_search",
    "grading": "bench_grading",
    "sampling": "bench_sampling",
    "rl": "bench_rl",
    "company": "bench_company",
    "sandbox": "bench_sandbox",
}


def main() -> None:
    """Run the benchmarks that are named, all by default; print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MODULES, []], help="default: all")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results.json"))
    arguments = parser.parse_args()
    console, file = open_console(), arguments.json
    content = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    measured: list[Row] = []
    for name in arguments.names or MODULES:
        rows: Callable[[], Iterator[Row]] = import_module(MODULES[name]).rows
        found = []
        for row in rows():
            console.print(f"{row.what}: {row.ratio:.2f} ×", markup=False, highlight=False)
            found.append(row)
        content[name] = {
            "facts": _facts(), "rows": [{**asdict(row), "ratio": row.ratio} for row in found]
        }  # fmt: skip
        # After each benchmark; what was not run today keeps its figures and their facts.
        file.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        measured += found
    console.print(_table(measured).rich())


def _facts() -> dict[str, str]:
    """Say when, on what and by which code something was measured."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_revision(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **package_versions(),
    }


def _table(rows: list[Row]) -> Table:
    cells = tuple(
        (
            row.what,
            f"{row.ours:,.3g}",
            f"{row.theirs:,.3g}",
            row.unit,
            row.against,
            f"{row.ratio:.2f} ×",
            f"≥ {row.target:g} ×" if row.target else "–",
            row.floor or "–",
        )
        for row in rows
    )
    columns = ("what", "ours", "theirs", "unit", "against", "ratio", "target", "floor")
    return Table("Benchmarks", columns, cells, "Ratio above 1: ours is better.")


if __name__ == "__main__":
    main()
