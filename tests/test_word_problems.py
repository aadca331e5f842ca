"""Generated word problems, the oracle that reads their references, and the study's rules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from documented import ROOT
from midcourse.config import load_recipe
from midcourse.data import load_problems
from midcourse.data.parts import place
from midcourse.data.word_problems import KINDS
from midcourse.data.worked import answer_of, intervention_text, numbers_in, read_solution
from midcourse.errors import ConfigError, DataError
from midcourse.experiments.data import MissingDataError, RunData
from midcourse.experiments.real import (
    ARMS,
    PARTS,
    choose_levels,
    grouped_counts,
    over_problems,
    problems_needed,
    separated,
)
from midcourse.experiments.results import Result
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count
from midcourse.pipeline.method import method
from midcourse.pipeline.session import Setup
from midcourse.progress import SilentProgress
from midcourse.recipes import find_recipe
from midcourse.records import (
    Condition,
    FinishReason,
    Problem,
    Proposal,
    ProposalOutcome,
    Rollout,
    Sampling,
)
from midcourse.stages.oracle import REFERENCE, from_reference, oracle_proposals
from midcourse.stages.propose import Case
from midcourse.steps import STEP_SEPARATOR

ALL = f"word-problems:{','.join(KINDS)}"
PROBLEM = Problem(
    problem_id="p", text="A farm has 20 hens, and each hen lays 4 eggs. 5 of the eggs break. Ida "
    "puts the eggs that are left into boxes of 3. How many boxes does Ida fill?", answer="25",
    reference_solution="The hens lay 20 * 4 = 80 eggs.\nThere are 80 - 5 = 75 eggs left.\n"
    "Ida fills 75 / 3 = 25 boxes.", source="s", split="train",
)  # fmt: skip


# The generator.


def test_every_reference_derives_its_answer_in_as_many_steps_as_the_kind_says() -> None:
    for problem in load_problems(f"{ALL}@5", limit=600):
        solution = read_solution(problem, least=1)
        assert solution is not None
        depth, _ = KINDS[problem.source.partition("/")[2]]
        calculations = [c for line in solution for c in line.calculations]
        assert len(solution) == len(calculations) == depth
        known = set(numbers_in(problem.text))
        for calculation in calculations:
            assert known.issuperset(calculation.numbers)
            assert calculation.result >= 1
            known.add(calculation.result)
        assert str(answer_of(solution)) == problem.answer
        assert not re.search(r"[{}]", problem.text + str(problem.reference_solution))


def test_kinds_come_in_turn_and_a_seed_draws_the_same() -> None:
    first, again = (load_problems("word-problems:one-step,three-step@3", limit=9) for _ in "ab")
    assert first == again
    assert [p.source for p in first[:3]] == [
        f"word-problems/{k}-step" for k in ("one", "three", "one")
    ]
    assert first != load_problems("word-problems:one-step,three-step@4", limit=9)


def test_what_is_held_out_is_never_drawn_for_training_whatever_the_seed() -> None:
    train = {p.text for seed in range(3) for p in load_problems(f"{ALL}@{seed}", limit=1200)}
    held_out = {
        p.text
        for seed in range(3)
        for p in load_problems(f"{ALL}@{seed}", limit=1200, split="held_out")
    }
    assert len(train) > 2000
    assert len(held_out) > 2000
    assert not train & held_out
    # Another hash than that of parts: both splits have problems in every part.
    assert {int(4 * place(text)) for text in train} == {int(4 * place(text)) for text in held_out}


def test_large_numbers_are_larger() -> None:
    small, large = (
        [max(numbers_in(p.text)) for p in load_problems(f"word-problems:one-step{of}", limit=100)]
        for of in ("", "-large")
    )
    assert sum(small) < sum(large)


@pytest.mark.parametrize(
    "spec", ["word-problems:five-step", "word-problems:one-step@x", "word-problems:"]
)
def test_an_unknown_kind_is_refused_in_one_line(spec: str) -> None:
    with pytest.raises(DataError, match=r"word-problems:\S*: (no such kind|write)"):
        load_problems(spec)


# The oracle.


def case_of(*steps: str) -> Case:
    """An attempt at the farm problem."""
    sampling = Sampling(
        temperature=1, top_p=1, top_k=0, min_p=0, repetition_penalty=1, max_tokens=1
    )
    rollout = Rollout(
        rollout_id="r", problem_id="p", index=0, condition=Condition.PROBLEM, parent_id=None,
        prompt_sha="", prompt_tokens=0, text=STEP_SEPARATOR.join(steps), token_ids=(), num_tokens=0,
        finish_reason=FinishReason.STOP, model="m", sampling=sampling, seed=0,
    )  # fmt: skip
    return Case(PROBLEM, rollout, "")


HENS, LEFT = "The hens lay 20 * 4 = 80 eggs.", "There are 80 - 5 = 75 eggs left."
BOXES, BOXED = "Ida fills 75 / 3 = 25 boxes.", r"The answer is \boxed{25}."
NO_RESULT = "Ida fills 75 / 3 boxes."


@pytest.mark.parametrize(
    ("steps", "error_step", "right"),
    [
        ((HENS, "There are 80 - 5 = 76 eggs left.", r"\boxed{76}"), 1, LEFT),
        (("The hens lay 20 * 4 = 60 eggs.", LEFT, BOXES), 0, HENS),
        (("4 * 20 = 80, so there are 80 eggs.", "80 + 5 = 85"), 1, LEFT),  # any order of numbers
        (("There are 20 hens and 4 eggs each.", HENS, r"\boxed{80}"), 2, LEFT),  # too early
        ((HENS, LEFT, "Ida fills 75 / 5 = 15 boxes."), 2, NO_RESULT),
        ((f"{HENS} {LEFT}", r"So there are 24 boxes: \boxed{24}."), 1, NO_RESULT),  # two in one
        ((HENS, "There are 81 eggs.", LEFT), 1, LEFT),  # a number from nowhere
        ((HENS, "So 80 - 5 = 75 = x."), 1, LEFT),  # an equation that cannot be read
        ((HENS, HENS, LEFT), 1, LEFT),  # the same again: it has been used
    ],
)
def test_the_first_step_that_leaves_the_reference_is_named_with_the_reference_s_next_step(
    steps: tuple[str, ...], error_step: int, right: str
) -> None:
    told = from_reference(case_of(*steps))
    assert (told.outcome, told.error_step, told.step) == (
        ProposalOutcome.ACCEPTED,
        error_step,
        right,
    )


def test_where_only_the_answer_is_wrong_the_right_step_would_give_it_away() -> None:
    told = from_reference(case_of(HENS, LEFT, BOXES, r"The answer is \boxed{26}."))
    assert (told.outcome, told.error_step, told.step) == (ProposalOutcome.LEAKS_ANSWER, 3, None)


def test_an_attempt_that_follows_its_reference_has_no_error() -> None:
    told = from_reference(case_of(HENS, LEFT, BOXES, BOXED))
    assert (told.outcome, told.error_step) == (ProposalOutcome.NO_ERROR_FOUND, None)


def test_a_right_step_never_holds_the_answer() -> None:
    for problem in load_problems(f"{ALL}@6", limit=300):
        solution = read_solution(problem, least=1)
        assert solution is not None
        for line in solution:
            text = intervention_text(line, answer_of(solution))
            assert text is None or answer_of(solution) not in numbers_in(text)


def test_the_oracle_s_proposals_are_records_like_any_other() -> None:
    case = case_of(HENS, BOXES)
    ((rollout_id, (made,)),) = oracle_proposals([case], from_reference, REFERENCE, "\n\n", ())
    assert isinstance(made, Proposal)
    assert (rollout_id, made.proposer, made.location) == ("r", "reference", 2)
    assert made.intervention == f"{LEFT}\n\n"
    assert not list(oracle_proposals([case], from_reference, REFERENCE, "\n\n", {"r"}))


def test_the_oracle_reads_the_problem_s_own_reference_and_no_other() -> None:
    told = ["propose.truth=true", "propose.reference=shuffled"]
    with pytest.raises(ConfigError, match=r"propose\.truth reads the problem's own reference"):
        load_recipe("real", told)
    assert load_recipe("real", told[:1]).propose.truth


# The study's rules.


def level(*correct: int) -> dict[str, list[Count]]:
    """Problems with so many of 8 samples correct."""
    return {f"p{i}": [Count(8, number)] for i, number in enumerate(correct)}


def test_levels_solved_in_5_to_20_per_cent_are_chosen() -> None:
    levels = {
        "word-problems/one-step": level(8, 6),
        "word-problems/two-step": level(0, 3),  # 19 %
        "word-problems/three-step": level(0, 1),  # 6 %
        "word-problems/three-step-large": level(0, 0),
        "reasoning-gym/gcd": level(0, 2),  # 12 %, but no reference to read
    }
    assert choose_levels(levels) == ["word-problems/two-step", "word-problems/three-step"]


def test_without_such_a_level_the_nearest_is_chosen() -> None:
    levels = {
        "word-problems/a": level(8, 8),
        "word-problems/b": level(0, 5),
        "reasoning-gym/c": level(1),
    }
    assert choose_levels(levels) == ["word-problems/b"]  # 31 %


def test_as_many_problems_are_taken_as_hold_the_hard_ones() -> None:
    assert problems_needed(level(0, 1, 0, 2)) == 350  # 165 / 0.5 = 330
    assert problems_needed(level(1, 1)) == 350  # none seen: as if one problem had been


def test_counts_are_grouped_by_their_source() -> None:
    items = [("a", "p1", Count(8, 1)), ("b", "p2", Count(8, 0)), ("a", "p3", Count(8, 2))]
    assert grouped_counts(items) == {
        "a": {"p1": [Count(8, 1)], "p3": [Count(8, 2)]}, "b": {"p2": [Count(8, 0)]},
    }  # fmt: skip


def arm(*rates: int) -> dict[int, Mapping[str, list[Count]]]:
    """A run of one problem per rate, in per cent."""
    return {seed: {"p": [Count(100, rate)]} for seed, rate in enumerate(rates)}


def test_rl_is_run_only_where_three_runs_separate_arms_by_five_points() -> None:
    ours = {"InT": arm(30, 31, 32)}
    assert separated({**ours, "base": arm(20, 21, 23)}) == ["base"]  # about 10 points, each time
    assert separated({**ours, "reference": arm(27, 28, 30)}) == []  # only 3 points
    assert separated({**ours, "suffix": arm(10, 40, 20)}) == []  # far apart, but who knows
    assert separated({**ours, "worse": arm(40, 41, 43)}) == ["worse"]  # either way


def test_runs_on_the_same_problems_have_an_interval_over_them_too() -> None:
    """Three runs that agree to the last digit say nothing of other problems."""
    ours = {seed: {"easy": [1.0], "hard": [0.0]} for seed in range(3)}
    theirs = {seed: {"easy": [0.0], "hard": [0.0]} for seed in range(3)}
    apart = over_problems(ours, theirs)
    assert apart is not None
    assert (apart.low, apart.estimate, apart.high) == (0.0, 0.5, 1.0)
    others = {**theirs, 2: {"easy": [0.0], "another": [0.0]}}
    assert over_problems(ours, others) is None


def test_the_study_s_recipes_are_read_with_one_oracle_and_one_base() -> None:
    runner = ExperimentRunner(
        scale=find_recipe("scale/real"), seeds=(0,), reporter=SilentProgress(),
        overlays=(find_recipe("scale/real-gpu"),),
    )  # fmt: skip
    arms = {name: runner.recipe(name, 0) for name in ARMS.values()}
    assert {recipe.propose.truth for recipe in arms.values()} == {True}
    assert {recipe.build_sft.rows_per_problem for recipe in arms.values()} == {"all"}
    own = [runner.recipe(name, 0) for name in ("conditions", "no-reference")]
    assert [recipe.propose.truth for recipe in own] == [False, False]
    assert [recipe.propose.reference for recipe in own] == ["given", "none"]
    assert {r.model.path for r in (*arms.values(), *own)} == {"runs/real-warmup/worked/model/final"}
    words = runner.recipe("levels-words", 0).problems
    assert words.part[0] >= max(part[1] for part in _warmup_parts())


def _warmup_parts() -> list[tuple[float, float]]:
    warmup = load_recipe("real/warmup").warmup
    return [warmup.worked.part, warmup.verification.part]


@pytest.mark.parametrize("name", ["levels-words", "conditions", "no-reference", *ARMS.values()])
def test_every_part_has_the_prompts_that_it_asks_with(name: str) -> None:
    """The study's tests below ask with the lab's prompts, which hides one that is missing."""
    runner = ExperimentRunner(
        scale=find_recipe("scale/real"), seeds=(0,), reporter=SilentProgress(),
        settings=("model.path=lab", "proposer_model.path=lab", "problems.limit=2"),
    )  # fmt: skip
    composed = method(Setup.of(runner.recipe(name, 0)))
    assert composed.setup.prompts.name == "short"
    assert composed.steps()


# The study, whole, on a model that can do nothing of it.

TINY = (
    "prompts=lab",
    "model.path=lab",
    "problems.part=[0.0,1.0]",
    "problems.limit=4",
    "problems.held_out_limit=2",
    "sample.num_rollouts=2",
    "sample.sampling.max_tokens=24",
    "select.subset=3",
    "propose.sampling.max_tokens=24",
    "verify.num_continuations=2",
    "verify.sampling.max_tokens=48",
    "build_sft.filter=false",
    "build_sft.num_solutions=1",
    "build_sft.sampling.max_tokens=24",
    "train_sft.max_steps=1",
    "train_sft.lora_rank=0",
    "evaluate.num_rollouts=64",
    "evaluate.sampling.max_tokens=4",
    "likelihood.max_items=2",
)


@pytest.fixture
def study(tmp_path: Path) -> ExperimentRunner:
    return ExperimentRunner(
        scale=find_recipe("scale/real"), seeds=(0,), reporter=SilentProgress(),
        runs=tmp_path / "runs", settings=TINY, data=RunData(tmp_path / "data"),
    )  # fmt: skip


def again(runner: ExperimentRunner, name: str) -> Result:
    """Make a part of what is kept of it, without a run."""
    assert runner.data is not None
    kept = replace(runner.data, may_run=False)
    return PARTS[name].make(replace(runner, runs=Path("gone"), data=kept))


@pytest.mark.slow
def test_parts_without_a_training_come_to_tables_that_data_alone_makes_again(
    study: ExperimentRunner,
) -> None:
    own = replace(study, settings=(*TINY, "proposer_model.path=lab"))
    runners = {"levels": study, "tasks": study, "table1": study, "proposals": own}
    made = {name: PARTS[name].make(runner) for name, runner in runners.items()}
    for name, source in (("levels", "word-problems"), ("tasks", "reasoning-gym")):
        assert {row[0].partition("/")[0] for row in made[name].tables[0].rows} == {source}
    first, *_, outcomes = made["table1"].tables
    assert [row[0] for row in first.rows] == ["1", "2", "3", "4"]
    assert sum(int(row[1]) for row in outcomes.rows) == 3, "a rollout of each hard problem"
    (proposed,) = made["proposals"].tables
    assert [row[:2] for row in proposed.rows] == [("4, own", "3"), ("7", "3")]
    for name, result in made.items():
        assert again(runners[name], name).tables == result.tables


def test_the_committed_page_and_statements_are_what_the_committed_data_gives(
    tmp_path: Path,
) -> None:
    results, copy = ROOT / "docs" / "results", tmp_path / "docs" / "results"
    shutil.copytree(results / "data" / "real", copy / "data" / "real")
    shutil.copy(results / "real.md", copy)
    made = [Path("real.md"), Path("data", "real", "statements.json")]
    (copy / made[-1]).unlink()
    script = str(ROOT / "scripts" / "real_study.py")
    command = [sys.executable, script, *PARTS, "--page-only"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    for file in made:
        assert (copy / file).read_text("utf-8") == (results / file).read_text("utf-8"), file


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_sources_of_fine_tuning_are_compared_and_rl_waits_for_all_runs(
    study: ExperimentRunner,
) -> None:
    made = PARTS["sft"].make(study)
    rows = [row[0] for row in made.tables[0].rows]
    assert {"base", "InT"} <= {*rows}
    for name in {*ARMS} - {*rows}:  # nothing that a model of this size writes verifies
        assert name in made.tables[0].note.partition("Not trained")[2]
    assert {claim.verdict for claim in made.claims} == {"cannot tell"}, "one run tells nothing"
    assert again(study, "sft").tables == made.tables
    with pytest.raises(MissingDataError, match="seed1"):
        PARTS["rl"].make(study)
