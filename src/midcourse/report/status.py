"""What a run directory holds, read from its files alone."""

from __future__ import annotations

from pathlib import Path

from midcourse.report.overview import read_overview
from midcourse.table import Table


def status_table(run_dir: Path) -> Table:
    """List every step in the order of the flow, with its result, time, tokens and size."""
    return read_overview(run_dir).table()
