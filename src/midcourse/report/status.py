"""What a run directory holds, read from its files alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from midcourse.errors import ArtifactError
from midcourse.store.index import IndexEntry, read_index
from midcourse.store.repair import step_folders
from midcourse.store.stage import MANIFEST, missing_file, read_manifest
from midcourse.table import Table

_DAMAGED = "damaged"


def status_table(run_dir: Path) -> Table:
    """List every stage in the order of the flow: complete with its counts, under way, not begun."""
    if not ((run_dir / "config.resolved.json").is_file() or (run_dir / "recipes").is_dir()):
        raise ArtifactError(f"{run_dir} is not a run directory: it holds no resolved recipe")
    index = read_index(run_dir)
    found = [str(folder.relative_to(run_dir)) for folder in step_folders(run_dir)]
    rows = []
    for folder in dict.fromkeys([*index.entries, *found]):
        named = index.entries.get(folder, IndexEntry(folder.split("/")[0], ""))
        state, counts = _state(run_dir / folder)
        rows.append((named.stage, named.label, folder.rpartition("/")[2], state, counts))
    columns = ("stage", "label", "key", "state", "counts")
    needs_repair = index.problem or any(state == _DAMAGED for _, _, _, state, _ in rows)
    note = f"damaged files: run 'midcourse repair {run_dir}'" if needs_repair else ""
    return Table(str(run_dir), columns, tuple(rows), note)


def _state(folder: Path) -> tuple[str, str]:
    """Return how far a step is, and its counts if it is complete."""
    if not (folder / MANIFEST).is_file():
        return ("under way" if any(map(Path.is_file, folder.glob("*"))) else "not begun"), ""
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        return _DAMAGED, str(error)
    counts = _said(manifest.get("counts", {}))
    if "guided_solutions" in manifest:
        counts += f"; guided solutions: {_said(manifest['guided_solutions'])}"
    missing = missing_file(folder, manifest)
    return (_DAMAGED, missing) if missing else ("complete", counts)


def _said(counts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
