"""Tokens of a search for the hard set against exhaustive sampling, on replayed rollouts.

Pass rates of the problems that are not hard are drawn uniformly, or from a U-shaped law with many
nearly hard ones. Every rollout depends on its seed alone, so both ways see the same rollouts; that
they find the same hard set is asserted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from rows import Row

from midcourse.config import SamplingConfig
from midcourse.engines.base import Completion, Request
from midcourse.progress import Failures
from midcourse.records import Condition, FinishReason, Rollout
from midcourse.rendering import SplitIds
from midcourse.stages.contexts import Context
from midcourse.stages.sample import SampleSpec, sample
from midcourse.stages.search import search
from replay_engine import ReplayEngine

NUM_PROBLEMS, ROUNDS, CONCURRENCY = 1000, (4, 12, 48), 256
#: (share of hard problems, law of the others, the ratio aimed at)
MIXES = ((0.05, "uniform", 5.0), (0.05, "U-shaped", None), (0.2, "uniform", 2.5))
SPEC = SampleSpec(
    num_rollouts=sum(ROUNDS),
    sampling=SamplingConfig(max_tokens=4096).record(),
    budget="total",
    model="base",
    run_seed=0,
    stage="train",
)


def rows() -> Iterator[Row]:
    """Yield one row per mix of problems."""
    for hard, law, target in MIXES:
        chances = _chances(hard, law)
        whole = ReplayEngine(_script(chances), concurrency=CONCURRENCY)
        everything = list(sample(_contexts(), SPEC, whole, (), Failures()))
        thrifty = ReplayEngine(_script(chances), concurrency=CONCURRENCY)
        found = list(
            search(_contexts(), SPEC, ROUNDS, thrifty, _is_right, (), (), Failures())
        )  # fmt: skip
        if _hard_set(found) != _hard_set(everything):
            raise AssertionError("the search found another hard set")
        floor = _floor(everything)
        yield Row(
            what=f"hard-set search, {hard:.0%} hard, others {law}",
            ours=thrifty.num_tokens,
            theirs=whole.num_tokens,
            unit="tokens",
            against=f"exhaustive n = {SPEC.num_rollouts}",
            less_is_better=True,
            target=target,
            floor=f"{thrifty.num_tokens / floor:.2f} × the tokens up to each first correct one",
        )


def _chances(hard: float, law: str) -> list[float]:
    rng = random.Random(0)
    draw = rng.random if law == "uniform" else lambda: rng.betavariate(0.5, 0.5)
    return [0.0 if i < hard * NUM_PROBLEMS else draw() for i in range(NUM_PROBLEMS)]


def _contexts() -> Iterator[Context]:
    for index in range(NUM_PROBLEMS):
        yield Context(
            problem_id=str(index),
            condition=Condition.PROBLEM,
            parent_id=None,
            prompt_ids=(index,),
            response=SplitIds([], []),
            open_box="",
        )


def _script(chances: Sequence[float]) -> Callable[[Request], Completion]:
    """Rollouts by seed alone; wrong ones are longer, as in practice."""

    def complete(request: Request) -> Completion:
        rng = random.Random(request.seed)
        right = rng.random() < chances[request.prompt_token_ids[0]]
        length = min(int(rng.lognormvariate(6.0 if right else 6.5, 0.6)) + 1, 4096)
        return Completion(
            request_id=request.request_id,
            token_ids=(0,) * length,
            text="right" if right else "wrong",
            finish_reason=FinishReason.STOP,
        )

    return complete


def _is_right(rollout: Rollout) -> bool:
    return rollout.text == "right"


def _hard_set(rollouts: Sequence[Rollout]) -> set[str]:
    return {r.problem_id for r in rollouts} - {r.problem_id for r in rollouts if _is_right(r)}


def _floor(everything: Sequence[Rollout]) -> int:
    """Count the tokens up to each problem's first correct rollout, one after the other."""
    tokens, stopped = 0, set()
    for rollout in sorted(everything, key=lambda r: r.index):
        if rollout.problem_id not in stopped:
            tokens += len(rollout.token_ids)
            if _is_right(rollout):
                stopped.add(rollout.problem_id)
    return tokens
