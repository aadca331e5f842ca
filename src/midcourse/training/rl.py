"""Outcome-reward RL: TRL's GRPOTrainer with the paper's values, all written out (§4.2, Table 5).

An iteration samples ``prompts_per_iteration × num_generations`` rollouts and makes `num_updates`
optimiser steps on them. Advantage is reward minus group mean; there is no KL, no entropy bonus,
no reference model. What is sampled and graded is kept. Checkpoints count only with a marker that
is written last, because transformers would resume from an unfinished one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from midcourse.checkers import Grader
from midcourse.config import TrainRlConfig
from midcourse.errors import ConfigError
from midcourse.rendering import Message, Renderer
from midcourse.training.callbacks import callbacks
from midcourse.training.checkpoints import checkpoints, newest_complete, optimiser_step
from midcourse.training.common import (
    Setting,
    check_fits,
    in_one_line,
    load_model,
    load_tokenizer,
    lora_config,
    merge_adapter,
    processes,
    quiet_libraries,
    save,
    shared_arguments,
)
from midcourse.training.jobs import Log, RlJob, RlProblem, conclude
from midcourse.training.rewards import Grades, GroupReward, read_group_counts
from midcourse.training.rollouts import Rewarded, RolloutWriter, drop_rollouts

GROUPS_FILE = "groups.jsonl"


def run(job: RlJob, out: Path, on_log: Log) -> dict[str, float]:
    """Do a job: the `Trainer` of `midcourse.training.worker`."""
    setting = Setting.of(job.model, out, job.seed, on_log)
    with Grader(**job.grade.model_dump()) as grader:
        return train_rl(job.config, job.problems, setting, job.policy, grader)


def train_rl(
    config: TrainRlConfig,
    problems: Sequence[RlProblem],
    setting: Setting,
    policy: str,
    grader: Grades,
) -> dict[str, float]:
    """Train, or go on from the newest complete checkpoint; write the model to ``out/final``.

    `policy` names the run in the rollouts that are kept. Raises ConfigError before the first step
    if the numbers do not fit together.
    """
    quiet_libraries()
    out = setting.out
    checkpoint = newest_complete(out)
    iteration = optimiser_step(checkpoint) // config.num_updates if checkpoint else 0
    if processes().is_main_process:
        _rewind(out / GROUPS_FILE, iteration)
        drop_rollouts(out, iteration)
    renderer = _renderer(setting)
    writer = RolloutWriter(out, policy, config, setting.seed, renderer)

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
    with in_one_line("train_rl"):
        trainer = make_rl_trainer(config, problems, setting, reward)
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        save(trainer, out)
    summary = {"num_problems": float(len(problems)), "num_steps": float(result.global_step)}
    if processes().is_main_process:
        for folder in checkpoints(out) if config.keep_checkpoints else ():
            _keep(folder, setting.model_path, config)
        conclude(out, summary)
    return summary


def make_rl_trainer(
    config: TrainRlConfig, problems: Sequence[RlProblem], setting: Setting, reward: GroupReward
) -> GRPOTrainer:
    """Configure TRL; apart from `train_rl` so that a test can look at its batches."""
    arguments = _arguments(config, len(problems), setting)
    tokenizer = load_tokenizer(setting.model_path, padding_side="left")
    model, renderer = load_model(setting.model_path), _renderer(setting)
    _check_prompts(problems, renderer, model, config.sampling.max_tokens)
    return GRPOTrainer(
        model=model,
        reward_funcs=[reward],
        args=arguments,
        train_dataset=_dataset(_schedule(problems, config, setting.seed)),
        processing_class=tokenizer,
        callbacks=callbacks(setting, "train_rl"),
        peft_config=lora_config(config.lora_rank),
        rollout_func=RolloutsByIds(renderer),
    )


def _check_prompts(
    problems: Sequence[RlProblem], renderer: Renderer, model: PreTrainedModel, max_tokens: int
) -> None:
    """Raise DataError unless every prompt, and what is sampled after it, fits the model."""
    for problem in problems:
        ids = renderer.prompt_ids([{"role": "user", "content": problem.prompt}])
        check_fits(f"train rl: problem {problem.problem_id}", ids, model, max_tokens)


def _renderer(setting: Setting) -> Renderer:
    return Renderer(load_tokenizer(setting.model_path), setting.template_date)


@dataclass(frozen=True, slots=True)
class RolloutsByIds:
    """TRL's ``rollout_func``: samples as TRL does, from the ids that every other stage would use.

    TRL encodes a prompt's text whole, and a problem that contains a control token would open a turn
    of its own.
    """

    renderer: Renderer

    def __call__(self, prompts: Sequence[list[Message]], trainer: GRPOTrainer) -> dict[str, Any]:
        """Return the ids of prompts and completions; a prompt comes once per completion."""
        ids = [self.renderer.prompt_ids(prompt) for prompt in prompts]
        # The way that TRL itself takes from ids to completions: it has no public name.
        sampled, logprobs = trainer._generate_single_turn(ids, None, {}, trainer.num_generations)
        return {"prompt_ids": ids, "completion_ids": sampled, "logprobs": logprobs}


def _arguments(config: TrainRlConfig, num_problems: int, setting: Setting) -> GRPOConfig:
    """Return TRL's arguments with every value that matters written out."""
    accumulation = _check_sizes(config, num_problems, processes().num_processes)
    return GRPOConfig(
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
        beta=0.0,  # no KL, hence no reference model
        entropy_coef=0.0,
        epsilon=config.clip,
        epsilon_high=config.clip,
        loss_type="grpo",
        importance_sampling_level="token",
        scale_rewards="group" if config.scale_rewards else "none",
        mask_truncated_completions=False,  # a truncated rollout counts as incorrect
        disable_dropout=True,
        shuffle_dataset=False,  # the order is `_schedule`'s: TRL's own is not restored on resume
        gradient_checkpointing=config.gradient_checkpointing,
        save_strategy="steps",
        save_steps=config.save_every * config.num_updates,
        logging_steps=config.num_updates,
        log_completions=False,
        **_generation(config),
        **shared_arguments(setting),
    )


def _generation(config: TrainRlConfig) -> dict[str, Any]:
    """Return the arguments that decide how TRL samples."""
    sampling = config.sampling
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p or None,
        "repetition_penalty": sampling.repetition_penalty,
        "max_completion_length": sampling.max_tokens,
        "use_vllm": config.vllm == "colocate",
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": config.vllm_gpu_share,
    }


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
    """Return the problems of all iterations, so that a resumed run goes on where it stopped."""
    rng, scheduled = random.Random(f"{seed}/rl"), list[RlProblem]()
    wanted = config.num_iterations * config.prompts_per_iteration
    while len(scheduled) < wanted:
        scheduled += rng.sample(problems, len(problems))
    return scheduled[:wanted]


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
    if config.lora_rank:
        merge_adapter(model_path, checkpoint, kept)
        return
    source = str(checkpoint)
    load_model(source).save_pretrained(kept)
    load_tokenizer(source).save_pretrained(kept)


def _rewind(path: Path, iteration: int) -> None:
    """Drop the groups of iterations that will be done again."""
    kept = read_group_counts(path, iteration)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(json.dumps(asdict(count)) + "\n" for count in kept), "utf-8")
    temporary.replace(path)  # a kill in here leaves the one or the other
