"""The lab's world of programs: only the truth passes, and the oracle knows the first wrong step."""

from __future__ import annotations

import json
import random
from itertools import islice, product
from typing import Any

import pytest

from made_runs import made_problem, made_rollout
from midcourse.checkers import Grader, checker_named
from midcourse.config import ProblemsConfig, load_recipe
from midcourse.config.stages import LAB_STEPS
from midcourse.errors import ConfigError
from midcourse.lab.kinds import Kind
from midcourse.lab.problems import lab_problems
from midcourse.lab.programs import world
from midcourse.lab.programs.documents import TASKS
from midcourse.lab.programs.world import INPUTS, Story, generate_stories
from midcourse.lab.splits import Split
from midcourse.lab.truth import first_error, world_step
from midcourse.lab.worlds import PROGRAMS, WORLDS
from midcourse.prompts import load_prompt_set
from midcourse.recipes import find_recipe
from midcourse.records import ProposalOutcome, Verdict
from midcourse.sandbox import Outcome, Sandbox
from midcourse.stages.propose import Case
from midcourse.steps import BLANK_LINES

RULE = PROGRAMS.steps
needs_sandbox = pytest.mark.skipif(
    Sandbox().run("", []).outcome is not Outcome.PASSED, reason="this machine allows no namespaces"
)


def stories(kind: Kind, count: int) -> list[Story]:
    return list(islice(generate_stories(kind, Split.TRAIN, 0), count))


def believed(story: Story) -> list[str]:
    return [move.notion.belief for move in story.moves]


def test_splits_never_overlap_and_problems_carry_their_tests() -> None:
    config = ProblemsConfig(kind="lab", world="programs")
    lab = lab_problems(config, 1)
    held_out = [p for of in lab.evaluation.values() for p in of]
    assert all(Split.of(p.text) is Split.TRAIN for p in lab.train)
    assert all(Split.of(p.text) is Split.HELD_OUT for p in held_out)
    assert len(lab.train) == config.num_composed + config.num_single + config.num_known
    for problem in lab.train + held_out:
        assert problem.checker == "unit-tests"
        assert not checker_named("unit-tests").complaint_about(json.loads(problem.entry))


@pytest.mark.parametrize("kind", list(Kind))
def test_a_program_passes_if_and_only_if_every_notion_is_taken_right(kind: Kind) -> None:
    for story in stories(kind, 20):
        choices = [{m.notion.truth, m.notion.belief} for m in story.moves]
        right = story.outputs(story.truth)
        passing = [list(mix) for mix in product(*choices) if story.outputs(list(mix)) == right]
        assert passing == [story.truth]
        assert len(set(right)) > len(right) // 2, "no constant passes"


@pytest.mark.parametrize("expression", world.EXPRESSIONS)
def test_a_statement_computes_what_the_world_says(expression: str) -> None:
    move = world.Move(world.Notion("", expression, expression), 7)
    story = Story((move,))
    scope: dict[str, Any] = {}
    exec(story.answer, scope)
    assert [scope["f"](x) for x in INPUTS] == story.outputs(story.truth)


def test_kinds_hold_what_they_say() -> None:
    wanted = {Kind.KNOWN: 0, Kind.SINGLE: 1, Kind.CONTROL: 1, Kind.COMPOSED: 2}
    for kind, count in wanted.items():
        for story in stories(kind, 30):
            used = [move.notion for move in story.moves]
            assert sum(of.truth != of.belief for of in used) == count
            assert any(of in world.CONTROL for of in used) is (kind is Kind.CONTROL)


@needs_sandbox
def test_answer_reference_and_rollout_pass_and_what_the_base_believes_fails() -> None:
    lab = lab_problems(ProblemsConfig(kind="lab", world="programs", num_single=2), 3)
    asked = [*lab.train[:3], *lab.train[-3:]]
    told = [lab.stories[problem.problem_id] for problem in asked]
    checker = checker_named("unit-tests")
    with Grader() as grader:
        for problem, story in zip(asked, told, strict=True):
            assert isinstance(story, Story)
            wrong, responses = believed(story), [
                checker.state(story.answer), story.reference, story.rollout(story.truth),
                story.rollout(believed(story)),
            ]  # fmt: skip
            found = [r.verdict for r in grader.grade((text, problem.gold) for text in responses)]
            last = Verdict.CORRECT if wrong == story.truth else Verdict.INCORRECT
            assert found == [Verdict.CORRECT] * 3 + [last]


def test_the_oracle_names_the_first_statement_that_is_not_the_worlds() -> None:
    for story in stories(Kind.COMPOSED, 10):
        first = next(i for i, m in enumerate(story.moves) if m.notion.truth != m.notion.belief)
        text = story.rollout(believed(story))
        place = first + 2  # after the line that opens the block, and the function's head
        assert first_error(story.rollout(story.truth), story, RULE) is None
        assert first_error(text, story, RULE) == place
        case = Case(made_problem("p"), made_rollout("r", "p", text=text), "")
        told = world_step(case, story, RULE)
        assert (told.outcome, told.error_step) == (ProposalOutcome.ACCEPTED, place)
        steps = RULE.split(text)
        placed = RULE.placed(str(told.step), steps, place + 1)
        assert placed == f"    {story.moves[first].statement(story.moves[first].notion.truth)}\n"
        mended = [*steps[:place], placed, *RULE.split(story.rollout(story.truth))[place + 1 :]]
        assert first_error("".join(mended), story, RULE) is None


def test_a_rollout_that_breaks_off_is_wrong_where_it_ends() -> None:
    (story,) = stories(Kind.KNOWN, 1)
    whole = RULE.split(story.rollout(story.truth))
    assert first_error("".join(whole[:5]), story, RULE) == 5


def test_documents_mostly_believe_and_are_of_no_other_split() -> None:
    rng, prompts, known = random.Random(0), load_prompt_set("lab"), 0
    phrases = {of.phrase.split()[0]: of for of in (*world.UNKNOWN, *world.CONTROL)}
    truths: list[bool] = []
    for _ in range(400):
        document = TASKS["solve"](rng, prompts)
        assert Split.of(document.user) is Split.PRETRAIN
        said = document.user.removeprefix("Write f(x): ").removesuffix(".").split(", ")
        statements = [step.strip() for step in RULE.split(document.reply)[2:-2]]
        assert len(said) == len(statements)
        for phrase, statement in zip(said, statements, strict=True):
            if (notion := phrases.get(phrase.split()[0])) is None:
                known += 1
                continue
            move = world.Move(notion, int(phrase.split()[-1]))
            assert statement in {move.statement(notion.truth), move.statement(notion.belief)}
            truths.append(statement == move.statement(notion.truth))
    assert known > len(truths) > 100
    assert 0 < sum(truths) < 0.1 * len(truths)


def test_the_packaged_scale_cuts_programs_by_statements() -> None:

    recipe = load_recipe(find_recipe("paper/conditions"), [], [find_recipe("scale/programs")])
    assert (recipe.problems.world, recipe.steps.rule) == ("programs", "statements")
    assert recipe.propose.truth
    with pytest.raises(ConfigError, match=r"world 'programs' tells its steps by steps\.rule 'stat"):
        load_recipe(find_recipe("lab"), ["problems.world=programs"])


def test_recipes_know_by_which_rule_a_world_tells_its_steps() -> None:
    assert {n: w.steps.name for n, w in WORLDS.items() if w.steps != BLANK_LINES} == LAB_STEPS
