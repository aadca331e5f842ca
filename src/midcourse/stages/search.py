"""search: draw in rounds until the first correct rollout, and no further (§5.1).

One correct rollout disqualifies a problem from pass@k = 0, so most of the k rollouts of an easy
problem tell nothing. Ids and seeds are those of `sample`: a problem that never stops has exactly
the rollouts that exhaustive sampling gives it, hence the hard set is the same. How often a
stopped problem succeeds is not known, and nothing here claims to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from midcourse.engines.base import Completion, Engine, Session
from midcourse.progress import Failures
from midcourse.records import Rollout
from midcourse.stages.contexts import Context
from midcourse.stages.sample import Ask, SampleSpec, asks_of, request_of, rollout_of

ContextKey = tuple[str, str | None]
"""Problem id and parent id: what a search stops at its first correct rollout."""


def context_key(item: Context | Rollout) -> ContextKey:
    """Return which search a context or a rollout belongs to."""
    return item.problem_id, item.parent_id


@dataclass(slots=True)
class _Search:
    rounds: list[list[Ask]]
    """Rounds still to be asked for, the next one last."""
    in_flight: dict[str, Ask] = field(default_factory=dict)
    is_solved: bool = False


def search(
    contexts: Iterable[Context],
    spec: SampleSpec,
    rounds: Sequence[int],
    engine: Engine,
    is_correct: Callable[[Rollout], bool],
    stopped: Collection[ContextKey],
    done: Container[str],
    failures: Failures,
) -> Iterator[Rollout]:
    """Yield rollouts as they finish; a context is asked no more after its first correct one.

    `rounds` sum to ``spec.num_rollouts``; where a problem has more the rest is a last round, where
    it has fewer the rounds end early. `stopped` and `done` say what an earlier process found: the
    contexts with a correct rollout, and the ids of all rollouts.
    """
    waiting = (_open(c, spec, rounds, done) for c in contexts if context_key(c) not in stopped)
    owners: dict[str, _Search] = {}
    failed: list[tuple[_Search, Ask, Completion]] = []
    num_answered = 0
    window = 4 * engine.capabilities.concurrency
    with engine.session() as session:
        _fill(session, waiting, owners, window)
        for completion in session.completions():
            found = owners.pop(completion.request_id)
            ask = found.in_flight.pop(completion.request_id)
            if completion.error is not None:
                failed.append((found, ask, completion))
            else:
                num_answered += 1
                rollout = rollout_of(ask, completion, spec)
                yield rollout
                if is_correct(rollout):
                    _stop(session, found, owners)
            if not found.in_flight:
                _next_round(session, found, owners)
            if len(owners) <= window // 2:
                _fill(session, waiting, owners, window)
    open_ones = [(ask, completion) for found, ask, completion in failed if not found.is_solved]
    if failures.may_record([str(completion.error) for _, completion in open_ones], num_answered):
        for ask, completion in open_ones:
            yield rollout_of(ask, completion, spec)


def rounds_within(rounds: Sequence[int], num_rollouts: int) -> tuple[int, ...]:
    """Return the rounds of `num_rollouts` rollouts: what `rounds` leave is a last one."""
    cut = [0, *(min(end, num_rollouts) for end in accumulate(rounds)), num_rollouts]
    return tuple(after - before for before, after in pairwise(cut) if after > before)


def _open(
    context: Context, spec: SampleSpec, rounds: Sequence[int], done: Container[str]
) -> _Search:
    asks = list(asks_of(context, spec))
    ends = pairwise((0, *accumulate(rounds_within(rounds, len(asks)))))
    left = [[ask for ask in asks[a:b] if ask.rollout_id not in done] for a, b in ends]
    return _Search([asked for asked in reversed(left) if asked])


def _fill(
    session: Session, waiting: Iterator[_Search], owners: dict[str, _Search], window: int
) -> None:
    """Open searches until the window is full."""
    while len(owners) < window:
        opened = next(waiting, None)
        if opened is None:
            return
        _next_round(session, opened, owners)


def _next_round(session: Session, found: _Search, owners: dict[str, _Search]) -> None:
    if found.rounds:
        asks = found.rounds.pop()
        found.in_flight = {ask.rollout_id: ask for ask in asks}
        owners.update(dict.fromkeys(found.in_flight, found))
        session.submit([request_of(ask) for ask in asks])


def _stop(session: Session, found: _Search, owners: dict[str, _Search]) -> None:
    """Take back what is in flight and ask for nothing more."""
    found.is_solved = True
    session.cancel(found.in_flight)
    for request_id in found.in_flight:
        del owners[request_id]
    found.in_flight.clear()
    found.rounds.clear()
