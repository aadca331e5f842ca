"""What a benchmark reports: ours against a named alternative, measured in the same run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison, e.g. tokens of a search against exhaustive sampling."""

    what: str
    ours: float
    theirs: float
    unit: str
    against: str
    less_is_better: bool = False
    target: float | None = None
    """The ratio that the project set itself."""
    floor: str = ""
    """What physics or arithmetic allows, and how far from it ours is."""

    @property
    def ratio(self) -> float:
        """How many times better ours is."""
        return self.theirs / self.ours if self.less_is_better else self.ours / self.theirs
