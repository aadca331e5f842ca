"""Training processes connect to nothing: their libraries are told before they are imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from midcourse.config import ModelConfig, TrainSftConfig
from midcourse.progress import SilentProgress
from midcourse.records import RowOutcome, RowSource, SftRow
from midcourse.store.stage import StageStore
from midcourse.training.jobs import ChosenRows, Job, SftJob, _network, run_jobs

#: Found by every Python below this folder at its start: writes down what is looked up or called.
WATCH = """
import os, socket, sys

def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect", "socket.sendto"):
        address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        with open(os.environ["WATCH_LOG"], "a") as log:
            log.write(f"{event} {address}\\n")

sys.addaudithook(note)
"""


def sft_job(path: str, rows: Path = Path("rows")) -> SftJob:
    config = TrainSftConfig(max_steps=1, batch_size=1, micro_batch_size=1)
    return SftJob(
        config=config,
        model=ModelConfig(path=path),
        seed=0,
        rows=ChosenRows(path=rows, row_ids=("row",)),
    )


@pytest.mark.parametrize(("path", "offline"), [("lab", True), ("owner/model", False)])
def test_libraries_read_that_they_are_to_be_silent(path: str, offline: bool) -> None:
    pytest.importorskip("huggingface_hub")
    environment = _network(Job("x", Path("out"), sft_job(path)))
    program = (
        "import huggingface_hub.constants as c; print(c.HF_HUB_DISABLE_TELEMETRY, c.HF_HUB_OFFLINE)"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    said = subprocess.check_output(
        [sys.executable, "-c", program], env=plain | environment, text=True
    )
    assert said.split() == ["True", str(offline)]


@pytest.mark.faults
def test_a_training_of_a_local_model_looks_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "watched"
    log.touch()
    monkeypatch.setenv("WATCH_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "DO_NOT_TRACK", "CI"):
        monkeypatch.delenv(name, raising=False)
    row = SftRow(
        row_id="row", source=RowSource.INTERVENTION, outcome=RowOutcome.READY, problem_id="p",
        proposal_id="x", input_ids=(5, 6, 7, 8), labels=(-100, -100, 7, 8), closes_turn=False,
        prompt_tokens=1, prefix_tokens=1, intervention_tokens=2, num_correct=1,
        num_continuations=1,
    )  # fmt: skip
    with StageStore(tmp_path / "rows", SftRow) as store:
        store.append("row", [row])
        store.seal({"key": "rows"})
    job = Job("sft", tmp_path / "out", sft_job("lab", tmp_path / "rows"))
    run_jobs([job], SilentProgress())
    assert (tmp_path / "out" / "final" / "config.json").is_file()
    outside = [
        line for line in log.read_text().splitlines()
        if "127.0.0.1" not in line and "localhost" not in line and "'::1'" not in line
    ]  # fmt: skip
    assert not outside
