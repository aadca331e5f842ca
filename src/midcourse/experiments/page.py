"""One Markdown page of all results, from the files that `reproduce` wrote.

What stands between the two marks of an existing page was written by a person (what did not
reproduce, and why we think so) and is kept as it is. Figures and their data are copied into a
folder next to the page.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midcourse.experiments.catalogue import Experiment
from midcourse.table import Table

BEGIN = "<!-- by hand: kept when the page is made again -->"
END = "<!-- end of what is written by hand -->"
#: No statement of these tables was singled out before the runs.
EXPLORATORY = "Statements are exploratory."


def write_page(experiments: Sequence[Experiment], results: Path, page: Path) -> None:
    """Write `page` from the results of `experiments`; those without a result are left out."""
    files = {experiment.name: results / f"{experiment.name}.json" for experiment in experiments}
    found: dict[str, dict[str, Any]] = {
        name: json.loads(path.read_text("utf-8")) for name, path in files.items() if path.is_file()
    }
    by_hand, folder = _by_hand(page), page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*_head(list(found.values())), "", BEGIN, by_hand, END, *_summary(found)]
    for name, result in found.items():
        for file in (*results.glob(f"{name}.*"), *results.glob(f"{name}-table*")):
            shutil.copyfile(file, folder / file.name)
        lines += ["", f'<a id="{name}"></a>', "", f"## {result['title']}"]
        lines += result_lines(result, name, folder, f"{folder.name}/", "###")
    page.write_text("\n".join(lines) + "\n", "utf-8")


def _by_hand(page: Path) -> str:
    """Return what a person wrote into an earlier page."""
    text = page.read_text("utf-8") if page.is_file() else ""
    if BEGIN not in text:
        return "\n## What did not reproduce, and why we think so\n\nNot written yet.\n"
    written = text.partition(BEGIN)[2].partition(END)[0].strip()
    return f"\n{written}\n"


def _head(found: Sequence[dict[str, Any]]) -> list[str]:
    states = [result["state"] for result in found]
    scales, codes = (", ".join(sorted({s[key] for s in states})) for key in ("scale", "code"))
    seeds = ", ".join(map(str, sorted({seed for s in states for seed in s["seeds"]})))
    versions = found[0]["versions"].items() if found else ()
    made_with = ", ".join(f"{name} {value}" for name, value in versions)
    return [
        "# The paper's experiments, run",
        "",
        f"Scale {scales}; seeds {seeds}; code {codes}; {made_with}.",
        "Made by `midcourse reproduce … --page`; the lab shows mechanism on a model of a million "
        "parameters and is not evidence about large models.",
        "",
        "All statements on this page are exploratory: none was singled out before the runs, and "
        "none is corrected for their number. Each is made once. The primary claims, named before "
        "the runs, have a page of their own: claims.",
    ]


def _summary(found: dict[str, dict[str, Any]]) -> list[str]:
    """Count the verdicts of each result."""
    verdicts = ("holds", "does not hold", "cannot tell")
    rows = []
    for name, result in found.items():
        counts = Counter(claim["verdict"] for claim in result["claims"])
        rows.append((f"[{name}](#{name})", result["title"], *(str(counts[v]) for v in verdicts)))
    table = Table("Summary", ("result", "", *verdicts), tuple(rows), "Numbers of statements.")
    return _table_lines(table, "##")


def result_lines(
    result: dict[str, Any], name: str, folder: Path, link: str, heading: str
) -> list[str]:
    """Return claims, figure and tables as Markdown; files in `folder` are linked under `link`."""
    claims = tuple((c["claim"], c["verdict"], c["figures"]) for c in result["claims"])
    lines = ["", f"{result['unit']} {EXPLORATORY}"]
    if claims:
        lines += ["", *Table("", ("the paper's shape", "here", "figures"), claims).markdown()]
    if result["stated_in"]:
        lines += ["", f"What it shows is stated in {', '.join(result['stated_in'])}."]
    if (folder / f"{name}.svg").is_file():
        image, data = f"{link}{name}.svg", f"{link}{name}.csv"
        lines += ["", f"![{result['title']}]({image})", "", f"Data: [CSV]({data})."]
    for table in result["tables"]:
        columns, rows = tuple(table["columns"]), tuple(map(tuple, table["rows"]))
        lines += _table_lines(Table(table["title"], columns, rows, table["note"]), heading)
    return lines


def _table_lines(table: Table, heading: str) -> list[str]:
    return ["", f"{heading} {table.title}", "", *table.markdown(), "", table.note]
