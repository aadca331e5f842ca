"""Reads commands and code out of README.md and docs; checks commands and settings, runs none."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from midcourse.cli import app
from midcourse.config import describe_keys, load_recipe
from midcourse.recipes import find_recipe, recipe_text

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
#: What a reader reads; `docs/results` is written by programs.
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in DOCS.rglob("*.md") if DOCS / "results" not in page.parents),
]
#: Its commands are run in one shell, in order (walkthrough.py).
TUTORIAL = DOCS / "tutorial.md"
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
#: A reader's own recipe, wherever a page speaks of one.
OWN_RECIPE = "my.toml"
#: A block, and why its commands are not run, if a comment before it says so.
_BLOCK = re.compile(
    r"(?:^<!-- not run: ([^>]+) -->\n+)?^```([\w-]+)\n(.*?)^```", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Command:
    """One command of one page, e.g. ``midcourse run lab``."""

    page: str
    text: str
    why_not: str = ""
    """Why it is not run, as the page says; empty if it says nothing."""


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, but for those that say why they are not run."""
    found = _BLOCK.finditer(page.read_text("utf-8"))
    return [one[3] for one in found if one[2] == language and not one[1]]


def block_commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page's ```sh blocks, each ``&&`` apart."""
    for found in _BLOCK.finditer(page.read_text("utf-8")):
        if found[2] != "sh":
            continue
        for line in found[3].replace("\\\n", " ").splitlines():
            for part in re.sub(r"(^|\s)#.*", "", line).split("&&"):
                if text := " ".join(part.split()):
                    yield Command(page.name, text, found[1] or "")


def is_ours(text: str) -> bool:
    """Whether a command is a verb or a make target."""
    return text.startswith(("midcourse ", "make "))


def inline_commands(page: Path) -> Iterator[Command]:
    """Yield the commands that a page's sentences name between backticks."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for span in re.findall(r"`([^`]+)`", prose):
        text = " ".join(span.split())
        if re.match(r"(midcourse|make) [a-z]", text):
            yield Command(page.name, text)


def check_command(text: str) -> None:
    """Raise unless target or verb, options and recipe names exist, and the settings are valid."""
    program, *words = shlex.split(re.split(r"[>|]", text)[0])
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


def unknown_keys(block: str) -> set[str]:
    """Return the keys of a TOML block that no recipe has."""
    return {key for key in _dotted(tomllib.loads(block)) if not _is_key(key)}


def _dotted(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _is_key(key: str) -> bool:
    """Whether a recipe has a key; tables of any names, as `problems.columns`, hold every name."""
    if key == "extends":
        return True
    first, dot, rest = key.partition(".")
    engines = ("proposer_engine", "teacher_engine", "reference_engine")
    like = {"proposer_model": "model", **dict.fromkeys(engines, "engine")}
    key = f"{like.get(first, first)}{dot}{rest}"
    names = {re.sub(r"\bNAME\b", "*", found.name) for found in describe_keys()}
    at_any_name = re.sub(r"^(evaluate\.sets|prices)\.[^.]+", r"\1.*", key)
    spelled = (key, at_any_name)
    if names & {*spelled}:
        return True
    held = tuple(f"{name}." for name in names)  # a table of any names, or a section
    return any(one.startswith(held) for one in spelled)


def _load(given: dict[str, Any]) -> None:
    """Load a recipe with its layers and settings; the lab stands in for a reader's own."""
    names = [given["recipe"], *(given.get("with_") or [])]
    first, *layers = ["lab" if name == OWN_RECIPE else name for name in names]
    load_recipe(first, given.get("set_") or [], layers)
