"""Primary claims: when they are judged, what corrects them, and what their page says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from midcourse.experiments.catalogue import Measure, Row
from midcourse.experiments.claims import (
    MEASURED,
    Primary,
    compare,
    judge_all,
    primary_claims,
    write_claims,
)
from midcourse.experiments.data import RunData, SeedData
from midcourse.experiments.readings import counts_on, plateau
from midcourse.experiments.runner import ExperimentRunner
from midcourse.metrics import Count
from midcourse.progress import SilentProgress
from midcourse.recipes import find_recipe, recipe_names
from midcourse.records import Role, Start
from midcourse.report.runs import Comparison, compare_values

CLAIM = Primary(
    words="The patch raises pass@1.",
    scale="lab",
    measure=Measure.PASS_AT_K,
    ours=Row(name="InT", role=Role(Start.PATCHED)),
    theirs=Row(name="base"),
    paper="Figure 6",
)


def runs(differences: Sequence[float]) -> Comparison:
    """Return a comparison of arms that differ by these, run by run."""
    ours = {seed: 0.5 + d for seed, d in enumerate(differences, start=1)}
    return compare_values(ours, dict.fromkeys(ours, 0.5))


UP, DOWN, EITHER = [0.1] * 10, [-0.1] * 10, [0.1, -0.1] * 5


def test_a_claim_has_three_answers_once_all_runs_are_there() -> None:
    judged = judge_all([(CLAIM, runs(of)) for of in (UP, DOWN, EITHER)])
    assert [of.verdict for of in judged] == ["holds", "does not hold", "cannot tell"]


def test_before_all_runs_are_there_nothing_is_judged() -> None:
    (judged,) = judge_all([(CLAIM, runs([0.1] * 9))])
    assert judged.verdict == "not yet: 9 of 10 runs"


def test_claims_are_corrected_together_those_without_runs_too() -> None:
    (alone,) = judge_all([(CLAIM, runs(UP))])
    first, *_ = judge_all([(CLAIM, runs(UP)), *[(CLAIM, runs([]))] * 29])
    assert alone.adjusted == pytest.approx(2 / 1024)
    assert first.adjusted == pytest.approx(30 * 2 / 1024)
    assert first.verdict == "cannot tell"


def test_a_family_without_effects_is_seldom_found_to_have_one() -> None:
    rng, eight = random.Random(0), replace(CLAIM, runs=8)
    found = 0
    for _ in range(60):
        family = [(eight, runs([rng.gauss(0, 0.06) for _ in range(8)])) for _ in range(10)]
        found += any(of.verdict != "cannot tell" for of in judge_all(family))
    assert found <= 6


def test_every_claim_names_recipes_and_measures_that_there_are() -> None:
    claims = primary_claims()
    assert 8 <= len(claims) <= 12
    assert len({of.words for of in claims}) == len(claims)
    for of in claims:
        assert of.measure in MEASURED
        assert of.runs >= 10
        assert {f"paper/{row.recipe}" for row in (of.ours, of.theirs)} <= set(recipe_names())


def test_a_claim_is_read_from_the_planned_seeds_that_both_arms_have(tmp_path: Path) -> None:
    data = RunData(tmp_path, may_run=False)
    scale, silent = find_recipe("scale/lab"), SilentProgress()
    runner = ExperimentRunner(scale=scale, seeds=(1,), reporter=silent, data=data)
    reading = counts_on("held_out")
    for seed, rows in {1: (CLAIM.ours, CLAIM.theirs), 2: (CLAIM.ours,), 3: (CLAIM.ours,)}.items():
        kept = data.of(runner.recipe("int", seed))
        for number, row in enumerate(rows):
            counts = reading.adapter.dump_python({"p": [Count(10, 4 - number)]}, mode="json")
            kept.keep(reading.key(row), counts, seconds=1.0)
    assert isinstance(kept, SeedData)
    found = compare(CLAIM, runner)
    assert found.seeds == (1,)
    assert found.differences == pytest.approx((0.1,))
    itself = replace(CLAIM, theirs=CLAIM.ours, runs=2)
    assert compare(itself, runner).seeds == (1, 2)  # seed 3 was not planned
    assert compare(CLAIM, None).seeds == ()


def test_the_page_shows_every_run_and_keeps_what_is_written_by_hand(tmp_path: Path) -> None:
    page, judged = tmp_path / "claims.md", judge_all([(CLAIM, runs(UP)), (CLAIM, runs([]))])
    write_claims(judged, page)
    text = page.read_text()
    assert "| 10 | 60.0 | 50.0 | 10.0 |" in text
    assert "**not yet: 0 of 10 runs**" in text
    page.write_text(text.replace("<!-- end", "Mine.\n<!-- end"))
    write_claims(judged, page)
    assert "Mine." in page.read_text()


def test_the_plateau_is_of_the_last_two_fifths() -> None:
    assert plateau({0: 0.0, 20: 0.1, 60: 0.3, 80: 0.5, 100: 0.7}) == pytest.approx(0.6)
