"""Writes the report of a run, and says it: ``report.html``, ``report.md``, ``tables.json``, SVG."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter
from rich.text import Text

from midcourse.errors import ArtifactError
from midcourse.pipeline import Method, Session
from midcourse.printable import printable
from midcourse.progress import open_console
from midcourse.report.collect import ReportData, collect
from midcourse.report.estimates import ShapeLine
from midcourse.report.facts import cost_table, read_costs, run_facts
from midcourse.report.figures import draw_figures
from midcourse.report.findings import findings, not_measured, summary
from midcourse.report.html import render_html
from midcourse.report.layout import Report, report_page
from midcourse.report.markdown import render_markdown
from midcourse.report.shape import SHAPE_NOTE, SHAPE_TITLE, is_of_paper, shape_lines
from midcourse.run import code_revision, package_versions
from midcourse.store.checksums import describe_files
from midcourse.store.files import make_folder, write_checked_json, write_durably
from midcourse.store.index import read_index
from midcourse.store.repair import check_run
from midcourse.viewer.write import VIEW, write_view

#: The bare counts behind the tables.
_COUNTS = {"conditions", "evaluations", "arms", "error_steps"}


def is_reported(run_dir: Path) -> bool:
    """Whether the report, the last thing a run makes, is there with all that it was made from.

    What has changed since it was written is read and compared. Raises ArtifactError if something
    has to be repaired first.
    """
    if not (run_dir / "report" / "tables.json").is_file():
        return False
    damages = check_run(run_dir, changed_only=True)
    for damage in damages:
        if damage.blocks:
            raise ArtifactError(
                f"{damage.file} {damage.problem}: run 'midcourse repair {run_dir}', then the same "
                "command again"
            )
    there = [run_dir / folder / "manifest.json" for folder in read_index(run_dir).entries]
    is_sound = not any(damage.file.parent.name == "report" for damage in damages)
    return is_sound and all(map(Path.is_file, [run_dir / "config.resolved.json", *there]))


def write_report(session: Session, made: Method) -> None:
    """Collect, write and print the report of a finished run. Nothing is sampled or trained."""
    run, recipe = session.run, made.setup.recipe
    data, costs = collect(run, made), read_costs(run.directory)
    report = Report(
        data=data,
        facts=run_facts(recipe, costs, code_revision()),
        findings=findings(data),
        missing=not_measured(data, recipe),
        shape=_shape(data) if is_of_paper(recipe) else [],
        costs=cost_table(costs),
        drawings=draw_figures(data),
    )
    _say(report)
    folder, console = run.directory / "report", open_console()
    if os.access(run.directory, os.W_OK):
        write_view(run.directory, run.directory / VIEW)
        _write(folder, _files(report), _content(report))
        console.print(Text(f"\nThe report is {folder / 'report.html'}"))
    else:
        console.print(Text(f"\n{run.directory} cannot be written: no report.html was made"))


def _shape(data: ReportData) -> list[ShapeLine]:
    return shape_lines(data.conditions, data.evaluations, data.arms, data.ks)


def _files(report: Report) -> dict[str, str]:
    """Return the texts of all files but ``tables.json``, by name."""
    page = report_page(report)
    drawn = {f"{drawing.name}.svg": drawing.svg for drawing in page.drawings}
    return {"report.html": render_html(page), "report.md": render_markdown(page), **drawn}


def _content(report: Report) -> dict[str, object]:
    """Return what ``tables.json`` holds."""
    return {
        "facts": {
            "recipe": report.data.name,
            "seed": str(report.data.seed),
            "code": code_revision(),
            **package_versions(),
        },
        "run": report.facts,
        "summary": summary(report.data, report.findings),
        "findings": [asdict(finding) for finding in report.findings],
        "not_measured": report.missing,
        "tables": [asdict(table) for table in report.tables],
        "costs": asdict(report.costs),
        "shape": [{**asdict(line), "verdict": line.verdict} for line in report.shape],
        # So that runs of several seeds can be put together.
        "counts": TypeAdapter(ReportData).dump_python(report.data, include=_COUNTS),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def _write(folder: Path, texts: Mapping[str, str], tables: Mapping[str, object]) -> None:
    """Write the files of a report, ``tables.json`` with their checksums last."""
    make_folder(folder)
    for name, text in texts.items():
        write_durably(folder / name, text.encode())
    files = describe_files(folder, [folder / name for name in texts])
    write_checked_json(folder / "tables.json", {**tables, "files": files})


def _say(report: Report) -> None:
    console = open_console()
    for table in report.tables:
        console.print(table.rich())
    if report.findings or report.missing:
        console.print(Text("\nWhat came out", style="bold"))
    for finding in report.findings:
        console.print(Text(printable(f"  {finding.sentence}")))
    for missing in report.missing:
        console.print(Text(printable(f"  Not measured: {missing}"), style="yellow"))
    if report.shape:
        console.print(Text(f"\n{SHAPE_TITLE}", style="bold"))
        console.print(Text(f"  {SHAPE_NOTE}"))
    for line in report.shape:
        colour = {True: "green", False: "red", None: "yellow"}[line.holds]
        mark = Text(f"  {line.verdict:<14}", colour)
        console.print(mark + Text(printable(f"{line.claim}: {line.figures}"), style="default"))
