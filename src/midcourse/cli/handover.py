"""Verbs that hand a run over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midcourse.cli.app import app, say


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help="A run directory whose rows are built.")],
    format_: Annotated[
        str,
        typer.Option("--format", help="trl, llama-factory, verl, verifiers, pipelinerl or jsonl."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Hand the rows and problems of a run over to another project."""
    from midcourse.export import export_run

    for part in export_run(run_dir, format_, out):
        fidelity = f" ({part.fidelity})" if part.fidelity else ""
        say(f"{out / part.path}: {part.what}{fidelity}")
