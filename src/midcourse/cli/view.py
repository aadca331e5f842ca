"""The verb that writes the viewer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from midcourse.cli.app import app, say
from midcourse.errors import ArtifactError
from midcourse.viewer.room import Shown

if TYPE_CHECKING:
    from midcourse.viewer.data import View


@app.command()
def view(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write; default RUN/report/view.html.")
    ] = None,
    record_id: Annotated[
        str, typer.Option("--id", help="Print the link to this proposal or rollout.")
    ] = "",
    open_: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    rollouts: Annotated[
        Shown,
        typer.Option(help="Which rollouts; auto and hard leave out what a page has no room for."),
    ] = Shown.AUTO,
) -> None:
    """Write every proposal, rollout and group of RL into one HTML file, from a run's files alone.

    Works while the run is under way. Example: midcourse view runs/lab --open
    """
    from midcourse.store.index import require_run
    from midcourse.viewer.room import Room
    from midcourse.viewer.write import write_view

    require_run(run_dir)
    file = _file(run_dir, out)
    made = write_view(run_dir, file, Room(rollouts))
    _say(made)
    link = _link(made, file, record_id)
    say(f"view: {link if record_id else file} ({file.stat().st_size / 1e6:.1f} MB)")
    if open_:
        import webbrowser

        if not webbrowser.open(link):
            raise ArtifactError(f"no browser could be started: open {link} yourself")


def _file(run_dir: Path, out: Path | None) -> Path:
    from midcourse.viewer.write import VIEW

    if out is not None:
        return out / VIEW.name if out.is_dir() else out
    file = run_dir / VIEW
    for place in (file.parent, run_dir):
        if place.exists() and not os.access(place, os.W_OK):
            raise ArtifactError(f"{place} cannot be written: give the file with --out")
    return file


def _say(made: View) -> None:
    """Say what is in the page, and what is not."""
    for name, what in made.facts:
        if name in ("proposals", "rollouts", "rollouts of RL", "left out", "cannot be read"):
            say(f"  {name}: {what}")


def _link(made: View, file: Path, record_id: str) -> str:
    """Return the address of the page, or of a trace in it."""
    from urllib.parse import quote

    if record_id and record_id not in {item.id for item in made.items}:
        raise ArtifactError(
            f"{file} has no proposal or rollout {record_id!r}: 'midcourse show RUN' lists proposals"
        )
    return file.resolve().as_uri() + (f"#{quote(record_id)}" if record_id else "")
