"""TRL's ``rollout_func``: samples and grades the groups of an iteration, and keeps them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from midcourse.checkers import GradeResult, checker_named
from midcourse.config import TrainRlConfig
from midcourse.engines.base import Completion
from midcourse.records import Gold, Rollout
from midcourse.rendering import Message, Renderer, SplitIds
from midcourse.stages.contexts import Context, opening_context
from midcourse.stages.grade import grade_of, response_of
from midcourse.stages.sample import Ask, SampleSpec, asks_of, rollout_of
from midcourse.training.rl.advantages import advantages_of, reward_of
from midcourse.training.rl.groups import (
    Batch,
    Group,
    choose_trained,
    group_metrics,
    scale_without_zeros,
)
from midcourse.training.rl.lessons import Lessons
from midcourse.training.rl.online import OnlineInT
from midcourse.training.rl.samplers import Sampler
from midcourse.training.rl.schedule import Schedule, Slot


class Grades(Protocol):
    """The part of a grader that RL uses."""

    def grade(self, pairs: Iterable[tuple[str, Gold]]) -> Iterator[GradeResult]:
        """Yield one result per (response, gold), in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Which of the processes that train together this one is; by default it is alone."""

    index: int = 0
    number: int = 1
    gather: Callable[[list[Group]], list[Group]] = list
    """Returns the groups of all processes, given this one's; every process calls it."""


@dataclass(kw_only=True, eq=False)
class Collector:
    """Turns the slots that TRL asks for into groups.

    TRL's dataset holds no problems: each prompt is the name of a slot, ``"3/0"``. Of several
    processes that train together each collects its share; all know the groups of all.
    """

    schedule: Schedule
    config: TrainRlConfig
    grader: Grades
    renderer: Renderer
    policy: str
    """The run's name: its policy after n iterations is ``<policy>@<n>``."""
    seed: int
    keep: Callable[[int, Sequence[Group]], None]
    """Told the groups of each iteration, in order, also those that are not trained."""
    processes: Processes = field(default_factory=Processes)
    sampler: Sampler = field(init=False)
    """Set once there is a trainer to sample from."""
    online: OnlineInT | None = field(default=None, init=False)
    """Set where RL proposes interventions itself."""
    lessons: Lessons | None = None
    """Set where there is self-distillation."""
    batch: Batch = field(init=False)
    """Of the iteration that is trained on now."""

    def __call__(self, prompts: Sequence[Sequence[Message]], trainer: Any) -> dict[str, Any]:
        """Return ids, log-probabilities and rewards; a prompt comes once per completion."""
        names = [prompt[0]["content"] for prompt in prompts[:: self.config.num_generations]]
        slots = [slot_named(self.schedule, name) for name in names]
        slots = self.online.place(slots) if self.online else slots
        iteration = slots[0].iteration
        self.sampler.refresh(iteration)
        groups = self._gathered(slots)
        if self.config.zero_gradient == "refill":
            groups = self._refilled(iteration, groups)
        self.keep(iteration, groups)
        if self.online:
            self.online.find(iteration, groups)
        self.batch = self._batch(groups)
        talks = any(one.given for group in groups for one in group.rollouts)
        rows = [row for group in self.batch.groups for row in _rows(group, self.renderer, talks)]
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
        tells = any(logprobs for group in groups for logprobs in group.logprobs)
        return columns if tells else columns | {"logprobs": None}  # TRL's word for a mute sampler

    def _gathered(self, slots: Sequence[Slot]) -> list[Group]:
        """Collect this process's slots; return what all processes collected."""
        groups = self.processes.gather(self.collect(slots))
        return sorted(groups, key=lambda group: group.index)

    def _refilled(self, iteration: int, groups: list[Group]) -> list[Group]:
        """Sample further problems, within the bound, until enough groups have a gradient.

        Every process samples as many in each round, because samplers may wait for each other.
        """
        planned, number = len(groups), self.processes.number
        further = self.schedule.further(iteration)
        while missing := planned - sum(group.has_gradient for group in groups):
            each = min(-(-missing // number), len(further) // number)
            if each < 1:
                break
            now, further = further[: each * number], further[each * number :]
            groups = groups + self._gathered(now[self.processes.index :: number])
        return choose_trained(groups, planned)

    def _batch(self, groups: Sequence[Group]) -> Batch:
        trained = [group for group in groups if group.is_trained]
        share = len(trained) // self.processes.number
        first, how = share * self.processes.index, self.config.zero_gradient
        return Batch(
            groups=tuple(trained[first : first + share]),
            scale=scale_without_zeros(trained, self.config.loss) if how == "drop" else 1.0,
            metrics={
                **group_metrics(groups, len(trained), how),
                **(self.online.numbers if self.online else {}),
            },
        )

    def collect(self, slots: Sequence[Slot]) -> list[Group]:
        """Sample and grade one group for each slot."""
        asks = [ask for slot in slots for ask in self._asks(slot)]
        completions = self.sampler.sample(asks)
        graded = self.grader.grade(
            (
                response_of(ask.context.open_box, completion.text, completion.given),
                slot.problem.gold,
            )
            for slot, ask, completion in zip(self._each(slots), asks, completions, strict=True)
        )
        members = list(zip(asks, completions, graded, strict=True))
        count = self.config.num_generations
        return [
            self._group(slot, members[index * count : (index + 1) * count])
            for index, slot in enumerate(slots)
        ]

    def _each(self, slots: Sequence[Slot]) -> Iterator[Slot]:
        return (slot for slot in slots for _ in range(self.config.num_generations))

    def _spec(self, slot: Slot) -> SampleSpec:
        count = self.config.num_generations
        return SampleSpec(
            num_rollouts=count,
            sampling=self.config.sampling.record(),
            budget="total",
            model=f"{self.policy}@{slot.iteration}",
            run_seed=self.seed,
            stage="rl",
            first_index=count * slot.occurrence,
        )

    def _asks(self, slot: Slot) -> Iterator[Ask]:
        return asks_of(context_of(slot, self.renderer), self._spec(slot))

    def _group(self, slot: Slot, members: Sequence[tuple[Ask, Completion, GradeResult]]) -> Group:
        spec, checker = self._spec(slot), checker_named(slot.problem.gold.checker)
        rollouts = tuple(rollout_of(ask, completion, spec) for ask, completion, _ in members)
        grades = tuple(
            grade_of(rollout, result, checker)
            for rollout, (_, _, result) in zip(rollouts, members, strict=True)
        )
        rewards = [reward_of(grade.verdict) for grade in grades]
        asked = members[0][0].context
        return Group(
            iteration=slot.iteration,
            index=slot.index,
            context_ids=asked.token_ids,
            rollouts=rollouts,
            logprobs=tuple(completion.logprobs for _, completion, _ in members),
            grades=grades,
            advantages=tuple(advantages_of(rewards, self.config.advantage)),
            falls_back=slot.falls_back,
            lessons=self.lessons.of(asked, rollouts, grades) if self.lessons else (),
        )


def slot_name(slot: Slot) -> str:
    """Return the name of a slot, which stands in TRL's dataset."""
    return f"{slot.iteration}/{slot.index}"


def slot_named(schedule: Schedule, name: str) -> Slot:
    """Return the slot of a name."""
    iteration, _, index = name.partition("/")
    return schedule.slots(int(iteration))[int(index)]


def context_of(slot: Slot, renderer: Renderer) -> Context:
    """Return the context of a slot as ids, encoded as every other stage encodes it."""
    given = slot.context
    opening = opening_context(
        slot.problem.problem_id, given.condition, given.message, renderer, parent_id=given.parent_id
    )
    response = SplitIds(list(given.prefix_ids), list(given.addition_ids))
    return replace(
        opening, response=response, open_box=given.open_box, said=given.said, given=given.given
    )


def _rows(group: Group, renderer: Renderer, talks: bool) -> Iterator[dict[str, Any]]:
    """Yield what TRL wants to know of each rollout; where an environment talks, its mask too."""
    columns = zip(group.rollouts, group.logprobs, group.rewards, strict=True)
    for rollout, logprobs, reward in columns:
        # TRL cannot take an empty completion; where nothing was sampled the advantage is 0.
        ids = rollout.token_ids or tuple(renderer.end_of_turn_ids[-1:])
        row: dict[str, Any] = {
            "prompt_ids": list(group.context_ids),
            "completion_ids": list(ids),
            "logprobs": list(logprobs) or [math.nan] * len(ids),
            "reward": reward,
        }
        yield {**row, **_masked(rollout, row["logprobs"])} if talks else row


def _masked(rollout: Rollout, logprobs: Sequence[float]) -> dict[str, Any]:
    """Return which ids the policy sampled, 1 or 0, and log-probabilities of those alone."""
    sampled = rollout.sampled or [True]
    pairs = zip(logprobs, sampled, strict=True)
    return {
        "env_mask": [int(is_own) for is_own in sampled],
        "logprobs": [logprob if is_own else math.nan for logprob, is_own in pairs],
    }
