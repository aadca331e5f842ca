"""Memory of a plan: every part by a sum that a person can do, and what autograd really keeps."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import ModelConfig, TrainRlConfig, TrainSftConfig, TransformersConfig
from midcourse.config import VllmConfig as Vllm
from midcourse.plan.assumptions import Assumptions
from midcourse.plan.devices import Device, data_sheets
from midcourse.plan.memory import Memory, Placed, sampling
from midcourse.plan.remedy import change_engine, change_training
from midcourse.plan.shapes import ModelShape, load_shape
from midcourse.plan.training import (
    Precision,
    Sampler,
    TrainConfig,
    layer_bytes,
    mask_bytes,
    reinforcing,
    tuning,
)

SMALL = ModelShape(
    hidden=4, intermediate=8, layers=2, heads=2, kv_heads=1, head_dim=2, vocabulary=16
)
QWEN = load_shape("Qwen/Qwen3-4B-Instruct-2507")
H100 = data_sheets()["h100"]
SFT = TrainSftConfig(micro_batch_size=1)


def placed(shape: ModelShape = QWEN, device: Device = H100) -> Placed:
    return Placed(ModelConfig(path="x"), shape, device, Assumptions())


def test_every_part_of_a_small_training_is_a_sum_by_hand() -> None:
    parts = tuning(placed(SMALL, data_sheets()["cpu"]), SFT, row=10).parts
    weights = 2 * 4 * (2 * (2 + 1) * 2 + 3 * 8) + 16 * 4  # two layers, embeddings
    assert weights == SMALL.parameters == 352
    layer = 24 * 4 + 16.5 * 4 + 16.25 * 2 + 16 * 8
    assert parts.by_name() == {
        "weights": 4 * weights,
        "adapters": 0,
        "gradients": 4 * weights,
        "optimiser": 8 * weights,
        "activations": 10 * (2 * layer + 3 * 8 * 4 + 11 * 4 * 4),
        "head": 4 * 8.25 * 10 * 16 + 4 * 16 * 4 + 10 * 4 * 8,
        "cache": 0,
        "vllm": 0,
    }
    assert parts.total == sum(parts.by_name().values())


def test_adapters_are_trained_and_the_rest_is_not() -> None:
    cpu, config = data_sheets()["cpu"], SFT.model_copy(update={"lora_rank": 2})
    whole, adapters = (tuning(placed(SMALL, cpu), c, 10).parts for c in (SFT, config))
    number = 2 * 2 * (7 * 4 + 36)  # two layers, rank 2, both sides of seven maps
    assert adapters.weights == whole.weights
    assert (adapters.adapters, adapters.gradients, adapters.optimiser) == (
        4 * number, 4 * number, 8 * number,
    )  # fmt: skip
    assert whole.head - adapters.head == 4 * 16 * 4  # the gradient of the embeddings


def test_on_a_gpu_adapters_are_put_on_a_base_in_bfloat16_unless_vllm_is_there_too() -> None:
    config, rl = SFT.model_copy(update={"lora_rank": 64}), TrainRlConfig(lora_rank=64)
    assert tuning(placed(), config, 1000).parts.weights == 2 * QWEN.parameters

    def weights(sampler: Sampler, **keys: Any) -> float:
        told = rl.model_copy(update={"sampler": sampler.value, **keys})
        (_, updates) = reinforcing(placed(), told, TransformersConfig(), 1000, sampler)
        return updates.parts.weights

    assert weights(Sampler.SERVERS) == weights(Sampler.ENGINE) == 2 * QWEN.parameters
    assert weights(Sampler.ENGINE, dtype="float32") == 4 * QWEN.parameters
    assert weights(Sampler.VLLM) == (4 + 2) * QWEN.parameters  # and autocast's copy
    checkpointed = weights(Sampler.VLLM, gradient_checkpointing=True)
    assert checkpointed == 4 * QWEN.parameters + 2 * QWEN.layer_parameters / 36


def test_logits_are_never_whole() -> None:
    config = SFT.model_copy(update={"gradient_checkpointing": True})
    long, longer = (tuning(placed(), config, row).parts.head for row in (8_192, 16_384))
    assert longer - long == 8_192 * QWEN.hidden * 8
    assert long < 16_384 * QWEN.vocabulary * 2 / 2  # half of the logits in bfloat16


def test_processes_that_shard_hold_a_part_and_those_that_do_not_hold_buckets() -> None:
    one, ddp, fsdp = (
        tuning(placed(), SFT.model_copy(update={"accelerate": accelerate}), 1000).parts
        for accelerate in ("", "accelerate/ddp", "accelerate/fsdp2")
    )
    assert (ddp.gradients, ddp.optimiser) == (2 * one.gradients, one.optimiser)
    assert fsdp.optimiser == one.optimiser / 8
    assert fsdp.weights < one.weights / 4


def test_dpo_trains_two_rows_at_a_time_and_keeps_the_base() -> None:
    cpu = data_sheets()["cpu"]
    sft, dpo = (
        tuning(placed(SMALL, cpu), SFT.model_copy(update={"method": method}), 10).parts
        for method in ("sft", "dpo")
    )
    assert dpo.weights == 2 * sft.weights
    assert dpo.activations > 2 * sft.activations  # pairs are padded, so they have a mask


@pytest.mark.parametrize(("length", "gigabytes"), [(40_960, 6.04), (262_144, 38.65)])
def test_a_server_starts_only_if_its_cache_holds_its_model_s_length(
    length: int, gigabytes: float
) -> None:
    shape = load_shape("Qwen/Qwen3-4B" if length == 40_960 else "Qwen/Qwen3-4B-Instruct-2507")
    held = sampling(placed(shape), Vllm(), longest=17_000)
    assert held.longest is not None
    assert held.longest.tokens == length
    assert held.longest.bytes == pytest.approx(gigabytes * 1e9, rel=1e-3)
    assert held.verdict(H100) == "yes"
    small = data_sheets()["a100-40gb"]
    part = sampling(placed(shape, small), Vllm(), longest=17_000)
    assert part.verdict(small) == ("yes" if length == 40_960 else "no")


def test_the_length_that_is_said_to_fit_does() -> None:
    small = data_sheets()["a100-40gb"]
    at = placed(QWEN, small)
    told = change_engine(at, Vllm(), longest=17_000)
    assert told.startswith("engine.max_context_tokens = ")
    limited = Vllm(max_context_tokens=int(told.split()[-1]))
    assert sampling(at, limited, 17_000).verdict(small) == "yes"
    assert "the longest request has 900,000 tokens" in change_engine(at, Vllm(), longest=900_000)


def colocated(share: float, **changes: Any) -> tuple[TrainRlConfig, list[Memory]]:
    values = {"sampler": "vllm", "vllm_gpu_share": share, "lora_rank": 64, "micro_batch_size": 1}
    config = TrainRlConfig.model_validate(values | {"gradient_checkpointing": True} | changes)
    return config, reinforcing(placed(), config, Vllm(), 16_584, Sampler.VLLM)


def test_vllm_on_a_training_device_takes_its_share_and_must_hold_one_rollout() -> None:
    _, (samples, updates) = colocated(0.45)
    assert samples.parts.vllm == updates.parts.vllm == 0.45 * 80e9
    assert samples.longest is not None
    assert samples.longest.cache == 0.45 * 80e9 - 2 * QWEN.parameters - 2e9
    assert {samples.verdict(H100), updates.verdict(H100)} == {"yes"}
    assert samples.parts.activations == samples.parts.gradients == 0
    _, (samples, _) = colocated(0.13)
    assert samples.problem(H100).startswith(
        "the cache of 355.5 MB does not hold one sequence of 16,"
    )
    _, (_, updates) = colocated(0.7)
    assert updates.verdict(H100) == "no"
    assert "too much, with 56.0 GB of vllm" in updates.problem(H100)


@pytest.mark.parametrize("share", [0.13, 0.7])
def test_a_share_that_fits_is_found(share: float) -> None:
    config, _ = colocated(share)

    def memory(config: TrainConfig) -> list[Memory]:
        assert isinstance(config, TrainRlConfig)
        return reinforcing(placed(), config, Vllm(), 16_584, Sampler.VLLM)

    told = change_training(config, H100, memory)
    key, value = told.split(" = ")
    assert key == "train_rl.vllm_gpu_share"
    changed = config.model_copy(update={"vllm_gpu_share": float(value)})
    assert {phase.verdict(H100) for phase in memory(changed)} == {"yes"}


def test_our_engine_samples_the_weights_in_training_and_adds_its_cache() -> None:
    config = TrainRlConfig(prompts_per_iteration=2, num_generations=4)
    few, many = (TransformersConfig(max_batch_rows=rows, kv_cache_gib=8) for rows in (2, 99))
    for engine, rows in ((few, 2), (many, 8)):
        at = placed(load_shape("qwen3-0.6b"))
        samples, updates = reinforcing(at, config, engine, 1000, Sampler.ENGINE)
        assert samples.parts.cache == rows * 1000 * at.shape.kv_bytes(4)
        assert samples.parts.weights == updates.parts.weights  # no second copy
    elsewhere, _ = reinforcing(placed(), config, few, 1000, Sampler.SERVERS)
    assert elsewhere.parts.cache == elsewhere.parts.vllm == 0
    told = {"devices": ["0"], "server_arguments": ["--gpu-memory-utilization", "0.45"]}
    shared = TrainRlConfig.model_validate({"sampler": "servers", "servers": told})
    for phase in reinforcing(placed(), shared, few, 1000, Sampler.SERVERS):
        assert phase.parts.vllm == 0.45 * H100.memory_bytes, "a server on a training device"
    tight = TransformersConfig(kv_cache_gib=0.01)
    samples, _ = reinforcing(placed(), config, tight, 1000, Sampler.ENGINE)
    assert samples.verdict(H100) == "no"


def kept_by_autograd(*, layers: int, tokens: int, lora: int, mixed: bool, base: str) -> int:
    """Return the bytes that a Qwen3 of so many layers keeps of a padded pair of rows, halved."""
    import torch
    from peft import get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from midcourse.training.common import lora_config

    config = Qwen3Config(
        vocab_size=64, hidden_size=WIDTHS.hidden, intermediate_size=WIDTHS.intermediate,
        num_hidden_layers=layers, num_attention_heads=WIDTHS.heads, tie_word_embeddings=True,
        num_key_value_heads=WIDTHS.kv_heads, head_dim=WIDTHS.head_dim,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).to(getattr(torch, base)).train()
    if lora:
        get_peft_model(model, lora_config(lora))
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    ids = torch.zeros(2, tokens, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    autocast = torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        model.model(input_ids=ids, attention_mask=mask, use_cache=False)
    found = [t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights]
    return sum(found) // 2


WIDTHS = ModelShape(
    hidden=96, intermediate=160, layers=1, heads=4, kv_heads=2, head_dim=16, vocabulary=64
)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize("precision", list(Precision))
def test_a_layer_keeps_what_the_plan_says(precision: Precision, lora: int) -> None:
    base = "bfloat16" if precision is Precision.BFLOAT16 else "float32"
    mixed = precision is not Precision.FLOAT32

    def layer(tokens: int) -> int:
        one, two = (
            kept_by_autograd(layers=layers, tokens=tokens, lora=lora, mixed=mixed, base=base)
            for layers in (1, 2)
        )
        return two - one

    def planned(tokens: int) -> float:
        each = layer_bytes(WIDTHS, precision, lora) * tokens
        return each + mask_bytes(WIDTHS, precision, tokens)

    # The difference of two lengths, for copies of weights do not grow with them.
    measured, predicted = layer(256) - layer(64), planned(256) - planned(64)
    assert measured <= predicted * 1.01
    assert predicted <= measured * 1.1


def test_only_a_base_that_never_changes_is_loaded_in_bfloat16() -> None:
    import torch

    from midcourse.training.common import base_dtype

    def is_half(on_gpu: bool = True, sharded: bool = False, rl: bool = False, **keys: Any) -> bool:
        config = TrainRlConfig(**keys) if rl else TrainSftConfig(**keys)
        return base_dtype(config, on_gpu=on_gpu, sharded=sharded) is torch.bfloat16

    assert is_half(lora_rank=8)
    assert is_half(lora_rank=8, rl=True)
    assert is_half(lora_rank=8, rl=True, sampler="servers")
    assert is_half(lora_rank=8, on_gpu=False, dtype="bfloat16")
    assert not is_half()
    assert not is_half(dtype="bfloat16")
    assert not is_half(lora_rank=8, on_gpu=False)
    assert not is_half(lora_rank=8, dtype="float32")
    assert not is_half(lora_rank=8, sharded=True)
    assert not is_half(lora_rank=8, rl=True, sampler="vllm")


@pytest.mark.slow
def test_adapters_are_added_to_a_base_in_bfloat16_without_rounding(tmp_path: Path) -> None:
    import torch
    from peft import get_peft_model

    from midcourse.engines.bundled import base_folder
    from midcourse.training.common import base_dtype, load_model, lora_config

    dtype = base_dtype(TrainSftConfig(lora_rank=8), on_gpu=True, sharded=False)
    assert dtype is torch.bfloat16
    model = get_peft_model(load_model(str(base_folder()), dtype), lora_config(8))
    adapter = model.base_model.model.model.layers[0].mlp.up_proj
    assert adapter.base_layer.weight.dtype is torch.bfloat16
    assert adapter.lora_B["default"].weight.dtype is torch.float32
    with torch.no_grad():
        adapter.lora_B["default"].weight.fill_(1e-5)
    before = adapter.base_layer.weight.detach().float().clone()
    added = adapter.get_delta_weight("default").detach().clone()
    assert added.abs().max() > 0
    whole = model.float().merge_and_unload().model.layers[0].mlp.up_proj.weight
    assert torch.allclose(whole - before, added, atol=1e-7)


def drift(dtype: str, trips: int) -> float:
    """Return how far merging and subtracting moves a base, relative to what its adapters add."""
    import torch
    from peft import get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from midcourse.training.common import lora_config

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64, hidden_size=256, intermediate_size=512, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64,
    )  # fmt: skip
    model = get_peft_model(Qwen3ForCausalLM(config).to(getattr(torch, dtype)), lora_config(16))
    layers = [module for module in model.modules() if hasattr(module, "get_delta_weight")]
    before = [layer.base_layer.weight.detach().clone() for layer in layers]
    with torch.no_grad():
        for _ in range(trips):
            for layer in layers:
                for weight in (layer.lora_A["default"].weight, layer.lora_B["default"].weight):
                    weight += 1e-4 * torch.randn_like(weight)
            model.merge_adapter()
            model.unmerge_adapter()
        added = sum(float(layer.get_delta_weight("default").square().sum()) for layer in layers)
        moved = sum(
            float((layer.base_layer.weight.float() - old.float()).square().sum())
            for layer, old in zip(layers, before, strict=True)
        )
    return float((moved / added) ** 0.5)


@pytest.mark.slow
def test_before_every_sampling_adapters_are_merged_and_bfloat16_would_not_give_back_the_base() -> (
    None
):
    assert drift("float32", 100) < 1e-4
    assert drift("bfloat16", 100) > 0.05
