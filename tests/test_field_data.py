"""The collected rows of data sets, each with what should become of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from field import field_cases, needs_field_cases
from midcourse.checkers import Grader
from midcourse.data import CurationOutcome, curate
from midcourse.data.problems import read_problems

CASES = field_cases("data")
NO_ANSWER = {CurationOutcome.NO_ANSWER, CurationOutcome.PROOF_STYLE}


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, timeout_seconds=20) as grader:
        yield grader


@needs_field_cases
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_collected_row_becomes_what_is_expected(
    case: dict[str, Any], grader: Grader, tmp_path: Path
) -> None:
    command, row, expected = case["input"]["command"], case["input"]["row"], case["expected"]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"solution": "1"} | row if "problem is" in expected else row) + "\n")
    source = next(iter(re.findall(r"(\w+):FILE", command)), "")
    place = f"{source}:{file}" if source else str(file)
    columns = dict(pair.split("=") for pair in re.findall(r"--column (\S+)", command))
    curation = curate(place, grader, columns=columns)
    (outcome,) = (outcome for outcome, count in curation.outcomes.items() if count)
    (read,) = read_problems(place, columns=columns)
    if expected.startswith("fate"):
        allowed = NO_ANSWER if "no answer" in expected else {CurationOutcome.NO_REFERENCE}
        assert outcome in allowed
        return
    assert read.problem is not None, read.complaints
    if "problem is" in expected:
        prompt = row["prompt"]
        messages = json.loads(prompt) if isinstance(prompt, str) else prompt
        assert read.problem.text == messages[-1]["content"]
    elif found := re.search(r"answer ['\"](.*?)['\"]", expected):
        assert read.problem.answer == found[1]
    else:
        assert read.problem.answer == json.loads(row["reward_model"])["ground_truth"]
