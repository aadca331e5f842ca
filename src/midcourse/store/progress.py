"""``progress.json``: how far a step is, for whoever looks while it runs, or after it was stopped.

It lies in the step's folder until the manifest is there, and is never needed to go on: what counts
is the journal. It is therefore not synced, and what the system refuses to write is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from midcourse.store.lock import Owner

PROGRESS = "progress.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """How far a step is, e.g. 1,024 of 2,560 since 12:04, at most a second old."""

    owner: Owner
    """Who works on it, or did."""
    started: str
    """When this session began, in UTC; `updated` likewise."""
    updated: str
    total: int | None
    """How many there will be, if that is known."""
    resumed: int
    """How many were there at the start of this session."""
    done: int
    counts: Mapping[str, int] = field(default_factory=dict)
    """By outcome."""
    tokens: Mapping[str, Mapping[str, int]] | None = None
    """Of all sessions, by who was asked, as the manifest has them; null if not known."""
    note: str = ""
    """How a training goes, in a few words."""
    retries: int = 0
    failed: int = 0
    error: str = ""
    """Why the session ended, in one line; empty while it runs, or if it was interrupted."""

    @property
    def rate(self) -> float:
        """How many a second in this session; 0 if nothing is known yet."""
        seconds = seconds_between(self.started, self.updated)
        return max(self.done - self.resumed, 0) / seconds if seconds > 0 else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """How long the rest will take at that rate."""
        if self.total is None or not self.rate:
            return None
        return max(self.total - self.done, 0) / self.rate


def now() -> str:
    """Return the time in UTC as files hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds between two times, at least 0; 0 for what is not a time."""
    with suppress(ValueError, TypeError):
        span = datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
        return max(span.total_seconds(), 0.0)
    return 0.0


def write_progress(folder: Path, progress: StepProgress) -> None:
    """Write how far a step is: readers see the old file or the new one."""
    path, temporary = folder / PROGRESS, folder / f"{PROGRESS}.tmp"
    try:
        temporary.write_bytes(json.dumps(asdict(progress)).encode("utf-8", "backslashreplace"))
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_progress(folder: Path) -> StepProgress | None:
    """Return how far a step is; None where nobody said so, or what stands there is damaged."""
    try:
        return TypeAdapter(StepProgress).validate_json((folder / PROGRESS).read_bytes())
    except (OSError, ValidationError):
        return None


def remove_progress(folder: Path) -> None:
    """Delete it: the step is complete."""
    with suppress(OSError):
        (folder / PROGRESS).unlink(missing_ok=True)
