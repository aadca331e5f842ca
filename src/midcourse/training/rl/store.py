"""What RL sampled, kept: rollouts, grades and places in RL, a file of each for every iteration.

They are the ordinary records, so that what reads and regrades sampled rollouts reads RL's too, and
a search for a reward hack has the texts that were rewarded. Groups are counted from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeVar

from midcourse.records import Condition, Grade, GroupCount, RlSample, Rollout, Verdict
from midcourse.store.checksums import require_whole
from midcourse.store.stage import read_records, write_records
from midcourse.training.rl.groups import Group

R = TypeVar("R")

_FOLDERS: dict[type[Any], str] = {Rollout: "rollouts", Grade: "grades", RlSample: "samples"}


def write_groups(folder: Path, iteration: int, groups: Sequence[Group]) -> None:
    """Write what one iteration sampled into the folder of its training, group after group."""
    records: dict[type[Any], Iterator[Any]] = {
        Rollout: chain.from_iterable(group.rollouts for group in groups),
        Grade: chain.from_iterable(group.grades for group in groups),
        RlSample: chain.from_iterable(group.samples for group in groups),
    }
    for kind, made in records.items():
        parts = folder / _FOLDERS[kind]
        parts.mkdir(exist_ok=True)
        write_records(parts / _file_name(iteration), made, kind)


def read_rl_rollouts(folder: Path) -> Iterator[Rollout]:
    """Stream what an RL run sampled, iteration by iteration; `folder` is its training's."""
    return _read(folder, Rollout)


def read_rl_grades(folder: Path) -> Iterator[Grade]:
    """Stream the grades of `read_rl_rollouts`, in the same order."""
    return _read(folder, Grade)


def read_rl_samples(folder: Path) -> Iterator[RlSample]:
    """Stream iteration, group and advantage of `read_rl_rollouts`, in the same order."""
    return _read(folder, RlSample)


def read_group_counts(folder: Path) -> list[GroupCount]:
    """Count the groups of an RL run, in order; `folder` is its training's."""
    pairs = zip(read_rl_samples(folder), read_rl_grades(folder), strict=True)
    by_group = groupby(pairs, key=lambda pair: (pair[0].iteration, pair[0].group))
    return [
        _count(iteration, [grade for _, grade in members]) for (iteration, _), members in by_group
    ]


def drop_groups(folder: Path, iteration: int) -> None:
    """Delete the files of `iteration` and later ones: they will be done again."""
    for name in _FOLDERS.values():
        for path in (folder / name).glob("iteration-*"):
            if path.name >= _file_name(iteration) or path.suffix == ".tmp":
                path.unlink()


def _read(folder: Path, kind: type[R]) -> Iterator[R]:
    name = _FOLDERS[kind]
    require_whole(folder, name)
    return read_records(sorted(folder.glob(f"{name}/iteration-*.parquet")), kind)


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
