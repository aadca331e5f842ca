"""How the in-process engine uses the cores of a CPU: threads of a product, batches side by side.

OpenMP shares every product out among its threads and waits for the last of them. A product of a
tiny model takes some tens of microseconds: the waiting costs more than a second thread gives, and
where another process has one of the cores, each product waits for a turn of the scheduler. So a
tiny model computes with one thread, and the other cores decode batches of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

#: Parameters below which a product is not worth sharing out.
SMALL_MODEL = 20_000_000
#: Rows from which on a batch of its own is worth its overhead, which is that of a step.
LANE_ROWS = 64
#: Batches side by side at most: they share one interpreter. More than two were not measured.
MAX_LANES = 4


@dataclass(frozen=True, slots=True)
class Cores:
    """Batches side by side, and the threads of each one's products; None leaves them to torch."""

    num_lanes: int
    num_threads: int | None


def share_cores(model: Any, num_threads: int | None, max_rows: int) -> Cores:
    """Return how a model of this size is best run on the threads that torch may use here.

    These are one per core, or what ``OMP_NUM_THREADS`` says.
    """
    if model.device.type != "cpu":
        return Cores(1, None)
    available = torch.get_num_threads()
    is_small = sum(weight.numel() for weight in model.parameters()) < SMALL_MODEL
    each = num_threads or (1 if is_small else available)
    return Cores(max(1, min(available // each, max_rows // LANE_ROWS, MAX_LANES)), each)


def set_threads(count: int | None) -> None:
    """Have this thread compute with `count` threads from now on; None changes nothing."""
    if count is not None:
        torch.set_num_threads(count)


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Have this thread compute with `count` threads meanwhile; None changes nothing."""
    before = torch.get_num_threads()
    set_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
