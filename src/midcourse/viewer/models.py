"""What the models of a run are called, for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from midcourse.viewer.files import RunFiles

_BASE = "base"
_NAME = re.compile(r"(?:sft|dpo|rl):([0-9a-f]+)(?:@(\d+))?")


@dataclass(frozen=True, slots=True)
class ModelNames:
    """Labels of trained models, e.g. ``patched + RL``, by key."""

    labels: Mapping[str, str]

    @classmethod
    def read(cls, files: RunFiles) -> ModelNames:
        """Read them off a run directory's index."""
        return cls({step.key: step.label for step in files.named("checkpoints") if step.label})

    def label(self, name: str) -> str:
        """Return what a record's model is called: ``rl:<key>@3`` is ``patched + RL @ 3``."""
        if name.startswith(f"{_BASE}:"):
            return _BASE
        found = _NAME.fullmatch(name)
        if found is None or found[1] not in self.labels:
            return name
        return self.labels[found[1]] + (f" @ {found[2]}" if found[2] else "")

    def split(self, label: str) -> tuple[str, str]:
        """Split the label of an evaluation: ``held_out patched`` into the set and the model.

        Of other samplings the model is empty.
        """
        for known in sorted({_BASE, *self.labels.values()}, key=len, reverse=True):
            found = re.fullmatch(rf"(.+?),? ({re.escape(known)}(?: @ \d+)?)", label)
            if found:
                return found[1], found[2]
        return label, ""
