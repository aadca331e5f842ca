"""Self-distillation on RL's rollouts: per token, from the same model that is shown a solution.

TRL's own trainers for this, ``trl.experimental.sdft`` and ``.sdpo``, sample by themselves: they
take no ``rollout_func``, hence neither our engines, seeds and records nor a group that begins from
a prefix, and they cut prompts. So only what they compute is theirs here: the divergences of
`trl.experimental.sdpo.loss_utils`, on our ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerState, TrainingArguments
from trl.trainer.utils import pad, selective_log_softmax

from midcourse.config import DistillConfig
from midcourse.training.common import processes, quiet_libraries
from midcourse.training.rl.groups import Group

#: How far TRL's interpolation lies from the forward to the reverse KL divergence.
_ALPHAS = {"forward_kl": 0.0, "js": 0.5, "reverse_kl": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """The term of the loss, and who teaches."""

    config: DistillConfig
    weight: float
    """Its share of the loss."""
    max_ratio: float | None
    """After a first update a token weighs its probability now by that when sampled, at most this;
    none: always 1."""
    temperature: float
    """Of sampling; logits are divided by it."""
    weights: TeacherWeights | None = None
    """The teacher's, where neither the student's nor what is below its adapters are meant."""

    def loss(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss of some rows, and the divergences (rows, tokens) where there is a lesson.

        As in TRL: the mean over a rollout's tokens, then over all rows; 0 for one without a lesson.
        """
        ids, mask = inputs["completion_ids"], inputs["completion_mask"]
        taught = mask * inputs["is_taught"][:, None]
        # First the teacher: the student's weights must not change before its gradient is computed.
        with torch.no_grad(), self._as_teacher(model):
            teacher = self._logits(model, inputs["teacher_ids"], inputs["teacher_mask"], ids, mask)
        student = self._logits(model, inputs["prompt_ids"], inputs["prompt_mask"], ids, mask)
        divergences = divergence(student, teacher, ids, self.config)
        if self.max_ratio is not None and "old_per_token_logps" in inputs:
            divergences = _trl().apply_importance_sampling_clipping(
                divergences,
                selective_log_softmax(student, ids),
                inputs["old_per_token_logps"],
                self.max_ratio,
            )
        kept = torch.where(taught.bool(), divergences, 0.0)
        return (kept.sum(-1) / mask.sum(-1).clamp(min=1)).mean(), kept

    def _as_teacher(self, model: Any) -> AbstractContextManager[Any]:
        """Return what makes the teacher of the model for the while."""
        if self.weights is not None:
            return self.weights.in_place()
        inner = getattr(model, "module", model)
        has_base = isinstance(inner, PeftModel) and self.config.teacher == "base"
        taken_off: AbstractContextManager[Any] = (
            inner.disable_adapter() if has_base else nullcontext()
        )
        return taken_off

    def _logits(
        self, model: Any, prompt: Tensor, prompt_mask: Tensor, ids: Tensor, mask: Tensor
    ) -> Tensor:
        """Return what was said of each token of a completion: (rows, tokens, vocabulary)."""
        number = ids.shape[1]
        logits: Tensor = model(
            input_ids=torch.cat([prompt, ids], dim=1),
            attention_mask=torch.cat([prompt_mask, mask], dim=1),
            logits_to_keep=number + 1,
            use_cache=False,
        ).logits
        return logits[:, -number - 1 : -1] / self.temperature


def divergence(student: Tensor, teacher: Tensor, ids: Tensor, config: DistillConfig) -> Tensor:
    """Return TRL's divergence of logits (rows, tokens, vocabulary) per token: (rows, tokens)."""
    alpha, loss_utils = _ALPHAS[config.divergence], _trl()
    found: Tensor
    match config.support:
        case "vocabulary":
            found = loss_utils.compute_full_logit_self_distillation_loss(
                student, teacher, distillation_alpha=alpha
            )
        case "top_k":
            found = loss_utils.compute_topk_self_distillation_loss(
                student,
                teacher,
                distillation_topk=min(config.top_k, student.shape[-1]),
                distillation_alpha=alpha,
                distillation_add_tail=config.tail,
            )
        case "sampled_token":
            found = loss_utils.compute_sampled_token_self_distillation_loss(
                student, teacher, ids, distillation_alpha=alpha
            )
    return found


def _trl() -> Any:
    """Return TRL's functions; where they are imported, it warns unless it was told not to."""
    quiet_libraries()
    from trl.experimental.sdpo import loss_utils

    return loss_utils


def lesson_tensors(groups: Sequence[Group], like: Tensor, pad_id: int) -> dict[str, Tensor]:
    """Return the teacher's contexts, and which rows have one, row by row as TRL has the rollouts.

    `like` is on the device that they are wanted on. A row without a lesson has the student's.
    """
    lessons = [lesson for group in groups for lesson in group.lessons]
    own = [group.context_ids for group in groups for _ in group.rollouts]
    ids = [
        torch.tensor(lesson.context_ids if lesson else student)
        for lesson, student in zip(lessons, own, strict=True)
    ]
    made = {
        "teacher_ids": pad(ids, padding_value=pad_id, padding_side="left"),
        "teacher_mask": pad([torch.ones_like(one) for one in ids], 0, padding_side="left"),
        "is_taught": torch.tensor([lesson is not None for lesson in lessons]),
    }
    return {name: value.to(like.device) for name, value in made.items()}


class TeacherWeights(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """The teacher's weights, where they are not the student's as it is.

    Kept of what is trained alone: of adapters, or each process's part of a sharded model. They
    change places with the student's while the teacher is asked, and are saved with checkpoints.
    """

    def __init__(self, rate: float) -> None:
        """Take how far they move towards the student's at each optimiser step; 0: not at all."""
        self._rate, self._kept, self._trained = rate, list[Tensor](), list[nn.Parameter]()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, model: nn.Module, **__: Any
    ) -> None:
        """Begin as the student does, or go on from the checkpoint that it goes on from."""
        self._trained = [one for one in model.parameters() if one.requires_grad]
        self._kept = [one.detach().clone() for one in self._trained]
        if state.global_step:
            saved = load_file(_file(args, state))
            for number, mine in enumerate(self._kept):
                local_part(mine).copy_(saved[str(number)])

    @torch.no_grad()
    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Move towards the student."""
        for mine, theirs in zip(self._kept, self._trained, strict=True) if self._rate else ():
            mine.lerp_(theirs.detach(), self._rate)

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Write this process's part next to the student's weights, before the marker."""
        parts = {str(i): local_part(one).contiguous() for i, one in enumerate(self._kept)}
        save_file(parts, _file(args, state))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the student's model hold them for the while.

        Never between a forward pass of the student and its backward pass, which needs its weights.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mine, theirs in zip(self._kept, self._trained, strict=True):
            own = theirs.detach().clone()
            theirs.copy_(mine)
            mine.copy_(own)
        torch.clear_autocast_cache()  # it may hold either's


def local_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process has."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
    return folder / f"teacher-{processes().process_index}.safetensors"
