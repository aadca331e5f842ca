"""A grader that tosses a coin, for measurements of RL that no model's luck should decide."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from midcourse.checkers import GradeResult
from midcourse.records import Gold, Verdict


class CoinGrader:
    """Calls about half of all texts correct, so that nearly every group has a gradient."""

    def grade(self, pairs: Iterable[tuple[str, Gold]]) -> Iterator[GradeResult]:
        """Yield a verdict per text, the same whenever it is asked."""
        for text, _ in pairs:
            is_right = zlib.crc32(text.encode()) % 2
            yield GradeResult(Verdict.CORRECT if is_right else Verdict.INCORRECT, None)
