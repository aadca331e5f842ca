"""The verbs' Typer applications, and the arguments that many verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midcourse.printable import printable

app = typer.Typer(
    name="midcourse",
    help="Intervention Training (InT): first errors, interventions, patching, GRPO.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train: sft (patching) or rl (GRPO).", no_args_is_help=True)
lab_app = typer.Typer(help="The lab's base model: pretrain it, check it.", no_args_is_help=True)
recipes_app = typer.Typer(help="List the packaged recipes, or show one.")
app.add_typer(train_app, name="train")
app.add_typer(lab_app, name="lab")
app.add_typer(recipes_app, name="recipes")

RecipePath = Annotated[
    str, typer.Argument(help="A .toml file, or a name that `midcourse recipes` lists, e.g. lab.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one value: sample.num_rollouts=8. Repeatable."),
]
Overlays = Annotated[
    list[str] | None,
    typer.Option("--with", help="A recipe to layer on top, e.g. scale/lab. Repeatable."),
]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lives; default runs/<name>.")
]


def say(text: str) -> None:
    """Print one line that may hold text of others."""
    typer.echo(printable(text, keep=""))
