"""The stage under way: what it has come to so far, for the progress line and ``progress.json``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from midcourse.engines.metered import Meter
from midcourse.progress import outcomes
from midcourse.store.lock import Owner
from midcourse.store.progress import StepProgress, now, write_progress
from midcourse.tokens import Asked, TokenCount, plain_tokens

#: How often ``progress.json`` is written, in seconds: what a kill costs of the count of tokens.
_SAVE_SECONDS = 1.0
#: How many outcomes a line names.
_MOST_OUTCOMES = 4


@dataclass(eq=False, kw_only=True)
class Filling:
    """A stage under way. While the context is open its folder says how far it is."""

    folder: Path
    asked: Asked | None
    """Who is asked; none where nobody is."""
    total: int | None
    done: int
    counts: Counter[str]
    """By outcome, with what earlier sessions had made."""
    before: TokenCount | None
    """What earlier sessions asked for; none if that is not known."""
    meter: Meter = field(default_factory=Meter)
    doing: str = ""
    """What there is to wait for before anything comes, as "loading base"."""
    _resumed: int = field(init=False)
    _started: str = field(init=False)
    _owner: Owner = field(init=False)
    _saved: float = field(init=False)
    _told_out: int = 0

    def __post_init__(self) -> None:
        self._resumed, self._started, self._owner = self.done, now(), Owner.me()

    def __enter__(self) -> Filling:
        self.save()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Say why it ended, if it failed; a signal is no failure."""
        if error is not None:
            said = str(error).partition("\n")[0] if isinstance(error, Exception) else ""
            self.save(said)

    @property
    def tokens(self) -> dict[str, dict[str, int]] | None:
        """What was asked for in all sessions, as a manifest holds it; none if not known."""
        if self.before is None:
            return None
        return plain_tokens({self.asked: self.before + self.meter.count}) if self.asked else {}

    def add(self, made: Iterable[str]) -> None:
        """Count the outcomes of one key, and say it to whoever looks, at most once a second."""
        self.counts.update(made)
        self.done += 1
        if time.monotonic() - self._saved >= _SAVE_SECONDS:
            self.save()

    def new_tokens(self) -> int:
        """Return how many tokens were written since this was last asked."""
        out = self.meter.count.tokens_out
        fresh, self._told_out = out - self._told_out, out
        return fresh

    def words(self) -> str:
        """Return how it goes in a few words."""
        counts = sorted(dict(self.counts).items(), key=lambda one: -one[1])[:_MOST_OUTCOMES]
        trouble = {"retries": self.meter.num_retries, "failed requests": self.meter.num_failed}
        troubled = (f"{count:,} {name}" for name, count in trouble.items() if count)
        return " · ".join(filter(None, (self.doing, outcomes(dict(counts)), *troubled)))

    def save(self, error: str = "") -> None:
        """Write how far it is."""
        progress = StepProgress(
            owner=self._owner,
            started=self._started,
            updated=now(),
            total=self.total,
            resumed=self._resumed,
            done=self.done,
            counts=dict(self.counts),
            tokens=self.tokens,
            retries=self.meter.num_retries,
            failed=self.meter.num_failed,
            error=error,
        )
        write_progress(self.folder, progress)
        self._saved = time.monotonic()
