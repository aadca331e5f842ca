"""TRL's GRPOTrainer as the optimiser: its arguments, and what we tell its loss.

Every value that matters is written out. Advantages and importance weights are ours: TRL's loss
takes one advantage per token from a subclass, and its own correction exists for vLLM alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from midcourse.config import Loss, TrainRlConfig
from midcourse.errors import ConfigError
from midcourse.training.common import Setting, shared_arguments
from midcourse.training.rl.agreement import GAP, Agreement
from midcourse.training.rl.distill import Distillation, lesson_tensors
from midcourse.training.rl.groups import Batch
from midcourse.training.rl.rows import without_idle_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """What the loss of an iteration needs of us."""

    batch: Callable[[], Batch]
    """What the iteration is trained on."""
    check: Callable[[int, Agreement, Sequence[float]], None]
    """Told of each iteration how well sampler and trainer agree, and what the mean gap was in
    earlier ones; may stop the training."""
    max_weight: float | None
    """Importance weights (trainer by sampler) are truncated at this; none: all are 1."""
    distillation: Distillation | None = None
    """The term of self-distillation, where there is one."""


class RlTrainer(GRPOTrainer):  # type: ignore[misc]  # trl ships no types
    """GRPOTrainer with our advantages. TRL has no other door for them: its loss expects a subclass.

    Of a batch it changes ``advantages``, and adds ``old_per_token_logps`` where TRL saves itself
    the trouble: both are what the loss reads.
    """

    def __init__(self, guidance: Guidance, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._guidance = guidance

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Let TRL sample through us and lay out the batch; then set the advantages."""
        made: dict[str, Any] = super()._generate_and_score_completions(inputs)
        batch = self._guidance.batch()
        for name, value in batch.metrics.items():
            self._metrics["train"][name].append(value)
        values = [value * batch.scale for group in batch.groups for value in group.advantages]
        made["advantages"] = torch.tensor(values, device=made["completion_ids"].device)
        if self._guidance.distillation:
            made |= lesson_tensors(
                batch.groups, made["completion_ids"], self._tokenizer.pad_token_id
            )
            if self._guidance.distillation.weight == 1:  # rewards move nothing
                made["advantages"] = torch.zeros_like(made["advantages"])
        sampled = made.get("sampling_per_token_logps")
        if sampled is None:  # ``generate`` does not tell
            return made
        if "old_per_token_logps" not in made:
            made["old_per_token_logps"] = self._logprobs(made)
        known = made["completion_mask"].bool() & sampled.isfinite()
        gap = torch.where(known, made["old_per_token_logps"] - sampled, 0.0)
        self._compare(batch.groups[0].iteration, gap, known)
        # TRL's entropy is of the rows with a gradient alone.
        entropy = _mean(-made["old_per_token_logps"], known, self.accelerator)
        self._metrics["train"]["sampler/entropy"].append(entropy)
        if self._guidance.max_weight is not None:
            weights = gap.exp().clamp(max=self._guidance.max_weight)
            made["advantages"] = made["advantages"][:, None] * weights
            for name, value in weight_metrics(weights, known, self.accelerator).items():
                self._metrics["train"][name].append(value)
        return made

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Compute TRL's loss of what can move a weight, worth what it is of the whole."""
        kept, share = without_idle_rows(inputs, self.loss_type, self._most)
        distillation = self._guidance.distillation
        weight = distillation.weight if distillation else 0.0
        terms = list[Tensor]()
        if distillation:  # first: see `TeacherWeights.in_place`
            worth = len(kept["advantages"]) / len(inputs["advantages"])
            terms.append(weight * worth * self._distilled(distillation, model, kept))
        if weight < 1:
            terms.append((1 - weight) * share * super()._compute_loss(model, kept))
        return torch.stack(terms).sum()

    def _distilled(self, distillation: Distillation, model: Any, kept: dict[str, Any]) -> Tensor:
        """Return the loss of self-distillation, as a part of one optimiser step."""
        loss, divergences = distillation.loss(model, kept)
        taught = kept["completion_mask"].bool() & kept["is_taught"][:, None]
        sums = torch.stack([divergences.detach().sum(), taught.sum()]).double()
        total, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        if count:
            self._metrics["train"]["distill/divergence"].append(total / count)
        part: Tensor = loss / self.current_gradient_accumulation_steps
        return part

    def _most(self, number: int) -> int:
        """Return the largest of the numbers that the processes have."""
        own = torch.tensor(number, device=self.accelerator.device)
        return int(self.accelerator.gather(own).max())

    def _logprobs(self, made: dict[str, Any]) -> Tensor:
        """Return the log-probabilities (rows, tokens) of what was sampled, before any update."""
        ids = torch.cat([made["prompt_ids"], made["completion_ids"]], dim=1)
        mask = torch.cat([made["prompt_mask"], made["completion_mask"]], dim=1)
        with torch.no_grad():
            logprobs: Tensor = self._get_per_token_logps_and_entropies(
                self.model,
                ids,
                mask,
                made["completion_ids"].shape[1],
                batch_size=self.args.per_device_train_batch_size,
            )[0]
        return logprobs

    def _compare(self, iteration: int, gap: Tensor, known: Tensor) -> None:
        """Log how far apart trainer and sampler are, over all processes, and have it judged."""
        sums = torch.stack([gap.abs().sum(), -gap.sum(), known.sum()]).double()
        totals = self.accelerator.reduce(sums, reduction="sum").tolist()
        largest = self.accelerator.gather(gap.abs().max()).max().item()
        count = max(totals[2], 1.0)
        seen = Agreement(mean=totals[0] / count, largest=largest, divergence=totals[1] / count)
        for name, value in seen.metrics().items():
            self._metrics["train"][name].append(value)
        # The trainer's log is in its checkpoints: a resumed training remembers.
        earlier = [entry[GAP] for entry in self.state.log_history if GAP in entry]
        self._guidance.check(iteration, seen, earlier)


def weight_metrics(weights: Tensor, known: Tensor, accelerator: Any) -> dict[str, float]:
    """Return what the log shows of importance weights (rows, tokens), over all processes."""
    largest = torch.where(known, weights, 0.0).max()
    return {
        "sampler/importance_weight_mean": _mean(weights, known, accelerator),
        "sampler/importance_weight_max": accelerator.gather(largest).max().item(),
    }


def _mean(values: Tensor, known: Tensor, accelerator: Any) -> float:
    """Return the mean of what is known, over all processes."""
    sums = torch.stack([torch.where(known, values, 0.0).sum(), known.sum()]).double()
    total, count = accelerator.reduce(sums, reduction="sum").tolist()
    return float(total / max(count, 1.0))


def rl_arguments(
    config: TrainRlConfig,
    num_problems: int,
    longest: int,
    setting: Setting,
    num_processes: int,
    rate: Mapping[str, Any] | None = None,
) -> GRPOConfig:
    """Return TRL's arguments with every value that matters written out.

    `longest` is the longest context with its completion that may occur, in tokens; `rate` is what
    SFT tells TRL of its learning rate, in place of a constant one.
    """
    accumulation = check_sizes(config, num_problems, num_processes)
    return GRPOConfig(
        max_steps=config.num_iterations * config.num_updates,  # TRL counts optimiser steps
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation * config.num_updates,
        num_iterations=1,  # every rollout is used once
        num_generations=config.num_generations,
        **(rate or _constant_rate(config)),
        beta=0.0,  # no KL, hence no reference model
        entropy_coef=0.0,
        router_aux_loss_coef=0.0,  # it would be of the rows with an advantage alone: see `rows`
        epsilon=config.clip_low,
        epsilon_high=config.clip_high,
        loss_type=_LOSSES[config.loss],
        importance_sampling_level="token",
        scale_rewards="none",  # the advantages are ours
        mask_truncated_completions=False,  # a truncated rollout counts as incorrect
        disable_dropout=True,
        shuffle_dataset=False,  # the order is the schedule's: TRL's own is not restored on resume
        gradient_checkpointing=config.gradient_checkpointing,
        save_strategy="steps",
        save_steps=config.save_every * config.num_updates,
        logging_steps=config.num_updates,
        log_completions=False,
        **_generation(config, longest),
        **shared_arguments(setting, config.dtype),
    )


def _constant_rate(config: TrainRlConfig) -> dict[str, Any]:
    return {
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
    }


#: TRL's name of each normalisation.
_LOSSES: dict[Loss, str] = {
    "sequence_mean": "grpo",
    "token_mean": "dapo",
    "constant_length": "dr_grpo",
    "token_sum": "luspo",
}


def _generation(config: TrainRlConfig, longest: int) -> dict[str, Any]:
    """Return the arguments that decide how TRL samples, where it does."""
    sampling = config.sampling
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p or None,
        "repetition_penalty": sampling.repetition_penalty,
        "max_completion_length": sampling.max_tokens,
        "use_vllm": config.sampler == "vllm",
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": config.vllm_gpu_share,
        # Left out, vLLM reserves a cache for the model's own length, 262,144 tokens for Qwen3-4B.
        "vllm_max_model_length": longest,
        # TRL's default sums log-ratios over a whole rollout, which shrinks long ones to nothing.
        "vllm_importance_sampling_correction": False,  # `RlTrainer` corrects, for every sampler
    }


def check_sizes(config: TrainRlConfig, num_problems: int, num_processes: int) -> int:
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
