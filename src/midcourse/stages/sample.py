"""sample: n rollouts from each context (§5.1). Verification and evaluation are this function too.

Each rollout has one seed of its own, derived from (run seed, stage, rollout id): no two samples
share one, and a rollout can be drawn again alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from midcourse.engines.base import Completion, Engine, Request
from midcourse.progress import Failures
from midcourse.records import (
    Rollout,
    Sampling,
    content_id,
    derive_seed,
    token_ids_sha,
)
from midcourse.stages.contexts import Context
from midcourse.stages.flow import run_requests

Budget = Literal["total", "new"]
"""``total``: what already stands in the turn counts against ``sampling.max_tokens``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSpec:
    """How to sample, e.g. 64 rollouts of model ``base`` at temperature 1."""

    num_rollouts: int
    sampling: Sampling
    budget: Budget
    model: str
    run_seed: int
    stage: str
    first_index: int = 0
    """Index of the first rollout: fresh rollouts of a context go on where earlier ones ended."""
    by_problem: Mapping[str, int] = field(default_factory=dict)
    """Of problems that have another number of rollouts, by id."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request together with what its rollout will say."""

    context: Context
    rollout_id: str
    index: int
    sampling: Sampling
    seed: int


def sample(
    contexts: Iterable[Context],
    spec: SampleSpec,
    engine: Engine,
    done: Container[str],
    failures: Failures,
) -> Iterator[Rollout]:
    """Yield the rollouts not in `done`, as they finish; too long a context gets records too."""
    asks = (
        ask for context in contexts for ask in asks_of(context, spec) if ask.rollout_id not in done
    )
    requests = ((request_of(ask), ask) for ask in asks)
    for ask, completion in run_requests(engine, requests, failures):
        yield rollout_of(ask, completion, spec)


def asks_of(context: Context, spec: SampleSpec) -> Iterator[Ask]:
    """Yield what is to be sampled from one context; ids and seeds depend on nothing else."""
    used = context.response_tokens if spec.budget == "total" else 0
    room = max(spec.sampling.max_tokens - used, 0)
    parameters = {**asdict(spec.sampling), "max_tokens": room}
    number = spec.by_problem.get(context.problem_id, spec.num_rollouts)
    for index in range(spec.first_index, spec.first_index + number):
        rollout_id = content_id(
            spec.model, context.problem_id, context.condition, context.parent_id, parameters, index
        )
        seed = derive_seed(spec.run_seed, spec.stage, rollout_id)
        yield Ask(context, rollout_id, index, Sampling(**parameters), seed)


def request_of(ask: Ask) -> Request:
    """Return the engine's request for one rollout."""
    return Request(
        request_id=ask.rollout_id,
        prompt_token_ids=ask.context.token_ids,
        sampling=ask.sampling,
        seed=ask.seed,
        group=f"{ask.context.problem_id}/{ask.context.condition}/{ask.context.parent_id}",
        messages=ask.context.messages,
        problem_id=ask.context.problem_id,
        said=ask.context.said,
    )


def rollout_of(ask: Ask, completion: Completion, spec: SampleSpec) -> Rollout:
    """Return the record of one completion."""
    context = ask.context
    return Rollout(
        rollout_id=ask.rollout_id,
        problem_id=context.problem_id,
        index=ask.index,
        condition=context.condition,
        parent_id=context.parent_id,
        prompt_sha=token_ids_sha(context.token_ids),
        prompt_tokens=len(context.token_ids),
        text=completion.text,
        token_ids=completion.token_ids,
        num_tokens=len(completion.token_ids) - sum(turn.num_tokens for turn in completion.given),
        finish_reason=completion.finish_reason,
        model=spec.model,
        sampling=ask.sampling,
        seed=ask.seed,
        open_box=context.open_box,
        given=completion.given,
    )


@dataclass(frozen=True, slots=True)
class DuplicateShare:
    """How many contexts returned one and the same text for all their samples."""

    num_contexts: int
    num_identical: int


def duplicate_share(rollouts: Iterable[Rollout]) -> DuplicateShare:
    """Count contexts with four samples or more that are all the same, though not greedy.

    That is the mark of a shared or ignored seed, which fakes hard sets.
    """
    sizes: Counter[tuple[str, str | None]] = Counter()
    texts: defaultdict[tuple[str, str | None], set[int]] = defaultdict(set)
    for rollout in rollouts:
        if rollout.sampling.temperature and rollout.finish_reason.has_reply:
            key = (rollout.problem_id, rollout.parent_id)
            sizes[key] += 1
            if len(texts[key]) < 2:  # a second text is enough to know
                texts[key].add(hash(rollout.text))
    full = [key for key, size in sizes.items() if size >= 4]
    return DuplicateShare(len(full), sum(len(texts[key]) == 1 for key in full))
