"""What a report says of RL next to its rewards: groups, tokens, agreement.

Iterations are counted from 0, as the records count them; only windows of a table begin at 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from midcourse.metrics import mean
from midcourse.report.tables import WINDOW
from midcourse.store.index import read_index
from midcourse.table import Table
from midcourse.training.rl.store import (
    GroupSummary,
    read_group_summaries,
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
