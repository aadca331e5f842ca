"""The verb that makes the evidence of docs/results, in slices, and its pages."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated

import typer

from midcourse.cli.app import Group, verb
from midcourse.cli.completion import one_of


def _studies() -> Iterable[str]:
    from midcourse.experiments.studies import studies

    return ["all", *studies()]


@verb(Group.EXPERIMENTS, "midcourse evidence lab --minutes 40")
def evidence(
    study: Annotated[
        str,
        typer.Argument(
            help="What to make: lab, … or all. Left out: say how things stand.",
            autocompletion=one_of(_studies),
        ),
    ] = "",
    minutes: Annotated[float, typer.Option(help="Start nothing after so long.")] = 40.0,
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable: these seeds only.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes, each with its own seeds and one thread.")
    ] = 1,
    pages: Annotated[
        bool | None,
        typer.Option(help="Build the pages from the data. Left out: those of what was made."),
    ] = None,
    prune: Annotated[
        bool, typer.Option(help="Delete run directories once all is read of them.")
    ] = False,
) -> None:
    """Make what is missing of the studies behind docs/results, and build their pages."""
    from midcourse.errors import ConfigError
    from midcourse.experiments import build
    from midcourse.experiments import evidence as made
    from midcourse.experiments.studies import RESULTS, choose_studies, studies
    from midcourse.progress import ConsoleProgress, open_console

    if not RESULTS.is_dir():
        raise ConfigError(f"no {RESULTS} here: run it in a checkout of the repository")
    reporter, deadline = ConsoleProgress(open_console()), time.monotonic() + 60 * minutes
    chosen = [made.Evidence(of, reporter=reporter) for of in choose_studies(study or "all")]
    here, succeeded = [of for of in chosen if not of.study.command], True
    for of in here if study else ():
        left = (deadline - time.monotonic()) / 60
        if workers > 1 and left > 0:
            succeeded &= made.make_with_workers(of.study, seed or (), left, workers)
        else:
            succeeded &= of.make(seed or (), deadline)
    if pages or (study and pages is None):
        build.build_pages(here, RESULTS)
    for of in chosen:
        reporter.say(of.line())
    every = [made.Evidence(of) for of in studies().values() if not of.command]
    for path in made.prune(every) if prune else ():
        reporter.say(f"deleted {path}")
    raise typer.Exit(0 if succeeded else 1)
