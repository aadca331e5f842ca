"""The primary claims: what is fixed before the runs, when there is a verdict, and which."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midcourse.errors import ConfigError
from midcourse.experiments import readings, rl
from midcourse.experiments.catalogue import Measure
from midcourse.experiments.claims import Primary, PrimaryClaim, primary_claims, read_claims
from midcourse.experiments.claims_page import claims_page
from midcourse.experiments.data import Reading, RunData
from midcourse.experiments.interventions import continuations
from midcourse.experiments.outcomes import LEVEL, MEASURES, Outcome, outcomes
from midcourse.experiments.readings import counts_on
from midcourse.metrics import mean
from midcourse.progress import SilentProgress
from midcourse.report.runs import compare_values, holm, judge_all, runs_needed, sign_flip

TOML = """
[world.lab]
scale = "scale/lab"
overlays = ["scale/plateau"]
[[claim]]
words = "InT + RL ends above RL."
world = "lab"
measure = "plateau"
on = "held_out"
ours = { name = "InT + RL", role = "patched + RL" }
theirs = [{ name = "RL", role = "base + RL" }]
no = "It ends below."
"""
#: Ten differences that all point one way: p = 2 / 1024.
CLEAR = [0.1 + 0.01 * i for i in range(10)]


def outcome(*arms: Sequence[float], within: float = 0.0, runs: int = 10) -> Outcome:
    """Return the outcome of a claim with these differences against each arm."""
    claim = replace(read_claims(TOML).claims[0], within=within, runs=runs)
    compared = {
        str(place): compare_values(dict(enumerate(arm, 1)), dict.fromkeys(range(1, 11), 0.0))
        for place, arm in enumerate(arms)
    }
    return Outcome(claim=claim, comparisons=compared)


def answer(one: Outcome, corrected: float | None = None) -> str:
    """Return the verdict, without a correction unless one is given."""
    return one.verdict(one.judged.p_value if corrected is None else corrected)


def test_a_claim_has_three_answers_once_all_runs_are_there() -> None:
    assert answer(outcome(CLEAR)) == "holds"
    assert answer(outcome([-d for d in CLEAR])) == "does not hold"
    assert answer(outcome([(-1) ** i * d for i, d in enumerate(CLEAR)])) == "cannot tell"
    assert answer(outcome(CLEAR), corrected=0.06) == "cannot tell"


def test_before_all_runs_are_there_a_claim_has_no_verdict_but_a_place_in_the_correction() -> None:
    early = outcome(CLEAR[:4])
    assert answer(early) == "not yet: 4 of 10 runs"
    assert early.judged.p_value == 1.0
    assert answer(Outcome(claim=early.claim, comparisons={})) == "not yet: 0 of 10 runs"
    whole = outcome(CLEAR).judged.p_value
    assert holm([whole, *[early.judged.p_value] * 11])[0] == pytest.approx(12 * 2 / 1024)


def test_a_claim_about_several_arms_needs_all_of_them() -> None:
    worse, open_ = [-d for d in CLEAR], [(-1) ** i * d for i, d in enumerate(CLEAR, 1)]
    assert answer(outcome(CLEAR, CLEAR)) == "holds"
    assert answer(outcome(CLEAR, open_)) == "cannot tell"
    assert answer(outcome(CLEAR, worse)) == "does not hold"
    assert judge_all([CLEAR, worse]).p_value == 2 * 2 / 1024, "one of two arms refutes it"
    assert answer(outcome(CLEAR, CLEAR[:6])) == "not yet: 6 of 10 runs"


def test_equivalence_takes_a_margin_that_holds_all_runs() -> None:
    close = [0.001 * (i - 4) for i in range(10)]
    assert answer(outcome(close, within=0.03)) == "holds"
    assert answer(outcome(close, within=0.001)) == "cannot tell"
    assert answer(outcome(CLEAR, within=0.03)) == "does not hold"
    assert answer(outcome([-d for d in CLEAR], within=0.03)) == "does not hold"
    wide = [0.2 * (-1) ** i for i in range(10)]
    assert answer(outcome(wide, within=0.03)) == "cannot tell", "holding zero is no equality"


def test_a_family_without_any_effect_seldom_gives_a_verdict() -> None:
    rng, false = random.Random(0), 0
    for _ in range(200):
        studies = [[rng.gauss(0, 1) for _ in range(8)] for _ in range(3)]
        found = [judge_all([study]).p_value for study in studies]
        false += min(holm(found)) <= LEVEL
    assert false / 200 <= 0.08


def test_the_power_that_is_said_is_that_of_simulated_studies() -> None:
    rng = random.Random(0)
    pairs = runs_needed([-1.0, 1.0, -1.0, 1.0, 0.0], 1.0)
    assert pairs is not None
    studies = [[rng.gauss(1.0, 1.0) for _ in range(pairs)] for _ in range(150)]
    shown = sum(sign_flip(study) <= 0.05 and mean(study) > 0 for study in studies)
    assert 0.7 < shown / len(studies) < 0.92


def test_fewer_runs_than_the_exact_test_can_use_are_never_enough() -> None:
    tight = [0.1, 0.1001, 0.1002]
    assert runs_needed(tight, 1.0) == 6
    assert runs_needed(tight, 1.0, 0.05 / 12) == 9


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('world = "lab"', 'world = "mars"', "claim 1: no world 'mars': lab"),
        ('"plateau"', '"height"', "claim 1: measure: Input should be"),
        ('name = "RL"', 'name = "RL", recipe = "rl2"', "claim 1: no recipe paper/rl2"),
        ('role = "base + RL"', 'role = "bse"', "claim 1: theirs.0.role: "),
        ('no = "', 'yes = "', "claim 1: "),
    ],
)
def test_a_mistake_in_the_file_is_one_line(old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_claims(TOML.replace(old, new))
    assert str(caught.value).startswith(f"claims.toml: {said}")
    assert "\n" not in str(caught.value)


def test_every_packaged_claim_says_what_decides_it() -> None:
    claims = primary_claims().claims
    assert 8 <= len(claims) <= 13, "a handful: the correction is over all of them"
    assert all(claim.measure in MEASURES and claim.no for claim in claims)
    assert len({claim.words for claim in claims}) == len(claims)
    # The smallest p of ten pairs has to survive the correction over all.
    assert all(2 / 2**claim.runs * len(claims) <= LEVEL for claim in claims)


def names(claim: PrimaryClaim) -> Mapping[str, int]:
    """Return how often each of a claim's arms is named."""
    return {row.name: [r.name for r in claim.rows].count(row.name) for row in claim.rows}


def test_arms_of_a_claim_have_names_of_their_own() -> None:
    assert all(set(names(claim).values()) == {1} for claim in primary_claims().claims)


def test_the_page_without_data_says_of_every_claim_that_it_has_no_run(tmp_path: Path) -> None:
    page = claims_page(primary_claims(), tmp_path, "By hand.")
    assert page.count("**not yet: 0 of 10 runs**") == 2 * len(primary_claims().claims)
    assert "By hand." in page
    assert "NaN" not in page and "nan" not in page.split("By hand.")[1]


def made_up(key: str, level: int) -> object:
    """Return a reading of problems or groups of which `level` in 32 are right."""
    counts = {f"p{i}": [{"num_samples": 32, "num_correct": level}] for i in range(4)}
    if key.startswith("course_counts"):
        return dict.fromkeys((0, 60, 80, 100), counts)
    if key.startswith("reward_groups"):
        return {i: [(8, int(j < level // 8)) for j in range(4)] for i in range(5)}
    return counts


@pytest.mark.parametrize("place", range(6))
def test_a_claim_is_judged_from_kept_readings_alone(place: int, tmp_path: Path) -> None:
    primary = primary_claims()
    claim = replace(primary.claims[place], runs=6)
    study = primary.worlds[claim.world].study
    data, keyed = RunData(study.data_folder(tmp_path)), READINGS[claim.measure]
    for seed in range(1, claim.runs + 1):
        runner = study.runner((seed,), SilentProgress(), data)
        for row in claim.rows:
            is_high = (row is claim.ours) != (claim.measure is Measure.ZERO_ADVANTAGE)
            level = 8 if claim.within else 16 + seed if is_high else 8
            key = (keyed if keyed is not None else counts_on(claim.on)).key(row)
            data.of(runner.recipe(row.recipe, seed)).keep(key, made_up(key, level), 0.0)
    ((found, corrected),) = outcomes(replace_claims(primary, claim), tmp_path)
    assert found.made == 6
    assert found.verdict(corrected) == "holds"
    page = claims_page(replace_claims(primary, claim), tmp_path, "")
    assert "| 6 |" in page
    # A margin has a test of its own, and no power to tell 5 points from none.
    assert ("against each end of 3 points" in page) is bool(claim.within)
    assert ("Runs needed" in page) is not bool(claim.within)
    drawn = "iterations" if claim.measure is Measure.ZERO_ADVANTAGE else "problems"
    assert f"by the hierarchical bootstrap (runs, then {drawn})" in page


READINGS: Mapping[Measure, Reading[Any] | None] = {
    Measure.ACCURACY: Reading(continuations),
    Measure.PASS_AT_K: None,
    Measure.AREA: Reading(readings.course_counts),
    Measure.ZERO_ADVANTAGE: Reading(rl.reward_groups),
}


def replace_claims(primary: Primary, claim: PrimaryClaim) -> Primary:
    """Return a family of one claim."""
    return primary._replace(claims=(claim,))
