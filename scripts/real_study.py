"""Runs the study of SmolLM2-135M part by part: ``make real-select``, …, ``make real-study``.

    python scripts/real_study.py PART... [--only SEED] [--gpu] [--page-only]

What is there is kept: artifacts in ``runs/``, what was read of them (counts by problem, one file a
recipe and seed) in ``docs/results/data/real/``, which is committed. A part's tables go into its
section of ``docs/results/real.md``, its statements into ``statements.json`` next to the data: the
page of all results has them from there. With ``--page-only`` no run is opened: the page is made of
the committed data, and a part that lacks some is left as it is. ``--only`` runs some seeds of parts
that train and writes no page: two such commands may run side by side.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from midcourse.errors import MidcourseError
from midcourse.experiments.data import MissingDataError, RunData
from midcourse.experiments.index import read_statements
from midcourse.experiments.real import PARTS
from midcourse.experiments.results import Result
from midcourse.experiments.runner import ExperimentRunner
from midcourse.progress import ConsoleProgress, open_console
from midcourse.recipes import find_recipe
from midcourse.store.files import write_json_atomic

PAGE = Path("docs/results/real.md")
DATA = Path("docs/results/data")


def main() -> None:
    """Run the parts that are named; write what they come to into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--only", type=int, action="append", help="this seed; repeatable")
    parser.add_argument("--gpu", action="store_true", help="the sizes of scale/real-gpu")
    parser.add_argument("--page-only", action="store_true", help="from committed data alone")
    asked = parser.parse_args()
    overlays = (find_recipe("scale/real-gpu"),) if asked.gpu else ()
    folder = DATA / ("real-gpu" if asked.gpu else "real")
    for name in asked.parts:
        seeds = tuple(s for s in range(PARTS[name].num_seeds) if s in (asked.only or [s]))
        if not seeds:
            continue
        runner = ExperimentRunner(
            scale=find_recipe("scale/real"),
            seeds=seeds,
            reporter=ConsoleProgress(open_console()),
            overlays=overlays,
            data=RunData(folder, may_run=not asked.page_only),
        )
        try:
            result = PARTS[name].make(runner)
            if not asked.only:
                write_section(PAGE, name, result)
                write_statements(folder / "statements.json", name, result)
        except MissingDataError as error:
            runner.reporter.say(f"{name}: left as it is: {error}")


def write_section(page: Path, name: str, result: Result) -> None:
    """Put a part's tables and verdicts between its marks on the page."""
    lines = [
        line
        for t in result.tables
        for line in ("", f"**{t.title}**", "", *t.markdown(), "", t.note)
    ]
    if result.claims:
        lines += ["", "| claim | verdict | figures |", "|---|---|---|"]
        lines += [f"| {c.claim} | {c.verdict} | {c.figures} |" for c in result.claims]
    before, begin, rest = page.read_text("utf-8").partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->\n")
    if not end:
        raise MidcourseError(f"{page}: the marks <!-- {name} --> and <!-- /{name} --> are missing")
    section = "".join(f"{line}\n" for line in lines)
    page.write_text(f"{before}{begin}{section}\n{end}{after}", "utf-8")


def write_statements(file: Path, name: str, result: Result) -> None:
    """Put a part's statements in place of its earlier ones, for the page of all results."""
    known, num_seeds = read_statements(file), PARTS[name].num_seeds
    made = [
        {
            "part": name,
            "claim": c.claim,
            "verdict": c.verdict,
            "figures": c.figures,
            "runs": f"{num_seeds} of {num_seeds}",
            "unit": "run" if num_seeds > 1 else "problem",
        }
        for c in result.claims
    ]
    claims = [claim for claim in known if claim["part"] != name] + made
    claims.sort(key=lambda claim: list(PARTS).index(claim["part"]))
    write_json_atomic(file, {"claims": claims})


if __name__ == "__main__":
    try:
        main()
    except MidcourseError as error:
        sys.exit(f"real study: {error}")
    except KeyboardInterrupt:
        sys.exit("real study: interrupted; run the same command to go on")
