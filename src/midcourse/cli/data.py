"""Verbs for problem files: validate, curate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from midcourse.cli.app import Group, check_output, say, verb
from midcourse.errors import ConfigError, DataError

if TYPE_CHECKING:
    from midcourse.data import Curation

Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="What a field is called: answer=final. Repeatable."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many rows.")]


Checker = Annotated[str, typer.Option(help="What grades rows that name no checker.")]


@verb(Group.START, "midcourse validate problems.jsonl")
def validate(
    problems: Annotated[str, typer.Argument(help="A file, or another place of docs/data.md.")],
    column: Columns = None,
    limit: Limit = None,
    checker: Checker = "math",
    as_json: Annotated[
        bool, typer.Option("--json", help="One object: problems, is_sound, complaints.")
    ] = False,
) -> None:
    """Check a problem file; the grader must accept every gold answer.

    Exit code 1 with a list of complaints.
    """
    from midcourse.checkers import Grader
    from midcourse.data import validate_problems

    columns = column_map(column)
    try:
        with Grader() as grader:
            complaints = validate_problems(
                problems, grader, columns=columns, limit=limit, checker=checker
            )
    except DataError as error:
        if not as_json:
            raise
        complaints = [str(error)]
    if as_json:
        found = {"problems": problems, "is_sound": not complaints, "complaints": complaints}
        typer.echo(json.dumps(found, indent=2))
    else:
        _say_complaints(problems, complaints)
    if complaints:
        raise typer.Exit(1)


def _say_complaints(problems: str, complaints: list[str]) -> None:
    for complaint in complaints:
        say(complaint)
    number = "1 complaint" if len(complaints) == 1 else f"{len(complaints):,} complaints"
    say(number if complaints else f"{problems}: every problem is sound")


@verb(Group.START, "midcourse curate gsm8k --out problems.jsonl --limit 200")
def curate(
    place: Annotated[
        str, typer.Argument(help="FILE, hub:OWNER/NAME, SOURCE, SOURCE:FILE, reasoning-gym:TASK.")
    ],
    out: Annotated[Path, typer.Option(help="The .jsonl file for the problems that are kept.")],
    against: Annotated[
        list[str] | None, typer.Option(help="A benchmark to keep away from. Repeatable.")
    ] = None,
    column: Columns = None,
    need_reference: Annotated[
        bool, typer.Option(help="Whether a problem must have a reference solution.")
    ] = True,
    limit: Limit = None,
    checker: Checker = "math",
    dropped: Annotated[
        Path | None, typer.Option(help="A .jsonl file for the rows that are not kept, and why.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Keep the problems that can be trained on; print what became of the others.

    Columns of the file beyond our fields are kept. Exit code 1, without a file, if no problem is
    left.
    """
    from midcourse.checkers import Grader
    from midcourse.data import curate as curate_place
    from midcourse.data import write_problems

    for file in filter(None, (out, dropped)):
        check_output(file, force=force)
    with Grader() as grader:
        curation = curate_place(
            place,
            grader,
            require_reference=need_reference,
            against=against or [],
            columns=column_map(column),
            limit=limit,
            checker=checker,
        )
    if dropped is not None:
        dropped.write_text("".join(row.line() for row in curation.dropped), "utf-8")
    _say_outcomes(curation)
    if not curation.kept:
        raise DataError(f"{place}: no problem is left, so {out} is not written")
    write_problems(curation.kept, out, curation.others)
    number = "1 problem" if len(curation.kept) == 1 else f"{len(curation.kept):,} problems"
    typer.echo(f"{out}: {number}")


def _say_outcomes(curation: Curation) -> None:
    width = max(len(outcome) for outcome in curation.outcomes)
    typer.echo(f"{'rows':{width}} {curation.num_rows:7}")
    for outcome, count in curation.outcomes.items():
        example = curation.examples.get(outcome)
        say(f"{outcome.value:{width}} {count:7}" + (f"   e.g. {example}" if example else ""))


def column_map(options: list[str] | None) -> dict[str, str]:
    """Read ``OURS=THEIRS`` options. Raises ConfigError."""
    for option in options or ():
        if not all(option.partition("=")):
            raise ConfigError(f"--column {option}: write OURS=THEIRS, e.g. answer=final")
    return {ours: theirs for ours, _, theirs in (o.partition("=") for o in options or ())}
