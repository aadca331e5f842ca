"""Which texts of the lab may be used for what."""

from __future__ import annotations

import hashlib
from enum import StrEnum


class Split(StrEnum):
    """Where a problem text may be used; decided by the text's hash."""

    PRETRAIN = "pretrain"
    SKILL = "skill"
    TRAIN = "train"
    HELD_OUT = "held_out"

    @classmethod
    def of(cls, text: str) -> Split:
        """Return the split that owns `text`: half pretrain, a quarter skill, an eighth each."""
        bucket = hashlib.sha256(text.encode()).digest()[0] % 8
        return [cls.TRAIN, cls.HELD_OUT, cls.SKILL, cls.SKILL, *[cls.PRETRAIN] * 4][bucket]
