"""Problems: from files, hub data sets, known benchmarks and generated tasks; curated."""

from __future__ import annotations

from midcourse.data.curate import Curation, CurationOutcome, curate
from midcourse.data.problems import (
    load_problems,
    require_references,
    validate_problems,
    write_problems,
)
from midcourse.data.rows import find_data
from midcourse.data.sources import SOURCES, Source

__all__ = [
    "SOURCES",
    "Curation",
    "CurationOutcome",
    "Source",
    "curate",
    "find_data",
    "load_problems",
    "require_references",
    "validate_problems",
    "write_problems",
]
