"""One Markdown page of all results, from the files that `reproduce` wrote.

What stands between the two marks of an existing page was written by a person (what did not
reproduce, and why we think so) and is kept as it is. Figures and their data are copied into a
folder beside the page.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midcourse.experiments.results import Experiment, claim_lines, table_lines
from midcourse.report.shape import ShapeLine
from midcourse.table import Table

BEGIN = "<!-- by hand: kept when the page is made again -->"
END = "<!-- end of what is written by hand -->"


def write_page(experiments: Sequence[Experiment], results: Path, page: Path) -> None:
    """Write `page` from the results of `experiments`; those without a result are left out."""
    found = {e.name: _read(results, e) for e in experiments}
    present = {name: result for name, result in found.items() if result}
    by_hand = _by_hand(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name in present:
        for file in sorted(results.glob(f"{name}*")):
            if file.stem == name or file.stem.startswith(f"{name}-table"):
                shutil.copyfile(file, folder / file.name)
    lines = [*_head(present), "", BEGIN, by_hand, END, *_summary(present)]
    for name, result in present.items():
        lines += _section(name, result, folder)
    page.write_text("\n".join(lines) + "\n", "utf-8")


def _read(results: Path, experiment: Experiment) -> dict[str, Any]:
    path = results / f"{experiment.name}.json"
    content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return content


def _by_hand(page: Path) -> str:
    """Return what a person wrote into an earlier page."""
    text = page.read_text("utf-8") if page.is_file() else ""
    if BEGIN not in text:
        return "\n## What did not reproduce, and why we think so\n\nNot written yet.\n"
    written = text.partition(BEGIN)[2].partition(END)[0].strip()
    return f"\n{written}\n"


def _head(present: dict[str, dict[str, Any]]) -> list[str]:
    states = [result["state"] for result in present.values()]
    scales, codes = (sorted({str(s[key]) for s in states}) for key in ("scale", "code"))
    seeds = sorted({seed for s in states for seed in s["seeds"]})
    versions = next(iter(present.values()))["versions"] if present else {}
    return [
        "# The paper's experiments, run", "",
        f"Scale {', '.join(scales)}; seeds {', '.join(map(str, seeds))}, pooled; code "
        f"{', '.join(codes)}; {', '.join(f'{name} {value}' for name, value in versions.items())}.",
        "Made by `midcourse reproduce … --page`; the lab proves mechanism on a model of a million "
        "parameters and is no evidence about large models.",
    ]  # fmt: skip


def _claims(result: dict[str, Any]) -> list[ShapeLine]:
    return [ShapeLine(c["claim"], c["holds"], c["figures"]) for c in result["claims"]]


def _summary(present: dict[str, dict[str, Any]]) -> list[str]:
    """Count the verdicts of each result."""
    verdicts = ("holds", "does not hold", "cannot tell")
    rows = []
    for name, result in present.items():
        counts = Counter(claim.verdict for claim in _claims(result))
        rows.append((f"[{name}](#{name})", result["title"], *(str(counts[v]) for v in verdicts)))
    table = Table("Summary", ("result", "", *verdicts), tuple(rows), "Numbers of statements.")
    return table_lines(table)


def _section(name: str, result: dict[str, Any], folder: Path) -> list[str]:
    lines = ["", f'<a id="{name}"></a>', "", f"## {result['title']}"]
    lines += claim_lines(_claims(result))
    if (folder / f"{name}.svg").is_file():
        lines += ["", f"![{result['title']}]({folder.name}/{name}.svg)",
                  "", f"Data: [CSV]({folder.name}/{name}.csv)."]  # fmt: skip
    for table in result["tables"]:
        columns, rows = tuple(table["columns"]), tuple(tuple(row) for row in table["rows"])
        shown = table_lines(Table(table["title"], columns, rows, table["note"]))
        lines += [line.replace("## ", "### ", 1) for line in shown]
    return lines
