"""What a report says of tokens, time and cost: unknown stays unknown."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from midcourse.config import PricesConfig, Recipe
from midcourse.config.prices import PriceConfig
from midcourse.report.facts import (
    StageCost,
    cost_of,
    cost_table,
    read_costs,
    run_facts,
    token_facts,
    totals,
    wall_seconds,
)
from midcourse.tokens import TokenCount

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def cost(tokens: dict[str, TokenCount] | None, start: float = 0, end: float = 10) -> StageCost:
    return StageCost(
        stage="sample", label="train", started=NOON + timedelta(seconds=start),
        finished=NOON + timedelta(seconds=end), code="abc", tokens=tokens,
    )  # fmt: skip


def test_tokens_add_up_by_role_and_one_unknown_stage_makes_a_sum_unknown() -> None:
    known = [
        cost({"policy": TokenCount(2, 10, 30)}),
        cost({"policy": TokenCount(1, 5, 5), "proposer": TokenCount(4, 8, 2)}),
    ]
    assert totals(known) == {"policy": TokenCount(3, 15, 35), "proposer": TokenCount(4, 8, 2)}
    assert totals([*known, cost({})]) == totals(known), "a stage without requests is known"
    assert totals([*known, cost(None)]) is None
    assert token_facts(None) == {"tokens": "unknown"}
    assert token_facts(totals(known))["tokens, policy"] == "15 in, 35 out, 3 requests"
    rows = cost_table([known[0], cost(None), cost({})]).rows
    assert [row[3:6] for row in rows] == [
        ("2", "10", "30"), ("unknown", "unknown", "unknown"), ("–", "–", "–")
    ]  # fmt: skip


def test_estimates_are_named_and_trained_tokens_stand_with_their_training() -> None:
    tokens = {"proposer": TokenCount(3, 8, 2, estimated=2)}
    assert token_facts(tokens)["tokens, proposer"].endswith("3 requests, 2 of them estimated")
    (row,) = cost_table([replace(cost({}), stage="checkpoints", trained=12_000)]).rows
    assert row[-1] == "12,000"


def test_a_cost_needs_prices_and_tokens() -> None:
    tokens = {"policy": TokenCount(1, 1_000_000, 0), "proposer": TokenCount(1, 2_000_000, 500_000)}
    assert cost_of(tokens, PricesConfig()) == ""
    prices = PricesConfig(proposer=PriceConfig(input=0.1, output=0.4))
    assert cost_of(tokens, prices) == "0.40 USD (proposer; no price for policy)"
    assert cost_of(None, prices).startswith("unknown")


def test_time_that_two_trainings_share_counts_once() -> None:
    assert wall_seconds([cost(None, 0, 10), cost(None, 5, 12), cost(None, 20, 21)]) == 13


def test_what_was_run_is_read_from_manifests_alone(finished_run: Path, recipe: Recipe) -> None:
    costs = read_costs(finished_run)
    manifest = json.loads(next((finished_run / "propose").glob("*/manifest.json")).read_text())
    (proposing,) = (one for one in costs if one.stage == "propose")
    assert proposing.started == datetime.fromisoformat(manifest["started"])
    assert (proposing.tokens is None) is ("tokens" not in manifest)
    facts = run_facts(recipe, costs, costs[0].code)
    assert facts["base model"] == "lab"
    assert facts["code"] == costs[0].code
    assert run_facts(recipe, [], "x")["wall time"] == "unknown"
