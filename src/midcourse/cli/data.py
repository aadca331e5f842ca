"""Verbs for problem files: validate, curate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midcourse.cli.app import app, say


@app.command()
def validate(
    problems: Annotated[str, typer.Argument(help="A file, or another place of docs/data.md.")],
) -> None:
    """Check a problem file; the grader must accept every gold answer. Exit code 1 with a list."""
    from midcourse.checkers import Grader
    from midcourse.data import validate_problems

    with Grader() as grader:
        complaints = validate_problems(problems, grader)
    for complaint in complaints:
        say(complaint)
    if complaints:
        typer.echo(f"{len(complaints)} complaints")
        raise typer.Exit(1)
    typer.echo(f"{problems}: every problem is sound")


@app.command()
def curate(
    place: Annotated[
        str, typer.Argument(help="FILE, hub:OWNER/NAME, SOURCE, SOURCE:FILE, reasoning-gym:TASK.")
    ],
    out: Annotated[Path, typer.Option(help="The .jsonl file for the problems that are kept.")],
    against: Annotated[
        list[str] | None, typer.Option(help="A benchmark to keep away from. Repeatable.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A column of the file: problem=question. Repeatable.")
    ] = None,
    need_reference: Annotated[
        bool, typer.Option(help="Whether a problem must have a reference solution.")
    ] = True,
    limit: Annotated[int | None, typer.Option(help="Only the first so many rows.")] = None,
) -> None:
    """Keep the problems that can be trained on; print what became of the others."""
    from midcourse.checkers import Grader
    from midcourse.data import curate as curate_place
    from midcourse.data import write_problems

    columns = dict(part.partition("=")[::2] for part in column or [])
    with Grader() as grader:
        curation = curate_place(
            place, grader, require_reference=need_reference, against=against or [],
            columns=columns, limit=limit,
        )  # fmt: skip
    write_problems(curation.kept, out)
    width = max(len(outcome) for outcome in curation.outcomes)
    typer.echo(f"{'rows':{width}} {curation.num_rows:7}")
    for outcome, count in curation.outcomes.items():
        example = curation.examples.get(outcome)
        say(f"{outcome.value:{width}} {count:7}" + (f"   e.g. {example}" if example else ""))
    typer.echo(f"{out}: {len(curation.kept)} problems")
