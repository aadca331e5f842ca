"""Writes the report of a run, and says it: ``report.html``, ``tables.json``, figures as SVG."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter
from rich.text import Text

from midcourse.pipeline import Method, Session
from midcourse.printable import printable
from midcourse.progress import open_console
from midcourse.report.collect import ReportData, collect
from midcourse.report.figures import draw_figures
from midcourse.report.html import render_html
from midcourse.report.shape import ShapeLine, shape_lines
from midcourse.report.tables import (
    condition_table,
    funnel_table,
    likelihood_table,
    pass_at_k_table,
    rl_table,
)
from midcourse.run import code_revision, package_versions
from midcourse.store import write_json_atomic
from midcourse.table import Table

#: The bare counts behind the tables.
_COUNTS = {"conditions", "evaluations", "arms", "error_steps"}


def is_reported(run_dir: Path) -> bool:
    """Whether the report, the last thing a run makes, is there."""
    return (run_dir / "report" / "tables.json").is_file()


def write_report(session: Session, made: Method) -> None:
    """Collect, write and print the report of a finished run. Nothing is sampled or trained."""
    run = session.run
    data = collect(run, made, session.tools.renderer(made.setup.base))
    tables = [
        funnel_table(data.funnel),
        condition_table(data.conditions, data.searches),
        *pass_at_k_table(data.evaluations, data.ks),
        *([rl_table(data.arms)] if data.arms else []),
        likelihood_table(data.likelihoods, data.model_labels),
    ]
    shape = shape_lines(data.conditions, data.evaluations, data.arms, data.ks)
    folder = run.directory / "report"
    folder.mkdir(exist_ok=True)
    code, versions = code_revision(), package_versions()
    facts = {"recipe": data.name, "seed": str(data.seed), "code": code, **versions}
    figures = draw_figures(data)
    for name, svg in figures.items():
        (folder / f"{name}.svg").write_text(svg, "utf-8")
    page = render_html(data, tables, shape, figures, facts)
    (folder / "report.html").write_text(page, "utf-8")
    write_json_atomic(
        folder / "tables.json",
        {
            "facts": facts,
            "tables": [asdict(table) for table in tables],
            "shape": [{**asdict(line), "verdict": line.verdict} for line in shape],
            # So that runs of several seeds can be put together.
            "counts": TypeAdapter(ReportData).dump_python(data, include=_COUNTS),
            "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
        },
    )
    _say(tables, shape, folder / "report.html")


def _say(tables: list[Table], shape: list[ShapeLine], report: Path) -> None:
    console = open_console()
    for table in tables:
        console.print(table.rich())
    console.print(Text("\nThe paper's shape", style="bold"))
    for line in shape:
        colour = {True: "green", False: "red", None: "yellow"}[line.holds]
        mark = Text(f"  {line.verdict:<14}", colour)
        console.print(mark + Text(printable(f"{line.claim}: {line.figures}"), style="default"))
    console.print(Text(printable(f"\nThe report is {report}")))
