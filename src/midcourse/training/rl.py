"""Outcome-reward RL: TRL's GRPOTrainer with the paper's values, all written out (§4.2, Table 5).

An iteration samples ``prompts_per_iteration × num_generations`` rollouts and makes `num_updates`
optimiser steps on them. Advantage is reward minus group mean; there is no KL, no entropy bonus,
no reference model. What is sampled and graded is kept. Checkpoints count only with a marker that
is written last, because transformers would resume from an unfinished one.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from midcourse.checkers import Grader
from midcourse.config import TrainRlConfig
from midcourse.errors import ConfigError
from midcourse.rendering import Renderer
from midcourse.training.base import Log
from midcourse.training.checkpoints import (
    MarkComplete,
    checkpoints,
    newest_complete,
    optimiser_step,
)
from midcourse.training.common import (
    OnLog,
    hardware_arguments,
    lora_config,
    model_path_of,
    processes,
    quiet_libraries,
    save,
)
from midcourse.training.jobs import RlJob, RlProblem
from midcourse.training.rewards import Grades, GroupReward, read_group_counts
from midcourse.training.rollouts import Rewarded, RolloutWriter, drop_rollouts

GROUPS_FILE = "groups.jsonl"


def run(job: RlJob, out: Path, on_log: Log) -> dict[str, float]:
    """Do a job of `midcourse.training.worker`: see `midcourse.training.base.Trainer`."""
    with Grader(
        num_workers=job.grade.num_workers,
        timeout_seconds=job.grade.timeout_seconds,
        memory_mib=job.grade.memory_mib,
    ) as grader:
        return train_rl(
            job.config,
            job.problems,
            model_path=model_path_of(job.model),
            out=out,
            seed=job.seed,
            policy=job.policy,
            grader=grader,
            on_log=on_log,
        )


def train_rl(
    config: TrainRlConfig,
    problems: Sequence[RlProblem],
    *,
    model_path: str,
    out: Path,
    seed: int,
    policy: str,
    grader: Grades,
    on_log: Log,
) -> dict[str, float]:
    """Train, or go on from the newest complete checkpoint; write the model to ``out/final``.

    Groups as the reward saw them go to ``out/groups.jsonl``, the rollouts and their grades to the
    folders of `midcourse.training.rollouts`; `policy` names the run in them. Raises ConfigError
    before the first step if the numbers do not fit together.
    """
    quiet_libraries()
    with processes().main_process_first():  # the others see what it has cleared away
        checkpoint = newest_complete(out)
        iteration = optimiser_step(checkpoint) // config.num_updates if checkpoint else 0
        if processes().is_main_process:
            _rewind(out / GROUPS_FILE, iteration)
            drop_rollouts(out, iteration)
    renderer = Renderer(AutoTokenizer.from_pretrained(model_path))
    writer = RolloutWriter(out, policy, config, seed, renderer)

    def keep(number: int, rewarded: Sequence[Rewarded]) -> None:
        writer.write(number, rewarded, trainer.eos_token_ids)

    reward = GroupReward(
        grader,
        out / GROUPS_FILE,
        config.num_generations,
        iteration,
        gather_object,
        processes().is_main_process,
        keep,
    )
    trainer = make_rl_trainer(config, problems, model_path, out, seed, reward, [OnLog(on_log)])
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    save(trainer, out)
    if processes().is_main_process:
        for folder in checkpoints(out):
            if config.keep_checkpoints:
                _keep(folder, model_path, config)
            shutil.rmtree(folder)
    return {"num_problems": float(len(problems)), "num_steps": float(result.global_step)}


def make_rl_trainer(
    config: TrainRlConfig,
    problems: Sequence[RlProblem],
    model_path: str,
    out: Path,
    seed: int,
    reward: GroupReward,
    callbacks: list[TrainerCallback],
) -> GRPOTrainer:
    """Configure TRL; apart from `train_rl` so that a test can look at its batches."""
    arguments = _arguments(config, len(problems), out, seed)
    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_path, dtype="float32"),
        reward_funcs=[reward],
        args=arguments,
        train_dataset=_dataset(_schedule(problems, config, seed)),
        processing_class=AutoTokenizer.from_pretrained(model_path, padding_side="left"),
        callbacks=[*callbacks, MarkComplete()],
        peft_config=lora_config(config.lora_rank),
    )


def _arguments(config: TrainRlConfig, num_problems: int, out: Path, seed: int) -> GRPOConfig:
    """Return TRL's arguments with every value that matters written out."""
    accumulation = _check_sizes(config, num_problems, processes().num_processes)
    return GRPOConfig(
        output_dir=str(out),
        max_steps=config.num_iterations * config.num_updates,  # TRL counts optimiser steps
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation * config.num_updates,
        num_iterations=1,  # every rollout is used once
        num_generations=config.num_generations,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        max_grad_norm=1.0,
        beta=0.0,  # no KL, hence no reference model
        entropy_coef=0.0,
        epsilon=config.clip,
        epsilon_high=config.clip,
        loss_type="grpo",
        importance_sampling_level="token",
        scale_rewards="group" if config.scale_rewards else "none",
        mask_truncated_completions=False,  # a truncated rollout counts as incorrect
        disable_dropout=True,
        temperature=config.sampling.temperature,
        top_p=config.sampling.top_p,
        top_k=config.sampling.top_k,
        min_p=config.sampling.min_p or None,
        repetition_penalty=config.sampling.repetition_penalty,
        max_completion_length=config.sampling.max_tokens,
        use_vllm=config.vllm == "colocate",
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=config.vllm_gpu_share,
        shuffle_dataset=False,  # the order is `_schedule`'s: TRL's own is not restored on resume
        gradient_checkpointing=config.gradient_checkpointing,
        save_strategy="steps",
        save_steps=config.save_every * config.num_updates,
        logging_steps=config.num_updates,
        log_completions=False,
        report_to=[],
        disable_tqdm=True,
        push_to_hub=False,
        seed=seed,
        data_seed=seed,
        dataloader_num_workers=0,
        **hardware_arguments(),
    )


def _check_sizes(config: TrainRlConfig, num_problems: int, num_processes: int) -> int:
    """Return the micro-batches of one optimiser step. Raises ConfigError if they do not divide."""
    rollouts = config.prompts_per_iteration * config.num_generations
    at_once = config.micro_batch_size * num_processes
    accumulation, rest = divmod(rollouts, config.num_updates * at_once)
    if rest:
        raise ConfigError(
            f"train_rl: {rollouts} rollouts an iteration do not divide into {config.num_updates} "
            f"updates of micro_batch_size={config.micro_batch_size} times {num_processes} processes"
        )
    if rollouts // num_processes % config.num_generations:
        raise ConfigError(
            f"train_rl: prompts_per_iteration={config.prompts_per_iteration} groups do not divide "
            f"among {num_processes} processes"
        )
    if num_problems < config.prompts_per_iteration:
        raise ConfigError(
            f"train_rl: {num_problems} problems are fewer than prompts_per_iteration="
            f"{config.prompts_per_iteration}"
        )
    return accumulation


def _schedule(problems: Sequence[RlProblem], config: TrainRlConfig, seed: int) -> list[RlProblem]:
    """Return the problems of every iteration in order: one seeded shuffle after another.

    Written out for the whole run, so that a resumed run goes on with the problem it stopped at.
    """
    rng, scheduled = random.Random(f"{seed}/rl"), list[RlProblem]()
    while len(scheduled) < config.num_iterations * config.prompts_per_iteration:
        scheduled += rng.sample(problems, len(problems))
    return scheduled[: config.num_iterations * config.prompts_per_iteration]


def _dataset(problems: Sequence[RlProblem]) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": problem.prompt}] for problem in problems],
            "gold": [asdict(problem.gold) for problem in problems],
            "problem_id": [problem.problem_id for problem in problems],
        }
    )


def _keep(checkpoint: Path, model_path: str, config: TrainRlConfig) -> None:
    """Write the model of a checkpoint to ``step-<iteration>`` next to it; adapters are merged."""
    iteration = optimiser_step(checkpoint) // config.num_updates
    kept = checkpoint.parent / f"step-{iteration:06d}"
    source = str(checkpoint)
    if config.lora_rank:
        base = AutoModelForCausalLM.from_pretrained(model_path, dtype="float32")
        model = PeftModel.from_pretrained(base, source).merge_and_unload()
    else:
        model = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
    model.save_pretrained(kept)
    AutoTokenizer.from_pretrained(source).save_pretrained(kept)


def _rewind(path: Path, iteration: int) -> None:
    """Drop the groups of iterations that will be done again."""
    kept = read_group_counts(path, iteration)
    lines = [json.dumps({name: getattr(c, name) for name in c.__slots__}) for c in kept]
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
