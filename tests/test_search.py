"""A search finds the hard set that exhaustive sampling finds, at fewer tokens."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import PROPOSAL
from midcourse.config import Recipe, SamplingConfig
from midcourse.engines.base import Completion, Engine, Request
from midcourse.metrics import StoppedCount, accuracy, coverage
from midcourse.pipeline import Method, Searched, Session
from midcourse.progress import Failures
from midcourse.records import (
    Condition,
    FinishReason,
    ProblemStatus,
    Proposal,
    ProposalOutcome,
    Rollout,
    Solvability,
)
from midcourse.rendering import SplitIds
from midcourse.report.collect import count_by_problem, stopped_by_problem
from midcourse.stages.contexts import Context
from midcourse.stages.sample import SampleSpec, sample
from midcourse.stages.search import ContextKey, context_key, search
from replay_engine import ReplayEngine
from runs import funnel, run_to

SPEC = SampleSpec(
    num_rollouts=64,
    sampling=SamplingConfig(max_tokens=100).record(),
    budget="total",
    model="base",
    run_seed=0,
    stage="train",
)
ROUNDS = (4, 12, 48)


def contexts(count: int) -> list[Context]:
    return [
        Context(
            problem_id=f"p{i}", condition=Condition.PROBLEM, parent_id=None, prompt_ids=(i,),
            response=SplitIds([], []), open_box="",
        )
        for i in range(count)
    ]  # fmt: skip


def chances(mix: str, count: int) -> list[float]:
    rng = random.Random(mix)
    hard = {"5 %": 0.05, "20 %": 0.2, "all": 1.0, "none": 0.0}[mix]
    return [0.0 if rng.random() < hard else rng.uniform(0.02, 1.0) for _ in range(count)]


def by_chance(chance: Sequence[float]) -> Callable[[Request], Completion]:
    """Reply by the request's own seed: the same rollout no matter what asks for it, and when."""

    def complete(request: Request) -> Completion:
        rng = random.Random(request.seed)
        right = rng.random() < chance[request.prompt_token_ids[0]]
        length = min(rng.randint(5, 60) if right else rng.randint(20, 100), 100)
        return Completion(
            request_id=request.request_id, token_ids=(7,) * length,
            text="right" if right else "wrong", finish_reason=FinishReason.STOP,
        )  # fmt: skip

    return complete


def is_right(rollout: Rollout) -> bool:
    return rollout.text == "right"


def run_search(
    engine: Engine, count: int, stopped: set[ContextKey], done: set[str], failures: Failures
) -> list[Rollout]:
    return list(
        search(contexts(count), SPEC, ROUNDS, engine, is_right, stopped, done, failures)
    )  # fmt: skip


def hard_set(rollouts: Sequence[Rollout]) -> dict[str, set[tuple[str, int]]]:
    """Return the (id, seed) pairs of every problem whose 64 rollouts are all there and wrong."""
    drawn = Counter(r.problem_id for r in rollouts)
    solved = {r.problem_id for r in rollouts if is_right(r)}
    hard = {p for p, count in drawn.items() if count == SPEC.num_rollouts and p not in solved}
    return {p: {(r.rollout_id, r.seed) for r in rollouts if r.problem_id == p} for p in hard}


@pytest.mark.slow
@pytest.mark.parametrize("mix", ["5 %", "20 %", "all", "none"])
@pytest.mark.parametrize("concurrency", [3, 64])
def test_the_hard_set_is_that_of_exhaustive_sampling(mix: str, concurrency: int) -> None:
    count = 60
    complete = by_chance(chances(mix, count))
    whole, thrifty = (ReplayEngine(complete, concurrency=concurrency) for _ in range(2))
    everything = list(sample(contexts(count), SPEC, whole, set(), Failures()))
    found = run_search(thrifty, count, set(), set(), Failures())
    assert len(everything) == count * 64
    assert whole.num_tokens == sum(len(r.token_ids) for r in everything)
    assert hard_set(found) == hard_set(everything)
    assert {r.problem_id for r in found if is_right(r)} == {
        r.problem_id for r in everything if is_right(r)
    }
    assert {r.rollout_id for r in found} <= {r.rollout_id for r in everything}
    if mix == "5 %":
        assert thrifty.num_tokens < whole.num_tokens / 5
    if mix == "all":
        assert thrifty.num_tokens == whole.num_tokens


def test_a_search_cut_short_goes_on_where_it_was() -> None:
    complete = by_chance(chances("20 %", 40))
    whole = run_search(ReplayEngine(complete, concurrency=8), 40, set(), set(), Failures())
    kept = whole[: len(whole) // 2]
    stopped, done = {context_key(r) for r in kept if is_right(r)}, {r.rollout_id for r in kept}
    rest = run_search(ReplayEngine(complete, concurrency=8), 40, stopped, done, Failures())
    assert not {r.rollout_id for r in rest} & done
    assert not {context_key(r) for r in rest} & stopped
    assert hard_set([*kept, *rest]) == hard_set(whole)


def test_nothing_is_asked_after_the_first_correct() -> None:
    engine = ReplayEngine(by_chance([1.0]), concurrency=1)
    found = run_search(engine, 1, set(), set(), Failures())
    assert len(found) == 1
    assert engine.num_tokens == len(found[0].token_ids)


def test_a_failed_request_is_counted_and_owed() -> None:
    def complete(request: Request) -> Completion:
        done = by_chance([0.0])(request)
        failed = request.seed % 7 == 0
        return Completion(
            request_id=done.request_id, token_ids=done.token_ids, text=done.text,
            finish_reason=done.finish_reason, error="gone" if failed else None,
        )  # fmt: skip

    failures = Failures()
    found = run_search(ReplayEngine(complete, concurrency=8), 1, set(), set(), failures)
    assert failures.num_failed > 0
    assert len(found) + failures.num_failed == 64


def test_counts_of_a_search_never_become_shares() -> None:
    counts = [StoppedCount(num_drawn=3, is_solved=True), StoppedCount(64, False)]
    assert coverage(counts) == 1
    with pytest.raises(AttributeError):
        accuracy(counts)  # type: ignore[arg-type]


def add_rule(recipe_data: dict[str, Any], rule: list[str]) -> None:
    """Let the script try `rule` first; the seed picks among its replies."""
    script = Path(recipe_data["engine"]["script"])
    script.write_text(json.dumps([rule, *json.loads(script.read_text())]))


def test_a_recipe_with_rounds_gives_the_same_rows(
    tmp_path: Path, recipe_data: dict[str, Any]
) -> None:
    add_rule(recipe_data, [r"2 \+ 2, 1\?", "no \\boxed{5}", "so \\boxed{4}"])

    def look(session: Session, m: Method) -> tuple[dict[str, ProblemStatus], set[str]]:
        funnel(session, m)
        statuses = {s.problem_id: s for s in session.read(m.statuses)}
        return statuses, {r.row_id for r in session.read(m.models.rows)}

    def look_and_count(session: Session, m: Method) -> tuple[dict[str, ProblemStatus], set[str]]:
        seen, problems = look(session, m), m.hard.read(session)
        assert problems
        assert isinstance(m.train, Searched)
        counts = stopped_by_problem(session.run, m.train, problems)
        assert [count.num_drawn for count in counts] == [4] * len(problems)
        with pytest.raises(TypeError, match="no unbiased counts"):
            count_by_problem(session, m.train, problems)  # type: ignore[arg-type]
        return seen

    exhaustive, rows = run_to(tmp_path / "a", Recipe.model_validate(recipe_data), look)
    recipe_data["sample"]["rounds"] = [1, 3]
    recipe_data["verify"]["rounds"] = [1, 3]
    recipe = Recipe.model_validate(recipe_data)
    searched, thrifty = run_to(tmp_path / "b", recipe, look_and_count)
    assert {p: s.status for p, s in searched.items()} == {
        p: s.status for p, s in exhaustive.items()
    }
    assert {s.status for s in searched.values()} == {Solvability.HARD, Solvability.SOLVED}
    assert rows
    assert thrifty == rows
    solved = next(s for s in searched.values() if s.status is Solvability.SOLVED)
    assert solved.num_skipped + solved.num_correct + solved.num_incorrect == 4


def test_questions_end_with_the_first_accepted(tmp_path: Path, recipe_data: dict[str, Any]) -> None:
    add_rule(recipe_data, ["Compare and intervene", "no tag", PROPOSAL])
    recipe_data["propose"] = {
        "turns": "single", "num_rollouts": 4, "num_proposals": 4, "stop_at_first_accepted": True,
    }  # fmt: skip
    proposals = run_to(
        tmp_path / "run", Recipe.model_validate(recipe_data),
        lambda session, m: list(session.read(m.proposals)),
    )  # fmt: skip
    by_rollout: dict[str, list[Proposal]] = {}
    for proposal in sorted(proposals, key=lambda p: p.index):
        by_rollout.setdefault(proposal.rollout_id, []).append(proposal)
    lengths = Counter(len(answers) for answers in by_rollout.values())
    assert len(lengths) > 1
    for answers in by_rollout.values():
        outcomes = [answer.outcome for answer in answers]
        assert [answer.index for answer in answers] == list(range(len(answers)))
        assert set(outcomes[:-1]) <= {ProposalOutcome.NO_TAG}
        assert outcomes[-1] is ProposalOutcome.ACCEPTED or len(answers) == 4
