"""The verb that makes the evidence of docs/results, in slices, and its pages."""

from __future__ import annotations

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
        typer.Option(
            help="Build the pages from the data; left out: of what was made. No: be brief."
        ),
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
    reporter = ConsoleProgress(open_console())
    chosen = [made.Evidence(of, reporter=reporter) for of in choose_studies(study or "all")]
    every = [made.Evidence(of) for of in studies().values() if not of.command]
    here, succeeded = [of for of in chosen if not of.study.command], True
    if study:
        succeeded = made.make_all(here, seed or (), minutes, workers)
    if pages or (study and pages is None):
        build.build_pages(here, RESULTS)
    for of in chosen if pages is not False else ():
        reporter.say(of.line())
    for path in made.prune(every) if prune else ():
        reporter.say(f"deleted {path}")
    raise typer.Exit(0 if succeeded else 1)
