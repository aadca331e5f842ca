"""Steps by every rule: nothing is lost, whatever the text; and what an intervention becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midcourse.config import Recipe
from midcourse.engines.scripted_engine import ByteTokenizer
from midcourse.errors import ConfigError
from midcourse.export import export_run
from midcourse.pipeline import Method, Session
from midcourse.records import Condition, Proposal, SftRow
from midcourse.steps import (
    BLANK_LINES,
    error_step_from_location,
    join_steps,
    location_from_error_step,
    rule_named,
    split_steps,
)
from midcourse.steps.rules import RULES
from midcourse.viewer.collect import collect_view
from midcourse.viewer.data import ProposalBody
from runs import ready, run_to


@given(st.text(alphabet=st.sampled_from("ab \n\r\t."), max_size=60))
def test_splitting_loses_nothing(text: str) -> None:
    steps = split_steps(text)
    assert join_steps(steps) == text
    assert all(step.endswith("\n\n") for step in steps[:-1])
    assert all(steps)


def test_a_step_owns_the_blank_line_after_it() -> None:
    assert split_steps("a.\n\nb.\n\n\nc") == ["a.\n\n", "b.\n\n", "\nc"]
    assert split_steps("") == []
    assert split_steps("a\r\n\r\nb") == ["a\r\n\r\nb"]


@given(st.text(alphabet=st.sampled_from("ab\n"), max_size=40), st.integers(0, 9))
def test_prefix_and_rest_are_the_text(text: str, error_step: int) -> None:
    prefix = BLANK_LINES.prefix_before(text, error_step)
    assert prefix + join_steps(split_steps(text)[error_step:]) == text


def test_a_model_counts_from_one() -> None:
    assert BLANK_LINES.number(["a.\n\n", "b."]) == "Substep 1: a.\n\nSubstep 2: b."
    assert error_step_from_location(1) == 0
    assert location_from_error_step(error_step_from_location(14)) == 14


# --- other rules -------------------------------------------------------------------------------

#: What programs and prose are made of, and what looks like them.
PIECES = (
    "```", "```python\n", "~~~", "\n", "\n\n", "\r\n", "\r", " ", "    ", "\t", "\x0c", "\u2028",
    "\x00", "def f(x):\n", "class A:\n", "@d\n", "if x:\n", "return x\n", "x = 1", "; y = 2",
    "# note\n", '"""', "Eq. 3", "e.g. ", "So. ", "Is it? ", "1. ", "</think>", "<think>", "é", "。",
)  # fmt: skip
PROGRAM = """Plan: count.

```python
import os

# what it does
@cache
def f(x):
    \"\"\"Say.\"\"\"
    # from zero
    y = 0; z = 1

    for a in x:
        y += a
    text = \"\"\"
# no comment
\"\"\"
    return y


class A:
    def g(self):
        return 2
```

Done.
"""


@pytest.mark.parametrize("name", RULES)
@given(text=st.one_of(st.text(max_size=80), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_every_rule_loses_nothing(name: str, text: str) -> None:
    steps = rule_named(name).split(text)
    assert join_steps(steps) == text
    assert all(steps)


def test_lines_and_sentences() -> None:
    assert rule_named("lines").split("a\n\nb\nc") == ["a\n\n", "b\n", "c"]
    text = "By Eq. 3, x = 3.5. Dr. A. B. Cee (e.g. here) asks: is it so? Yes!\n1. One. 2"
    assert rule_named("sentences").split(text) == [
        "By Eq. 3, x = 3.5. ",
        "Dr. A. B. Cee (e.g. here) asks: is it so? ",
        "Yes!\n",
        "1. One. ",
        "2",
    ]


def test_a_thought_is_cut_and_what_follows_it_is_one_step() -> None:
    text = "<think>\nLet x.\n\nThen y.\n</think>\n\nFirst.\n\nSo 4."
    steps = ["<think>\nLet x.\n\n", "Then y.\n</think>\n\n", "First.\n\nSo 4."]
    assert rule_named("thoughts").split(text) == steps
    assert rule_named("thoughts").split("Let x.\n\nThen") == ["Let x.\n\n", "Then"]


def test_a_program_is_cut_where_the_statements_of_its_functions_begin() -> None:
    assert rule_named("statements").split(PROGRAM) == [
        "Plan: count.\n\n```python\n",
        "import os\n\n",
        "# what it does\n@cache\ndef f(x):\n",
        '    """Say."""\n',
        "    # from zero\n    y = 0; z = 1\n\n",
        "    for a in x:\n        y += a\n",
        '    text = """\n# no comment\n"""\n',
        "    return y\n\n\n",
        "class A:\n",
        "    def g(self):\n",
        "        return 2\n",
        "```\n\n",
        "Done.\n",
    ]


def test_a_program_that_breaks_off_is_cut_as_far_as_it_parses() -> None:
    steps = rule_named("statements").split("```python\ndef f(x):\n    y = 1\n    if (y\n")
    assert steps == ["```python\n", "def f(x):\n", "    y = 1\n", "    if (y\n"]


@pytest.mark.parametrize(
    ("location", "content", "placed"),
    [
        (1, "Plan: sum.", "Plan: sum.\n\n"),
        (5, "y = 1\nif x:\n    y = 2", "    y = 1\n    if x:\n        y = 2\n"),
        (5, "    y = 1", "    y = 1\n"),
        (10, "def g(self, x):", "    def g(self, x):\n"),
        (12, "    print(f([1]))", "    print(f([1]))\n"),
        (13, "Not done.", "Not done.\n\n"),
    ],
)
def test_a_statement_is_placed_as_deep_as_the_one_it_replaces(
    location: int, content: str, placed: str
) -> None:
    rule = rule_named("statements")
    assert rule.placed(content, rule.split(PROGRAM), location) == placed


def test_a_proposer_sees_how_deep_a_statement_stands() -> None:
    shown = rule_named("statements").number(["def f(x):\n", "    return x\n\n"])
    assert shown == "Substep 1: def f(x):\n\nSubstep 2:\n    return x"


def test_an_intervention_ends_as_its_rule_says() -> None:
    assert rule_named("lines").placed("a = 2 ", ["a = 1\n"], 1) == "a = 2\n"
    assert rule_named("sentences").placed("Yes.", ["No. "], 1) == "Yes. "
    assert rule_named("lines").placed("a", ["b\n"], 1, terminator=";") == "a;"


# --- a rule of one's own -----------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module into the working folder; return its name, which no other test has used."""
    monkeypatch.chdir(tmp_path)
    name = f"own_rules_{tmp_path.parent.name.replace('-', '_')}_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        """
def cells(text):
    parts = text.split("# %%\\n")
    return [p for p in [*(part + "# %%\\n" for part in parts[:-1]), parts[-1]] if p]

def lossy(text):
    return text.split()

def broken(text):
    return text[0], text[1:]

number = 3
"""
    )
    return name


def test_a_function_of_ones_own_cuts(own: str) -> None:
    rule = rule_named(f"{own}:cells")
    assert rule.split("a\n# %%\nb") == ["a\n# %%\n", "b"]
    assert rule.identity() != rule.name, "another version of the module is another rule"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("{own}:lossy", "loses or adds something"),
        ("{own}:broken", "fails on '': IndexError"),
        ("{own}:missing", "has no missing"),
        ("{own}:number", "is no function"),
        ("no_such_module:cut", "cannot be imported"),
        ("os:system", "Python's own"),
        ("subprocess:getoutput", "Python's own"),
        ("paragraphs", "choose one of blank_lines, lines"),
    ],
)
def test_a_rule_that_cannot_be_used_is_one_line(own: str, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"steps\.rule") as refused:
        rule_named(name.format(own=own))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


# --- a run by another rule ---------------------------------------------------------------------

LINES = [
    [
        r"Compare and intervene",
        '<intervention>{"content": "It is four.", "location": 2}</intervention>',
    ],
    [r"It is four\.\n$", "So \\boxed{4}."],
    [r".", "Add them.\nIt is five.\nSo \\boxed{5}.", "Add them.\nIt is five.\nSo \\boxed{6}."],
]


def test_prompts_rows_exports_and_the_viewer_follow_the_rule(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    Path(recipe_data["engine"]["script"]).write_text(json.dumps(LINES))
    recipe = Recipe.model_validate(recipe_data | {"steps": {"rule": "lines"}})

    def read(session: Session, made: Method) -> tuple[list[Proposal], list[SftRow], int]:
        rows = ready(session, made)
        verified = made.interventions.verified[Condition.PREFIX_INTERVENTION]
        correct = sum(grade.verdict == "correct" for grade in session.read(verified.grades))
        return list(session.read(made.proposals)), rows, correct

    proposals, rows, num_correct = run_to(tmp_path / "run", recipe, read)
    assert {(p.error_step, p.intervention) for p in proposals if p.outcome == "accepted"} == {
        (1, "It is four.\n")
    }
    assert "Substep 2: It is five." in proposals[0].turns[0].prompt
    assert num_correct
    text = ByteTokenizer().decode(rows[0].input_ids[rows[0].prompt_tokens :])
    assert text == "Add them.\nIt is four.\n"
    export_run(tmp_path / "run", "proposals", tmp_path / "out")
    first = json.loads((tmp_path / "out" / "proposals.jsonl").read_text().splitlines()[0])
    assert (first["prefix"], first["original_step"]) == ("Add them.\n", "It is five.\n")
    bodies = [body for chunk in collect_view(tmp_path / "run").chunks for body in chunk]
    attempts = {tuple(body.steps) for body in bodies if isinstance(body, ProposalBody)}
    assert {steps[:2] for steps in attempts} == {("Add them.", "It is five.")}
