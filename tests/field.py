"""The collected field cases: inputs of real files and public bug reports, with what is expected.

They are not part of the project: ``MIDCOURSE_DATA`` names the folder that holds
``field_cases.jsonl``. Without it the tests that use them skip and say so.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(os.environ.get("MIDCOURSE_DATA", "/nowhere")) / "field_cases.jsonl"

needs_field_cases = pytest.mark.skipif(
    not _FILE.is_file(), reason=f"no {_FILE}: set MIDCOURSE_DATA to the folder with the cases"
)


def field_cases(area: str) -> list[dict[str, Any]]:
    """Return the cases of one area (grader, parser, template, engine, data); [] without them."""
    if not _FILE.is_file():
        return []
    cases = [json.loads(line) for line in _FILE.read_text().splitlines()]
    return [case for case in cases if case["area"] == area]
