"""What is wrong with a recipe: all of it at once, in words, with the file and the line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from midcourse.config import Recipe, load_recipe, make_recipe
from midcourse.config.lines import key_lines
from midcourse.errors import ConfigError
from midcourse.recipes import list_recipes, recipe_text

GOOD = 'name = "x"\nmodel.path = "lab"\n'


def complaints(*texts: str, overrides: tuple[str, ...] = (), folder: Path) -> list[str]:
    """Load layered texts, saved as a.toml, b.toml …; return the lines of the error."""
    files = [folder / f"{'abc'[number]}.toml" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(files[0], overrides, files[1:])
    return str(caught.value).replace(f"{folder}/", "").split("\n")


def test_every_mistake_is_said_with_its_file_and_line(tmp_path: Path) -> None:
    first = (
        'name = "my run"\nseeds = 3\n[model]\npath = "lab"\n[smaple]\nnum_rollouts = 3\n'
        '[evaluate]\nks = [\n  1,\n  "x",\n]\nsampling = { top_p = 0 }\n'
    )
    second = '[train_rl]\nloss = "token_meen"\nkeep_checkpoints = "perhaps"\n'
    wrong = ("grade.num_workers=-1", "nothing")
    assert complaints(first, second, overrides=wrong, folder=tmp_path) == [
        "9 mistakes in a.toml with b.toml:",
        "  --set 'nothing': write key=value, e.g. sample.num_rollouts=8",
        "  a.toml:1: name: 'my run' names no folder: use letters, digits, '.', '_' and '-', at "
        "most 200, a letter or digit first",
        "  a.toml:2: unknown key 'seeds'; did you mean 'seed'?",
        "  a.toml:5: unknown section [smaple]; did you mean [sample]?",
        "  a.toml:8: evaluate.ks: each must be a whole number, not 'x'",
        "  a.toml:12: evaluate.sampling.top_p: must be a number > 0 and ≤ 1, not 0",
        "  b.toml:2: train_rl.loss: must be one of sequence_mean, token_mean, constant_length, "
        "token_sum, not 'token_meen'; did you mean 'token_mean'?",
        "  b.toml:3: train_rl.keep_checkpoints: must be true or false, not 'perhaps'",
        "  --set: grade.num_workers: must be a whole number ≥ 1, not -1",
    ]


def test_contradictions_are_said_next_to_wrong_values(tmp_path: Path) -> None:
    text = (
        f'{GOOD}[sample]\nrounds = [1, 2]\n[train_rl]\norder = "easy_first"\nproblems = "hard"\n'
        'hint_shares = [0.5]\nanneal_share = 0\n[build_sft]\nsource = "distillation"\n'
    )
    assert complaints(text, folder=tmp_path) == [
        "5 mistakes in a.toml:",
        "  a.toml:4: sample: rounds [1, 2] must be positive and sum to num_rollouts=64",
        "  a.toml:6: train_rl.order: hard problems have one pass rate: set train_rl.problems = "
        "'all'",
        "  a.toml:8: train_rl: hint_shares are of hints: give hint a share in contexts",
        "  a.toml:9: train_rl.anneal_share: must be a number > 0 and ≤ 1, not 0",
        "  a.toml:11: build_sft.source 'distillation' needs build_sft.teacher or teacher_engine",
    ]


@pytest.mark.parametrize(
    "text",
    [
        '[build_sft]\nsource = "distillation"\nteachr = "x"',
        '[build_sft]\nsource = "distillation"\nteacher = 3',
        "[smple]\nnum_rollouts = 16\n[sample]\nrounds = [4, 12]\nmax_tokens = 3",
        '[engine]\nkind = "opnai"\nurls = ["http://a/v1"]\nserved_model = "m"',
    ],
)
def test_what_may_follow_from_a_mistake_is_not_another(text: str, tmp_path: Path) -> None:
    said = complaints(GOOD + text, folder=tmp_path)
    assert not re.search("needs build_sft|known keys|serves the base", "".join(said))


def test_a_missing_value_hides_no_contradiction(tmp_path: Path) -> None:
    said = complaints(
        '[propose]\ntruth = true\nreference = "none"\n[model]\nrevision = "x"', folder=tmp_path
    )
    assert said[1:] == [
        "  a.toml: name: is missing: give it a value",
        "  a.toml:2: propose.truth reads the problem's own reference: leave out propose.reference",
        "  a.toml:4: model.path: is missing: give it a value: a folder, a hub name, or 'lab'",
    ]


def test_one_mistake_is_one_line(tmp_path: Path) -> None:
    assert complaints(f"{GOOD}sample.num_rollout = 3", folder=tmp_path) == [
        "a.toml:3: unknown key 'sample.num_rollout'; did you mean 'sample.num_rollouts'?"
    ]


WORDS: list[tuple[dict[str, Any], str]] = [
    ({"seed": "many"}, "test: seed: must be a whole number ≥ 0, not 'many'"),
    ({"sample": {"num_rollouts": 2.5}}, "must be a whole number ≥ 1, not 2.5"),
    ({"sample": 5}, "test: sample: must be a section, not 5"),
    ({"engine": 5}, "test: engine: must be a section, not 5"),
    ({"engine": {"kind": "vlm"}}, "engine.kind: must be one of .*did you mean 'vllm'"),
    ({"engine": {"kind": "ray", "inner": {"kind": "openai"}}}, r"engine\.inner\.kind: must be one"),
    ({"prompts": True}, "prompts: must be text in quotes, not true"),
    ({"problems": {"part": [0.5]}}, "part: must be a list of 2 numbers from 0 to 1, not "),
    ({"problems": {"part": [0, 1, 2]}}, "part: must be a list of 2 numbers from 0 to 1, not "),
    ({"problems": {"part": 3}}, "part: must be a list of 2 numbers from 0 to 1, not 3"),
    ({"problems": {"columns": ["a"]}}, "columns: must be a table of texts in quotes by name, not "),
    ({"model": {"path": "lab", "template_date": "soon"}}, "must be a date such as 2024-07-26, not"),
    ({"train_rl": {"hint_shares": [2]}}, "hint_shares: each must be a number > 0 and ≤ 1, not 2"),
    ({"train_rl": {"contexts": {"hnt": 1}}}, "contexts: a name in it must be .*mean 'hint'"),
    ({"train_rl": {"contexts": {"hint": 2}}}, r"contexts\.hint: must be a number from 0 to 1, not"),
    ({"evaluate": {"sets": 3}}, "evaluate.sets: must be a section, not 3"),
    ({"evaluate": {"sets": {"a": 3}}}, r"evaluate\.sets\.a: must be a section, not 3"),
    ({"evaluate": {"ks": []}}, "evaluate: ks is empty"),
    ({"kind": "vllm"}, "unknown key 'kind'; did you mean 'problems.kind'"),
    ({"num_rollouts": 3}, "did you mean 'sample.num_rollouts' or "),
    ({"sample": {"temperature": 3}}, r"did you mean 'sample\.sampling\.temperature' or"),
    ({"frobnicate": {}}, r"unknown section \[frobnicate\]; known keys: name, seed"),
    ({"proposer_engine": {"kind": "openai", "urls": ["http://h/v1", 3]}}, "text in quotes, not 3"),
]


@pytest.mark.parametrize(("sections", "said"), WORDS)
def test_a_wrong_value_is_answered_with_what_the_key_takes(
    sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        make_recipe({"name": "x", "model": {"path": "lab"}, **sections}, [], "test")
    assert "\n" not in str(caught.value)
    assert not re.search("Input should|pydantic|valid ", str(caught.value))


def test_no_name_or_value_begins_a_line_of_its_own(tmp_path: Path) -> None:
    hostile = '"a\\nmidcourse: forged \\u001b[2J" = "b\\nforged"\n'
    said = complaints(f"{GOOD}{hostile}[sample]\n{hostile}num_rollouts = 0", folder=tmp_path)
    starts = ["3 mistakes ", "  a.toml:3:", "  a.toml:5:", "  a.toml:6:"]
    assert [line[:11] for line in said] == starts
    assert "\x1b" not in "".join(said)


def test_a_password_in_a_wrong_value_is_not_shown(tmp_path: Path) -> None:
    text = f'{GOOD}[proposer_engine]\nkind = "openai"\nurls = "http://me:secret@host/v1"\n'
    said = "".join(complaints(text, overrides=("sample.x=http://a:secret@b",), folder=tmp_path))
    assert "http://host/v1" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = x", "a.toml:1:8: is not TOML: Invalid value: 'name = x': .*texts in quotes"),
        ("seed = 1\nname = ", r"a.toml:2:8: is not TOML: Invalid value: 'name =': "),
        ("[sample\nx = 1", "a.toml:1:8: is not TOML: "),
        ("seed = 1\n\nseed = 2", "a.toml:3:9: is not TOML: .*twice: keep one"),
        ("[sample]\n[sample]", "a.toml:2:8: is not TOML: .*twice: keep one"),
        ("ks = [1,", "a.toml is not TOML: .*a quote or bracket may be open"),
        ('extends = "scale/labb"', "a.toml:1: extends: no recipe at scale/labb.*mean scale/lab"),
    ],
)
def test_what_is_not_toml_is_said_with_line_and_column(
    text: str, said: str, tmp_path: Path
) -> None:
    lines = complaints(text, folder=tmp_path)
    assert len(lines) == 1
    assert re.match(said, lines[0])


def test_a_mark_at_the_start_of_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GOOD, encoding="utf-8-sig")
    assert load_recipe(tmp_path / "a.toml").name == "x"


HOSTILE = r"""# [not.a.header]

 [ a . "b.c" ] # a comment = 1
x.y."z\n" = 1
'lit eral' = { p = 1, q.r = { s = 2 } }
list = [ # [c]
  "]", '''
[d]
e = 5
''',
  { inner = 1 },

]
text = '''
[f]
g = 6'''
[[tables]]
h = "a # b = [c]"
[a]
"" = 7
[a."b.c".x.w]
dates = 2024-01-01T00:00:00Z
"""


def test_lines_of_hostile_layouts_are_those_where_keys_stand() -> None:
    assert tomllib.loads(HOSTILE)
    assert {".".join(path): line for path, line in key_lines(HOSTILE).items()} == {
        "a": 3, "a.b.c": 3, "a.b.c.x": 4, "a.b.c.x.y": 4, "a.b.c.x.y.z\n": 4,
        "a.b.c.lit eral": 5, "a.b.c.lit eral.p": 5, "a.b.c.lit eral.q": 5,
        "a.b.c.lit eral.q.r": 5, "a.b.c.lit eral.q.r.s": 5,
        "a.b.c.list": 6, "a.b.c.text": 14, "tables": 17, "tables.h": 18,
        "a.": 20, "a.b.c.x.w": 21, "a.b.c.x.w.dates": 22,
    }  # fmt: skip


def test_what_has_no_line_is_left_out(tmp_path: Path) -> None:
    assert key_lines("seed = 1\nthis is not TOML\nname = 2") == {("seed",): 1}
    assert key_lines("") == {}
    long = f"{GOOD}list = [\n" + "1,\n" * 600 + "]\nseed = 'x'\n"
    assert complaints(long, folder=tmp_path)[1:] == [
        "  a.toml: seed: must be a whole number ≥ 0, not 'x'",
        f"  a.toml: unknown key 'list'; known keys: {', '.join(Recipe.model_fields)}",
    ]


@pytest.mark.parametrize("name", [info.name for info in list_recipes()])
def test_every_key_of_every_packaged_recipe_has_its_line(name: str) -> None:
    text = recipe_text(name)
    found, lines = key_lines(text), text.split("\n")
    assert set(found) == set(paths(tomllib.loads(text)))
    for path, line in found.items():
        assert path[-1] in lines[line - 1]


def paths(data: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in data.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


def test_the_documented_mistakes_are_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text("utf-8")
    section = page.partition("## What is wrong with a recipe")[2]
    recipe, said = re.findall(r"```(?:toml|text)\n(.*?)```", section, re.S)[:2]
    monkeypatch.chdir(tmp_path)
    Path("wrong.toml").write_text(recipe)
    with pytest.raises(ConfigError) as caught:
        load_recipe("wrong.toml", ["grade.num_workers=many"])
    assert f"midcourse: {caught.value}\n" == said
