"""Child processes that never outlive us."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable


def end_with_parent() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` that has the system end the child when its parent is gone.

    Linux only; elsewhere None, and a killed parent's children have to be ended by hand.
    """
    return _ask_for_signal if sys.platform == "linux" else None


def _ask_for_signal() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
