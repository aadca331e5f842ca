"""The kept corpus in `make test`; what a coverage-guided fuzzer finds in `make test-faults`."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz_targets import SLOW, TARGETS, corpus_of

#: Of each target, by a coverage-guided fuzzer, if they take no more than two minutes.
EXECUTIONS = 300_000
#: What the readers look for: random characters alone hardly ever get past a first check.
PIECES = [
    json.loads(line)
    for line in (Path(__file__).parent / "pieces.dict").read_text().splitlines()
    if not line.startswith("#")
]
TEXTS = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text(max_size=6), st.just("\n\n")), max_size=30
).map("".join)


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus_breaks_no_promise(name: str) -> None:
    inputs = list(corpus_of(name))
    assert inputs
    for data in inputs:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@given(text=TEXTS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_texts_of_telling_pieces_break_no_promise(name: str, text: str) -> None:
    TARGETS[name](text.encode("utf-8", "replace"))


@pytest.mark.faults
@pytest.mark.parametrize("name", TARGETS)
def test_a_coverage_guided_fuzzer_finds_nothing(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("no atheris: make test-faults installs it")
    script = Path(__file__).parent / "fuzz.py"
    found = tmp_path / "found"
    found.mkdir()
    executions = EXECUTIONS // 30 if name in SLOW else EXECUTIONS
    command = [sys.executable, str(script), name, str(executions), str(found)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"Done \d+ runs", done.stderr)
