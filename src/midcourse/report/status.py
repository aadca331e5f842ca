"""What a run directory holds, read from its files alone."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from midcourse.errors import ArtifactError
from midcourse.records import Proposal, Rollout
from midcourse.steps import location_from_error_step, split_steps
from midcourse.store import read_manifest, read_stage
from midcourse.table import Table


def status_table(run_dir: Path) -> Table:
    """List every stage directory: complete with its counts, or under way."""
    if not ((run_dir / "config.resolved.json").is_file() or (run_dir / "recipes").is_dir()):
        raise ArtifactError(f"{run_dir} is not a run directory: it holds no resolved recipe")
    rows = []
    for folder in sorted(path for path in run_dir.glob("*/*") if path.is_dir()):
        if (folder / "manifest.json").is_file():
            manifest = read_manifest(folder)
            counts = ", ".join(f"{name} {count}" for name, count in manifest["counts"].items())
            rows.append((manifest["stage"], manifest["label"], folder.name, "complete", counts))
        elif (folder / "journal.jsonl").is_file() or (folder / "job.json").is_file():
            rows.append((folder.parent.name, "", folder.name, "under way", ""))
    columns = ("stage", "label", "key", "state", "counts")
    return Table(str(run_dir), columns, tuple(rows))


def show_proposals(run_dir: Path, record_id: str) -> Group:
    """Return panels of the proposals that belong to an id, or the list of all proposals."""
    proposals = [p for path in _stages(run_dir, "propose") for p in read_stage(path, Proposal)]
    if not record_id:
        rows = tuple(
            (p.proposal_id, p.problem_id, str(p.outcome), str(p.location or "–")) for p in proposals
        )
        return Group(Table("Proposals", ("id", "problem", "outcome", "location"), rows).rich())
    found = [p for p in proposals if record_id in (p.proposal_id, p.rollout_id, p.problem_id)]
    if not found:
        raise ArtifactError(f"{run_dir} has no proposal for {record_id!r}: list them with show")
    wanted = {p.rollout_id for p in found}
    rollouts = {
        r.rollout_id: r
        for path in _stages(run_dir, "sample")
        for r in read_stage(path, Rollout)
        if r.rollout_id in wanted
    }
    return Group(*(_panel(p, rollouts[p.rollout_id]) for p in found))


def _stages(run_dir: Path, stage: str) -> list[Path]:
    return sorted(path.parent for path in (run_dir / stage).glob("*/manifest.json"))


def _panel(proposal: Proposal, rollout: Rollout) -> Panel:
    """Return the attempt with its first error marked, and the intervention."""
    text, located = Text(), proposal.location
    for index, step in enumerate(split_steps(rollout.text)):
        number, style = location_from_error_step(index), "default"
        if located is not None and number >= located:
            style = "red" if number == located else "dim"
        text.append(f"{number:3d} {printable(step.strip())}\n", style)
    if proposal.intervention:
        text.append(f"\n → {printable(proposal.intervention.strip())}\n", "green")
    detail = f"{proposal.outcome} {json.dumps(proposal.detail) if proposal.detail else ''}"
    return Panel(text, title=Text(f"{proposal.proposal_id}: {printable(detail)}"))


def printable(text: str) -> str:
    """Make control characters visible: model text must not drive a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)
