"""What the documentation site makes at build time: generated pages, inlined pictures, links.

MkDocs calls the ``on_…`` functions (mkdocs.yml). A page holds a mark such as
``<!-- generated: cli -->`` where generated text goes, so that it cannot differ from the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
_MARK = re.compile(r"<!-- generated: (\w+) -->")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)([^)#]+)(?:#[^)]*)?\)")
_DIAGRAM = re.compile(r"!\[([^\]]*)\]\(((?:\.\./)*images/diagrams/[\w-]+\.svg)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill in what is generated, inline diagrams, and name files that are not on the site."""
    markdown = _MARK.sub(lambda found: GENERATED[found[1]](), markdown)
    folder = (DOCS / page.file.src_uri).parent
    markdown = _DIAGRAM.sub(lambda found: _inline(folder / found[2], found[1]), markdown)
    return _OUTSIDE.sub(lambda found: _name_source(found, folder), markdown)


def _inline(file: Path, title: str) -> str:
    """Return a diagram as part of the page, so that it takes the page's colours, dark or light."""
    svg = file.read_text("utf-8").partition("?>")[2].strip() or file.read_text("utf-8")
    return f'<figure class="diagram" role="img" aria-label="{title}">\n{svg}\n</figure>'


def _name_source(found: re.Match[str], folder: Path) -> str:
    """Replace a link to a file of the repository that is not a page by the file's name."""
    text, up, path = found.groups()
    target = (folder / up / path).resolve()
    if target.is_relative_to(DOCS):
        return found[0]
    if target == DOCS.parent / "README.md":
        return text
    name = target.relative_to(DOCS.parent)
    return f'<span class="source" title="{name}">{text}</span>'


def command_line() -> str:
    """Return every verb with its help, arguments and options, from the Typer application."""
    import click
    import typer

    from midcourse.cli import app

    root: Any = typer.main.get_command(app)
    lines, group = [], ""
    for name in root.list_commands(click.Context(root)):
        command = root.commands[name]
        panel = getattr(command, "rich_help_panel", None)
        if isinstance(panel, str) and panel != group:
            group = panel
            lines += [f"## {group}", ""]
        lines += _describe(command, f"midcourse {name}")
    return "\n".join(lines if group else ["## Verbs", "", *lines])


def _describe(command: Any, path: str) -> Iterator[str]:
    nested = getattr(command, "commands", {})
    if not nested or getattr(command, "invoke_without_command", False):
        yield from _describe_verb(command, path)
    for name, verb in nested.items():
        if not verb.hidden:
            yield from _describe(verb, f"{path} {name}")


def _describe_verb(command: Any, path: str) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    words = [_placeholder(argument) for argument in arguments]
    yield from (f"### {path}", "", _plain(command.help or ""), "")
    yield from ("```text", " ".join([path, *words, "[OPTIONS]"]), "```", "")
    if command.epilog:
        yield from (_plain(command.epilog), "")
    if arguments or options:
        yield from ("| argument or option | meaning |", "|---|---|")
        for parameter in (*arguments, *options):
            yield f"| {_spelled(parameter)} | {_cell(getattr(parameter, 'help', '') or '')} |"
        yield ""


def _placeholder(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in parameter.opts)


def _plain(text: str) -> str:
    """Return a help text without the marks of a terminal."""
    return text.replace("\b\n", "").replace("\f", "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def changelog() -> str:
    """Return the changelog without its title."""
    return (DOCS.parent / "CHANGELOG.md").read_text("utf-8").partition("\n")[2]


GENERATED = {"cli": command_line, "changelog": changelog}
