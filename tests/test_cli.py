"""The command line as a user meets it, in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import ModelConfig, Recipe, describe_keys, key_table, load_recipe
from midcourse.errors import ConfigError
from midcourse.recipes import list_recipes, recipe_text
from midcourse.records import TABLE_1

ROOT = Path(__file__).parent.parent


def midcourse(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "midcourse", *arguments], capture_output=True, text=True, cwd=cwd,
        check=False,
    )  # fmt: skip


def toml(data: dict[str, Any]) -> str:
    lines = [f"{k} = {json.dumps(v)}" for k, v in data.items() if not isinstance(v, dict)]
    for name, section in data.items():
        if isinstance(section, dict):
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in section.items())]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "code", ["import midcourse.cli", "import midcourse.pipeline", "import midcourse.report.write"]
)
def test_nothing_light_loads_torch(code: str) -> None:
    heavy = "torch", "transformers", "trl", "matplotlib", "sympy"
    check = f"{code}; import sys; sys.exit(str([m for m in {heavy} if m in sys.modules] or ''))"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert result.stderr.strip() == ""


def test_help_names_every_stage() -> None:
    said = midcourse("--help").stdout
    for verb in ("run", "sample", "grade", "select", "reference", "propose", "verify", "reestimate",
                 "build-sft", "train",
                 "evaluate", "likelihood", "report", "status", "show", "validate",
                 "localize", "credit", "export", "plan", "keys", "recipes", "reproduce", "curate",
                 "warmup",
                 "lab"):  # fmt: skip
        assert verb in said


#: Those of paper/ and scale/ are layered on each other: tests/test_experiments.py.
WHOLE_RUNS = [info.name for info in list_recipes() if "/" not in info.name]


@pytest.mark.parametrize("name", WHOLE_RUNS)
def test_every_recipe_loads(name: str) -> None:
    assert load_recipe(name).name == name


def test_overlays_merge_tables_and_replace_the_rest(tmp_path: Path) -> None:
    files = {
        "a": 'name = "a"\nmodel.path = "lab"\n'
        "[evaluate]\nks = [1, 2, 4]\nsampling = {top_p = 0.5, top_k = 7}",
        "b": "seed = 3\n[evaluate]\nks = [1]\nsampling = {top_k = 9}",
        "c": "[evaluate]\nnum_rollouts = 2",
    }
    a, b, c = (tmp_path / f"{name}.toml" for name in files)
    for path, text in zip((a, b, c), files.values(), strict=True):
        path.write_text(text)
    recipe = load_recipe(a, ["seed=4"], [b, c])
    assert (recipe.name, recipe.seed, recipe.evaluate.ks) == ("a", 4, (1,))
    assert recipe.evaluate.num_rollouts == 2
    assert (recipe.evaluate.sampling.top_p, recipe.evaluate.sampling.top_k) == (0.5, 9)
    c.write_text("[evaluate]\nnum_rollout = 2")
    with pytest.raises(ConfigError, match=r"/c\.toml:2: unknown key 'evaluate.num_roll"):
        load_recipe(a, (), [b, c])
    with pytest.raises(ConfigError, match=r"no recipe at .*d\.toml"):
        load_recipe(a, (), [tmp_path / "d.toml"])


def test_the_lab_is_the_method_at_the_lab_s_scale() -> None:
    lab = load_recipe("lab")
    table_1 = 'verify.conditions=["problem", "prefix", "prefix_error", "prefix_intervention"]'
    assert load_recipe("paper/int", ["name=lab", table_1], ["scale/lab"]) == lab


@pytest.mark.parametrize("machine", ["paper-1gpu", "paper-8gpu"])
def test_the_machine_is_layered_on_the_paper_s_scale(machine: str) -> None:
    layered = load_recipe("paper/int", (), ["scale/paper", f"scale/{machine}"])
    assert load_recipe("paper/int", (), [f"scale/{machine}"]) == layered
    assert layered.name == "int"


def test_the_documented_keys_are_the_keys() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    table = "\n".join(key_table())
    assert f"\n\n{table}\n" in page
    assert midcourse("keys").stdout == f"{table}\n"
    keys = describe_keys()
    assert len(key_table()) == len(keys) + 2
    # Of an engine's key the meaning follows the kind: "``vllm``: Per request."
    assert not [key.name for key in keys if not key.meaning.removesuffix(": ").strip("`a-z")]


def test_every_enumeration_lists_its_values() -> None:
    schema = Recipe.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    fields = [item for section in sections for item in section.get("properties", {}).items()]
    enumerations = [(name, values) for name, field in fields if (values := _values(field, schema))]
    assert len(enumerations) > 15
    listed = {(key.name.rpartition(".")[2], key.allowed) for key in describe_keys()}
    for name, values in enumerations:
        if name == "conditions":  # Those that write solutions are not rows of Table 1.
            values = list(TABLE_1)
        assert (name, tuple(values)) in listed
    assert ("kind", ("transformers", "vllm", "openai", "ray", "scripted")) in listed


def _values(field: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Return the values that a JSON schema allows, of a field or of the items of a list."""
    field = field.get("items", field)
    if "$ref" in field:
        field = schema["$defs"][field["$ref"].rpartition("/")[2]]
    values: list[str] = field.get("enum", [])
    return values


def test_a_recipe_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    model = 'model.path = "lab"\n'
    cases = {
        'name = "x"': "model: is missing: give it a value: a folder, a hub name, or 'lab'",
        'name = "x"\n[sample]\nnum_rollout = 3': "unknown key 'sample.num_rollout'; did you",
        'name = "x"\n[sample]\nnum_rollouts = 0': "num_rollouts: must be a whole number ≥ 1, not 0",
        "name = ": "is not TOML",
        'name = "a b"': "name: ",
        'name = "x"\n[evaluate]\nks = [999]': "more than num_rollouts",
    }
    for text, said in cases.items():
        path.write_text(text if "model" in said else model + text)
        with pytest.raises(ConfigError, match=said) as caught:
            load_recipe(path)
        assert "\n" not in str(caught.value)
    path.write_text(model + 'name = "x"')
    assert load_recipe(path, ["sample.num_rollouts=5", "prompts=lab"]).sample.num_rollouts == 5
    with pytest.raises(ConfigError, match="write key=value"):
        load_recipe(path, ["sample.num_rollouts"])


def test_defaults_are_the_paper_s() -> None:
    recipe = Recipe(name="x", model=ModelConfig(path="lab"))
    sft, rl = recipe.train_sft, recipe.train_rl
    assert (sft.num_epochs, sft.batch_size, sft.learning_rate) == (4.0, 64, 1e-6)
    assert (sft.min_lr_rate, sft.warmup_ratio) == (0.1, 0.1)
    assert (rl.prompts_per_iteration, rl.num_generations, rl.num_updates) == (32, 8, 2)
    assert (rl.learning_rate, rl.advantage, rl.num_iterations) == (1e-6, "mean", 400)
    assert recipe.verify.num_continuations == 32
    evaluation = recipe.evaluate.sampling
    assert (evaluation.temperature, evaluation.top_p, evaluation.top_k) == (0.7, 0.8, 20)


@pytest.mark.slow
def test_verbs_run_and_errors_are_one_line(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    path, run = tmp_path / "r.toml", str(tmp_path / "run")
    path.write_text(toml(recipe_data))
    done = midcourse("build-sft", str(path), "--run-dir", run)
    assert (done.returncode, done.stderr) == (0, "")
    assert "build-sft: complete" in done.stdout
    for verb in ("reference", "reestimate"):
        assert f"{verb}: complete" in midcourse(verb, str(path), "--run-dir", run).stdout
    refused = midcourse("sample", str(path), "--run-dir", run, "--set", "seed=7")
    assert refused.returncode == 1
    assert refused.stderr.startswith("midcourse: ")
    assert refused.stderr.count("\n") == 1
    assert "seed: 0 → 7" in refused.stderr
    assert "propose" in midcourse("status", run).stdout
    assert "accepted" in midcourse("show", run).stdout
    handed = midcourse("export", run, "--format", "verl", "--out", str(tmp_path / "handover"))
    assert "not faithful: adds end-of-turn" in handed.stdout
    assert midcourse("show", run, "nobody").returncode == 1


def test_validate_lists_every_complaint(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps({"id": "a", "problem": "x?", "answer": "1/2"}) + "\n")
    assert midcourse("validate", str(good)).returncode == 0
    bad = tmp_path / "bad.jsonl"
    rows = [
        {"id": "a", "problem": "x?", "answer": "1"},
        {"id": "a", "problem": "y?", "answer": "2"},
        {"id": "b", "problem": "z?"},
    ]
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = midcourse("validate", str(bad))
    assert result.returncode == 1
    assert "bad.jsonl:2" in result.stdout
    assert "bad.jsonl:3" in result.stdout


def test_the_lab_recipe_is_as_large_as_it_claims() -> None:
    data = tomllib.loads(recipe_text("lab"))
    problems = data["problems"]
    assert problems["num_composed"] + problems["num_single"] + problems["num_known"] >= 60
    assert data["sample"]["num_rollouts"] >= 64
    assert data["evaluate"]["num_rollouts"] >= 32
    assert data["train_rl"]["num_iterations"] >= 25
