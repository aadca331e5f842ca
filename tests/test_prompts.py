"""Prompt sets: their files, and the placeholders that each must and may hold."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import midcourse.prompts
from midcourse.config import Recipe
from midcourse.errors import ConfigError
from midcourse.pipeline import Setup
from midcourse.prompts import PURPOSES, load_prompt_set

SETS = Path(midcourse.prompts.__file__).parent / "sets"
PAGE = Path(__file__).parent.parent / "docs" / "prompts.md"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A copy of the default set."""
    return Path(shutil.copytree(SETS / "default", tmp_path / "mine"))


@pytest.mark.parametrize("name", [folder.name for folder in SETS.iterdir()])
def test_every_packaged_set_holds_what_it_must(name: str) -> None:
    prompts = load_prompt_set(name)
    purposes = {file.stem for file in (SETS / name).glob("*.md")}
    assert purposes <= set(PURPOSES)
    for purpose in purposes:
        form = PURPOSES[purpose]
        assert set(form.needs) <= prompts[purpose].fields <= {*form.needs, *form.may_hold}


def test_the_bare_set_puts_the_problem_alone_and_is_else_the_default() -> None:
    bare, default = load_prompt_set("bare"), load_prompt_set("default")
    assert bare["solve"].render(problem="What is {x}?") == "What is {x}?"
    assert bare["solve"].name == "bare/solve"
    for purpose in PURPOSES.keys() - {"solve"}:
        assert bare[purpose] == default[purpose]
        assert purpose in bare
    assert load_prompt_set("lab")["solve"].name == "lab/solve"


def test_a_packaged_set_that_is_whole_takes_nothing_from_another() -> None:
    assert "review" not in load_prompt_set("lab")


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_file_without_its_placeholder_is_an_error_at_load(mine: Path, purpose: str) -> None:
    for name in PURPOSES[purpose].needs:
        file = mine / f"{purpose}.md"
        before = file.read_text()
        file.write_text(before.replace(f"{{{name}}}", "it"))
        with pytest.raises(ConfigError) as caught:
            load_prompt_set(str(mine))
        needed = ", ".join(f"{{{need}}}" for need in PURPOSES[purpose].needs)
        said = f"{file}: no placeholder {{{name}}}: the file needs {needed}"
        assert str(caught.value).startswith(said)
        assert "\n" not in str(caught.value)
        file.write_text(before)
    load_prompt_set(str(mine))


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize(
    "written",
    [
        "{student solution}",
        "{problm}",
        "{Problem}",
        "Problem:{question}",
        r"\boxed{hint}",
        "{hint}",
    ],
)
def test_a_placeholder_that_is_not_of_its_purpose_is_an_error_at_load(
    mine: Path, purpose: str, written: str
) -> None:
    name = written[written.index("{") + 1 : -1]
    if name in PURPOSES[purpose].needs:
        return
    file = mine / f"{purpose}.md"
    file.write_text(f"{file.read_text()}\n{written}\n")
    with pytest.raises(ConfigError) as caught:
        load_prompt_set(str(mine))
    form = PURPOSES[purpose]
    allowed = ", ".join(f"{{{name}}}" for name in (*form.needs, *form.may_hold))
    said = f"{file}: unknown placeholder {{{name}}}: the file may hold {allowed}"
    assert str(caught.value) == said


def test_braces_of_latex_and_json_are_text(mine: Path) -> None:
    file = mine / "solve.md"
    text = (
        r'\boxed{} $\text{if } \begin{cases} x_{max}^{min} {x} \{red, blue\}$ {"content": "a"} {}'
    )
    file.write_text(f"{text} {{problem}}")
    prompt = load_prompt_set(str(mine))["solve"]
    assert prompt.render(problem="{problem}") == f"{text} {{problem}}"


def test_a_set_may_lack_files_and_hold_others(mine: Path) -> None:
    (mine / "hint.md").unlink()
    (mine / "README.md").write_text("These are mine: {whatever}.")
    assert "hint" not in load_prompt_set(str(mine))


def test_a_file_that_is_not_text_is_one_line(mine: Path) -> None:
    (mine / "solve.md").write_bytes(b"{problem} \xff")
    with pytest.raises(ConfigError, match=r"solve\.md: not text in UTF-8 .*: save it as UTF-8"):
        load_prompt_set(str(mine))


def test_work_does_not_start_with_a_prompt_that_lacks_its_placeholder(
    mine: Path, recipe_data: dict[str, object]
) -> None:
    (mine / "guided_solve.md").write_text("Solve it.")
    recipe = Recipe.model_validate({**recipe_data, "prompts": str(mine)})
    with pytest.raises(ConfigError, match=r"guided_solve\.md: no placeholder \{problem\}"):
        Setup.of(recipe)


def test_the_page_lists_every_file_and_its_placeholders() -> None:
    rows = re.findall(r"^\| `(\w+)\.md` \|[^|]*\|([^|]*)\|([^|]*)\|$", PAGE.read_text(), re.M)
    listed = {name: tuple(re.findall(r"\{(\w+)\}", cell)) for name, cell, _ in rows}
    others = {name: tuple(re.findall(r"\{(\w+)\}", cell)) for name, _, cell in rows}
    assert listed == {name: form.needs for name, form in PURPOSES.items()}
    assert others == {name: form.may_hold for name, form in PURPOSES.items()}
