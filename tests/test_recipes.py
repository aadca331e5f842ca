"""The packaged recipes: found by name from any folder, described in one line each."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from midcourse.config import load_recipe, slow_adapters
from midcourse.errors import ConfigError
from midcourse.recipes import find_accelerate, find_recipe, list_recipes, recipe_text
from test_cli import midcourse

RECIPES = list_recipes()


@pytest.mark.parametrize("info", RECIPES, ids=lambda info: info.name)
def test_every_packaged_recipe_says_in_one_line_what_it_is(info: object) -> None:
    (found,) = [known for known in RECIPES if known == info]
    assert recipe_text(found.name).startswith(f"# {found.summary}\n")
    assert 10 < len(found.summary) <= 90
    assert found.summary.endswith((".", ")."))
    assert tomllib.loads(recipe_text(found.name))


def test_recipes_are_listed_with_whole_runs_first_and_scales_last() -> None:
    names = [info.name for info in RECIPES]
    assert {"lab", "real", "paper/int", "scale/lab", "scale/paper-8gpu"} <= set(names)
    assert names.index("lab") < names.index("paper/int") < names.index("scale/lab")
    assert {info.name for info in RECIPES if info.is_scale} == {
        name for name in names if name.startswith("scale/")
    }


def test_a_file_of_your_own_wins_and_a_folder_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = find_recipe("lab")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper").mkdir()
    (tmp_path / "lab").mkdir()
    assert find_recipe("lab") == find_recipe("lab.toml") == packaged
    (tmp_path / "lab.toml").write_text('name = "mine"')
    assert find_recipe("lab") == packaged
    assert find_recipe("lab.toml") == Path("lab.toml")
    assert find_recipe("paper/int").is_file()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("labb", "did you mean lab"),
        ("recipes/paper/int.toml", r"did you mean paper/int\?"),
        ("paper-8gpu", r"did you mean scale/paper-8gpu\?"),
        ("nothing-like-it", "give a file or a packaged name such as lab"),
        ("../recipes/lab", "did you mean lab or "),
        ("", "give a file"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(asked: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        find_recipe(asked)
    assert "\n" not in str(caught.value)


def test_accelerate_configs_are_found_by_name_or_path(tmp_path: Path) -> None:
    packaged = find_accelerate("accelerate/fsdp2")
    assert packaged == find_accelerate("accelerate/fsdp2.yaml") == find_accelerate(str(packaged))
    own = tmp_path / "own.yaml"
    own.write_text("num_processes: 2")
    assert find_accelerate(str(own)) == own
    with pytest.raises(ConfigError, match=r"no accelerate config at fsdp2, .*accelerate/fsdp2\?"):
        find_accelerate("fsdp2")


def test_the_command_line_lists_and_shows_recipes(tmp_path: Path) -> None:
    listed = midcourse("recipes", cwd=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in listed] == [info.name for info in RECIPES]
    assert listed[0].endswith(RECIPES[0].summary)
    as_json = json.loads(midcourse("recipes", "--json", cwd=tmp_path).stdout)
    assert as_json[0] == {
        "name": RECIPES[0].name, "summary": RECIPES[0].summary, "is_scale": False
    }  # fmt: skip
    assert midcourse("recipes", "show", "lab", cwd=tmp_path).stdout == recipe_text("lab")
    unknown = midcourse("recipes", "show", "labb", cwd=tmp_path)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("midcourse: no recipe at labb")


def test_adapters_at_the_rate_of_all_weights_are_pointed_out() -> None:
    assert not [*slow_adapters(load_recipe("paper/int", (), ["scale/paper-1gpu"]))]
    assert not [*slow_adapters(load_recipe("paper/int", (), ["scale/paper-8gpu"]))]
    too_low = ["train_sft.learning_rate=1e-6", "train_rl.learning_rate=1e-6"]
    lines = [*slow_adapters(load_recipe("paper/int", too_low, ["scale/paper-1gpu"]))]
    assert [line.partition(" ")[0] for line in lines] == [
        "train_sft.learning_rate", "train_rl.learning_rate"
    ]  # fmt: skip
    assert "lora_rank = 64" in lines[0]
    (line,) = slow_adapters(
        load_recipe("paper/int", ["train_proposer.train.lora_rank=8"], ["scale/lab"])
    )
    assert line.startswith("train_proposer.train.learning_rate = 1e-06")


def test_no_packaged_recipe_trains_adapters_that_stay_where_they_begin() -> None:
    for name in ("lab", "real", "gsm8k-smollm2"):
        assert not [*slow_adapters(load_recipe(name))], name
