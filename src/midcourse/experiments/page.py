"""One Markdown page of a study, from its results in the folder next to it.

What stands between the two marks of an existing page was written by a person (what did not
reproduce, and why we think so) and is kept as it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from midcourse.experiments.catalogue import Experiment
from midcourse.table import Table

BEGIN = "<!-- by hand: kept when the page is made again -->"
END = "<!-- end of what is written by hand -->"
_UNWRITTEN = "## What did not reproduce, and why we think so\n\nNot written yet."
#: No statement of these tables was singled out before the runs.
EXPLORATORY = "Statements are exploratory."
_OF_STATEMENTS = "Numbers of statements; –: no run is there, or they are stated elsewhere."
#: The verdict of a statement of which planned runs are missing.
NOT_YET = "not yet"


def write_page(title: str, experiments: Sequence[Experiment], page: Path) -> None:
    """Write `page` from the results of `experiments` in the folder of its name next to it."""
    folder = page.with_suffix("")
    found: dict[str, dict[str, Any]] = {
        of.name: json.loads((folder / f"{of.name}.json").read_text("utf-8")) for of in experiments
    }
    lines = [
        f"# {title}",
        "",
        *_head(list(found.values())),
        "",
        BEGIN,
        by_hand(page, _UNWRITTEN),
        END,
    ]
    lines += _summary(found)
    for name, result in found.items():
        lines += ["", f'<a id="{name}"></a>', "", f"## {result['title']}", "", _runs(result)]
        lines += result_lines(result, name, folder, f"{folder.name}/", "###")
    page.write_text("\n".join(lines) + "\n", "utf-8")


def _runs(result: dict[str, Any]) -> str:
    """Say how many of the planned runs a result rests on."""
    state = result["state"]
    seeds, planned = len(state["seeds"]), len(state["planned"])
    if seeds == planned:
        return f"{planned} runs an arm, seeds {', '.join(map(str, state['seeds']))}."
    figures = " Figures are of those; verdicts wait for all." if seeds else ""
    return f"**Not yet: {seeds} of {planned} runs.**{figures}"


def by_hand(page: Path, unwritten: str) -> str:
    """Return what a person wrote into an earlier page, or the text that says it is not written."""
    text = page.read_text("utf-8") if page.is_file() else ""
    written = text.partition(BEGIN)[2].partition(END)[0].strip() if BEGIN in text else unwritten
    return f"\n{written}\n"


_MADE_BY = ("scale", "code", "machine")


def _all(values: Iterable[str]) -> str:
    """Return what is in any of the lists."""
    return ", ".join(sorted({part for value in values for part in value.split(", ") if part}))


def _head(found: Sequence[dict[str, Any]]) -> list[str]:
    scale, code, machine = (_all(of["state"][key] for of in found) for key in _MADE_BY)
    packages = dict.fromkeys(name for of in found for name in of["versions"])
    made_with = ", ".join(
        f"{name} {_all(of['versions'].get(name, '') for of in found)}" for name in packages
    )
    runs = f"The runs are made by code {code}, {made_with}, on {machine}."
    return [
        f"Scale {scale}. {runs if code else 'None of its runs is there yet.'}",
        "Made by `midcourse evidence --pages` from the data in `docs/results/data`. The lab shows "
        "mechanism on a model of a million parameters and is not evidence about large models.",
        "",
        "The statements on this page are exploratory: none was singled out before the runs, and "
        "none is corrected for their number. A question that a primary claim also asks, on more "
        "runs, is judged there and not counted here: [claims](claims.md).",
    ]


def _summary(found: dict[str, dict[str, Any]]) -> list[str]:
    """Count the verdicts of each result."""
    verdicts = ("holds", "does not hold", "cannot tell", NOT_YET)
    rows = []
    for name, result in found.items():
        counts = Counter(claim["verdict"] for claim in result["claims"])
        runs = f"{len(result['state']['seeds'])} of {len(result['state']['planned'])}"
        of_verdict = (str(counts[v]) if result["claims"] else "–" for v in verdicts)
        rows.append((f"[{name}](#{name})", result["title"], runs, *of_verdict))
    columns = ("result", "", "runs", *verdicts)
    return _table_lines(Table("Summary", columns, tuple(rows), _OF_STATEMENTS), "##")


def result_lines(
    result: dict[str, Any], name: str, folder: Path, link: str, heading: str
) -> list[str]:
    """Return claims, figure and tables as Markdown; files in `folder` are linked under `link`."""
    if page := result["judged_on"]:
        where = f"[a page of their own]({page})" if link else f"docs/results/{page}"
        return ["", f"Its runs are judged together, on {where}."]
    claims = tuple(
        (c["claim"], verdict_cell(c["verdict"], c.get("primary", 0) if link else 0), c["figures"])
        for c in result["claims"]
    )
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


def verdict_cell(verdict: str, primary: int) -> str:
    """Return a verdict, as a link where the primary claim of that place has it; 0 is none."""
    return f"[{verdict}](claims.md#claim-{primary})" if primary else verdict


def _table_lines(table: Table, heading: str) -> list[str]:
    return ["", f"{heading} {table.title}", "", *table.markdown(), "", table.note]
