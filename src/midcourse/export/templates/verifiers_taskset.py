"""Problems of a midcourse run as a verifiers taskset, graded by midcourse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

import verifiers.v1 as vf

from midcourse.checkers import checker_named
from midcourse.export.rewards import reward
from midcourse.records import Gold

#: verifiers finds a taskset by it.
__all__ = ["MidcourseTaskset"]


class ProblemData(vf.TaskData):
    """One problem."""

    answer: str
    """A right answer."""
    gold: dict[str, str]
    """What midcourse grades with: the name of a checker, and its value."""


class ProblemTask(vf.Task[ProblemData]):
    """Reward 1 for a right final answer, 0 for a wrong one."""

    @vf.reward(weight=1.0)
    async def correct(self, trace: vf.Trace) -> float:
        """Grade the last reply. Raises RuntimeError where the grader could not tell."""
        return await self._grade(trace.last_reply)

    async def validate(self, runtime: vf.Runtime) -> bool:
        """Whether the gold answer grades itself."""
        stated = checker_named(self.data.gold["checker"]).state(self.data.answer)
        return await self._grade(stated) == 1.0

    async def _grade(self, text: str) -> float:
        score = await asyncio.to_thread(reward, text, Gold(**self.data.gold))
        if score is None:
            raise RuntimeError(f"problem {self.data.id}: the grader could not judge the answer")
        return score


class MidcourseTaskset(vf.Taskset[ProblemTask, vf.TasksetConfig]):
    """Every problem of the run's RL set."""

    def load(self) -> Iterable[ProblemTask]:
        """Yield the problems in their order."""
        with (Path(__file__).parent / "problems.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                yield ProblemTask(ProblemData(**json.loads(line)), self.config.task)
