"""Finding one's way: groups, examples, suggestions, completion, and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from documented import check_command
from midcourse import __version__
from midcourse.cli import app
from midcourse.cli.app import Group
from midcourse.config import describe_keys, recipe_schema
from midcourse.plan.devices import data_sheets
from midcourse.recipes import list_recipes


def ask(*arguments: str, **environment: str) -> Result:
    wide = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(
        app, list(arguments), prog_name="midcourse", env={**wide, **environment}
    )


def verbs(command: Any, name: str = "midcourse") -> Iterator[tuple[str, Any]]:
    """Yield every verb and every group of verbs, by its full name."""
    yield name, command
    for inner, sub in getattr(command, "commands", {}).items():
        yield from verbs(sub, f"{name} {inner}")


ROOT = typer.main.get_command(app)
VERBS = [pytest.param(name, verb, id=name) for name, verb in verbs(ROOT) if verb is not ROOT]


@pytest.mark.parametrize(("name", "verb"), VERBS)
def test_every_verb_has_an_example_that_parses(name: str, verb: Any) -> None:
    label, _, example = (verb.epilog or "").partition(": ")
    assert label == "Example"
    assert example.startswith(name)
    check_command(example)
    assert f" {example}" in ask(*name.split()[1:], "-h").stdout


def test_verbs_are_listed_by_group_and_in_the_order_of_the_flow() -> None:
    said = ask("--help").stdout
    starts = [said.index(f"─ {group} ") for group in Group]
    assert starts == sorted(starts)
    flow = "recipes plan run sample grade select propose verify build-sft train evaluate report"
    places = [said.index(f"│ {verb} ") for verb in [*flow.split(), "status", "export", "reproduce"]]
    assert places == sorted(places)
    assert "─ Commands" not in said
    assert "train sft" in said
    assert "train rl" in said


def test_help_has_a_short_name_and_the_version_is_told() -> None:
    assert ask("-h").stdout == ask("--help").stdout
    assert ask("train", "rl", "-h").exit_code == 0
    assert ask("--version").stdout == f"midcourse {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("propse my.toml", "No such command 'propse'. Did you mean 'propose' or 'train proposer'?"),
        ("sft my.toml", "No such command 'sft'. Did you mean 'train sft'?"),
        ("pretrain", "Did you mean 'lab pretrain'?"),
        ("train sftt lab", "Did you mean 'sft'?"),
        ("frobnicate", "No such command 'frobnicate'."),
        ("run lab --sett seed=1", "--set"),
        ("run", "Missing argument"),
        ("x\x1b[2J", "No such command 'x\\x1b[2J'."),
    ],
)
def test_a_mistyped_verb_or_option_names_the_nearest(typed: str, said: str) -> None:
    done = ask(*typed.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("midcourse prop", ["propose"]),
        ("midcourse train ", ["sft", "rl", "proposer"]),
        ("midcourse run scale/paper-", ["scale/paper-1gpu", "scale/paper-8gpu"]),
        ("midcourse run m", ["mine/", "my.toml"]),
        ("midcourse run mine/", ["mine/other.toml"]),
        ("midcourse plan lab --with scale/l", ["scale/lab"]),
        ("midcourse run lab --set train_rl.los", ["train_rl.loss="]),
        ("midcourse run lab --set train_rl.order=e", ["train_rl.order=easy_first"]),
        ("midcourse export runs/x --format ver", ["verl", "verifiers"]),
        ("midcourse plan lab --device h2", ["h200"]),
        ("midcourse reproduce table1", ["table1"]),
        ("midcourse recipes show gsm8k", [i.name for i in list_recipes() if "gsm8k" in i.name]),
        ("midcourse keys train_rl.onl", ["train_rl.online"]),
    ],
)
def test_a_shell_completes(
    typed: str, completed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    for file in ("my.toml", "mine/other.toml", "mine.txt"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    environment = {"_MIDCOURSE_COMPLETE": "complete_bash", "COMP_WORDS": typed}
    done = ask(COMP_CWORD=str(typed.count(" ")), **environment)
    found = done.stdout.split()
    assert found[: len(completed)] == completed, done.stdout


def test_keys_are_listed_by_section_name_and_text() -> None:
    section = json.loads(ask("keys", "train_rl.online", "--json").stdout)
    assert [key["name"] for key in section][:2] == [
        "train_rl.online.share",
        "train_rl.online.max_cases",
    ]
    assert section[1] == {
        "name": "train_rl.online.max_cases", "default": 8, "required": False,
        "takes": "a whole number ≥ 1", "allowed": [], "tunable": False,
        "meaning": "Groups of an iteration, at most, of which a rollout is asked about.",
    }  # fmt: skip
    (loss,) = json.loads(ask("keys", "train_rl.loss", "--json").stdout)
    assert loss["allowed"][0] == "sequence_mean"
    rates = json.loads(ask("keys", "learning_rate", "--json").stdout)
    assert {"train_sft.learning_rate", "train_rl.learning_rate"} <= {k["name"] for k in rates}
    (path,) = json.loads(ask("keys", "model.path", "--json").stdout)
    assert (path["required"], path["default"]) == (True, None)
    everything = json.loads(ask("keys", "--json").stdout)
    assert len(everything) == len(describe_keys())
    assert ask("keys", "train_rl.loss").stdout.count("\n") == 3  # a Markdown table of one row
    refused = ask("keys", "trian_rl")
    assert "did you mean train_rl or" in str(refused.exception)


def test_a_terminal_lists_keys_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich then takes the output for a terminal
    said = ask("keys", "train_sft.method", NO_COLOR="1").stdout
    assert "train_sft.method" in said
    assert "|---|" not in said
    assert "    one of sft, dpo" in said
    assert "|---|" in ask("keys", "train_sft.method", "--markdown").stdout


def test_the_schema_of_recipes_knows_every_key() -> None:
    schema = json.loads(ask("keys", "--schema").stdout)
    assert schema == json.loads(json.dumps(recipe_schema()))
    assert set(schema["properties"]) > {"extends", "name", "train_rl"}
    assert not [name for name, of in schema["$defs"].items() if "required" in of]
    loss = schema["$defs"]["TrainRlConfig"]["properties"]["loss"]
    assert "token_mean" in loss["enum"]
    assert loss["description"].startswith("What a token's loss is divided by")


def test_a_plan_is_numbers_for_a_program() -> None:
    done = ask("plan", "paper/int", "--with", "scale/paper-8gpu", "--device", "h200", "--json")
    plan = json.loads(done.stdout)
    assert (plan["recipe"], plan["device"]) == ("int", data_sheets()["h200"].name)
    assert plan["assumptions"]["rollout_tokens"]["from"] == "default"
    stages = {stage["stage"]: stage for stage in plan["stages"]}
    assert stages["sample train"]["tokens"] > 1e6
    assert plan["device_seconds"] > sum(stage["seconds"] for stage in plan["stages"])
    phase = plan["memory"][0]
    assert sum(phase["parts"].values()) == pytest.approx(phase["bytes"])
    assert phase["fits"] in ("yes", "tight", "no")


def test_complaints_about_problems_are_one_document(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"id": "a", "problem": "x?", "answer": "1"}) + "\n")
    done = ask("validate", str(file), "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (
        0,
        {"problems": str(file), "is_sound": True, "complaints": []},
    )
    file.write_text(json.dumps({"id": "a", "problem": "x?"}) + "\n")
    done = ask("validate", str(file), "--json")
    said = json.loads(done.stdout)
    assert (done.exit_code, said["is_sound"], len(said["complaints"])) == (1, False, 1)


def test_recipes_are_one_document() -> None:
    found = json.loads(ask("recipes", "--json").stdout)
    assert {recipe["name"] for recipe in found} == {info.name for info in list_recipes()}
