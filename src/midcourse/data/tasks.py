"""Problems that reasoning-gym generates; its own verifiers grade them.

``reasoning-gym:leg_counting,gcd@7`` is a hundred problems of each task (or `limit` in
all), drawn with seed 7. Some tasks have a worked reference (`midcourse.data.task_references`), the
others none. The entry that the verifier needs travels with the problem. Tasks whose verifier may
run an answer as code are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice

from midcourse.checkers.reasoning_gym import NAME, entry_of, refusal
from midcourse.data.task_references import worked
from midcourse.errors import DataError, MissingExtra
from midcourse.records import Problem, content_id

_PER_TASK = 100
_SPEC = re.compile(r"reasoning-gym:(?P<names>[a-z0-9_]+(?:,[a-z0-9_]+)*)(?:@(?P<seed>[0-9]{1,9}))?")


def generate_tasks(spec: str, split: str, limit: int | None = None) -> Iterator[Problem]:
    """Yield the problems of a specification, task by task in turn; the same for a seed.

    Raises DataError for an unknown or refused task, MissingExtra without the package.
    """
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise DataError(f"{spec}: write reasoning-gym:TASK, reasoning-gym:TASK,TASK@SEED")
    names, seed = found["names"].split(","), int(found["seed"] or 0)
    share = _PER_TASK if limit is None else -(-limit // len(names))
    drawn = [list(_draw(name, seed, share, split)) for name in names]
    yield from islice(chain.from_iterable(zip(*drawn, strict=True)), limit)


def _draw(name: str, seed: int, count: int, split: str) -> Iterator[Problem]:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise MissingExtra("reasoning-gym", "reasoning-gym") from error
    if name not in DATASETS:
        raise DataError(f"{NAME}:{name}: no such task: reasoning_gym.factory.DATASETS lists them")
    if why := refusal(name):
        raise DataError(f"{NAME}:{name}: {why}")
    for entry in reasoning_gym.create_dataset(name, size=count, seed=seed):
        yield Problem(
            problem_id=content_id(NAME, name, seed, entry["question"]),
            text=entry["question"].strip(),
            answer=str(entry["answer"]),
            reference_solution=worked(name, entry),
            source=f"{NAME}/{name}",
            split=split,
            checker=NAME,
            entry=entry_of(name, entry),
        )
