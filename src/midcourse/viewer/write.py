"""Writes the viewer of a run directory."""

from __future__ import annotations

from pathlib import Path

from midcourse.store.files import make_folder, write_durably
from midcourse.viewer.collect import collect_view
from midcourse.viewer.data import View
from midcourse.viewer.page import write_page
from midcourse.viewer.room import Room

#: Where the viewer of a run directory lies in it.
VIEW = Path("report") / "view.html"


def write_view(run_dir: Path, file: Path, room: Room | None = None) -> View:
    """Write the viewer of a run directory to a file; return what is in it.

    Raises ArtifactError if `run_dir` is not a run directory, or if the file cannot be written.
    """
    view = collect_view(run_dir, room)
    make_folder(file.parent)
    write_durably(file, b"".join(write_page(view)))
    return view
