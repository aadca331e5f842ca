"""Reads commands and Python out of README.md and docs/*.md; checks commands, runs none."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from midcourse.cli import app
from midcourse.config import load_recipe
from midcourse.recipes import find_recipe, recipe_text

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
#: A reader's own recipe, wherever a page speaks of one.
OWN_RECIPE = "my.toml"


@dataclass(frozen=True)
class Command:
    """One command of one page, e.g. ``midcourse run lab``."""

    page: str
    text: str


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def block_commands(page: Path) -> Iterator[Command]:
    """Yield the ``midcourse`` and ``make`` commands of a page's ```sh blocks."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.partition(" #")[0].split("&&"):
                text = " ".join(part.split())
                if text.startswith(("midcourse ", "make ")):
                    yield Command(page.name, text)


def inline_commands(page: Path) -> Iterator[Command]:
    """Yield the commands that a page's sentences name between backticks."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for span in re.findall(r"`([^`]+)`", prose):
        text = " ".join(span.split())
        if re.match(r"(midcourse|make) [a-z]", text):
            yield Command(page.name, text)


def check_command(text: str) -> None:
    """Raise unless target or verb, options and recipe names exist, and the settings are valid."""
    program, *words = shlex.split(text.partition(">")[0])
    if program == "make":
        unknown = {word for word in words if "=" not in word and word != "-j"} - TARGETS
        if unknown:
            raise ValueError(f"there is no make target {sorted(unknown)}")
        return
    verb, arguments = find_verb(words)
    given = verb.make_context(verb.name, arguments).params
    if given.get("name"):
        recipe_text(given["name"])
    if given.get("scale"):
        find_recipe(given["scale"])
    if given.get("recipe"):
        _load(given)


def check_span(text: str) -> None:
    """Raise unless the verb or target of a half-written command, and its options, exist."""
    program, *words = text.split()
    if program == "make":
        check_command(f"make {words[0]}")
        return
    verb, rest = find_verb(words)
    options = {option for parameter in verb.params for option in parameter.opts}
    unknown = {word for word in rest if word.startswith("--")} - options
    if unknown:
        raise ValueError(f"midcourse {verb.name} has no option {sorted(unknown)}")


def find_verb(words: list[str]) -> tuple[Any, list[str]]:
    """Return the click command that `words` begin with, and the words that follow."""
    command: Any = typer.main.get_command(app)
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        if words[0] not in command.commands:
            raise ValueError(f"midcourse has no verb {words[0]!r}")
        command, words = command.commands[words[0]], words[1:]
    return command, words


def _load(given: dict[str, Any]) -> None:
    """Load a recipe with its layers and settings; the lab stands in for a reader's own."""
    names = [given["recipe"], *(given.get("with_") or [])]
    first, *layers = ["lab" if name == OWN_RECIPE else name for name in names]
    load_recipe(first, given.get("set_") or [], layers)
