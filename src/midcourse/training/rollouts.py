"""What RL sampled, kept: a file of rollouts and one of grades for each iteration.

They are the ordinary records, so that what reads and regrades sampled rollouts reads RL's too, and
a search for a reward hack has the texts that were rewarded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from midcourse.checkers import GradeResult, checker_named
from midcourse.config import TrainRlConfig
from midcourse.records import Condition, FinishReason, Grade, Rollout, content_id, token_ids_sha
from midcourse.rendering import Renderer
from midcourse.stages.grade import grade_of
from midcourse.store.checksums import require_whole
from midcourse.store.stage import read_records, write_records

_FOLDERS = ("rollouts", "grades")


@dataclass(frozen=True, slots=True)
class Rewarded:
    """One completion as the reward saw it."""

    problem_id: str
    prompt: str
    """The user's message."""
    text: str
    token_ids: tuple[int, ...]
    checker: str
    """Of the problem."""
    result: GradeResult


@dataclass(frozen=True, slots=True)
class RolloutWriter:
    """Writes the rollouts of one RL run next to its checkpoints."""

    out: Path
    policy: str
    """The run's name, e.g. ``rl:<key>``: its policy after n iterations is ``rl:<key>@<n>``."""
    config: TrainRlConfig
    seed: int
    """The run's. TRL draws all samples from one generator: none of them has a seed of its own."""
    renderer: Renderer

    def write(
        self, iteration: int, rewarded: Sequence[Rewarded], stop_ids: Collection[int]
    ) -> None:
        """Write what one iteration sampled, in the trainer's order: group after group."""
        rollouts = list(self._rollouts(iteration, rewarded, stop_ids))
        grades = [
            grade_of(rollout, seen.result, checker_named(seen.checker))
            for rollout, seen in zip(rollouts, rewarded, strict=True)
        ]
        for folder in _FOLDERS:
            (self.out / folder).mkdir(exist_ok=True)
        write_records(self.out / "rollouts" / _file_name(iteration), rollouts, Rollout)
        write_records(self.out / "grades" / _file_name(iteration), grades, Grade)

    def _rollouts(
        self, iteration: int, rewarded: Sequence[Rewarded], stop_ids: Collection[int]
    ) -> Iterator[Rollout]:
        model, sampling = f"{self.policy}@{iteration}", self.config.sampling.record()
        # TRL does not pass on the ids of its prompts, which it was given (`RolloutsByIds`).
        prompts = {
            text: self.renderer.prompt_ids([{"role": "user", "content": text}])
            for text in {seen.prompt for seen in rewarded}
        }
        num_seen: Counter[str] = Counter()
        for seen in rewarded:
            index, prompt = num_seen[seen.problem_id], prompts[seen.prompt]
            num_seen[seen.problem_id] += 1
            stopped = bool(seen.token_ids) and seen.token_ids[-1] in stop_ids
            yield Rollout(
                rollout_id=content_id(model, seen.problem_id, iteration, index),
                problem_id=seen.problem_id,
                index=index,
                condition=Condition.HINT if self.config.hints else Condition.PROBLEM,
                parent_id=None,
                prompt_sha=token_ids_sha(prompt),
                prompt_tokens=len(prompt),
                text=seen.text,
                token_ids=seen.token_ids,
                num_tokens=len(seen.token_ids),
                finish_reason=FinishReason.STOP if stopped else FinishReason.LENGTH,
                model=model,
                sampling=sampling,
                seed=self.seed,
            )


def read_rl_rollouts(folder: Path) -> Iterator[Rollout]:
    """Stream what an RL run sampled, iteration by iteration; `folder` is its training's.

    Within an iteration the rollouts of a problem are numbered by `index`: groups of
    ``train_rl.num_generations`` follow each other.
    """
    require_whole(folder, "rollouts")
    return read_records(sorted(folder.glob("rollouts/iteration-*.parquet")), Rollout)


def read_rl_grades(folder: Path) -> Iterator[Grade]:
    """Stream the grades of `read_rl_rollouts`, in the same order."""
    require_whole(folder, "grades")
    return read_records(sorted(folder.glob("grades/iteration-*.parquet")), Grade)


def drop_rollouts(folder: Path, iteration: int) -> None:
    """Delete the files of `iteration` and later ones: they will be done again."""
    for name in _FOLDERS:
        for path in (folder / name).glob("iteration-*"):
            if path.name >= _file_name(iteration) or path.suffix == ".tmp":
                path.unlink()


def _file_name(iteration: int) -> str:
    return f"iteration-{iteration:06d}.parquet"
