"""What a run directory holds, read from its files alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from midcourse.errors import ArtifactError
from midcourse.printable import printable
from midcourse.records import Proposal, Rollout
from midcourse.report.overview import read_overview
from midcourse.report.rl import rl_folders
from midcourse.steps import split_steps
from midcourse.store.stage import read_stage
from midcourse.table import Table
from midcourse.training.rl.store import (
    GroupSummary,
    RlMember,
    read_group_summaries,
    read_online_proposals,
    read_rl,
)


def status_table(run_dir: Path) -> Table:
    """List every step in the order of the flow, with its result, time, tokens and size."""
    return read_overview(run_dir).table()


def show_proposals(run_dir: Path, record_id: str) -> Group:
    """Return panels of the proposals and RL rollouts of an id, or the list of all proposals."""
    trainings = list(rl_folders(run_dir))
    proposals = [p for path in _stages(run_dir, "propose") for p in read_stage(path, Proposal)]
    proposals += [p for folder in trainings for p in read_online_proposals(folder)]
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
            "'midcourse show', groups of RL with 'midcourse show --rl', without an id"
        )
    wanted = {p.rollout_id for p in found}
    every = chain(
        (r for path in _stages(run_dir, "sample") for r in read_stage(path, Rollout)),
        (rollout for folder in trainings for rollout, _, _ in read_rl(folder)),
    )
    rollouts = {rollout.rollout_id: rollout for rollout in every if rollout.rollout_id in wanted}
    return Group(*(_panel(p, rollouts[p.rollout_id]) for p in found), *rewarded)


def _rl_panels(run_dir: Path, record_id: str) -> list[Panel]:
    """Return what RL sampled for an id, as it was rewarded."""
    return [
        Panel(Text(printable(member[0].text)), title=_title(member[0].rollout_id, _place(member)))
        for folder in rl_folders(run_dir)
        for member in read_rl(folder, ("token_ids",))
        if record_id in (member[0].rollout_id, member[0].problem_id, member[0].parent_id)
    ]


def _place(member: RlMember) -> str:
    """Say where in RL a rollout was drawn, and what it was worth."""
    rollout, graded, sample = member
    state = "" if sample.is_trained else ", replaced"
    return (
        f"{rollout.model}, iteration {sample.iteration}, group {sample.group}{state}, "
        f"{rollout.condition}, {graded.verdict}, advantage {sample.advantage:+.3f}"
    )


def show_groups(run_dir: Path, problem_id: str, iteration: int | None) -> Group:
    """Return a table of groups per RL training, of one problem or iteration where one is given."""
    tables = []
    for folder, name in rl_folders(run_dir).items():
        groups = [
            group
            for group in read_group_summaries(folder)
            if problem_id in ("", group.count.problem_id)
            and iteration in (None, group.count.iteration)
        ]
        if groups:
            tables.append(_group_table(f"Groups of {name}", groups))
    if not tables:
        of = f" of problem {problem_id!r}" if problem_id else ""
        at = f" in iteration {iteration}; they count from 0" if iteration is not None else ""
        raise ArtifactError(f"{run_dir} has no group of RL{of}{at}")
    return Group(*(table.rich() for table in tables))


def _group_table(title: str, groups: Sequence[GroupSummary]) -> Table:
    rows = tuple(
        (
            f"{group.count.iteration}/{group.index}",
            group.count.problem_id,
            str(group.count.condition),
            str(group.count.num_correct),
            str(group.count.num_incorrect),
            str(group.count.num_ungraded),
            f"{group.least_advantage:+.2f}…{group.greatest_advantage:+.2f}",
            f"{group.num_tokens:,}",
            "trained" if group.is_trained else "replaced",
        )
        for group in groups
    )
    counts = ("correct", "incorrect", "ungraded", "advantages", "tokens", "batch")
    note = "A group is named by iteration and place in it, both from 0."
    return Table(title, ("group", "problem", "condition", *counts), rows, note)


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
