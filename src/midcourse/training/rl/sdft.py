"""SDFT and OPSD: a patch by self-distillation from the model that is shown the reference.

The student samples on the problem alone, the teacher is asked of each of its tokens, and no reward
moves a weight: RL's trainer with nothing but the distillation term, at SFT's learning rate and for
as many steps. What was sampled is kept and graded as in RL.
"""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import PartialState

from midcourse.checkers import Grader
from midcourse.errors import ConfigError
from midcourse.training.common import Setting
from midcourse.training.jobs import Log, SdftJob
from midcourse.training.rl.run import PATIENCE, train_rl
from midcourse.training.sft import rate_arguments


def run(job: SdftJob, out: Path, on_log: Log) -> dict[str, float]:
    """Do a job: the `Trainer` of `midcourse.training.worker`."""
    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    config = job.config.as_rl(job.num_steps)
    if len(job.problems) < config.prompts_per_iteration:
        raise ConfigError(
            f"train_sft: {len(job.problems)} problems are fewer than the "
            f"{config.prompts_per_iteration} of one step: lower train_sft.batch_size, or raise "
            "train_sft.student.num_generations"
        )
    setting = Setting.of(job.model, out, job.seed, on_log)
    with Grader(**job.grade.model_dump()) as grader:
        return train_rl(
            config,
            job.problems,
            setting,
            job.policy,
            grader,
            teaching=job.teaching,
            rate=rate_arguments(job.config),
        )
