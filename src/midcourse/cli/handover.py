"""Verbs that hand a run over."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from midcourse.cli.app import Group, say, verb
from midcourse.cli.completion import one_of


def _formats() -> Iterable[str]:
    from midcourse.export import FORMATS

    return FORMATS


@verb(Group.HAND_OVER, "midcourse export runs/my --format trl --out handover/trl")
def export(
    run_dir: Annotated[Path, typer.Argument(help="A run directory whose rows are built.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="trl, llama-factory, verl, verifiers, pipelinerl or jsonl.",
            autocompletion=one_of(_formats),
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Hand the rows and problems of a run over to another project."""
    from midcourse.export import export_run

    for part in export_run(run_dir, format_, out):
        fidelity = f" ({part.fidelity})" if part.fidelity else ""
        say(f"{out / part.path}: {part.what}{fidelity}")
