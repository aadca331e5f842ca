"""Runs over and over: nothing piles up in a process, and no way of being killed leaves a trace."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import scripted_recipe
from killed_run import content_of, differing
from soak import write_inputs
from test_cli import toml
from test_signals import wait_for

HERE = Path(__file__).parent
WARM_UP = 5
SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM]


@pytest.mark.faults
def test_nothing_piles_up_in_a_process(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "soak.py"), str(tmp_path), str(WARM_UP + 20)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment("in-one")
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, *later = [json.loads(line) for line in done.stdout.splitlines()][WARM_UP - 1 :]
    assert len(later) == 20
    for name in ("handles", "threads", "children"):
        assert {one[name] for one in later} == {first[name]}, name
    assert first["children"] == 0
    # A run holds several MiB while it is under way: what it kept would be seen.
    assert later[-1]["memory"] - first["memory"] < 10 * 1024


def environment(name: str) -> dict[str, str]:
    """Mark the processes of one run, however they are inherited."""
    path = os.pathsep.join(sys.path)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "SOAK": f"soak-{name}"}


def marked(name: str) -> list[int]:
    """Return the processes that were started for one run, children of children included."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        if f"SOAK=soak-{name}\0".encode() in content:
            found.append(int(file.parent.name))
    return found


def is_over(name: str) -> bool:
    return not marked(name)


def write_recipe(folder: Path) -> Path:
    write_inputs(folder)
    data = scripted_recipe(folder / "problems.jsonl", folder / "script.json")
    data["evaluate"] = {"models": ["base"], "num_rollouts": 4, "ks": [1, 2]}
    data["problems"]["held_out_path"] = str(folder / "held_out.jsonl")
    path = folder / "r.toml"
    path.write_text(toml(data))
    return path


def start(recipe: Path, run_dir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "midcourse", "run", str(recipe), "--run-dir", str(run_dir)]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=environment(run_dir.name),
    )  # fmt: skip


def finish(recipe: Path, run_dir: Path) -> float:
    """Run to the end; return how long it took."""
    started = time.monotonic()
    process = start(recipe, run_dir)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return time.monotonic() - started


def content(run_dir: Path) -> dict[str, str]:
    """Return what is made of results: pictures and pages say when they were drawn."""
    made = content_of(run_dir)
    return {name: said for name, said in made.items() if not name.startswith("report/")}


def check_killed_runs(folder: Path, count: int) -> None:
    recipe, dice = write_recipe(folder), random.Random(0)
    seconds = finish(recipe, folder / "whole")
    expected = content(folder / "whole")
    for number in range(count):
        run_dir = folder / f"run{number}"
        codes = [kill(recipe, run_dir, dice, seconds) for _ in range(dice.randint(2, 4))]
        finish(recipe, run_dir)
        assert differing(content(run_dir), expected) == [], codes
        assert not [*run_dir.rglob("*.tmp"), *run_dir.glob(".lock")], codes
        wait_for(partial(is_over, run_dir.name), seconds=20)


def kill(recipe: Path, run_dir: Path, dice: random.Random, seconds: float) -> Any:
    """Run, and send a signal at a random moment; one may send a second."""
    process, number = start(recipe, run_dir), dice.choice(SIGNALS)
    time.sleep(dice.uniform(0.1, 1.0) * seconds)
    process.send_signal(number)
    if dice.random() < 0.25:
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    # Before the command line is there, the signal itself ends it.
    assert process.returncode in (0, -number, 128 + number), (number, said)
    assert "Traceback" not in said or process.returncode == -number, said
    return process.returncode


@pytest.mark.slow
def test_runs_killed_at_random_leave_no_trace(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, 2)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_many_runs_killed_at_random_leave_no_trace(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, 20)
