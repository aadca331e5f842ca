"""The objective of RL, against one computed by hand: advantages, weights, clipping, normalisation.

By hand means: every rollout alone through a model with the weights of that moment, and the formula
of the recipe's key. What TRL does with padding, shuffling, windows and accumulation must not show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainerCallback

from midcourse.config import Advantage, Loss, TrainRlConfig, load_recipe
from midcourse.plan.devices import TrainingProcesses
from midcourse.recipes import list_recipes
from midcourse.records import Gold
from midcourse.training.common import Setting
from midcourse.training.rl.advantages import advantages_of
from midcourse.training.rl.collect import Collector
from midcourse.training.rl.groups import Group
from midcourse.training.rl.run import make_rl_trainer
from midcourse.training.rl.trainer import rl_arguments
from rl_problems import FakeSampler, PatternGrader, rl_problem
from tiny import make_random

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

LOSSES: tuple[Loss, ...] = ("sequence_mean", "token_mean", "constant_length", "token_sum")
#: Mixed, all wrong, mixed and partly ungraded, all right.
VERDICTS = {"a": "1000", "b": "0000", "c": "1u01", "d": "1111"}
PROBLEMS = [rl_problem(name, f"Solve {name}.", Gold("math", v)) for name, v in VERDICTS.items()]


def config(**changes: Any) -> TrainRlConfig:
    small = {
        "num_iterations": 1, "prompts_per_iteration": 4, "num_generations": 4, "num_updates": 2,
        "micro_batch_size": 4, "learning_rate": 0.01, "max_logprob_gap": 100,
        "clip_low": 0.01, "clip_high": 0.03, "max_importance_weight": 1.5,
        "sampling": {"max_tokens": 9, "temperature": 1.5},
    }  # fmt: skip
    return TrainRlConfig.model_validate({**small, **changes})


# Advantages.


@pytest.mark.parametrize(
    ("kind", "mixed", "partly_ungraded"),
    [
        ("mean", [0.75, -0.25, -0.25, -0.25], [1 / 3, 0, -2 / 3, 1 / 3]),
        ("mean_std", [1.5, -0.5, -0.5, -0.5], [3**-0.5, 0, -2 * 3**-0.5, 3**-0.5]),
        ("reward_by_mean", [3, -1, -1, -1], [0.5, 0, -1, 0.5]),
    ],
)
def test_an_advantage_is_what_a_rollout_is_worth_beyond_its_group(
    kind: Advantage, mixed: list[float], partly_ungraded: list[float]
) -> None:
    assert advantages_of([1, 0, 0, 0], kind) == pytest.approx(mixed, abs=1e-3)
    assert advantages_of([1, None, 0, 1], kind) == pytest.approx(partly_ungraded, abs=1e-3)
    alike: list[list[float | None]] = [[0] * 4, [1] * 4, [None] * 4, [None, None, 1, None]]
    for same in alike:
        assert advantages_of(same, kind) == [0.0] * 4


# What TRL is told.

NAMES = {info.name for info in list_recipes()}
#: Of the lab alone.
OTHERS = {"paper/true-interventions"}


def sections_at(scale: str) -> dict[str, TrainRlConfig]:
    """Return every `train_rl` of the paper's recipes at a scale, with a recipe that has it."""
    found: dict[str, TrainRlConfig] = {}
    paths = ["problems.path=p", "problems.held_out_path=h"]
    for name in sorted(name for name in NAMES - OTHERS if name.startswith("paper/")):
        own = [f"scale/{name}"] if f"scale/{name}" in NAMES else []
        section = load_recipe("paper/int", paths, [scale, name, *own]).train_rl
        if section not in found.values():
            found[name] = section
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["scale/paper", "scale/paper-1gpu", "scale/paper-8gpu"])
def test_trl_is_told_every_value_of_every_paper_recipe(scale: str, tmp_path: Path) -> None:
    sections = sections_at(scale)
    assert len(sections) >= 4
    for settings in sections.values():
        check_arguments(settings, scale, tmp_path)


def check_arguments(settings: TrainRlConfig, scale: str, tmp_path: Path) -> None:
    number = TrainingProcesses.of(settings.accelerate).number
    setting = Setting("model", tmp_path, 3, lambda numbers: None)
    longest = 700 + settings.sampling.max_tokens
    made = rl_arguments(settings, 1076, longest, setting, number)
    rollouts = settings.prompts_per_iteration * settings.num_generations
    step = made.per_device_train_batch_size * number * made.gradient_accumulation_steps
    assert step == rollouts // settings.num_updates == 128
    assert made.steps_per_generation == 2 * made.gradient_accumulation_steps
    assert made.max_steps == 2 * settings.num_iterations
    assert (made.num_generations, made.num_iterations) == (8, 1)
    assert (made.beta, made.entropy_coef, made.weight_decay) == (0.0, 0.0, 0.0)
    assert (made.epsilon, made.epsilon_high, made.delta) == (0.2, 0.2, None)
    assert (made.loss_type, made.importance_sampling_level) == ("grpo", "token")
    assert (made.scale_rewards, made.mask_truncated_completions) == ("none", False)
    assert (made.top_entropy_quantile, made.off_policy_mask_threshold) == (1.0, None)
    assert made.learning_rate == settings.learning_rate
    assert (made.lr_scheduler_type, made.warmup_steps) == ("constant", 0)
    assert (made.temperature, made.top_p, made.top_k, made.min_p) == (1.0, 1.0, 0, None)
    assert (made.repetition_penalty, made.generation_kwargs) == (1.0, None)
    assert made.max_completion_length == settings.sampling.max_tokens in (16384, 32768)
    by_trl = settings.sampler != "servers"  # online InT needs an engine
    assert made.use_vllm == by_trl
    assert (made.vllm_mode, made.vllm_max_model_length) == ("colocate", longest)
    assert made.vllm_importance_sampling_correction is False
    assert made.vllm_gpu_memory_utilization == settings.vllm_gpu_share
    assert made.gradient_checkpointing == (scale != "scale/paper")
    assert (made.disable_dropout, made.shuffle_dataset, made.seed) == (True, False, 3)


@pytest.mark.parametrize(
    ("loss", "name"),
    [("sequence_mean", "grpo"), ("token_mean", "dapo"), ("constant_length", "dr_grpo"),
     ("token_sum", "luspo")],
)  # fmt: skip
def test_each_loss_has_trl_s_name(loss: Loss, name: str, tmp_path: Path) -> None:
    setting = Setting("model", tmp_path, 3, lambda numbers: None)
    made = rl_arguments(config(loss=loss, clip_high=0.28), 4, 100, setting, 1)
    assert (made.loss_type, made.epsilon, made.epsilon_high) == (name, 0.01, 0.28)


# What the trainer does.


@dataclass(eq=False)
class Updates(TrainerCallback):  # type: ignore[misc]  # transformers asks for a subclass
    """Keeps the gradient of each optimiser step, and the weights that it was taken at."""

    weights: list[dict[str, Tensor]] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        parameters = dict(model.named_parameters())
        self.weights.append({n: p.detach().clone() for n, p in parameters.items()})
        self.gradients.append({n: p.grad.clone() for n, p in parameters.items()})


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one iteration trained on."""

    config: TrainRlConfig
    model: Path
    groups: Sequence[Group]
    updates: Updates
    rows: list[list[tuple[Group, int]]]
    """Of each update: group and number of every rollout."""
    logged: dict[str, float]


def train(folder: Path, settings: TrainRlConfig) -> Seen:
    """Train one iteration with TRL, on rollouts that no model sampled."""
    model, logged = folder / "model", dict[str, float]()
    make_random(model, "llama")
    setting = Setting(str(model), folder / "out", 0, logged.update)
    setting.out.mkdir()
    trainer = make_rl_trainer(settings, PROBLEMS, setting, "rl:k", PatternGrader())
    collector: Collector = trainer.rollout_func
    collector.sampler = FakeSampler(nats=7.0)
    trainer.args.max_grad_norm = 0.0  # gradients as they are
    updates = Updates()
    trainer.add_callback(updates)
    trainer.train()
    groups = collector.batch.groups
    by_ids = {
        (group.context_ids, rollout.token_ids): (group, number)
        for group in groups
        for number, rollout in enumerate(group.rollouts)
    }
    assert len(by_ids) == 16
    rows = [
        by_ids[ids]
        for step in trainer._buffered_inputs
        for ids in zip(_unpadded(step, "prompt"), _unpadded(step, "completion"), strict=True)
    ]
    each = len(rows) // settings.num_updates
    return Seen(
        config=settings, model=model, groups=groups, updates=updates, logged=logged,
        rows=[rows[first : first + each] for first in range(0, len(rows), each)],
    )  # fmt: skip


def _unpadded(step: dict[str, Tensor], name: str) -> Iterable[tuple[int, ...]]:
    pairs = zip(step[f"{name}_ids"], step[f"{name}_mask"], strict=True)
    return [tuple(ids[mask.bool()].tolist()) for ids, mask in pairs]


def logprobs_under(model: Any, group: Group, number: int, temperature: float) -> Tensor:
    """Return the log-probability of each sampled token, by the model alone."""
    ids = group.rollouts[number].token_ids
    whole = torch.tensor([[*group.context_ids, *ids]])
    logits = model(whole).logits[0, -len(ids) - 1 : -1] / temperature
    logprobs: Tensor = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
    return logprobs


def by_hand(seen: Seen, update: int, normalised: Callable[[list[Tensor]], Tensor]) -> None:
    """Compare the gradient of one update with that of the loss as its key says it."""
    settings, losses = seen.config, list[Tensor]()
    before, now = (_model_with(seen, seen.updates.weights[number]) for number in (0, update))
    temperature = settings.sampling.temperature
    for group, number in seen.rows[update]:
        old = logprobs_under(before, group, number, temperature).detach()
        new = logprobs_under(now, group, number, temperature)
        weight = torch.ones_like(old)
        if settings.importance == "token_truncate":
            sampled = torch.tensor(group.logprobs[number])
            weight = (old - sampled).exp().clamp(max=settings.max_importance_weight)
        advantage, ratio = group.advantages[number] * weight, (new - old).exp()
        clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
        losses.append(-torch.minimum(ratio * advantage, clipped * advantage))
    names, parameters = zip(*now.named_parameters(), strict=True)
    ours = torch.autograd.grad(normalised(losses), parameters)
    for name, gradient in zip(names, ours, strict=True):
        theirs = seen.updates.gradients[update][name]
        largest = theirs.abs().max()
        assert largest > 1e-4
        torch.testing.assert_close(gradient / largest, theirs / largest, atol=2e-3, rtol=0)


def _model_with(seen: Seen, weights: dict[str, Tensor]) -> Any:
    model = AutoModelForCausalLM.from_pretrained(seen.model, dtype=torch.float32)
    model.load_state_dict(weights, strict=False)
    return model.train()


def normalisation(seen: Seen) -> Callable[[list[Tensor]], Tensor]:
    """Return what docs/recipes.md says of each `train_rl.loss`."""
    settings = seen.config
    tokens = sum(group.num_tokens for group in seen.groups) / settings.num_updates
    ways: dict[Loss, Callable[[list[Tensor]], Tensor]] = {
        "sequence_mean": lambda rows: torch.stack([row.mean() for row in rows]).mean(),
        "token_mean": lambda rows: torch.cat(rows).sum() / tokens,
        "constant_length": lambda rows: (
            torch.cat(rows).sum() / (len(rows) * settings.sampling.max_tokens)
        ),
        "token_sum": lambda rows: torch.cat(rows).sum() / len(rows),
    }
    return ways[settings.loss]


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_of_each_update_is_that_of_the_objective(tmp_path: Path, loss: Loss) -> None:
    seen = train(tmp_path, config(loss=loss))
    assert [len(rows) for rows in seen.rows] == [8, 8]
    for update in range(2):
        by_hand(seen, update, normalisation(seen))
    assert seen.logged["groups/with_gradient"] == 2
    # Where there is something to see: weights that are truncated and others, ratios that are cut.
    assert seen.logged["sampler/importance_weight_max"] == pytest.approx(1.5)
    assert seen.logged["sampler/importance_weight_mean"] < 1.5
    assert seen.logged["clip_ratio/region_mean"] > 0


@pytest.mark.slow
def test_without_importance_weights_every_token_weighs_the_same(tmp_path: Path) -> None:
    seen = train(tmp_path, config(importance="off", advantage="mean_std"))
    by_hand(seen, 1, normalisation(seen))
    assert "sampler/importance_weight_mean" not in seen.logged
    assert seen.logged["sampler/logprob_gap"] > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_dropped_groups_are_not_in_the_denominator(tmp_path: Path, loss: Loss) -> None:
    seen = train(tmp_path, config(loss=loss, zero_gradient="drop", num_updates=1))
    whole, (rows,) = normalisation(seen), seen.rows
    with_gradient = [group.has_gradient for group, _ in rows]
    assert sum(with_gradient) == 8
    tokens = sum(g.num_tokens for g in seen.groups if g.has_gradient)

    def of_the_others(losses: list[Tensor]) -> Tensor:
        kept = [row for row, is_kept in zip(losses, with_gradient, strict=True) if is_kept]
        return torch.cat(kept).sum() / tokens if loss == "token_mean" else whole(kept)

    by_hand(seen, 0, of_the_others)
    assert seen.logged["groups/dropped"] == 2


@pytest.mark.slow
def test_advantages_stand_before_the_shuffle_as_the_verdicts_say(tmp_path: Path) -> None:
    model = tmp_path / "model"
    make_random(model, "llama")
    setting = Setting(str(model), tmp_path, 0, lambda numbers: None)
    settings = config(importance="off")
    trainer = make_rl_trainer(settings, PROBLEMS, setting, "rl:k", PatternGrader())
    collector: Collector = trainer.rollout_func
    collector.sampler = FakeSampler()
    trainer.model.train()
    made = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    worth = {
        "a": [0.75, -0.25, -0.25, -0.25], "b": [0.0] * 4, "c": [1 / 3, 0, -2 / 3, 1 / 3],
        "d": [0.0] * 4,
    }  # fmt: skip
    expected = [v for slot in collector.schedule.slots(0) for v in worth[slot.problem.problem_id]]
    assert made["advantages"].tolist() == pytest.approx(expected, abs=1e-6)
    drawn = [rollout.token_ids for group in collector.batch.groups for rollout in group.rollouts]
    assert _unpadded(made, "completion") == drawn
