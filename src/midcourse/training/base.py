"""What a training algorithm has to provide, and what it is given. Loads no torch itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

Log = Callable[[Mapping[str, float]], None]
"""Takes the numbers of one log entry, ``{"step": 3.0, "loss": 0.41, …}``."""

Content = TypeVar("Content", contravariant=True)


class Trainer(Protocol[Content]):
    """One algorithm: the function ``run`` of its module, as `midcourse.training.sft` has one.

    A new one is a module with such a function, a job type in the union `TrainingJob` of
    `midcourse.training.jobs` with its case in `midcourse.training.worker` (mypy asks for it), and
    its keys in `midcourse.config`.
    """

    def __call__(self, job: Content, out: Path, on_log: Log) -> dict[str, float]:
        """Train as `job` says and write an ordinary model folder to ``out/final``.

        Called again after a kill, it goes on or starts over, and ends as if it had not been
        killed. `on_log` is called ``job.num_steps`` times with a ``loss`` among the numbers: the
        progress that is shown counts them. The summary that is returned enters the manifest. In a
        training of several processes each of them calls it; only the first may write.
        """
