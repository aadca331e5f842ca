"""Recipes: layers, engines by kind, what is refused, what may change at a resume."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import (
    Key,
    OpenAIConfig,
    RayConfig,
    Recipe,
    VllmConfig,
    describe_keys,
    load_recipe,
    make_recipe,
)
from midcourse.errors import ConfigError
from midcourse.tokens import Asked

BASE: dict[str, Any] = {"name": "x", "model": {"path": "lab"}}


def recipe(**sections: Any) -> Recipe:
    return make_recipe({**BASE, **sections}, [], "test")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"engine": {"kind": "vllm", "device": "cpu"}}, "unknown key 'engine.device'"),
    ({"engine": {"urls": ["http://a/v1"]}}, "unknown key 'engine.urls'"),
    ({"engine": {"kind": "vlm"}}, "engine.kind: "),
    ({"engine": {"kind": "openai", "served_model": "m"}}, "serves the base alone"),
    (
        {"engine": {"kind": "openai", "chat": True}, "evaluate": {"models": ["base"]}},
        "a chat-only server may propose",
    ),
    ({"engine": {"kind": "ray", "inner": {"kind": "openai"}}}, r"engine\.inner"),
    ({"sample": {"rounds": [4, 12]}}, "rounds .* must be positive and sum to num_rollouts=64"),
    ({"verify": {"conditions": ["reflection"]}}, "'reflection' is not a row of Table 1"),
    ({"build_sft": {"source": "distillation"}}, "needs build_sft.teacher"),
    ({"train_sft": {"method": "dpo"}, "build_sft": {"suffix": True}}, "'dpo' compares"),
    ({"problems": {"part": [0.5, 0.2]}}, r"problems\.part"),
    ({"sample": {"sampling": {"temperatur": 1}}}, "did you mean 'sample.sampling.temperature'"),
    ({"evaluate": {"models": ["base + SFT"]}}, r"evaluate\.models"),
    ({"name": "../x"}, "name: "),
]


@pytest.mark.parametrize(("sections", "said"), REFUSED)
def test_what_cannot_be_meant_is_one_line(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        recipe(**sections)
    assert "\n" not in str(caught.value)


def test_there_is_no_default_model() -> None:
    with pytest.raises(ConfigError, match="model: is missing"):
        make_recipe({"name": "x"}, [], "test")


def test_an_engine_has_the_keys_of_its_kind() -> None:
    server = {"kind": "openai", "served_model": "m", "urls": ["http://a/v1"]}
    made = recipe(engine=server, evaluate={"models": ["base"]})
    assert isinstance(made.engine, OpenAIConfig)
    spread = recipe(engine={"kind": "ray", "num_actors": 2, "inner": {"kind": "vllm"}})
    assert isinstance(spread.engine, RayConfig)
    assert isinstance(spread.engine.inner, VllmConfig)


def test_another_kind_of_engine_replaces_the_keys_it_lacks() -> None:
    below = {"engine": {"device": "cpu", "max_context_tokens": 500}}
    changed = make_recipe({**BASE, **below}, ["engine.kind=vllm"], "test")
    assert changed.engine == VllmConfig(max_context_tokens=500)
    same = make_recipe({**BASE, **below}, ["engine.kind=transformers"], "test")
    assert same == recipe(**below)


def test_another_engine_may_serve_the_proposer_where_the_policy_is_trained() -> None:
    made = recipe(proposer_engine={"kind": "openai", "served_model": "m", "chat": True})
    assert isinstance(made.proposer_engine, OpenAIConfig)


def test_a_recipe_stands_on_what_it_extends(tmp_path: Path) -> None:
    below, above, other = (tmp_path / f"{name}.toml" for name in ("below", "above", "other"))
    below.write_text('name = "below"\nseed = 1\n[sample]\nnum_rollouts = 8\n')
    above.write_text(f'extends = "{below}"\nname = "above"\nmodel.path = "lab"\n')
    other.write_text(f'extends = "{below}"\n[grade]\nnum_workers = 1\n')
    made = load_recipe(above)
    assert (made.name, made.seed, made.sample.num_rollouts) == ("above", 1, 8)
    both = load_recipe(above, [], [other])  # What is there already is not laid on top again.
    assert (both.name, both.grade.num_workers) == ("above", 1)
    above.write_text('extends = "nowhere"\nname = "above"\n')
    with pytest.raises(ConfigError, match="nowhere"):
        load_recipe(above)


def by_name(name: str) -> Key:
    return next(key for key in describe_keys() if key.name == name)


def test_every_value_that_is_listed_is_accepted_and_no_other() -> None:
    enumerations = [key for key in describe_keys() if key.allowed and "." in key.name]
    assert len(enumerations) > 15
    for key in enumerations:
        is_list, is_table = key.default.startswith("["), key.default.startswith("{")
        refused = re.compile(rf"test: {re.escape(key.name)}(\.\w+(\.\[key\])?)?: ")
        for value in (*key.allowed, "nonsense"):
            given = [value] if is_list else {value: 1.0} if is_table else value
            complaint = complaint_about(key.name, given)
            assert bool(refused.match(complaint)) is (value == "nonsense"), (key.name, complaint)


def complaint_about(name: str, value: object) -> str:
    section, _, rest = name.partition(".")
    nested: dict[str, Any] = {}
    place = nested
    *folders, last = rest.split(".")
    for folder in folders:
        place = place.setdefault(folder, {})
    place[last] = value
    try:
        recipe(**{section: {**BASE.get(section, {}), **nested}})
    except ConfigError as error:
        return str(error)
    return ""


#: Keys that make a run faster or put it elsewhere; every other key decides a result.
TUNABLE = {
    "credit.measures", "environment.timeout_seconds",
    "report_to", "report_project", "model.chat_template", "name", "prompts",
    "max_failed_share", "sample.max_duplicate_share",
    "engine.device", "engine.max_batch_rows", "engine.kv_cache_gib", "engine.num_threads",
    "engine.server_python",
    "engine.devices", "engine.concurrency", "engine.timeout_seconds", "engine.urls",
    "engine.api_key_env", "engine.address", "engine.num_actors", "engine.actor_cpus",
    "engine.actor_gpus", "engine.script",
    "grade.timeout_seconds", "grade.num_workers", "grade.memory_mib", "grade.sandbox",
    "train_sft.micro_batch_size", "train_sft.gradient_checkpointing", "train_sft.save_every",
    "train_sft.accelerate",
    "train_rl.micro_batch_size", "train_rl.gradient_checkpointing", "train_rl.save_every",
    "train_rl.accelerate", "train_rl.vllm_gpu_share", "train_rl.max_logprob_gap",
    "train_rl.servers.server_python", "train_rl.servers.devices", "train_rl.servers.kv_cache_gib",
    "train_rl.servers.concurrency", "train_rl.servers.timeout_seconds",
    *(f"prices.{who}.{way}" for who in Asked for way in ("input", "output")),
}  # fmt: skip


def test_tunable_keys_are_those_that_decide_no_result() -> None:
    on_rows = {f"{of}.train." for of in ("warmup.worked", "warmup.verification", "train_proposer")}
    also = {
        key.replace("train_sft.", start)
        for start in on_rows
        for key in TUNABLE
        if key.startswith("train_sft.")
    }
    assert {key.name for key in describe_keys() if key.tunable} == TUNABLE | also


def test_kept_checkpoints_are_those_of_the_iterations_that_were_named() -> None:
    def identity(**rl: Any) -> object:
        return recipe(train_rl=rl).train_rl.identity()

    assert identity(save_every=10) == identity(save_every=20) == {}
    kept = {"keep_checkpoints": True}
    assert identity(save_every=10, **kept) != identity(save_every=20, **kept)


def test_a_default_that_is_written_out_names_the_same_thing() -> None:
    assert recipe(sample={"num_rollouts": 64}).sample.identity() == recipe().sample.identity()
    assert recipe(sample={"num_rollouts": 65}).sample.identity() == {"num_rollouts": 65}
    # A section's own defaults may differ from its type's; both are told from each other.
    cold = {"sampling": {"temperature": 1.0, "top_p": 0.8, "top_k": 20}}
    assert recipe(evaluate=cold).evaluate.identity() != recipe().evaluate.identity()


def test_every_key_has_a_meaning_and_a_default() -> None:
    for key in describe_keys():
        assert key.meaning.strip(" :"), key.name
        assert key.default, key.name
    assert by_name("model.path").default == "required"
    assert "reflection" not in by_name("verify.conditions").allowed
