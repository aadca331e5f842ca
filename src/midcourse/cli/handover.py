"""Verbs that hand a run over: to other projects' formats, and to a hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from midcourse.cli.app import Group, say, verb
from midcourse.cli.completion import one_of


def _formats() -> Iterable[str]:
    from midcourse.export import FORMATS

    return FORMATS


@verb(Group.HAND_OVER, "midcourse export runs/my --format trl --out handover/trl")
def export(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="trl, llama-factory, verl, verifiers, pipelinerl, jsonl: rows and problems; "
            "proposals, dpo, credit, inspect, traces: what was proposed and sampled.",
            autocompletion=one_of(_formats),
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Hand the results of a run over to another project, with a README that says how."""
    from midcourse.export import export_run

    for part in export_run(run_dir, format_, out):
        fidelity = f" ({part.fidelity})" if part.fidelity else ""
        say(f"{out / part.path}: {part.what}{fidelity}")


@verb(Group.HAND_OVER, "midcourse push runs/my --to OWNER/NAME --dry-run")
def push(
    source: Annotated[
        Path, typer.Argument(help="A run directory, a model's or an export's folder.")
    ],
    to: Annotated[str, typer.Option("--to", help="OWNER/NAME on the hub.")],
    what: Annotated[
        Literal["model", "rows", "export"] | None,
        typer.Option(help="Default: the model, or of an export's folder the export."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Of a run, e.g. 'patched + RL'; default: the last it compares.")
    ] = "",
    public: Annotated[
        bool, typer.Option("--public/--private", help="Who may see a new repository.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would go where; ask the hub nothing.")
    ] = False,
) -> None:
    """Push a trained model, rows or an export to a Hugging Face hub, privately unless told."""
    from tempfile import TemporaryDirectory

    from midcourse.export.push import open_hub, prepare
    from midcourse.export.push import push as push_to

    with TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows"
        upload = prepare(source, what, model, to, private=not public, scratch=rows)
        place = f"{upload.kind} {upload.repo}, {'private' if upload.private else 'public'} if new"
        for name, size in upload.sizes():
            say(f"{name}  {size:,} bytes")
        if dry_run:
            say(f"would go to {place}; nothing was sent")
        else:
            say(f"to {place}")
            say(push_to(upload, open_hub()))
