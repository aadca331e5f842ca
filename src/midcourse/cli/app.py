"""The verbs' Typer applications, their groups in the help, and the arguments that many share.

A new verb is a function under `verb` in a module of this package that `midcourse.cli` imports:

    @verb(Group.LOOK, "midcourse watch runs/my")
    def watch(run_dir: RunFolder) -> None:
        '''Follow a run under way.'''

That puts it into a group of ``midcourse --help``, in the order of `_ORDER` or after it, and shows
the example in its own help; tests/test_help.py parses each example. What is heavy is imported in
the function.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from midcourse.cli.completion import recipe_names, settings
from midcourse.errors import ConfigError
from midcourse.printable import printable

Verb = TypeVar("Verb", bound=Callable[..., Any])


class Group(StrEnum):
    """The parts of ``midcourse --help``, in order."""

    START = "Start"
    STAGES = "Stages, in order: each makes what it needs and keeps what is there"
    LOOK = "Look at a run"
    HAND_OVER = "Hand over"
    EXPERIMENTS = "Experiments"
    LAB = "Lab"


#: The order within groups; a verb that is not named stands at the end of its group.
_ORDER = (
    "init", "doctor", "recipes", "keys", "validate", "curate", "plan", "warmup", "run",
    "sample", "grade", "select", "reference", "propose", "verify", "reestimate", "build-sft",
    "train", "evaluate", "likelihood", "report",
    "status", "watch", "show", "view", "compare", "repair",
)  # fmt: skip


class _Verbs(TyperGroup):
    """Lists verbs by group, and names the nearest one to a mistyped verb."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in the order of the help."""
        groups = list(Group)

        def place(name: str) -> tuple[int, int]:
            panel = getattr(self.commands[name], "rich_help_panel", None)
            group = groups.index(panel) if panel in groups else len(groups)
            return group, _ORDER.index(name) if name in _ORDER else len(_ORDER)

        return sorted(self.commands, key=place)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the verb that `args` begin with; exit code 2 with the nearest ones."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            below = list(_names(self))
            near = [known for known in below if known.split()[-1] == name]
            near = near or difflib.get_close_matches(name, [*self.commands, *below])
            hint = " or ".join(repr(known) for known in dict.fromkeys(near))
            did_you_mean = f" Did you mean {hint}?" if near else ""
            ctx.fail(f"No such command {printable(repr(name), keep='')}.{did_you_mean}")
        return super().resolve_command(ctx, args)


def _names(group: Any, above: str = "") -> Iterator[str]:
    """Yield every verb below a group as it is written, e.g. ``train sft``."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _names(command, f"{above}{name} ")
        else:
            yield f"{above}{name}"


app = typer.Typer(
    name="midcourse",
    cls=_Verbs,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(cls=_Verbs, no_args_is_help=True)
lab_app = typer.Typer(cls=_Verbs, no_args_is_help=True)
recipes_app = typer.Typer(cls=_Verbs)
app.add_typer(
    train_app,
    name="train",
    help="Train on the rows (train sft), then by GRPO (train rl).",
    epilog="Example: midcourse train sft my.toml",
    rich_help_panel=Group.STAGES,
)
app.add_typer(
    lab_app,
    name="lab",
    help="Pretrain (lab pretrain) and check (lab check) the lab's base model.",
    epilog="Example: midcourse lab check",
    rich_help_panel=Group.LAB,
)
app.add_typer(
    recipes_app,
    name="recipes",
    epilog="Example: midcourse recipes show lab",
    rich_help_panel=Group.START,
)


def verb(
    group: Group, example: str, name: str | None = None, *, doc: str = "", of: typer.Typer = app
) -> Callable[[Verb], Verb]:
    """Make a function a verb: its group, an example that parses, its name if not the function's."""
    panel = group if of is app else None
    return of.command(name, help=doc or None, epilog=f"Example: {example}", rich_help_panel=panel)


def _say_version(wanted: bool) -> None:
    if wanted:
        from midcourse import __version__

        typer.echo(f"midcourse {__version__}")
        raise typer.Exit


@app.callback()
def midcourse(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Intervention Training (InT): first errors, interventions, patching, GRPO."""


RecipePath = Annotated[
    str,
    typer.Argument(
        help="A .toml file, or a name that `midcourse recipes` lists, e.g. lab.",
        autocompletion=recipe_names,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Override one value: sample.num_rollouts=8. Repeatable.",
        autocompletion=settings,
    ),
]
Overlays = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        help="A recipe to layer on top, e.g. scale/lab. Repeatable.",
        autocompletion=recipe_names,
    ),
]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lives; default runs/<name>.")
]
RunFolder = Annotated[Path, typer.Argument(help="A run directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, for a program.")]


def say(text: str) -> None:
    """Print one line that may hold text of others."""
    typer.echo(printable(text, keep=""))


def check_output(file: Path, *, force: bool) -> None:
    """Raise ConfigError, before any work, where a file cannot be written or may not be."""
    if file.is_dir():
        raise ConfigError(f"{file} is a folder: give the name of a file")
    if file.exists() and not force:
        raise ConfigError(f"{file} is there already: give --force to overwrite it")
    if not os.access(file.parent, os.W_OK):
        raise ConfigError(
            f"{file} cannot be written: {file.parent} is not a folder that can be written to"
        )
