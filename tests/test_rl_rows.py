"""Rows of no advantage and columns of padding are left out of a pass, and no gradient changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from midcourse.config import Loss
from midcourse.training.rl.rows import without_idle_rows
from midcourse.training.rl.run import make_rl_trainer
from midcourse.training.rl.trainer import RlTrainer, rl_arguments, weight_metrics
from test_training import PROBLEMS, RL, CoinGrader, setting

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def inputs(advantages: list[float]) -> dict[str, Any]:
    """Three rows of TRL's: prompts padded on the left, completions on the right."""
    return {
        "prompt_ids": torch.tensor([[0, 0, 5, 6], [0, 7, 5, 6], [8, 7, 5, 6]]),
        "prompt_mask": torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]),
        "completion_ids": torch.tensor([[1, 2, 0], [1, 0, 0], [1, 2, 3]]),
        "completion_mask": torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]]),
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": torch.tensor(6),
    }


def alone(number: int) -> int:
    return number


def test_only_rows_with_an_advantage_stay_at_their_own_length() -> None:
    kept, share = without_idle_rows(inputs([0.5, -0.5, 0.0]), "grpo", alone)
    assert share == pytest.approx(2 / 3)
    assert kept["prompt_ids"].tolist() == [[0, 5, 6], [7, 5, 6]]
    assert kept["completion_ids"].tolist() == [[1, 2], [1, 0]]
    assert kept["advantages"].tolist() == [0.5, -0.5]
    assert kept["num_items_in_batch"] == 6
    assert without_idle_rows(inputs([0.5, -0.5, 0.0]), "dapo", alone)[1] == 1.0


def test_one_row_stays_where_all_are_idle() -> None:
    kept, _ = without_idle_rows(inputs([0.0, 0.0, 0.0]), "grpo", alone)
    assert kept["completion_ids"].tolist() == [[1]]


def test_an_advantage_for_each_token_is_cut_as_they_are() -> None:
    given = inputs([0.0, 0.0, 0.0])
    given["advantages"] = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    kept, _ = without_idle_rows(given, "grpo", alone)
    assert kept["completion_ids"].tolist() == [[1]]
    assert kept["advantages"].tolist() == [[0.5]]


def test_every_process_keeps_as_many_rows_as_the_one_with_the_most() -> None:
    kept, share = without_idle_rows(inputs([0.5, 0.0, 0.0]), "grpo", lambda _: 2)
    assert kept["completion_ids"].tolist() == [[1, 2], [1, 0]]
    assert kept["advantages"].tolist() == [0.5, 0.0]
    assert share == pytest.approx(2 / 3)


def test_no_term_of_the_loss_needs_idle_rows(tmp_path: Path) -> None:
    given = rl_arguments(RL, len(PROBLEMS), 100, setting(tmp_path), 1)
    assert [given.beta, given.entropy_coef, given.router_aux_loss_coef] == [0.0, 0.0, 0.0]


class TwoProcesses:
    """Of accelerate's Accelerator what is used; the other process has known tokens of weight 2."""

    def reduce(self, sums: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        return sums + torch.tensor([6.0, 3.0])

    def gather(self, value: torch.Tensor) -> torch.Tensor:
        return torch.stack([value, torch.tensor(2.0)])


def test_importance_weights_are_logged_over_the_known_tokens_of_all_processes() -> None:
    weights = torch.tensor([[0.5, 1.0]])
    seen = weight_metrics(weights, torch.tensor([[True, False]]), TwoProcesses())
    assert seen["sampler/importance_weight_max"] == 2.0
    assert seen["sampler/importance_weight_mean"] == pytest.approx(6.5 / 4)


def test_a_process_without_a_known_token_logs_what_the_others_have() -> None:
    seen = weight_metrics(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool), TwoProcesses())
    assert seen["sampler/importance_weight_max"] == 2.0
    assert seen["sampler/importance_weight_mean"] == 2.0


def gradient(trainer: RlTrainer, loss: torch.Tensor) -> torch.Tensor:
    trainer.model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()])


@pytest.mark.slow
def test_no_gradient_changes_whatever_the_loss_is_divided_by(tmp_path: Path) -> None:
    trainer = make_rl_trainer(RL, PROBLEMS, setting(tmp_path), "rl:k", CoinGrader())
    trainer.model.train()
    made = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    trainer.current_gradient_accumulation_steps = 1
    losses: dict[Loss, str] = {
        "sequence_mean": "grpo", "token_mean": "dapo", "constant_length": "dr_grpo",
        "token_sum": "luspo",
    }  # fmt: skip
    for advantages in ([0.5, 0, 0, -0.5, 0, 0, 0, 0.25], [0.0] * 8, [1.0] * 8):
        batch = {**made, "advantages": torch.tensor(advantages)}
        for name in losses.values():
            trainer.loss_type = name
            whole = GRPOTrainer._compute_loss(trainer, trainer.model, batch)
            expected = gradient(trainer, whole)
            ours = trainer._compute_loss(trainer.model, batch)
            assert ours.item() == pytest.approx(whole.item(), abs=1e-6)
            difference = gradient(trainer, ours) - expected
            assert difference.norm() <= 1e-4 * expected.norm() + 1e-9, name
