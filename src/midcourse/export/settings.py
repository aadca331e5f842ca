"""The recipe's training settings as other trainers name them, so that exports carry them over."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from midcourse.config import Dtype, Recipe, TrainRlConfig, TrainSftConfig


def sft_settings(config: TrainSftConfig, num_rows: int, seed: int) -> dict[str, object]:
    """Return what transformers' ``TrainingArguments`` are told for SFT or DPO on one device."""
    accumulation = max(1, config.batch_size // config.micro_batch_size)
    steps = config.max_steps or math.ceil(num_rows / config.batch_size) * config.num_epochs
    return {
        "num_train_epochs": config.num_epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": config.min_lr_rate},
        "warmup_steps": math.ceil(config.warmup_ratio * steps),
        "weight_decay": config.weight_decay,
        "gradient_checkpointing": config.gradient_checkpointing,
        "seed": seed,
    }


def grpo_settings(config: TrainRlConfig, seed: int) -> dict[str, object]:
    """Return what TRL's ``GRPOConfig`` is told on one device; not all of RL here has a name there.

    An iteration is a generation batch, cut into `num_updates` optimiser steps.
    """
    rollouts = config.prompts_per_iteration * config.num_generations
    accumulation = max(1, rollouts // (config.num_updates * config.micro_batch_size))
    sampling = config.sampling
    return {
        "max_steps": config.num_iterations * config.num_updates,
        "num_generations": config.num_generations,
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation * config.num_updates,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant",
        "beta": 0.0,
        "epsilon": config.clip_low,
        "epsilon_high": config.clip_high,
        "loss_type": _LOSSES[config.loss],
        "scale_rewards": "group" if config.advantage == "mean_std" else "none",
        "max_completion_length": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p or None,
        "repetition_penalty": sampling.repetition_penalty,
        "gradient_checkpointing": config.gradient_checkpointing,
        "seed": seed,
    }


def snippet_values(name: str, model: str, recipe: Recipe, num_rows: int) -> dict[str, str]:
    """Return what fills the placeholders of the READMEs' snippets, as Python source."""
    sft = sft_settings(recipe.train_sft, num_rows, recipe.seed)
    told = recipe.model.template_arguments
    template = {"chat_template_kwargs": dict(told)} if told else {}
    return {
        "name": name,
        "model": json.dumps(model),
        "sft_arguments": _arguments(sft),
        "grpo_arguments": _arguments(grpo_settings(recipe.train_rl, recipe.seed) | template),
        "dpo_beta": str(recipe.train_sft.dpo_beta),
        "sft_adapters": _adapters(recipe.train_sft.lora_rank),
        "grpo_adapters": _adapters(recipe.train_rl.lora_rank),
        "sft_bf16": _BF16[recipe.train_sft.dtype],
        "grpo_bf16": _BF16[recipe.train_rl.dtype],
        **_rl_values(recipe.train_rl),
    }


def _rl_values(config: TrainRlConfig) -> dict[str, str]:
    values = {
        "prompts_per_iteration": config.prompts_per_iteration,
        "prompts_per_update": max(1, config.prompts_per_iteration // config.num_updates),
        "micro_batch_size": config.micro_batch_size,
        "num_generations": config.num_generations,
        "num_iterations": config.num_iterations,
        "rl_learning_rate": config.learning_rate,
        "max_tokens": config.sampling.max_tokens,
        "temperature": config.sampling.temperature,
    }
    return {name: str(value) for name, value in values.items()}


def _arguments(settings: Mapping[str, object]) -> str:
    return "\n".join(f"    {name}={value!r}," for name, value in settings.items())


def _adapters(rank: int) -> str:
    """Return the adapters that a recipe trains, as source; None where it trains all weights."""
    if not rank:
        return "None"
    return f'LoraConfig(r={rank}, lora_alpha={2 * rank}, target_modules="all-linear")'


def llama_factory_settings(config: TrainSftConfig, num_rows: int, seed: int) -> dict[str, object]:
    """Return what LLaMA-Factory is told for SFT or DPO; it would train adapters if told nothing."""
    adapters = {"lora_rank": config.lora_rank, "lora_alpha": 2 * config.lora_rank}
    how: dict[str, object] = {"finetuning_type": "full"}
    if config.lora_rank:
        how = {"finetuning_type": "lora", "lora_target": "all", **adapters}
    if config.dtype == "bfloat16":
        how["bf16"] = True
    return {**sft_settings(config, num_rows, seed), **how, "output_dir": "patched"}


#: Whether autocast computes in bfloat16, as the snippets' source.
_BF16: dict[Dtype, str] = {"auto": "on_gpu", "float32": "False", "bfloat16": "True"}
#: What TRL calls what a token's loss is divided by.
_LOSSES = {
    "sequence_mean": "grpo",
    "token_mean": "dapo",
    "constant_length": "dr_grpo",
    "token_sum": "luspo",
}
