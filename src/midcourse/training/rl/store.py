"""What RL sampled, kept: rollouts, grades and places in RL, a file of each for every iteration.

They are the ordinary records, so that what reads and regrades sampled rollouts reads RL's too, and
a search for a reward hack has the texts that were rewarded. Groups are counted from them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from midcourse.records import (
    Condition,
    Grade,
    GroupCount,
    Proposal,
    RlSample,
    Rollout,
    Verdict,
)
from midcourse.stages.propose import first_accepted
from midcourse.store.checksums import require_whole
from midcourse.store.stage import read_records, write_records
from midcourse.training.rl.groups import Group

R = TypeVar("R")
RlMember: TypeAlias = tuple[Rollout, Grade, RlSample]
"""A rollout of RL, its verdict as it was rewarded, and its place in RL."""

_FOLDERS: dict[type[Any], str] = {Rollout: "rollouts", Grade: "grades", RlSample: "samples"}
#: What online InT asked, and the rollouts that verified it.
_ONLINE: dict[type[Any], str] = {
    Proposal: "online/proposals", Rollout: "online/rollouts", Grade: "online/grades"
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What online InT made of one iteration."""

    proposals: tuple[Proposal, ...] = ()
    rollouts: tuple[Rollout, ...] = ()
    """Continuations of the first accepted proposal about each rollout."""
    grades: tuple[Grade, ...] = ()
    """Of `rollouts`."""

    def verified(self) -> list[Proposal]:
        """Return the proposals with a correct continuation, in the order of their rollouts' ids."""
        solved = {one.parent_id for one in self.grades if one.verdict is Verdict.CORRECT}
        return [one for one in first_accepted(self.proposals) if one.proposal_id in solved]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSummary:
    """One group as it was rewarded and trained on, without its texts."""

    index: int
    """0-based, within the iteration."""
    count: GroupCount
    least_advantage: float
    greatest_advantage: float
    is_trained: bool
    """False where another group took its place."""
    num_tokens: int
    """Sampled tokens."""


def write_groups(folder: Path, iteration: int, groups: Sequence[Group]) -> None:
    """Write what one iteration sampled into the folder of its training, group after group."""
    records: dict[type[Any], Iterator[Any]] = {
        Rollout: chain.from_iterable(group.rollouts for group in groups),
        Grade: chain.from_iterable(group.grades for group in groups),
        RlSample: chain.from_iterable(group.samples for group in groups),
    }
    for kind, made in records.items():
        _write(folder / _FOLDERS[kind], iteration, made, kind)


def write_found(folder: Path, iteration: int, found: Found) -> None:
    """Write what online InT made of one iteration."""
    by_rollout = dict(zip(found.rollouts, found.grades, strict=True))
    rollouts = sorted(found.rollouts, key=lambda one: (one.parent_id, one.index))
    proposals = sorted(found.proposals, key=lambda one: (one.rollout_id, one.index, one.item))
    _write(folder / _ONLINE[Proposal], iteration, proposals, Proposal)
    _write(folder / _ONLINE[Rollout], iteration, rollouts, Rollout)
    _write(folder / _ONLINE[Grade], iteration, [by_rollout[one] for one in rollouts], Grade)


def has_found(folder: Path, iteration: int) -> bool:
    """Whether what online InT made of an iteration is written: the grades are last."""
    return (folder / _ONLINE[Grade] / _file_name(iteration)).is_file()


def read_found(folder: Path, iteration: int) -> tuple[Found, dict[str, Rollout]]:
    """Return what online InT made of one iteration, and that iteration's own rollouts by id."""
    part = _file_name(iteration)

    def read(name: str, kind: type[R]) -> Iterator[R]:
        return read_records([folder / name / part], kind)

    found = Found(
        proposals=tuple(read(_ONLINE[Proposal], Proposal)),
        rollouts=tuple(read(_ONLINE[Rollout], Rollout)),
        grades=tuple(read(_ONLINE[Grade], Grade)),
    )
    return found, {one.rollout_id: one for one in read(_FOLDERS[Rollout], Rollout)}


def read_rl_rollouts(folder: Path) -> Iterator[Rollout]:
    """Stream what an RL run sampled, iteration by iteration; `folder` is its training's."""
    return _read(folder, Rollout)


def read_rl_grades(folder: Path) -> Iterator[Grade]:
    """Stream the grades of `read_rl_rollouts`, in the same order."""
    return _read(folder, Grade)


def read_rl_samples(folder: Path) -> Iterator[RlSample]:
    """Stream iteration, group and advantage of `read_rl_rollouts`, in the same order."""
    return _read(folder, RlSample)


def read_rl(folder: Path, without: Collection[str] = ()) -> Iterator[RlMember]:
    """Stream what an RL run sampled with its verdicts and places, group after group.

    `without` names fields of `Rollout` that are not read. Of a training that is under way: the
    iterations whose files are all written.
    """
    for name in _FOLDERS.values():
        require_whole(folder, name)
    for part in sorted((folder / _FOLDERS[RlSample]).glob("iteration-*.parquet")):
        rollouts = read_records([folder / _FOLDERS[Rollout] / part.name], Rollout, without)
        grades = read_records([folder / _FOLDERS[Grade] / part.name], Grade)
        yield from zip(rollouts, grades, read_records([part], RlSample), strict=True)


def group_of(member: RlMember) -> tuple[int, int]:
    """Return iteration and index of the group that a rollout belongs to."""
    sample = member[2]
    return sample.iteration, sample.group


def read_group_summaries(folder: Path) -> list[GroupSummary]:
    """Sum up the groups of an RL run, in order; `folder` is its training's."""
    members = read_rl(folder, ("token_ids",))
    return [_summary(list(group)) for _, group in groupby(members, key=group_of)]


def read_online_proposals(folder: Path) -> Iterator[Proposal]:
    """Stream what online InT proposed about the rollouts of `read_rl`; nothing without it."""
    require_whole(folder, "online")
    return read_records(sorted(folder.glob(f"{_ONLINE[Proposal]}/iteration-*.parquet")), Proposal)


def read_group_counts(folder: Path) -> list[GroupCount]:
    """Count the groups of an RL run, in order; `folder` is its training's."""
    pairs = zip(read_rl_samples(folder), read_rl_grades(folder), strict=True)
    by_group = groupby(pairs, key=lambda pair: (pair[0].iteration, pair[0].group))
    return [
        _count(iteration, [grade for _, grade in members]) for (iteration, _), members in by_group
    ]


def drop_groups(folder: Path, iteration: int) -> None:
    """Delete the files of `iteration` and later ones: they will be done again."""
    for name in (*_FOLDERS.values(), *_ONLINE.values()):
        for path in (folder / name).glob("iteration-*"):
            if path.name >= _file_name(iteration) or path.suffix == ".tmp":
                path.unlink()


def _write(parts: Path, iteration: int, records: Iterable[R], kind: type[R]) -> None:
    parts.mkdir(parents=True, exist_ok=True)
    write_records(parts / _file_name(iteration), records, kind)


def _read(folder: Path, kind: type[R]) -> Iterator[R]:
    name = _FOLDERS[kind]
    require_whole(folder, name)
    return read_records(sorted(folder.glob(f"{name}/iteration-*.parquet")), kind)


def _summary(members: Sequence[RlMember]) -> GroupSummary:
    samples = [sample for _, _, sample in members]
    advantages = [sample.advantage for sample in samples]
    return GroupSummary(
        index=samples[0].group,
        count=_count(samples[0].iteration, [grade for _, grade, _ in members]),
        least_advantage=min(advantages),
        greatest_advantage=max(advantages),
        is_trained=samples[0].is_trained,
        num_tokens=sum(rollout.num_tokens for rollout, _, _ in members),
    )


def _count(iteration: int, grades: Sequence[Grade]) -> GroupCount:
    verdicts = [grade.verdict for grade in grades]
    correct, ungraded = verdicts.count(Verdict.CORRECT), verdicts.count(Verdict.UNGRADED)
    return GroupCount(
        iteration=iteration,
        problem_id=grades[0].problem_id,
        num_correct=correct,
        num_incorrect=len(verdicts) - correct - ungraded,
        num_ungraded=ungraded,
        condition=Condition(grades[0].condition),
    )


def _file_name(iteration: int) -> str:
    return f"iteration-{iteration:06d}.parquet"
