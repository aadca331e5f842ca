"""What TRL is told for every paper recipe on every machine: its real configs, against the tables.

The machine is data, so that a GPU recipe's arguments are built here as they would be there. TRL
refuses bfloat16 where there is neither a GPU nor `use_cpu`: only that one is changed to build them.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from trl import DPOConfig, SFTConfig

from midcourse.config import Recipe, load_recipe
from midcourse.plan.devices import TrainingProcesses
from midcourse.recipes import list_recipes
from midcourse.training.common import Machine, Setting, lora_config
from midcourse.training.dpo import dpo_arguments
from midcourse.training.sft import sft_arguments

ROOT = Path(__file__).parent.parent
NUM_ROWS = 1076  # Table 6: dataset_size
ONLY_LAB = {"paper/true-interventions"}
RECIPES = [
    one.name for one in list_recipes() if one.name.startswith("paper/") and one.name not in ONLY_LAB
]


def arguments_of(recipe: Recipe, out: Path) -> dict[str, Any]:
    """What TRL is told about patching by a recipe for GPUs, on as many as it names."""
    config = recipe.train_sft
    machine = Machine(has_gpu=True, num_processes=TrainingProcesses.of(config.accelerate).number)
    setting = Setting("nowhere", out, recipe.seed, lambda numbers: None)
    make = dpo_arguments if config.method == "dpo" else sft_arguments
    return make(config, setting, NUM_ROWS, machine)


@pytest.mark.parametrize("scale", ["paper", "paper-1gpu", "paper-8gpu"])
@pytest.mark.parametrize("name", RECIPES)
def test_trl_is_told_what_the_paper_says(name: str, scale: str, tmp_path: Path) -> None:
    own = [one for one in (f"scale/{name}",) if one == "scale/paper/online"]
    recipe = load_recipe(name, ["build_sft.teacher=some/teacher"], [f"scale/{scale}", *own])
    told = arguments_of(recipe, tmp_path)
    assert (told["bf16"], told["fp16"], told["use_cpu"]) == (True, False, False)
    make = DPOConfig if recipe.train_sft.method == "dpo" else SFTConfig
    built = make(**{**told, "use_cpu": True})
    rows = built.per_device_train_batch_size * built.gradient_accumulation_steps
    processes = 8 if scale == "paper-8gpu" else 1
    assert rows * processes == 64  # Table 6: effective_batch_size
    assert built.num_train_epochs == 4  # Table 6
    assert built.max_steps == -1
    adapters = lora_config(recipe.train_sft.lora_rank)
    # Table 6; adapters take more.
    assert built.learning_rate == pytest.approx(2e-5 if adapters else 1e-6)
    assert bool(adapters) == (scale == "paper-1gpu")
    assert built.lr_scheduler_type == "cosine_with_min_lr"  # Table 6
    assert built.lr_scheduler_kwargs == {"min_lr_rate": 0.1}  # Table 6
    assert built.get_warmup_steps(68) == 7  # Table 6: warmup_ratio 0.1 of 68 steps
    assert (built.weight_decay, built.max_grad_norm) == (0.0, 1.0)
    assert (built.adam_beta1, built.adam_beta2) == (0.9, 0.999)
    assert built.max_length is None, "the last tokens of a row are what it teaches"
    assert built.gradient_checkpointing == (scale != "paper")
    assert built.logging_nan_inf_filter is False
    if isinstance(built, SFTConfig):
        assert built.packing is False
        assert not built.completion_only_loss
    else:
        assert (built.beta, built.loss_type) == (0.1, ["sigmoid"])


def test_adapters_are_on_every_linear_layer_and_scaled_by_two_at_any_rank() -> None:
    for rank in (4, 64):
        config = lora_config(rank)
        assert config is not None
        assert (config.r, config.lora_alpha / config.r) == (rank, 2)
        assert (config.target_modules, config.use_rslora) == ("all-linear", False)
        assert (config.lora_dropout, config.bias) == (0.0, "none")


@pytest.mark.slow
def test_adapters_at_the_recipe_s_rate_get_half_as_far_as_all_weights() -> None:
    bench = runpy.run_path(str(ROOT / "benchmarks" / "bench_lora.py"))
    scales = ("scale/paper", "scale/paper-1gpu")
    whole, adapted = (load_recipe("paper/int", (), [scale]).train_sft for scale in scales)
    rows, rate = bench["make_rows"](), bench["RATE"]
    raised = rate * adapted.learning_rate / whole.learning_rate
    # Rank 4 here moves weights as rank 64 does in a model 20 times as wide.
    cases = ((rate, 0), (rate, 4), (raised, 4))
    (full, first), (same_rate, _), (recipe_rate, _) = (
        bench["last_loss"](rows, *case) for case in cases
    )
    assert first - recipe_rate > (first - full) / 2
    assert first - same_rate < (first - full) / 5, "the recipe's rate is needed for nothing"
