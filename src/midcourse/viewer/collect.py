"""Reads a run directory into what the viewer shows: every proposal, rollout and group of RL.

Files alone are read, as they are when they are looked at: the run may be under way, half finished,
read-only or made by an earlier release. What is missing is left out, and what is damaged is named.
Texts wait compressed; only continuations wait in full, until all of a proposal's are known.
"""

from __future__ import annotations

from pathlib import Path

from midcourse.store.index import require_run
from midcourse.viewer.builder import PageBuilder
from midcourse.viewer.data import Kind, View
from midcourse.viewer.facts import facts_of, name_of
from midcourse.viewer.files import RunFiles, Step
from midcourse.viewer.models import ModelNames
from midcourse.viewer.problems import ProblemList
from midcourse.viewer.proposals import Proposals, add_proposals
from midcourse.viewer.reinforced import Arm, arm_size, arms_of
from midcourse.viewer.rollouts import add_sampled
from midcourse.viewer.room import Room, Size
from midcourse.viewer.tokens import read_strips


def collect_view(run_dir: Path, room: Room | None = None) -> View:
    """Return all that the page of a run shows, as far as there is room: proposals, rollouts, RL.

    Raises ArtifactError if `run_dir` is not a run directory.
    """
    require_run(run_dir)
    files = RunFiles(run_dir)
    builder = PageBuilder(
        files, ProblemList.read(files), ModelNames.read(files), Room() if room is None else room
    )
    _fill(builder, Proposals.read(files))
    return View(
        name=name_of(files),
        facts=facts_of(builder),
        problems=builder.problems.viewed(),
        items=sorted(builder.items, key=lambda item: list(Kind).index(item.kind)),
        chunks=builder.chunks,
    )


def _fill(builder: PageBuilder, proposals: Proposals) -> None:
    files = builder.files
    continued = [step for step in files.named("sample") if _continues(files, step)]
    sampled = [step for step in files.named("sample") if step not in continued]
    arms = arms_of(files)
    texts, rollouts = builder.room.divide(
        [files.size(step) for step in continued],
        [*map(files.size, sampled), *(_size(files, arm) for arm in arms)],
    )
    for step, number in zip(continued, texts, strict=True):
        proposals.continued(files, step, number, builder.room)
    for step, number in zip(sampled, rollouts, strict=False):
        add_sampled(builder, step, proposals, number)
    add_proposals(builder, proposals, read_strips(files))
    for arm, number in zip(arms, rollouts[len(sampled) :], strict=True):
        Arm(builder, arm, proposals, number).add()


def _continues(files: RunFiles, step: Step) -> bool:
    """Whether a stage's rollouts belong to proposals."""
    first = next(files.rollouts(step), None)
    return first is not None and first.parent_id is not None


def _size(files: RunFiles, arm: Step) -> Size:
    return next(files.tolerant(map(arm_size, [arm])), Size(0, 0))
