"""The one place that turns a verdict into a reward, and counts what it saw.

Correct is 1, incorrect and no answer are 0, ungraded is *no reward*: TRL keeps None out of the
group's mean. The group statistics of Fig. 11 are counted here, from what the reward saw, and not
from a trainer's means, which lump groups with all right and none right together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from midcourse.checkers import GradeResult
from midcourse.records import Gold, GroupCount, Verdict
from midcourse.store.checksums import require_whole
from midcourse.training.rollouts import Rewarded


class Grades(Protocol):
    """The part of a grader that the reward uses."""

    def grade(self, pairs: Iterable[tuple[str, Gold]]) -> Iterator[GradeResult]:
        """Yield one result per (response, gold), in order."""


def reward_of(verdict: Verdict) -> float | None:
    """Return 1, 0 or no reward."""
    if verdict is Verdict.UNGRADED:
        return None
    return 1.0 if verdict is Verdict.CORRECT else 0.0


@dataclass
class GroupReward:
    """TRL's reward function: grades a batch of completions and journals its groups.

    Of several processes that train together, each calls it with its share: `gather` joins the
    shares, and the writer journals them and hands them to `keep` with the iteration.
    """

    grader: Grades
    counts_path: Path
    group_size: int
    iteration: int = 0
    """Of the next call."""
    gather: Callable[[list[Any]], list[Any]] = list
    is_writer: bool = True
    keep: Callable[[int, Sequence[Rewarded]], None] = lambda iteration, rewarded: None
    __name__ = "correct"

    def __call__(
        self,
        completions: Sequence[Sequence[dict[str, str]]],
        gold: Sequence[Mapping[str, str]],
        problem_id: Sequence[str],
        prompts: Sequence[Sequence[dict[str, str]]],
        completion_ids: Sequence[Sequence[int]],
        **_: Any,
    ) -> list[float | None]:
        """Return one reward per completion; called once per iteration."""
        texts = [completion[0]["content"] for completion in completions]
        golds = [Gold(**fields) for fields in gold]
        results = list(self.grader.grade(zip(texts, golds, strict=True)))
        messages = [prompt[0]["content"] for prompt in prompts]
        checkers = [one.checker for one in golds]
        ids = map(tuple, completion_ids)
        columns = zip(problem_id, messages, texts, ids, checkers, results, strict=True)
        # Every process grades its own groups; one of them writes down all.
        rewarded = self.gather([Rewarded(*row) for row in columns])
        if self.is_writer:
            self._journal(rewarded)
            self.keep(self.iteration, rewarded)
        self.iteration += 1
        return [reward_of(result.verdict) for result in results]

    def _journal(self, rewarded: Sequence[Rewarded]) -> None:
        # TRL lays the rollouts of a group side by side; a problem may come twice in an iteration.
        with self.counts_path.open("a", encoding="utf-8") as file:
            for start in range(0, len(rewarded), self.group_size):
                group = rewarded[start : start + self.group_size]
                seen = [one.result.verdict for one in group]
                correct, ungraded = seen.count(Verdict.CORRECT), seen.count(Verdict.UNGRADED)
                count = GroupCount(
                    iteration=self.iteration,
                    problem_id=group[0].problem_id,
                    num_correct=correct,
                    num_incorrect=len(seen) - correct - ungraded,
                    num_ungraded=ungraded,
                )
                file.write(json.dumps(asdict(count)) + "\n")


def read_group_counts(path: Path, before_iteration: int | None = None) -> list[GroupCount]:
    """Read a journal of groups, only those before an iteration if one is given."""
    require_whole(path.parent, path.name)
    if not path.is_file():
        return []
    lines = path.read_text("utf-8").splitlines()
    counts = [GroupCount(**json.loads(line)) for line in lines if line.endswith("}")]
    return [c for c in counts if before_iteration is None or c.iteration < before_iteration]
