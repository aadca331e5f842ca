"""What a run directory holds, read from its files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from midcourse.errors import ArtifactError
from midcourse.printable import printable
from midcourse.records import Proposal, Rollout
from midcourse.steps import split_steps
from midcourse.store.index import IndexEntry, read_index
from midcourse.store.repair import step_folders
from midcourse.store.stage import MANIFEST, missing_file, read_manifest, read_stage
from midcourse.table import Table
from midcourse.training.rl.store import read_rl_grades, read_rl_rollouts

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


def show_proposals(run_dir: Path, record_id: str) -> Group:
    """Return panels of the proposals and RL rollouts of an id, or the list of all proposals."""
    proposals = [p for path in _stages(run_dir, "propose") for p in read_stage(path, Proposal)]
    if not record_id:
        rows = tuple(
            (p.proposal_id, p.problem_id, str(p.outcome), str(p.location or "–")) for p in proposals
        )
        return Group(Table("Proposals", ("id", "problem", "outcome", "location"), rows).rich())
    found = [p for p in proposals if record_id in (p.proposal_id, p.rollout_id, p.problem_id)]
    rewarded = _rl_panels(run_dir, record_id)
    if not found and not rewarded:
        raise ArtifactError(
            f"{run_dir} has no proposal and no RL rollout for {record_id!r}: list proposals with "
            "'midcourse show', without an id"
        )
    wanted = {p.rollout_id for p in found}
    every = (r for path in _stages(run_dir, "sample") for r in read_stage(path, Rollout))
    rollouts = {rollout.rollout_id: rollout for rollout in every if rollout.rollout_id in wanted}
    return Group(*(_panel(p, rollouts[p.rollout_id]) for p in found), *rewarded)


def _rl_panels(run_dir: Path, record_id: str) -> list[Panel]:
    """Return what RL sampled for an id, as it was rewarded."""
    return [
        Panel(
            Text(printable(rollout.text)),
            title=_title(rollout.rollout_id, f"{rollout.model}, {graded.verdict}"),
        )
        for folder in sorted((run_dir / "checkpoints").glob("*"))
        for rollout, graded in zip(read_rl_rollouts(folder), read_rl_grades(folder), strict=True)
        if record_id in (rollout.rollout_id, rollout.problem_id)
    ]


def _stages(run_dir: Path, stage: str) -> list[Path]:
    return sorted(path.parent for path in (run_dir / stage).glob("*/manifest.json"))


def _panel(proposal: Proposal, rollout: Rollout) -> Panel:
    """Return the attempt with its first error marked, and the intervention."""
    text, location = Text(), proposal.location or len(rollout.text) + 1
    for number, step in enumerate(split_steps(rollout.text), start=1):
        style = "red" if number == location else "dim" if number > location else "default"
        text.append(f"{number:3d} {printable(step.strip())}\n", style)
    if proposal.intervention:
        text.append(f"\n → {printable(proposal.intervention.strip())}\n", "green")
    detail = f"{proposal.outcome} {json.dumps(proposal.detail) if proposal.detail else ''}"
    return Panel(text, title=_title(proposal.proposal_id, detail))


def _title(record_id: str, detail: str) -> Text:
    return Text(printable(f"{record_id}: {detail}", keep=""))
