"""The verb that writes a first recipe."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from midcourse.cli.app import Group, check_output, say, verb
from midcourse.cli.data import column_map
from midcourse.errors import ConfigError, MidcourseError

if TYPE_CHECKING:
    from midcourse.start.init import FirstRun, Proposer
    from midcourse.start.problems import Survey


@verb(Group.START, "midcourse init my.toml --model ./my-model --problems problems.csv")
def init(
    file: Annotated[Path, typer.Argument(help="The .toml file to write.")] = Path("my.toml"),
    model: Annotated[str | None, typer.Option(help="A model folder, or a hub name.")] = None,
    problems: Annotated[str | None, typer.Option(help="A file, hub:… or a known source.")] = None,
    held_out: Annotated[str | None, typer.Option(help="Problems to evaluate on.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="What a field is called: answer=final. Repeatable."),
    ] = None,
    proposer: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible server that proposes.")
    ] = None,
    proposer_model: Annotated[str | None, typer.Option(help="The model's name there.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Name of the variable that holds its key.")
    ] = None,
    engine: Annotated[
        Literal["transformers", "vllm"] | None, typer.Option(help="What samples the model.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a short recipe for your model, your problems and your engine, and check it.

    What is not given is asked on a terminal.
    """
    from midcourse.start.init import name_of, plan_first_run
    from midcourse.start.problems import survey

    name = name_of(file)
    check_output(file, force=force)
    model = model or _ask("--model", "Model (a folder or a hub name)")
    problems = problems or _ask("--problems", "Problems (a file, hub:OWNER/NAME, a known source)")
    train = _shown(survey(problems, column_map(column) or None))
    if held_out is None:
        held_out = _ask("--held-out", "Problems to evaluate on (empty: none)", "")
    if proposer is None:
        proposer = _ask("--proposer", "URL of a proposer server (empty: the model itself)", "")
    server = _server(proposer, proposer_model, api_key_env) if proposer else None
    kept_out = _shown(survey(held_out)) if held_out else None
    _finish(file, plan_first_run(name, model, engine, train, kept_out, server), force=force)


def _ask(option: str, question: str, default: str | None = None) -> str:
    """Ask on a terminal; without one take the default. Raises ConfigError if there is none."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return str(typer.prompt(question, default=default, show_default=False)).strip()
    if default is None:
        raise ConfigError(f"midcourse init: give {option}: there is no terminal to ask on")
    return default


def _server(url: str, model: str | None, key: str | None) -> Proposer:
    from midcourse.start.init import Proposer

    named = model or _ask("--proposer-model", "The model's name at that server")
    return Proposer(url, named, key)


def _shown(found: Survey) -> Survey:
    for line in found.lines():
        say(line)
    return found


def _finish(file: Path, plan: FirstRun, *, force: bool) -> None:
    """Write the recipe, check it and say what comes next."""
    from midcourse.start.checks import Level
    from midcourse.start.doctor import recipe_checks
    from midcourse.start.init import remarks, write_recipe

    recipe = write_recipe(file, plan, force=force)
    for line in remarks(plan):
        say(f"note: {line}")
    try:
        found = list(recipe_checks(recipe, Path("runs") / recipe.name))
    except MidcourseError as error:
        raise ConfigError(f"{file} is written, but {error}") from error
    for check in found:
        if check.level is not Level.OK:
            for line in check.line(18).splitlines():
                say(line)
    named = shlex.quote(str(file))
    say(f"{file} is written. Next: midcourse doctor {named}, then midcourse run {named}")
    if any(check.level is Level.PROBLEM for check in found):
        raise typer.Exit(1)
