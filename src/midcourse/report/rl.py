"""What a report says of RL next to its rewards: groups, tokens, agreement, and rollouts to read.

Iterations are counted from 0, as the records count them; only windows of a table begin at 1.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from midcourse.metrics import mean
from midcourse.records import Problem
from midcourse.report.tables import WINDOW
from midcourse.store.index import read_index
from midcourse.table import Table
from midcourse.training.rl.store import (
    GroupSummary,
    RlMember,
    group_of,
    read_group_summaries,
    read_rl,
)


@dataclass(frozen=True, slots=True)
class RlCourse:
    """One RL training from its first iteration to its last."""

    groups: list[GroupSummary]
    log: dict[int, dict[str, float]]
    """What was logged of each iteration; of some or all there may be nothing."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of the log as a column: several iterations are combined into one cell."""

    column: str
    name: str
    combine: Callable[[Sequence[float]], float]
    form: str
    """How it is formatted, e.g. ``.2g``."""


MEASURES = (
    Measure("gap", "sampler/logprob_gap", mean, ".2g"),
    Measure("max gap", "sampler/logprob_gap_max", max, ".2g"),
    Measure("KL", "sampler/kl", mean, ".2g"),
    Measure("weight", "sampler/importance_weight_mean", mean, ".4f"),
    Measure("max weight", "sampler/importance_weight_max", max, ".4f"),
    Measure("entropy", "sampler/entropy", mean, ".3f"),
    Measure("clipped", "clip_ratio/region_mean", mean, ".2%"),
)


def rl_folders(run_dir: Path) -> dict[Path, str]:
    """Return the folders of what RL sampled, finished or not, with what each training is called."""
    entries = read_index(run_dir).entries
    found = sorted(path.parent for path in (run_dir / "checkpoints").glob("*/samples"))
    labels = {run_dir / folder: entry.label for folder, entry in entries.items()}
    return {path: f"{labels.get(path, 'RL')} ({path.name})" for path in found}


def read_course(folder: Path, num_updates: int) -> RlCourse:
    """Read groups and log of the training in `folder`; `num_updates` are those of an iteration."""
    return RlCourse(read_group_summaries(folder), read_log(folder, num_updates))


def read_log(folder: Path, num_updates: int) -> dict[int, dict[str, float]]:
    """Return what was logged of each iteration; of one that was done again, the last entry.

    A log is no result: a missing or truncated one only says less.
    """
    file, entries = folder / "metrics.jsonl", []
    lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
    for line in lines:
        with suppress(json.JSONDecodeError):
            entries.append(json.loads(line))
    # The entry that sums up the training has its last step too, but no loss.
    steps = [entry for entry in entries if isinstance(entry, dict) and {"step", "loss"} <= {*entry}]
    return {int(entry["step"]) // num_updates - 1: entry for entry in steps}


def group_table(courses: Mapping[str, RlCourse]) -> Table:
    """Build how many groups were trained on and replaced, and tokens, per window and arm."""
    rows = []
    for arm, course in courses.items():
        for window, groups in _windows((g.count.iteration, g) for g in course.groups):
            trained = [group for group in groups if group.is_trained]
            counts = (len(groups), len(trained), len(groups) - len(trained))
            tokens = (sum(g.num_tokens for g in groups), sum(g.num_tokens for g in trained))
            rows.append((arm, window, *(f"{number:,}" for number in (*counts, *tokens))))
    columns = ("arm", "iterations", "groups", "trained", "replaced", "tokens", "trained tokens")
    note = "Tokens are sampled ones. Replaced groups are not trained on: others were instead."
    return Table("RL: groups and tokens", columns, tuple(rows), note)


def agreement_table(courses: Mapping[str, RlCourse]) -> Table:
    """Build how well sampler and trainer agree, per window and arm, from what was logged."""
    rows = []
    for arm, course in courses.items():
        for window, entries in _windows(course.log.items()):
            cells = (_cell(measure, entries) for measure in MEASURES)
            rows.append((arm, window, str(len(entries)), *cells))
    columns = ("arm", "iterations", "logged", *(measure.column for measure in MEASURES))
    note = (
        "Gap: |log p of the trainer - log p of the sampler| of a sampled token, in nats, before an "
        "iteration's first update. Weights: trainer by sampler, truncated. “–”: not logged."
    )
    return Table("RL: do sampler and trainer agree?", columns, tuple(rows), note)


def _windows(by_iteration: Iterable[tuple[int, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield what belongs to every `WINDOW` iterations, with the window's name, ``1-5``."""
    pairs = sorted(by_iteration, key=lambda pair: pair[0])
    for window, members in groupby(pairs, key=lambda pair: pair[0] // WINDOW):
        yield f"{window * WINDOW + 1}-{(window + 1) * WINDOW}", [found for _, found in members]


def _cell(measure: Measure, entries: Sequence[Mapping[str, float]]) -> str:
    values = [entry[measure.name] for entry in entries if measure.name in entry]
    return format(measure.combine(values), measure.form) if values else "–"


def group_traces(
    folder: Path,
    arm: str,
    groups: Sequence[GroupSummary],
    problems: Mapping[str, Problem],
    most: int,
) -> Iterator[dict[str, object]]:
    """Yield groups as the viewer shows them: whole, evenly spread over RL.

    They hold `most` rollouts together, or little more.
    """
    num_rollouts = sum(_size(group) for group in groups)
    shown = groups[:: max(1, -(-num_rollouts // most))]
    wanted = {(group.count.iteration, group.index) for group in shown}
    for key, members in groupby(read_rl(folder, ("token_ids",)), key=group_of):
        if key in wanted:
            found = list(members)
            yield _trace(arm, found, problems[found[0][0].problem_id])


def _size(group: GroupSummary) -> int:
    return group.count.num_correct + group.count.num_incorrect + group.count.num_ungraded


def _trace(arm: str, members: Sequence[RlMember], problem: Problem) -> dict[str, object]:
    rollout, _, sample = members[0]
    given = f"{rollout.condition}{f' {rollout.parent_id}' if rollout.parent_id else ''}"
    state = "" if sample.is_trained else ", replaced: not trained on"
    return {
        "problem_id": problem.problem_id,
        "problem": problem.text,
        "answer": problem.answer,
        "reference": problem.reference_solution or "none",
        "outcome": arm,
        "place": f" {sample.iteration}/{sample.group}",
        "group": f"{arm}, iteration {sample.iteration}, group {sample.group}, from {given}{state}",
        "verdicts": dict(Counter(str(grade.verdict) for _, grade, _ in members)),
        "samples": [
            {
                "rollout_id": rollout.rollout_id,
                "verdict": str(grade.verdict),
                "advantage": f"{sample.advantage:+.3f}",
                "text": rollout.text,
            }
            for rollout, grade, sample in members
        ],
    }
