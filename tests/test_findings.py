"""Sentences of a report: chosen by intervals, and different when the data are."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from midcourse.config import Recipe, load_recipe
from midcourse.metrics import Count, Interval
from midcourse.records import Condition, GroupCount
from midcourse.report.collect import HARD, ReportData
from midcourse.report.estimates import (
    MARGIN,
    MIN_PROBLEMS,
    accuracy_margins,
    accuracy_of,
    by_place,
    mean_difference,
    passed,
    passes,
    unpaired_difference,
)
from midcourse.report.findings import Finding, Verdict, findings, not_measured, summary
from midcourse.report.runs import between_runs, over_runs
from midcourse.report.shape import is_of_paper


def report_data(**changes: Any) -> ReportData:
    """A run of which nothing is known but what a test says."""
    empty = ReportData(
        name="own", seed=0, funnel={}, conditions={}, guided={}, searches={}, evaluations={},
        arms={}, courses={}, likelihoods=[], model_labels={}, error_steps=[], ks={},
        problem_ids={}, lengths={}, sft_log={},
    )  # fmt: skip
    return replace(empty, **changes)


def patched(before: list[Count], after: list[Count]) -> Finding:
    """What is said of fine-tuning on held-out problems, by pass@1."""
    data = report_data(
        evaluations={"held_out": {"base": before, "patched": after}}, ks={"held_out": (1,)}
    )
    (found,) = findings(data)
    return found


def test_a_gain_a_loss_no_change_and_what_cannot_be_told_are_four_sentences() -> None:
    low, high = [Count(40, 4), Count(40, 8)] * 10, [Count(40, 20), Count(40, 26)] * 10
    mixed = [Count(40, 0), Count(40, 14)] * 10
    gain, loss, none, open_ = (
        patched(low, high), patched(high, low), patched(low, low[::-1]), patched(low, mixed)
    )  # fmt: skip
    assert gain.sentence.startswith("Fine-tuning raised pass@1 on held_out by 42.5 points [")
    assert gain.sentence.endswith("(15.0 → 57.5 %; paired by problem, n = 20 problems).")
    assert gain.estimate == pytest.approx(42.5)
    assert (gain.verdict, gain.n) == (Verdict.ABOVE, 20)
    assert loss.sentence.startswith("Fine-tuning lowered pass@1 on held_out by 42.5 points [")
    assert loss.verdict is Verdict.BELOW
    assert open_.sentence.startswith("Cannot tell whether fine-tuning changed pass@1 on held_out: ")
    assert none.verdict is Verdict.OPEN, "±10 points over 20 problems do not lie within the margin"


def test_no_change_is_said_only_where_the_whole_interval_lies_within_the_margin() -> None:
    before = [Count(1000, 500 + i % 3) for i in range(60)]
    after = [Count(1000, 500 + (i + 1) % 3) for i in range(60)]
    same = patched(before, after)
    assert same.verdict is Verdict.SAME
    assert f"changed pass@1 on held_out by less than {100 * MARGIN:g} points: " in same.sentence
    assert -100 * MARGIN < same.low <= same.high < 100 * MARGIN


def test_of_too_few_problems_nothing_is_said_however_large_the_difference() -> None:
    enough = patched([Count(8, 0)] * MIN_PROBLEMS, [Count(8, 7)] * MIN_PROBLEMS)
    assert enough.verdict is Verdict.ABOVE
    few = MIN_PROBLEMS - 1
    found = patched([Count(8, 0)] * few, [Count(8, 7)] * few)
    assert found.verdict is Verdict.FEW
    assert found.sentence.startswith("Too few problems to tell whether fine-tuning changed pass@1")


def test_an_intervention_is_worth_what_its_continuations_gain_over_the_closest_condition() -> None:
    ours, step, bare = [Count(32, 8), Count(32, 4)] * 6, [Count(32, 0)] * 12, [Count(32, 4)] * 12
    conditions = {Condition.PROBLEM: bare, Condition.PREFIX_INTERVENTION: ours}
    worth, wider = findings(report_data(conditions=conditions))
    assert "in place of “problem only” raised accuracy on hard problems" in worth.sentence
    assert wider.verdict is Verdict.OPEN, "every problem is covered either way"
    conditions[Condition.PREFIX_ERROR] = step
    worth, wider = findings(report_data(conditions=conditions))
    assert "in place of “prefix + original step” raised accuracy" in worth.sentence
    assert "384 and 384 samples, n = 12 problems" in worth.sentence
    assert wider.estimate == 100


def test_where_nothing_could_be_graded_nothing_is_said() -> None:
    none, some = [Count(0, 0)] * 8, [Count(4, 1)] * 8
    conditions = {Condition.PROBLEM: none, Condition.PREFIX_INTERVENTION: some}
    assert [one.name for one in findings(report_data(conditions=conditions))] == [
        "intervention coverage"
    ]


def test_pass_at_k_has_a_width_where_all_problems_agree() -> None:
    two = passed(by_place([Count(2, 0)] * 2), 1)
    assert (two.estimate, two.low, round(two.high, 3)) == (0, 0, 0.658)
    few, many = (passed(by_place([Count(8, 8)] * n), 8) for n in (4, 400))
    assert [round(of.high, 9) for of in (few, many)] == [1, 1]
    assert few.low < 0.6 < 0.99 < many.low
    half = passed(by_place([Count(2, 1)]), 1)
    assert half.low < 0.2 < 0.8 < half.high, "one problem says little"
    ordinary = passed(by_place([Count(8, 1), Count(8, 7)] * 8), 1)
    assert 0 < ordinary.low < ordinary.estimate < ordinary.high < 1


def test_differences_have_a_width_where_all_problems_agree() -> None:
    zero, one = (passes(by_place([Count(4, c)] * 10), 1) for c in (0, 4))
    nothing, everything = mean_difference(zero, zero), mean_difference(one, zero)
    assert nothing.low == -nothing.high < -0.2
    assert everything.estimate == 1
    assert everything.low == pytest.approx(0.722, abs=1e-2)
    apart = unpaired_difference(Interval(0.5, 0.1, 0.9), Interval(0.5, 0.2, 0.8))
    assert [round(end, 9) for end in (apart.low, apart.high)] == [-0.5, 0.5]
    nothing = accuracy_of({"a": [Count(50, 0)], "b": [Count(50, 0)]})
    assert 0 < nothing.high < 0.05, "Wilson's over 100 samples"


@pytest.mark.parametrize("correct", [0, 4])
def test_of_few_groups_that_never_change_the_report_says_neither_less_nor_the_same(
    correct: int,
) -> None:
    groups = [
        GroupCount(
            iteration=i, problem_id=f"p{n}", num_correct=correct, num_incorrect=4 - correct,
            num_ungraded=0,
        )
        for i in (0, 5)
        for n in range(8)
    ]  # fmt: skip
    found = findings(report_data(arms={"base + RL": groups, "patched + RL": groups}))
    assert [one.name for one in found] == [
        "reward base + RL", "reward patched + RL", "zero advantage",
    ]  # fmt: skip
    for one in found:
        assert one.verdict is Verdict.OPEN
        assert one.low < -3 < 3 < one.high, "32 rollouts of 8 problems say little"


def test_runs_with_some_problems_in_common_have_a_width_where_all_agree() -> None:
    ours, theirs = ({str(n): [0.0] for n in range(first, first + 10)} for first in (0, 5))
    apart = mean_difference(ours, theirs)
    assert apart.low < -0.2 < 0.2 < apart.high


def test_accuracies_have_a_width_where_all_is_correct() -> None:
    every, half = {"a": [Count(20, 20)]}, {"a": [Count(20, 10)]}
    assert accuracy_margins(every, half) == pytest.approx((0.161, 0), abs=1e-3)
    assert accuracy_margins(half, every) == pytest.approx((0, 0.161), abs=1e-3)


def test_intervals_over_runs_need_three_of_them() -> None:
    two, three = over_runs([0.1, 0.3]), over_runs([1.0, 2.0, 3.0])
    assert two.estimate == pytest.approx(0.2)
    assert math.isnan(two.low)
    assert three.high - three.estimate == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    apart = between_runs([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert apart.high - apart.estimate == pytest.approx(2.776 * math.sqrt(2 / 3), rel=1e-3)
    assert math.isnan(between_runs([1.0, 2.0], [1.0, 2.0, 3.0]).low)
    assert math.isnan(over_runs([1.0, 1.0, 1.0]).low), "where all agree, their spread is unknown"
    assert math.isnan(between_runs([1.0] * 3, [2.0] * 3).low)


def test_what_was_not_measured_names_the_key_that_would(recipe: Recipe) -> None:
    only_base = recipe.model_copy(
        update={"evaluate": recipe.evaluate.model_copy(update={"models": ("base",)})}
    )
    counts = {"held_out": {"base": [Count(2, 0)]}}
    said = " ".join(not_measured(report_data(evaluations=counts), only_base))
    assert 'evaluate.models is ["base"], without “patched”' in said
    assert "What RL gains from the base" in said
    assert "there is only the held-out set" in said
    assert "no evaluation set" not in said
    assert "no evaluation set" in " ".join(not_measured(report_data(), only_base))


def test_the_summary_says_what_came_out_in_one_sentence() -> None:
    assert summary(report_data(), []) == "Nothing is complete yet."
    data = report_data(
        problem_ids={HARD: ["a", "b"]},
        funnel={
            "problems": {"hard": 2, "solved": 3, "total": 5},
            "candidates for a row": {"ready": 1, "not_verified": 3, "total": 4},
        },
    )
    gain = patched([Count(40, 4), Count(40, 8)] * 10, [Count(40, 20), Count(40, 26)] * 10)
    said = summary(data, [gain])
    assert said.startswith("2 of 5 problems were hard; 1 row was ready to train on; fine-tuning ")
    assert said.endswith("].")


def test_the_paper_s_shape_is_for_the_paper_s_runs_and_the_lab_s(recipe: Recipe) -> None:
    lab, theirs = load_recipe("lab"), load_recipe("paper/int", overlays=["scale/paper"])
    assert is_of_paper(lab.model_copy(update={"name": "mine"}))
    assert is_of_paper(theirs)
    assert not is_of_paper(recipe.model_copy(update={"name": "lab"}))
    assert not is_of_paper(theirs.model_copy(update={"problems": recipe.problems}))
