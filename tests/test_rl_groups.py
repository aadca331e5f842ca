"""Groups without a gradient: kept, dropped from the denominator, or refilled; and what is counted.

Mostly without a model: a collector with a sampler and a grader that answer by plan.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from transformers import AutoTokenizer

from midcourse.checkers import GradeResult
from midcourse.config import TrainRlConfig
from midcourse.engines.bundled import base_folder
from midcourse.records import Condition, Gold, Verdict
from midcourse.rendering import Renderer
from midcourse.training.common import Setting
from midcourse.training.jobs import RlContext
from midcourse.training.rl.collect import Collector, Processes, slot_name
from midcourse.training.rl.groups import Group, scale_without_zeros
from midcourse.training.rl.run import train_rl
from midcourse.training.rl.schedule import Schedule
from midcourse.training.rl.store import read_rl_rollouts, read_rl_samples
from rl_problems import FakeSampler, PatternGrader, rl_problem

#: By problem: what becomes of its four rollouts. Only ``b``, ``e`` and ``u`` have a gradient.
VERDICTS = {"a": "0000", "b": "1000", "c": "1111", "d": "00000000", "e": "0110", "u": "u10u"}
WITH_GRADIENT = {"b", "e", "u"}
PROBLEMS = [
    rl_problem(name, f"Solve {name}.", Gold("math", verdicts))
    for name, verdicts in VERDICTS.items()
]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(AutoTokenizer.from_pretrained(base_folder()))


def config(**changes: Any) -> TrainRlConfig:
    small = {"num_iterations": 4, "prompts_per_iteration": 2, "num_generations": 4}
    return TrainRlConfig.model_validate({**small, **changes})


class Collected:
    """A collector, and what it kept."""

    def __init__(
        self, renderer: Renderer, config: TrainRlConfig, processes: Processes | None = None
    ) -> None:
        self.kept: dict[int, list[Group]] = {}
        self.sampler = FakeSampler()
        self.collector = Collector(
            schedule=Schedule(PROBLEMS, config, 0),
            config=config,
            grader=PatternGrader(),
            renderer=renderer,
            policy="rl:k",
            seed=0,
            keep=lambda iteration, groups: self.kept.update({iteration: list(groups)}),
            processes=processes or Processes(),
        )
        self.collector.sampler = self.sampler

    def ask(self, iteration: int, share: slice = slice(None)) -> dict[str, Any]:
        """Ask as TRL does: the name of a slot once per completion."""
        schedule, number = self.collector.schedule, self.collector.config.num_generations
        names = [slot_name(slot) for slot in schedule.slots(iteration)[share]]
        prompts = [[{"role": "user", "content": name}] for name in names for _ in range(number)]
        answer: dict[str, Any] = self.collector(prompts, None)
        return answer


def names(groups: Sequence[Group]) -> list[str]:
    return [group.rollouts[0].problem_id for group in groups]


def test_keep_trains_every_group_and_changes_nothing(renderer: Renderer) -> None:
    made = Collected(renderer, config())
    for iteration in range(4):
        answer = made.ask(iteration)
        batch, planned = made.collector.batch, made.collector.schedule.slots(iteration)
        assert names(batch.groups) == [slot.problem.problem_id for slot in planned]
        assert batch.scale == 1.0
        assert list(batch.groups) == made.kept[iteration]
        assert len(answer["reward"]) == 8
        assert batch.metrics["groups/refilled"] == batch.metrics["groups/dropped"] == 0


def test_refill_takes_further_problems_until_every_group_has_a_gradient(renderer: Renderer) -> None:
    made = Collected(renderer, config(zero_gradient="refill", max_refill=2.0))
    filled = 0
    for iteration in range(4):
        answer = made.ask(iteration)
        batch, kept = made.collector.batch, made.kept[iteration]
        assert len(batch.groups) == 2
        assert len(answer["reward"]) == len(answer["completion_ids"]) == 8
        assert {group.index for group in batch.groups} == {g.index for g in kept if g.is_trained}
        # Never the same problem twice: there are six, and at most six are asked for.
        assert len(set(names(kept))) == len(kept) <= 6
        with_gradient = [group for group in kept if group.has_gradient]
        assert set(names(with_gradient)) == set(names(kept)) & WITH_GRADIENT
        assert all(group.has_gradient for group in batch.groups)
        filled += len(kept) - 2
        metrics = batch.metrics
        assert metrics["groups/sampled"] == len(kept)
        assert metrics["groups/refilled"] == metrics["groups/discarded"] == len(kept) - 2
        assert metrics["groups/with_gradient"] == sum(g.has_gradient for g in batch.groups)
        assert metrics["groups/sampled_tokens"] == sum(group.num_tokens for group in kept)
        assert metrics["groups/trained_tokens"] == sum(group.num_tokens for group in batch.groups)
        samples = [sample for group in kept for sample in group.samples]
        assert sum(sample.is_trained for sample in samples) == 8
        assert len({sample.rollout_id for sample in samples}) == 4 * len(kept)
    assert filled
    # A resumed run, which did not see the iterations before, samples the same again.
    again = Collected(renderer, config(zero_gradient="refill", max_refill=2.0))
    again.ask(3)
    assert names(again.kept[3]) == names(made.kept[3])
    ids = [[rollout.token_ids for group in kept for rollout in group.rollouts]
           for kept in (made.kept[3], again.kept[3])]  # fmt: skip
    assert ids[0] == ids[1]


def test_refill_ends_at_its_bound_and_fills_up_with_what_there_is(renderer: Renderer) -> None:
    hopeless = [rl_problem(name, f"Solve {name}.", Gold("math", "0")) for name in "vwxyz"]
    made = Collected(renderer, config(zero_gradient="refill", max_refill=1.5))
    made.collector.schedule = Schedule(hopeless, made.collector.config, 0)
    answer = made.ask(0)
    assert len(made.kept[0]) == 2 + 3
    assert [group.index for group in made.collector.batch.groups] == [0, 1]
    assert len(answer["reward"]) == 8
    assert made.collector.batch.metrics["groups/with_gradient"] == 0
    # Problems come again only where all have come.
    made = Collected(renderer, config(zero_gradient="refill", max_refill=3.0))
    made.collector.schedule = Schedule(hopeless, made.collector.config, 0)
    made.ask(0)
    kept = names(made.kept[0])
    assert len(kept) == 8
    assert set(kept[:5]) == set("vwxyz")
    assert len({r.rollout_id for group in made.kept[0] for r in group.rollouts}) == 32


def test_drop_scales_to_the_mean_over_groups_with_a_gradient(renderer: Renderer) -> None:
    for loss in ("sequence_mean", "token_mean", "constant_length", "token_sum"):
        made = Collected(renderer, config(zero_gradient="drop", loss=loss, prompts_per_iteration=6))
        made.ask(0)
        batch = made.collector.batch
        found = dict(zip(names(batch.groups), batch.groups, strict=True))
        assert {name for name, group in found.items() if group.has_gradient} == WITH_GRADIENT
        tokens = {name: group.num_tokens for name, group in found.items()}
        by_tokens = sum(tokens.values()) / sum(tokens[name] for name in WITH_GRADIENT)
        assert by_tokens != 2.0
        assert batch.scale == pytest.approx(by_tokens if loss == "token_mean" else 2.0)
        assert batch.metrics["groups/dropped"] == 3
        assert batch.metrics["groups/trained"] == 6


def test_no_gradient_at_all_scales_nothing(renderer: Renderer) -> None:
    made = Collected(renderer, config(prompts_per_iteration=6))
    made.ask(0)
    zero = [group for group in made.kept[0] if not group.has_gradient]
    assert scale_without_zeros(zero, "token_mean") == 1.0


class Together:
    """Gathers among threads as accelerate does among processes."""

    def __init__(self, number: int) -> None:
        self._barrier, self._given = Barrier(number), dict[int, list[Group]]()

    def gather(self, index: int, groups: list[Group]) -> list[Group]:
        self._given[index] = groups
        self._barrier.wait(timeout=30)
        every = [group for number in sorted(self._given) for group in self._given[number]]
        self._barrier.wait(timeout=30)
        return every


@pytest.mark.parametrize("how", ["keep", "drop", "refill"])
def test_processes_together_train_what_one_alone_trains(renderer: Renderer, how: str) -> None:
    settings = config(zero_gradient=how, prompts_per_iteration=4, max_refill=0.5)
    alone = Collected(renderer, settings)
    alone.ask(0)
    together = Together(2)

    def share(index: int) -> Collected:
        # A pattern is read from its start in each process: a problem's rollouts are in one.
        processes = Processes(
            index=index, number=2, gather=lambda groups: together.gather(index, groups)
        )
        made = Collected(renderer, settings, processes)
        made.ask(0, slice(2 * index, 2 * index + 2))
        return made

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(share, range(2))
    assert first.kept == second.kept
    assert first.kept[0] == alone.kept[0]
    batches = [made.collector.batch for made in (first, second)]
    assert [group for batch in batches for group in batch.groups] == list(
        alone.collector.batch.groups
    )
    for batch in batches:
        assert len(batch.groups) == 2
        assert batch.scale == alone.collector.batch.scale
        assert batch.metrics == alone.collector.batch.metrics


# Whole, with a model.


class Killed(Exception):
    """Stands for a kill."""


class RareGrader:
    """Calls one text of eight right, whatever it says; dies at a call, if asked."""

    def __init__(self, dies_at: int | None = None) -> None:
        self._calls, self._dies_at = 0, dies_at

    def grade(self, pairs: Iterable[tuple[str, Gold]]) -> Iterator[GradeResult]:
        self._calls += 1
        if self._calls == self._dies_at:
            raise Killed
        for text, _ in pairs:
            is_right = zlib.crc32(text.encode()) % 8 == 0
            yield GradeResult(Verdict.CORRECT if is_right else Verdict.INCORRECT, "4")


def train(out: Path, grader: RareGrader) -> dict[str, float]:
    settings = config(
        num_iterations=3, num_updates=1, micro_batch_size=8, learning_rate=1e-3, save_every=1,
        zero_gradient="refill", max_refill=1.0, contexts={"problem": 0.5, "prefix": 0.5},
        sampling={"max_tokens": 12, "temperature": 1.5},
    )  # fmt: skip
    logged = dict[str, float]()
    setting = Setting(str(base_folder()), out, 0, logged.update)
    out.mkdir(exist_ok=True)
    prefix = RlContext(condition=Condition.PREFIX, message="Add.", prefix_ids=(41, 42, 43))
    problems = [replace(p, contexts=(*p.contexts, prefix)) for p in PROBLEMS]
    train_rl(settings, problems, setting, "rl:k", grader)
    return logged


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_killed_run_that_refills_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    train(tmp_path / "whole", RareGrader())
    samples = list(read_rl_samples(tmp_path / "whole"))
    trained = Counter(sample.iteration for sample in samples if sample.is_trained)
    assert trained == {0: 8, 1: 8, 2: 8}
    discarded = {sample.rollout_id for sample in samples if not sample.is_trained}
    assert 0 < len(discarded) <= 24
    assert len({sample.rollout_id for sample in samples}) == len(samples)
    # The first two calls are the first iteration's, planned and further groups.
    with pytest.raises(Killed):
        train(tmp_path / "cut", RareGrader(dies_at=4))
    train(tmp_path / "cut", RareGrader())
    assert list(read_rl_samples(tmp_path / "cut")) == samples
    rollouts = [list(read_rl_rollouts(tmp_path / run)) for run in ("whole", "cut")]
    assert rollouts[0] == rollouts[1]
    assert {rollout.condition for rollout in rollouts[0]} == {Condition.PROBLEM, Condition.PREFIX}
