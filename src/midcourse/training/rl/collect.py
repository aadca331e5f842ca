"""TRL's ``rollout_func``: samples and grades the groups of an iteration, and keeps them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from midcourse.checkers import GradeResult, checker_named
from midcourse.config import TrainRlConfig
from midcourse.engines.base import Completion
from midcourse.records import Gold
from midcourse.rendering import Message, Renderer, SplitIds
from midcourse.stages.contexts import Context, opening_context
from midcourse.stages.grade import grade_of
from midcourse.stages.sample import Ask, SampleSpec, asks_of, rollout_of
from midcourse.training.rl.advantages import advantages_of, reward_of
from midcourse.training.rl.groups import Group
from midcourse.training.rl.online import OnlineInT
from midcourse.training.rl.samplers import Sampler
from midcourse.training.rl.schedule import Schedule, Slot


class Grades(Protocol):
    """The part of a grader that RL uses."""

    def grade(self, pairs: Iterable[tuple[str, Gold]]) -> Iterator[GradeResult]:
        """Yield one result per (response, gold), in order."""


@dataclass(kw_only=True, eq=False)
class Collector:
    """Turns the slots that TRL asks for into groups.

    TRL's dataset holds no problems: each prompt is the name of a slot, ``"3/0"``. Of several
    processes that train together each collects its share; `keep` gets all of an iteration.
    """

    schedule: Schedule
    config: TrainRlConfig
    grader: Grades
    renderer: Renderer
    policy: str
    """The run's name: its policy after n iterations is ``<policy>@<n>``."""
    seed: int
    keep: Callable[[int, Sequence[Group]], None]
    sampler: Sampler = field(init=False)
    """Set once there is a trainer to sample from."""
    online: OnlineInT | None = field(default=None, init=False)
    """Set where RL proposes interventions itself."""
    groups: list[Group] = field(default_factory=list)
    """Of the iteration that is trained on now, this process's share."""

    def __call__(self, prompts: Sequence[Sequence[Message]], trainer: Any) -> dict[str, Any]:
        """Return ids, log-probabilities and rewards; a prompt comes once per completion."""
        names = [prompt[0]["content"] for prompt in prompts[:: self.config.num_generations]]
        slots = [slot_named(self.schedule, name) for name in names]
        slots = self.online.place(slots) if self.online else slots
        iteration = slots[0].iteration
        self.sampler.refresh(iteration)
        self.groups = self.collect(slots)
        self.keep(iteration, self.groups)
        trained = [group for group in self.groups if group.is_trained]
        rows = [row for group in trained for row in _rows(group, self.renderer)]
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
        tells = any(logprobs for group in trained for logprobs in group.logprobs)
        return columns if tells else columns | {"logprobs": None}  # TRL's word for a mute sampler

    def collect(self, slots: Sequence[Slot]) -> list[Group]:
        """Sample and grade one group for each slot."""
        asks = [ask for slot in slots for ask in self._asks(slot)]
        completions = self.sampler.sample(asks)
        graded = self.grader.grade(
            (ask.context.open_box + completion.text, slot.problem.gold)
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
        return Group(
            iteration=slot.iteration,
            index=slot.index,
            context_ids=members[0][0].context.token_ids,
            rollouts=rollouts,
            logprobs=tuple(completion.logprobs for _, completion, _ in members),
            grades=grades,
            advantages=tuple(advantages_of(rewards, self.config.advantage)),
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
    return replace(opening, response=response, open_box=given.open_box)


def _rows(group: Group, renderer: Renderer) -> Iterator[dict[str, Any]]:
    """Yield what TRL wants to know of each rollout."""
    columns = zip(group.rollouts, group.logprobs, group.rewards, strict=True)
    for rollout, logprobs, reward in columns:
        # TRL cannot take an empty completion; where nothing was sampled the advantage is 0.
        ids = rollout.token_ids or tuple(renderer.end_of_turn_ids[-1:])
        yield {
            "prompt_ids": list(group.context_ids),
            "completion_ids": list(ids),
            "logprobs": list(logprobs) or [math.nan] * len(ids),
            "reward": reward,
        }
