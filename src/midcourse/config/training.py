"""The sections of what trains: SFT, RL, the warm-up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from midcourse.config.base import (
    Complaint,
    Dtype,
    Part,
    SamplingConfig,
    Section,
    Share,
    refuse,
    tunable,
)
from midcourse.config.engines import VllmConfig
from midcourse.errors import ConfigError
from midcourse.records import TABLE_1, Condition


def _whole(shares: dict[Condition, float]) -> dict[Condition, float]:
    other = next((condition for condition in shares if condition not in TABLE_1), None)
    if other is not None:
        raise ValueError(f"condition {other.value!r} is not a row of Table 1")
    if shares and abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"the shares sum to {sum(shares.values()):g}: let them sum to 1")
    return shares


Shares = Annotated[dict[Condition, Share], AfterValidator(_whole)]
Loss = Literal["sequence_mean", "token_mean", "constant_length", "token_sum"]
ZeroGradient = Literal["keep", "drop", "refill"]
Advantage = Literal["mean", "mean_std", "reward_by_mean"]
DistillFrom = Literal["sibling", "reference", "sibling_or_reference"]


class DistillConfig(Section):
    """Self-distillation: of each sampled token, the distribution of the same model shown more.

    The student has the problem, the teacher also a solution (`guided_solve.md`).
    """

    teacher: Literal["base", "ema", "live"] = "base"
    """Whose weights the teacher has: those that training began with (OPSD), a moving average of the
    student's (SDFT, SDPO), or the student's as they are."""
    ema_rate: float = Field(0.05, gt=0, le=1)
    """``ema``: how far the teacher moves towards the student at each optimiser step."""
    divergence: Literal["forward_kl", "reverse_kl", "js"] = "js"
    """Per token: from the teacher to the student, from the student to the teacher, or the
    Jensen-Shannon divergence between them."""
    support: Literal["vocabulary", "top_k", "sampled_token"] = "vocabulary"
    """Over which tokens it is computed: all, the student's `top_k` likeliest, or the sampled one
    alone, an estimate whose gradient is that of ``reverse_kl``."""
    top_k: int = Field(100, ge=1)
    """Of ``top_k``."""
    tail: bool = True
    """``top_k``: the other tokens count together as one; else the likeliest are normalised."""

    @model_validator(mode="after")
    def _fits_together(self) -> DistillConfig:
        refuse(self._complaints())
        return self

    def _complaints(self) -> Iterator[Complaint]:
        if self.support == "sampled_token" and self.divergence != "reverse_kl":
            text = "support 'sampled_token' estimates one divergence: set divergence = 'reverse_kl'"
            yield Complaint(text, ("support", "divergence"))


class StudentConfig(Section):
    """What ``train_sft.method = "sdft"`` samples: the student's own attempts at the problems."""

    problems: Literal["rows", "hard"] = "rows"
    """``rows``: the problems that InT's rows are of; ``hard``: all hard ones."""
    num_generations: int = Field(2, ge=2)
    """Rollouts of a problem in one optimiser step, which has `batch_size` of them in all."""
    sampling: SamplingConfig = SamplingConfig()
    """Of the rollouts, `max_tokens` included: nothing is cut but what reaches it."""
    sampler: Literal["engine", "vllm"] = "engine"
    """As `train_rl.sampler`."""


class TrainSftConfig(Section):
    """Patching (Table 6)."""

    method: Literal["sft", "dpo", "sdft"] = "sft"
    """``sft`` on the rows; ``dpo``: Step-DPO on (intervention, original step) after the same
    prefix: a baseline; ``sdft``: self-distillation on the model's own rollouts from itself shown
    the reference: a baseline."""
    distill: DistillConfig = DistillConfig()
    """``sdft``: what the teacher is, and how student and teacher are compared."""
    student: StudentConfig = StudentConfig()
    dpo_beta: float = Field(0.1, gt=0)
    """``dpo``: how strongly it is held to the base."""
    num_epochs: float = Field(4.0, gt=0)
    """Passes over the rows."""
    batch_size: int = Field(64, ge=1)
    """Rows per optimiser step."""
    micro_batch_size: int = tunable(4, ge=1)
    """Rows per forward pass."""
    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate; it falls as a cosine."""
    min_lr_rate: float = Field(0.1, ge=0, le=1)
    """Where the cosine ends, as a share of the peak."""
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's."""
    gradient_checkpointing: bool = tunable(False)
    """Compute activations twice instead of keeping them: slower, smaller."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimiser steps."""
    save_every: int | None = tunable(None, ge=1)
    """Optimiser steps between checkpoints that a killed training goes on from; default: none, it
    starts over."""
    lora_rank: int = Field(0, ge=0)
    """Train adapters of this rank instead of all weights; they are merged at the end. 0: off.
    Adapters take about ten times the learning rate of all weights."""
    dtype: Dtype = "auto"
    """What training computes in; weights that are trained stay float32. ``auto``: bfloat16 on a
    GPU, float32 on a CPU, where bfloat16 is faster if the CPU has instructions for it (AMX)."""
    accelerate: str = tunable("")
    """A config of ``accelerate launch`` for several processes: a file, or a packaged one such as
    ``accelerate/ddp`` or ``accelerate/fsdp2``."""

    @model_validator(mode="after")
    def _fits_together(self) -> TrainSftConfig:
        refuse(self._complaints() if self.method == "sdft" else ())
        return self

    def identity(self, *, with_defaults: bool = False) -> dict[str, object]:
        """Return what decides results; of self-distillation only where there is any."""
        found = super().identity(with_defaults=with_defaults)
        if self.method != "sdft":
            found = {name: found[name] for name in found if name not in ("distill", "student")}
        return found

    @property
    def keeps_base(self) -> bool:
        """Whether only adapters ever change, the weights below them never."""
        return self.lora_rank > 0

    def as_rl(self, num_steps: int) -> TrainRlConfig:
        """Return the RL that ``sdft`` is: one update an iteration, on lessons from references."""
        return TrainRlConfig(
            num_iterations=num_steps,
            prompts_per_iteration=self.batch_size // self.student.num_generations,
            num_generations=self.student.num_generations,
            num_updates=1,
            micro_batch_size=self.micro_batch_size,
            learning_rate=self.learning_rate,
            sampling=self.student.sampling,
            sampler=self.student.sampler,
            distill_weight=1.0,
            distill_from="reference",
            distill=self.distill,
            save_every=self.save_every or num_steps,
            gradient_checkpointing=self.gradient_checkpointing,
            lora_rank=self.lora_rank,
            dtype=self.dtype,
            accelerate=self.accelerate,
        )

    def _complaints(self) -> Iterator[Complaint]:
        if self.student.sampling.temperature == 0:
            text = "student.sampling.temperature = 0 cannot be divided by: set it above 0"
            yield Complaint(text, ("student.sampling.temperature",))
        if self.batch_size % self.student.num_generations:
            yield Complaint(
                f"batch_size = {self.batch_size} rollouts are no whole number of problems: make it "
                f"a multiple of student.num_generations = {self.student.num_generations}",
                ("batch_size", "student.num_generations"),
            )


class OnlineConfig(Section):
    """Interventions that RL makes for itself (online InT): beyond the paper.

    Where all rollouts of a group are wrong, the policy as it is proposes, as `propose` says, and
    verifies.
    """

    share: float = Field(0.0, ge=0, le=1)
    """Share of an iteration's groups, rounded up, that begin from interventions of the iteration
    before, where so many were verified: they take the last groups' places. 0: off."""
    max_cases: int = Field(8, ge=1)
    """Groups of an iteration, at most, of which a rollout is asked about."""
    num_proposals: int = Field(1, ge=1)
    """Questions per rollout; the first accepted one is verified."""
    num_continuations: int = Field(8, ge=1)
    """Continuations that verify it: one has to be correct."""


def logprobs_mode(sampling: SamplingConfig) -> str:
    """Return the mode in which vLLM's log-probabilities are those of `Completion.logprobs`.

    Raises ValueError if there is none: raw ones are at temperature 1, processed ones of what is
    left after every cut.
    """
    if sampling.repetition_penalty != 1 or (sampling.is_cut and sampling.temperature != 1):
        raise ValueError(
            "sampler 'servers': vLLM tells no log-probabilities that suit a trainer where there is "
            "a repetition_penalty, or top_p, top_k or min_p at a temperature other than 1: switch "
            "these off in train_rl.sampling"
        )
    return "raw_logprobs" if sampling.temperature == 1 else "processed_logprobs"


class TrainRlConfig(Section):
    """Outcome-reward GRPO (§4.2, Table 5)."""

    num_iterations: int = Field(400, ge=1)
    """Iterations of sampling; each is `num_updates` optimiser steps."""
    prompts_per_iteration: int = Field(32, ge=1)
    """Problems of one iteration, a group of rollouts each."""
    num_generations: int = Field(8, ge=2)
    """Rollouts per prompt: one group."""
    num_updates: int = Field(2, ge=1)
    """Optimiser steps per iteration: the paper's mini-batch of 16 prompts out of 32."""
    micro_batch_size: int = tunable(8, ge=1)
    """Rollouts per forward pass."""
    learning_rate: float = Field(1e-6, gt=0)
    """Constant."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """How far a token's probability ratio may fall below 1."""
    clip_high: float = Field(0.2, gt=0)
    """How far it may rise above 1."""
    loss: Loss = "sequence_mean"
    """What a token's loss is divided by: its sequence's length and the number of sequences
    (``sequence_mean``), the tokens of the batch (``token_mean``), `sampling.max_tokens` and the
    number of sequences (``constant_length``), or the number of sequences alone (``token_sum``:
    as PipelineRL, which the paper used)."""
    advantage: Advantage = "mean"
    """A reward minus its group's mean; ``mean_std``: by the group's standard deviation (GRPO);
    ``reward_by_mean``: by the mean (MaxRL)."""
    importance: Literal["token_truncate", "off"] = "token_truncate"
    """Correction where sampler and trainer round differently: each token weighs its probability
    under the trainer by that under the sampler, at most `max_importance_weight`."""
    max_importance_weight: float = Field(2.0, ge=1)
    """Of ``token_truncate``."""
    max_logprob_gap: float = tunable(0.1, gt=0)
    """Alarm: above this mean difference per token between sampler and trainer, in nats, stop. It
    also stops at ten times the usual difference."""
    problems: Literal["all", "hard", "verified"] = "all"
    """``all`` training problems, the ``hard`` ones, or ``verified``: hard problems with a kept
    intervention, the paper's D_train."""
    contexts: Shares = {Condition.PROBLEM: 1.0}
    """What groups begin from, by share: ``{hint = 1}`` is hint-guided RL, ``{problem = 0.5,
    prefix_intervention = 0.5}`` mixes guided and unguided groups. Prefixes and interventions are
    the verified ones; a problem without one begins from its text."""
    contexts_end: Shares = {}
    """Where the shares of `contexts` go, linearly, e.g. ``{problem = 1}``; default: they stay."""
    anneal_share: float = Field(1.0, gt=0, le=1)
    """Share of the iterations in which they go there, and in which `hint_shares` come in turn."""
    hint_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """How much of the reference's steps a hint shows, one length after the other, each for as many
    iterations: ``[0.5, 0.25]`` is QuestA's. Default: one length for all, `hints.length`."""
    order: Literal["shuffled", "easy_first", "hard_first"] = "shuffled"
    """``shuffled``: one pass over the problems after another; ``easy_first``, ``hard_first``: a
    quarter of the problems after another, by their pass rate in `sample`."""
    zero_gradient: ZeroGradient = "keep"
    """Groups whose rollouts are all worth the same: ``keep`` them (the paper), ``drop`` them from
    what the loss is divided by, or ``refill`` the batch with groups of further problems."""
    max_refill: float = Field(2.0, gt=0)
    """``refill``: further groups of an iteration, at most, per `prompts_per_iteration`."""
    sampling: SamplingConfig = SamplingConfig()
    """Of rollouts in RL."""
    save_every: int = tunable(100, ge=1)
    """Iterations between checkpoints; with `keep_checkpoints` it may not change at a resume."""
    keep_checkpoints: bool = False
    """Keep the model of each checkpoint, to be evaluated along RL (Fig. 12)."""
    gradient_checkpointing: bool = tunable(False)
    """As `train_sft.gradient_checkpointing`."""
    lora_rank: int = Field(0, ge=0)
    """As `train_sft.lora_rank`."""
    dtype: Dtype = "auto"
    """As `train_sft.dtype`; ``sampler = "engine"`` computes in it too, so that both agree."""
    accelerate: str = tunable("")
    """As `train_sft.accelerate`."""
    sampler: Literal["engine", "servers", "generate", "vllm"] = "engine"
    """Who draws rollouts: ``engine``: ours, in the training process, on the weights as they are;
    ``servers``: vLLM servers of ours (`servers`), which get the weights before each iteration;
    ``generate``: TRL with transformers; ``vllm``: TRL with vLLM on the training GPUs, which needs
    ``vllm`` installed here. Only the first two give each rollout a seed of its own."""
    servers: VllmConfig = VllmConfig()
    """Of ``sampler = "servers"``: as an engine of kind ``vllm``. Name `devices` that the training
    leaves free, or give the servers a share of its memory in `server_arguments`."""
    online: OnlineConfig = OnlineConfig()
    distill_weight: float = Field(0.0, ge=0, le=1)
    """Share of the loss that is self-distillation (SDPO), the rest being that of the rewards; 1:
    rewards only choose what the teacher is shown. 0: off."""
    distill_from: DistillFrom = "sibling"
    """What the teacher is shown of a rollout's problem: the first other correct rollout of its
    group, the reference, or the latter where there is no such rollout. Without either a rollout
    teaches nothing by distillation, which is counted."""
    distill: DistillConfig = DistillConfig()
    vllm_gpu_share: float = tunable(0.3, gt=0, lt=1)
    """Share of each GPU's memory for vLLM."""

    @model_validator(mode="after")
    def _fits_together(self) -> TrainRlConfig:
        refuse(
            [
                *self._context_complaints(),
                *self._sampler_complaints(),
                *self._distill_complaints(),
            ]
        )
        return self

    def _context_complaints(self) -> Iterator[Complaint]:
        if not self.contexts:
            text = "contexts is empty: leave it out, or name a condition"
            yield Complaint(text, ("contexts",))
        if self.anneal_share < 1 and not (self.contexts_end or self.hint_shares):
            text = "anneal_share says when contexts_end is reached: set contexts_end"
            yield Complaint(text, ("anneal_share", "contexts_end"))
        if self.hint_shares and Condition.HINT not in self.conditions:
            text = "hint_shares are of hints: give hint a share in contexts"
            yield Complaint(text, ("hint_shares", "contexts"))

    def shares(self, iteration: int) -> dict[Condition, float]:
        """Return the share of each condition among the groups of an iteration (0-based)."""
        end = self.contexts_end or self.contexts
        # The last iteration of the annealing is all at the end.
        last = max(self.anneal_share * self.num_iterations - 1, 1e-9)
        moved = min(iteration / last, 1.0)
        return {
            condition: (1 - moved) * self.contexts.get(condition, 0) + moved * end.get(condition, 0)
            for condition in self.conditions
        }

    def hint_number(self, iteration: int) -> int | None:
        """Return which of `hint_shares` an iteration (0-based) shows; none where there are none."""
        if not self.hint_shares:
            return None
        passed = iteration / (self.anneal_share * self.num_iterations)
        return min(int(passed * len(self.hint_shares)), len(self.hint_shares) - 1)

    def mean_shares(self) -> dict[Condition, float]:
        """Return the share of each condition among all groups."""
        every = [self.shares(iteration) for iteration in range(self.num_iterations)]
        return {c: sum(shares[c] for shares in every) / len(every) for c in self.conditions}

    @property
    def keeps_base(self) -> bool:
        """Whether only adapters ever change, the weights below them never.

        Before vLLM samples on the training GPUs, TRL adds the adapters to these, and subtracts them
        again.
        """
        return self.lora_rank > 0 and self.sampler != "vllm"

    @property
    def most_further(self) -> int:
        """Groups that an iteration may sample further."""
        return int(self.max_refill * self.prompts_per_iteration)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What any group is to begin from, in the order of Table 1."""
        used = {c for shares in (self.contexts, self.contexts_end) for c in shares if shares[c]}
        return tuple(condition for condition in TABLE_1 if condition in used)

    def identity(self, *, with_defaults: bool = False) -> dict[str, object]:
        """Return what decides results; of kept checkpoints also which iterations they are of."""
        found = super().identity(with_defaults=with_defaults)
        if self.sampler != "servers":
            del found["servers"]
        if not self.distill_weight:
            found = {name: found[name] for name in found if not name.startswith("distill")}
        return found | ({"save_every": self.save_every} if self.keep_checkpoints else {})

    def _sampler_complaints(self) -> Iterator[Complaint]:
        if self.sampling.temperature == 0:
            yield Complaint(
                "sampling.temperature = 0 draws the same rollout again and again, and a trainer "
                "divides by it: set it above 0",
                ("sampling.temperature",),
            )
        elif self.sampler == "servers":
            try:
                logprobs_mode(self.sampling)
            except ValueError as error:
                yield Complaint(str(error), ("sampler", "sampling"))
        if self.sampler == "vllm" and self.sampling.is_cut:
            yield Complaint(
                "sampler 'vllm': the log-probabilities that TRL asks vLLM for are of what top_p, "
                "top_k, min_p and repetition_penalty leave, which a trainer does not compute: "
                "switch these off in train_rl.sampling",
                ("sampler", "sampling"),
            )
        if self.online.share and self.sampler not in ("engine", "servers"):
            yield Complaint(
                f"online asks the policy, which sampler {self.sampler!r} cannot: set sampler = "
                "'servers' (as scale/paper/online does) or 'engine'",
                ("online.share", "sampler"),
            )

    def _distill_complaints(self) -> Iterator[Complaint]:
        if not self.distill_weight:
            return
        if self.zero_gradient == "drop":
            yield Complaint(
                "zero_gradient 'drop' scales advantages, which self-distillation has none of: set "
                "zero_gradient = 'keep' or 'refill'",
                ("zero_gradient", "distill_weight"),
            )

    @property
    def most_online(self) -> int:
        """Groups of an iteration, at most, that begin from interventions of its own."""
        return math.ceil(self.online.share * self.prompts_per_iteration)

    @property
    def takes_all_devices(self) -> bool:
        """Whether a training leaves no room for another: the two arms then run in turn."""
        return bool(self.accelerate) or self.sampler in ("vllm", "servers")


def _on_rows(config: TrainSftConfig) -> TrainSftConfig:
    if config.method != "sft":
        raise ValueError(f"method {config.method!r}: this trains on rows: leave method out")
    return config


RowTraining = Annotated[TrainSftConfig, AfterValidator(_on_rows)]


class TrainProposerConfig(Section):
    """What ``midcourse train proposer`` trains the proposer on: its own verified proposals."""

    reference: Literal["given", "none"] = "none"
    """What the question shows in training: the reference as it was ``given`` to the proposer, or
    ``none``: the answer was made with one, and is to be learned without."""
    rows_per_problem: int = Field(4, ge=1)
    """Verified proposals of a problem that are trained on, at most: a seeded choice."""
    min_correct_share: float = Field(0.0, ge=0, le=1)
    """Share of an intervention's continuations that must be correct; one has to be anyway."""
    max_tokens: int = Field(16_384, ge=1)
    """A longer row is refused, never cut."""
    train: RowTraining = TrainSftConfig()
    """As `train_sft`."""
    check_rollouts: int = Field(2, ge=1)
    """Wrong rollouts of each held-out problem that are asked about before and after, once each."""


class WorkedConfig(Section):
    """Warm-up, first half: worked solutions in our answer form."""

    part: Part = (0.0, 0.2)
    """As `problems.part`, of the same file."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many problems."""
    train: RowTraining = TrainSftConfig()
    """As `train_sft`."""


class VerificationConfig(Section):
    """Warm-up, second half: the first error of attempts that were spoiled on purpose."""

    part: Part = (0.2, 0.5)
    """As `problems.part`, of the same file."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many problems."""
    num_attempts: int = Field(2, ge=1)
    """Attempts per problem; every other one is shown without the reference."""
    num_worked: int = Field(0, ge=0)
    """Worked solutions mixed in, so that solving is not forgotten."""
    train: RowTraining = TrainSftConfig()
    """As `train_sft`."""


class WarmupConfig(Section):
    """What ``midcourse warmup`` teaches a small model before the method begins."""

    worked: WorkedConfig = WorkedConfig()
    verification: VerificationConfig = VerificationConfig()
    max_tokens: int = Field(1024, ge=1)
    """A longer row is refused, never cut."""
    num_checks: int = Field(100, ge=1)
    """Attempts at problems of `problems.part` on which the verifier is measured."""
    check_sampling: SamplingConfig = SamplingConfig(temperature=0.0, max_tokens=512)
    """Of the verifier's answers."""

    def check_parts(self, others: Part) -> None:
        """Raise ConfigError if two of the three parts of the problems overlap."""
        parts = sorted([self.worked.part, self.verification.part, others])
        if any(before[1] > after[0] for before, after in pairwise(parts)):
            raise ConfigError(
                f"warmup: the parts {parts} overlap: a problem must be in one of "
                "warmup.worked.part, warmup.verification.part and problems.part"
            )
