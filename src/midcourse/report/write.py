"""Writes the report of a run, and says it: ``report.html``, ``tables.json``, figures as SVG."""

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
from midcourse.report.figures import draw_figures
from midcourse.report.html import render_html
from midcourse.report.rl import agreement_table, group_table
from midcourse.report.shape import ShapeLine, shape_lines
from midcourse.report.tables import (
    condition_table,
    funnel_table,
    guided_table,
    likelihood_table,
    pass_at_k_table,
    rl_table,
)
from midcourse.run import code_revision, package_versions
from midcourse.store.checksums import describe_files
from midcourse.store.files import make_folder, write_checked_json, write_durably
from midcourse.store.index import read_index
from midcourse.store.repair import check_run
from midcourse.table import Table
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
    run = session.run
    data = collect(run, made, session.tools.renderer(made.setup.base))
    tables = [
        funnel_table(data.funnel),
        *([guided_table(data.guided)] if data.guided else []),
        condition_table(data.conditions, data.searches),
        *pass_at_k_table(data.evaluations, data.ks),
        *(_rl_tables(data) if data.arms else []),
        likelihood_table(data.likelihoods, data.model_labels),
    ]
    shape = shape_lines(data.conditions, data.evaluations, data.arms, data.ks)
    code, versions = code_revision(), package_versions()
    facts = {"recipe": data.name, "seed": str(data.seed), "code": code, **versions}
    figures = draw_figures(data)
    page = render_html(data, tables, shape, figures, facts)
    content = {
        "facts": facts,
        "tables": [asdict(table) for table in tables],
        "shape": [{**asdict(line), "verdict": line.verdict} for line in shape],
        # So that runs of several seeds can be put together.
        "counts": TypeAdapter(ReportData).dump_python(data, include=_COUNTS),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    _say(tables, shape)
    folder, console = run.directory / "report", open_console()
    if os.access(run.directory, os.W_OK):
        write_view(run.directory, run.directory / VIEW)
        _write(
            folder, {"report.html": page, **{f"{n}.svg": s for n, s in figures.items()}}, content
        )
        console.print(Text(f"\nThe report is {folder / 'report.html'}"))
    else:
        console.print(Text(f"\n{run.directory} cannot be written: no report.html was made"))


def _rl_tables(data: ReportData) -> list[Table]:
    return [rl_table(data.arms), group_table(data.courses), agreement_table(data.courses)]


def _write(folder: Path, texts: Mapping[str, str], tables: Mapping[str, object]) -> None:
    """Write the files of a report, ``tables.json`` with their checksums last."""
    make_folder(folder)
    for name, text in texts.items():
        write_durably(folder / name, text.encode())
    files = describe_files(folder, [folder / name for name in texts])
    write_checked_json(folder / "tables.json", {**tables, "files": files})


def _say(tables: list[Table], shape: list[ShapeLine]) -> None:
    console = open_console()
    for table in tables:
        console.print(table.rich())
    console.print(Text("\nThe paper's shape", style="bold"))
    for line in shape:
        colour = {True: "green", False: "red", None: "yellow"}[line.holds]
        mark = Text(f"  {line.verdict:<14}", colour)
        console.print(mark + Text(printable(f"{line.claim}: {line.figures}"), style="default"))
