"""How far a run is, read from its files alone: every step with result, time, tokens, cost, size."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from midcourse.config import PricesConfig
from midcourse.errors import ArtifactError
from midcourse.printable import printable
from midcourse.progress import outcome_word, outcomes
from midcourse.run import read_recipe
from midcourse.store.index import IndexEntry, read_index
from midcourse.store.journal import read_journal
from midcourse.store.lock import Owner
from midcourse.store.progress import StepProgress, read_progress, seconds_between
from midcourse.store.repair import step_folders
from midcourse.store.stage import (
    JOURNAL,
    MANIFEST,
    column_sums,
    missing_file,
    parts_of,
    read_manifest,
)
from midcourse.table import Table
from midcourse.tokens import (
    TokenCount,
    add_tokens,
    duration,
    number,
    plain_tokens,
    read_tokens,
    total_of,
    usd,
)
from midcourse.training.jobs import logged_steps

#: The outcome that a stage is made for, and what it counts.
_WANTED = {
    "grade": "correct",
    "select": "hard",
    "propose": "accepted",
    "build-sft": "ready",
    "reference": "written",
}
#: What is said of a step besides its result; tokens are in / out, the cost is in USD.
_COLUMNS = ("took", "until", "tokens", "size", "cost")
#: What goes first where a terminal is too narrow for a result of so many characters beside it.
_DISPENSABLE, _RESULT_WIDTH = ("until", "size", "tokens", "took"), 24


class State(StrEnum):
    """How far a step is."""

    COMPLETE = "complete"
    UNDER_WAY = "under way"
    STOPPED = "stopped"
    """It was begun, and nobody works on it: it was interrupted, or its process is gone."""
    FAILED = "failed"
    NOT_BEGUN = "not begun"
    DAMAGED = "damaged"


#: How a line is drawn.
_STYLES = {
    State.UNDER_WAY: "bold cyan", State.STOPPED: "yellow", State.FAILED: "red",
    State.DAMAGED: "red", State.NOT_BEGUN: "dim",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatus:
    """One stage or training, as its folder shows it."""

    stage: str
    label: str
    folder: str
    """Within the run directory: ``sample/0173a04d25``."""
    state: State = State.NOT_BEGUN
    result: str = ""
    """Its counts in words; what is wrong with it."""
    counts: Mapping[str, float] = field(default_factory=dict)
    done: int | None = None
    """Records, or steps of a training; with `total`, where they are known."""
    total: int | None = None
    rate: float | None = None
    """Done per second, of a step that is not complete."""
    eta_seconds: float | None = None
    started: str = ""
    """In UTC, of the last session; `updated` is when it was finished or last heard of."""
    updated: str = ""
    tokens: Mapping[str, TokenCount] | None = None
    """By who was asked; none where that is not known."""
    trained_tokens: int | None = None
    cost: float | None = None
    """In USD, of those with a price."""
    bytes: int = 0

    @property
    def name(self) -> str:
        """What a reader calls it: ``sample train``."""
        return f"{self.stage} {self.label}"

    @property
    def seconds(self) -> float:
        """How long its last session took, or takes so far."""
        return seconds_between(self.started, self.updated)

    def plain(self) -> dict[str, object]:
        """Return it as JSON holds it."""
        tokens = None if self.tokens is None else plain_tokens(self.tokens)
        return {**asdict(self), "tokens": tokens, "seconds": self.seconds}


@dataclass(frozen=True)
class Overview:
    """A run directory: its steps in the order of the flow."""

    directory: Path
    steps: tuple[StepStatus, ...]
    is_index_damaged: bool

    @cached_property
    def tokens(self) -> dict[str, TokenCount]:
        """Of all steps of which it is known, by who was asked."""
        found: dict[str, TokenCount] = {}
        for step in self.steps:
            found = add_tokens(found, step.tokens or {})
        return found

    @property
    def cost(self) -> float | None:
        """Of all steps, in USD; none without prices."""
        costs = [step.cost for step in self.steps if step.cost is not None]
        return sum(costs) if costs else None

    @property
    def seconds(self) -> float:
        """The sum of the steps' last sessions; trainings that began together count once."""
        return sum({step.started: step.seconds for step in self.steps}.values())

    @property
    def bytes(self) -> int:
        """What the steps take on disk."""
        return sum(step.bytes for step in self.steps)

    def totals(self) -> str:
        """Return all of it in one line."""
        states = Counter(step.state for step in self.steps)
        said = f"{states[State.COMPLETE]} of {len(self.steps)} steps complete"
        more = (f"{states[s]} {s}" for s in State if states[s] and s is not State.COMPLETE)
        parts = [", ".join([said, *more]), duration(self.seconds), *spent(self.tokens, self.cost)]
        if untold := sum(s.tokens is None for s in self.steps if s.state is State.COMPLETE):
            parts.append(f"tokens of {untold} more not known")
        return " · ".join([*parts, f"{size(self.bytes)} on disk"])

    def plain(self) -> dict[str, object]:
        """Return it as JSON holds it."""
        totals = {
            "seconds": self.seconds,
            "tokens": plain_tokens(self.tokens),
            "cost": self.cost,
            "bytes": self.bytes,
        }
        steps = [step.plain() for step in self.steps]
        return {"run": str(self.directory), "steps": steps, "totals": totals}

    @property
    def note(self) -> str:
        """What is to be said below it: the totals, and what to do about damage."""
        needs = self.is_index_damaged or any(s.state is State.DAMAGED for s in self.steps)
        repair = f"damaged files: run 'midcourse repair {self.directory}'" if needs else ""
        return "\n".join(filter(None, (self.totals(), repair)))

    def table(self) -> Table:
        """Return it as a table with the key of every step."""
        columns = ("stage", "label", "key", "state", "result", *_COLUMNS)
        rows = (
            (s.stage, s.label, s.folder.rpartition("/")[2], str(s.state), s.result, *_cells(s))
            for s in self.steps
        )
        return Table(str(self.directory), columns, tuple(rows), self.note)

    def rich(self, width: int) -> RichTable:
        """Return it for a terminal of so many columns: a line for each step, where it is wide."""
        columns = self._columns_within(width)
        table = RichTable(
            title=Text(printable(str(self.directory)), "bold"), caption=Text(printable(self.note)),
            title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
        )  # fmt: skip
        table.add_column("step", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("result", ratio=1)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        for step in self.steps:
            more = dict(zip(_COLUMNS, _cells(step), strict=True))
            cells = (step.name, str(step.state), step.result, *(more[name] for name in columns))
            texts = [Text(printable(cell, keep="")) for cell in cells]
            table.add_row(*texts, style=_STYLES.get(step.state, ""))
        return table

    def _columns_within(self, width: int) -> list[str]:
        """Return the columns for which there is room next to step, state and result."""
        taken = {
            name: max(map(len, (name, *cells))) + 2
            for name, *cells in zip(_COLUMNS, *map(_cells, self.steps), strict=True)
        }
        names = max((len(step.name) for step in self.steps), default=0)
        room = width - names - max(map(len, State)) - 2 * 4 - _RESULT_WIDTH
        columns = [name for name in _COLUMNS if name != "cost" or self.cost is not None]
        for name in _DISPENSABLE:
            if sum(taken[one] for one in columns) > room:
                columns.remove(name)
        return columns


def read_overview(run_dir: Path) -> Overview:
    """Look at a run directory, also while it is written. Raises ArtifactError if it is not one."""
    if not ((run_dir / "config.resolved.json").is_file() or (run_dir / "recipes").is_dir()):
        raise ArtifactError(f"{run_dir} is not a run directory: it holds no resolved recipe")
    index, prices = read_index(run_dir), _prices(run_dir)
    found = [str(folder.relative_to(run_dir)) for folder in step_folders(run_dir)]
    holder = Owner.of(run_dir / ".lock")
    holder = holder if holder and holder.may_live else None
    steps = tuple(
        _step(run_dir, folder, index.entries.get(folder), prices, holder)
        for folder in dict.fromkeys([*index.entries, *found])
    )
    return Overview(run_dir, steps, bool(index.problem))


def headline(stage: str, counts: Mapping[str, float]) -> str:
    """Return counts by outcome in words, what the stage is for first.

    >>> headline("propose", {"accepted": 86, "duplicate": 69, "unchanged": 13})
    '86 of 168 accepted (duplicate 69, unchanged 13)'
    """
    whole = {name: int(count) for name, count in counts.items()}
    wanted = _WANTED.get(stage)
    if wanted is None or (stage == "reference" and wanted not in whole):
        return outcomes(whole)
    others = {name: count for name, count in whole.items() if name != wanted}
    rest = f" ({outcomes(others)})" if others else ""
    return f"{whole.get(wanted, 0):,} of {sum(whole.values()):,} {outcome_word(wanted)}{rest}"


def spent(tokens: Mapping[str, TokenCount], cost: float | None) -> Iterator[str]:
    """Yield tokens in and out, and what they cost, where that is known."""
    count = total_of(tokens)
    if count.requests:
        about = "about " if count.estimated else ""
        yield f"{about}{number(count.tokens_in)} tokens in, {number(count.tokens_out)} out"
    if cost is not None:
        yield usd(cost)


def size(num_bytes: int) -> str:
    """Return a size on disk: ``51.3 kB``."""
    return f"{number(num_bytes)}B" if num_bytes >= 10_000 else f"{num_bytes:,} B"


def result_of(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Return what a complete step came to, in words."""
    counts = manifest.get("counts", {})
    if manifest.get("stage") == "checkpoints":
        return _trained(folder, counts)
    said = headline(str(manifest.get("stage")), counts)
    if "guided_solutions" in manifest:
        said += f"; guided solutions: {outcomes(manifest['guided_solutions'])}"
    return said


def _speed(manifest: Mapping[str, Any]) -> str:
    """Return the tokens per second of a stage that one session made, loading left out."""
    seconds = seconds_between(manifest.get("started", ""), manifest.get("finished", ""))
    seconds -= manifest.get("loading_seconds", 0.0)
    out = total_of(read_tokens(manifest.get("tokens", {}))).tokens_out
    is_whole = out and seconds > 0 and not manifest.get("num_resumed")
    return f"{number(out / seconds)} tok/s" if is_whole else ""


def _trained(folder: Path, counts: Mapping[str, float]) -> str:
    """Return sizes and losses of a training, and how the reward went."""
    sizes = (f"{v:,.0f} {k[4:]}" for k, v in counts.items() if k.startswith("num_"))
    said = ", ".join(sizes)
    if {"first_loss", "last_loss"} <= counts.keys():
        said += f", loss {counts['first_loss']:.3g} → {counts['last_loss']:.3g}"
    rewards = [entry["reward"] for entry in _logged(folder) if "reward" in entry]
    return said + (f", reward {rewards[0]:.3f} → {rewards[-1]:.3f}" if rewards else "")


def _logged(folder: Path) -> list[dict[str, float]]:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return logged_steps(folder)
    return []


def _prices(run_dir: Path) -> PricesConfig:
    """Return the prices of the recipe; none where it cannot be read."""
    for path in (run_dir / "config.resolved.json", *sorted((run_dir / "recipes").glob("*.json"))):
        with suppress(ArtifactError):
            if path.is_file():
                return read_recipe(path).prices
    return PricesConfig()


def _step(
    run_dir: Path, folder: str, entry: IndexEntry | None, prices: PricesConfig, holder: Owner | None
) -> StepStatus:
    path, named = run_dir / folder, entry or IndexEntry(folder.split("/")[0], "")
    step = StepStatus(stage=named.stage, label=named.label, folder=folder, bytes=_bytes(path))
    if not (path / MANIFEST).is_file():
        return _open_step(path, step, prices, holder)
    try:
        manifest = read_manifest(path)
    except ArtifactError as error:
        return replace(step, state=State.DAMAGED, result=str(error))
    missing = missing_file(path, manifest)
    tokens = read_tokens(manifest["tokens"]) if "tokens" in manifest else None
    said = missing or " · ".join(filter(None, (result_of(path, manifest), _speed(manifest))))
    return replace(
        step,
        state=State.DAMAGED if missing else State.COMPLETE,
        result=said,
        counts=manifest.get("counts", {}),
        done=manifest.get("num_records"),
        total=manifest.get("num_records"),
        started=str(manifest.get("started", "")),
        updated=str(manifest.get("finished", "")),
        tokens=tokens,
        trained_tokens=manifest.get("trained_tokens", {}).get("total"),
        cost=prices.cost(tokens or {}),
    )


def _open_step(
    path: Path, step: StepStatus, prices: PricesConfig, holder: Owner | None
) -> StepStatus:
    """Return a step without a manifest."""
    if not any(map(Path.is_file, path.glob("*"))):
        return step
    progress = read_progress(path)
    if progress is None:  # an earlier release began it
        state = State.UNDER_WAY if holder else State.STOPPED
        done = _count_records(path)
        return replace(step, state=state, result=f"{done:,}", done=done)
    is_live = holder is not None and _process(holder) == _process(progress.owner)
    stopped = State.FAILED if progress.error else State.STOPPED
    tokens = None if progress.tokens is None else read_tokens(progress.tokens)
    return replace(
        step,
        state=State.UNDER_WAY if is_live else stopped,
        result=_course(progress, is_live=is_live),
        counts=progress.counts,
        done=progress.done,
        total=progress.total,
        rate=progress.rate,
        eta_seconds=progress.eta_seconds if is_live else None,
        started=progress.started,
        updated=progress.updated,
        tokens=tokens,
        cost=prices.cost(tokens or {}),
    )


def _course(progress: StepProgress, *, is_live: bool) -> str:
    """Return how far a step is, what came so far, and how long it will take."""
    of = f" of {progress.total:,}" if progress.total else ""
    note = progress.note if is_live or progress.done else ""  # it is not loading any more
    said = [f"{progress.done:,}{of}", note or outcomes(progress.counts)]
    troubles = {"retries": progress.retries, "failed requests": progress.failed}
    said += [f"{count:,} {name}" for name, count in troubles.items() if count]
    if is_live and progress.rate:
        said.append(f"{number(60 * progress.rate)} a minute")
    if is_live and progress.eta_seconds is not None:
        said.append(f"ETA {duration(progress.eta_seconds)}")
    return " · ".join(filter(None, [*said, progress.error]))


def _process(owner: Owner) -> tuple[str, int, str]:
    return owner.host, owner.pid, owner.born


def _count_records(path: Path) -> int:
    """Count what is in a folder without a manifest; 0 for what cannot be read."""
    with suppress(ArtifactError, OSError):
        lines = sum(1 for entry in read_journal(path / JOURNAL) if entry)
        return lines + column_sums(parts_of(path), ())[0]
    return 0


def _bytes(path: Path) -> int:
    """Return what a folder takes, its folders included; files may go meanwhile."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(path):
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                inner = _bytes(Path(entry.path)) if is_folder else 0
                total += inner or entry.stat(follow_symlinks=False).st_size
    return total


def _cells(step: StepStatus) -> tuple[str, ...]:
    """Return the columns of time, tokens, size and cost."""
    count = total_of(step.tokens or {})
    tokens = f"{number(count.tokens_in)} / {number(count.tokens_out)}" if count.requests else ""
    if step.trained_tokens and not count.requests:
        tokens = f"{number(step.trained_tokens)} trained"
    return (
        duration(step.seconds) if step.started else "",
        _local(step.updated),
        tokens,
        size(step.bytes) if step.bytes else "",
        "" if step.cost is None else usd(step.cost),
    )


def _local(time: str) -> str:
    """Return a time of today, or the day; empty for what is not a time."""
    with suppress(ValueError):
        then = datetime.fromisoformat(time).astimezone()
        is_today = then.date() == datetime.now().astimezone().date()
        return f"{then:%H:%M}" if is_today else f"{then:%d %b}"
    return ""


def overview_json(run_dir: Path) -> str:
    """Return how far a run is as JSON."""
    return json.dumps(read_overview(run_dir).plain(), ensure_ascii=False, indent=1)
