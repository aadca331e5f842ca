"""Signals: what is kept is said, the lock is free, no child is left, the same command goes on."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from midcourse.cli.entry import command_line
from midcourse.processes import Interrupted, end
from midcourse.store.stage import read_manifest
from midcourse.training.checkpoints import mark_complete
from test_cli import toml

SOURCE = Path(__file__).parents[2] / "src"
#: As large as it takes for a stage to be under way when the signal comes.
MANY = 300_000
#: No worker settles it in its time.
TOWER = "The answer is \\boxed{9^{9^{9^{9^{9}}}}+1}."


@pytest.fixture(autouse=True)
def heard_signals() -> Iterator[None]:
    """Undo what ``nohup`` and ``&`` in a script leave to their children: deaf to signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "midcourse", *arguments], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, **options,
    )  # fmt: skip


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it never came to that")


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return False
    return state[0] != "Z"


def journal_of(run: Path, stage: str) -> Path | None:
    return next((path for path in run.glob(f"{stage}/*/journal.jsonl")), None)


def has_begun(run: Path, stage: str) -> bool:
    journal = journal_of(run, stage)
    return journal is not None and journal.stat().st_size > 0


@pytest.fixture
def recipe_file(tmp_path: Path, recipe_data: dict[str, Any]) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(toml(recipe_data))
    return path


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_stage_in_one_line_and_frees_the_lock(
    tmp_path: Path, recipe_file: Path, number: int, code: int
) -> None:
    run, many = tmp_path / "run", f"sample.num_rollouts={MANY}"
    typed = ["sample", str(recipe_file), "--run-dir", str(run), "--set", many]
    process = start(*typed)
    wait_for(lambda: has_begun(run, "sample"))
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert said.count("\n") == 1
    assert said.startswith(f"midcourse: interrupted by {signal.Signals(number).name}; sample train")
    again = shlex.join([sys.executable, "-m", "midcourse", *typed])
    assert said.endswith(f"kept; to go on: {again}\n")
    assert f" of {3 * MANY:,} kept" in said
    assert not (run / ".lock").exists()
    journal = journal_of(run, "sample")
    assert journal is not None
    lines = journal.read_text().splitlines()
    sealed = sum(1 for _ in run.glob("sample/*/part-*.parquet"))
    kept = int(said.split("train: ")[1].split(" of")[0].replace(",", ""))
    assert sealed or len(lines) == kept
    assert all(json.loads(line) for line in lines)


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path, recipe_file: Path) -> None:
    interrupted, whole = tmp_path / "a", tmp_path / "b"
    setting = "--set", "sample.num_rollouts=1000"
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start("grade", str(recipe_file), "--run-dir", str(interrupted), *setting)
        wait_for(lambda: has_begun(interrupted, "sample") or has_begun(interrupted, "grade"))
        process.send_signal(number)
        process.communicate(timeout=60)
        # Before the command line is there, the signal itself ends us.
        assert process.returncode in (0, 128 + number, -number)
    for run in (interrupted, whole):
        done = start("grade", str(recipe_file), "--run-dir", str(run), *setting)
        assert done.communicate(timeout=120)[1] == ""
    for stage in ("sample", "grade"):
        (one,), (other,) = (list((run / stage).iterdir()) for run in (interrupted, whole))
        assert one.name == other.name
        assert read_manifest(one)["parts"] == read_manifest(other)["parts"]
        assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())


def test_a_benchmark_of_first_errors_says_what_is_kept(tmp_path: Path, script_file: Path) -> None:
    case = {"problem": "2 + 2?", "steps": ["Two.", "So 5."], "label": 1, "generator": "g",
            "final_answer_correct": False}  # fmt: skip
    cases = tmp_path / "cases.jsonl"
    cases.write_text("".join(json.dumps({**case, "id": f"c{i}"}) + "\n" for i in range(20_000)))
    run = tmp_path / "run"
    typed = ["localize", str(cases), "--engine", "scripted", "--run-dir", str(run),
             *(part for key in (f"engine.script={script_file}", "prompts=lab",
                                "propose.turns=single") for part in ("--set", key))]  # fmt: skip
    process = start(*typed)
    wait_for(lambda: has_begun(run, "localize"))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert re.search(r"SIGINT; localize with\w* reference: [\d,]+ of 20,000 kept; to go on: ", said)
    assert said.endswith(f"{shlex.join(typed)}\n")


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["run", "my recipe.toml"], "run 'my recipe.toml'"),
        (["run", "a", "--set", "x.urls=http://me:pw@h/v1"], "run a --set x.urls=http://h/v1"),
        (["push", "--token", "hf_x", "--out=y"], "push --token … --out=y"),
        (["push", "--token=hf_x", "y"], "push --token=… y"),
        (["run", "a", "--set", "engine.api_key_env=MY_KEY"],
         "run a --set engine.api_key_env=MY_KEY"),
        (["run", "a", "--set", "x.password=a\nb"], "run a --set x.password=…"),
    ],
)  # fmt: skip
def test_the_command_to_go_on_with_is_what_was_typed_without_secrets(
    typed: list[str], shown: str
) -> None:
    module = ["python", "-m", "midcourse", *typed]
    said = command_line(["/x/midcourse/__main__.py", *typed], module)
    assert (
        said.replace("'…'", "…")
        .replace("'--token=…'", "--token=…")
        .replace("'x.password=…'", "x.password=…")
        == f"python -m midcourse {shown}"
    )
    script = command_line(["/not/on/the/path/midcourse", *typed], ["python", "x", *typed])
    assert script.startswith(f"/not/on/the/path/midcourse {typed[0]} ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_busy_graders_end_with_their_parent(
    tmp_path: Path, recipe_data: dict[str, Any], number: int
) -> None:
    script = tmp_path / "towers.json"
    script.write_text(json.dumps([[".", *(f"{TOWER[:-3]}{i}}}." for i in range(9))]]))
    recipe = tmp_path / "r.toml"
    recipe.write_text(toml({**recipe_data, "engine": {"kind": "scripted", "script": str(script)}}))
    run = tmp_path / "run"
    process = start("grade", str(recipe), "--run-dir", str(run))
    wait_for(lambda: (run / "grade").is_dir() and len(children(process.pid)) >= 1)
    workers = children(process.pid)
    time.sleep(1.0)  # until they are at work
    process.send_signal(number)
    process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert not [pid for pid in workers if is_alive(pid)]
    wait_for(lambda: not [pid for pid in workers if is_alive(pid)], seconds=20)


def test_a_second_signal_ends_us_at_once() -> None:
    program = (
        "import time\n"
        "from midcourse.processes import Interrupted, raise_on_signals\n"
        "raise_on_signals()\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "except Interrupted:\n"
        "    print('cleaning up', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for said in ("ready\n", "cleaning up\n"):
        assert process.stdout.readline() == said
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == -signal.SIGTERM
    process.stdout.close()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    program = (
        "import signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from midcourse.processes import raise_on_signals\n"
        "raise_on_signals()\n"
        "signal.raise_signal(signal.SIGHUP)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_interrupt_says_what_was_noted_on_it() -> None:
    interrupted = Interrupted(signal.SIGTERM)
    assert interrupted.message() == "interrupted by SIGTERM"
    interrupted.add_note("train rl: goes on from its last checkpoint")
    assert interrupted.message().endswith("SIGTERM; train rl: goes on from its last checkpoint")
    assert (interrupted.exit_code, isinstance(interrupted, Exception)) == (143, False)


def test_a_child_that_will_not_end_is_made_to() -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", program + "time.sleep(60)"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    end(process, seconds=0.2)
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()


TRAINING = """
import sys
from pathlib import Path
from midcourse.config import ModelConfig, TrainSftConfig
from midcourse.processes import raise_on_signals
from midcourse.progress import SilentProgress
from midcourse.training.jobs import ChosenRows, Job, SftJob, run_jobs

out = Path(sys.argv[1])
rows = ChosenRows(path=out, row_ids=("a", "b"))
sft = SftJob(config=TrainSftConfig(), model=ModelConfig(path="lab"), seed=0, rows=rows)
raise_on_signals()
run_jobs([Job("train patched", out / "patched", sft)], SilentProgress())
"""


@pytest.mark.parametrize("has_checkpoint", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_training_ends_with_its_parent(tmp_path: Path, number: int, has_checkpoint: bool) -> None:
    if has_checkpoint:
        checkpoint = tmp_path / "patched" / "checkpoint-20"
        checkpoint.mkdir(parents=True)
        mark_complete(checkpoint)
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(tmp_path)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    wait_for(lambda: (tmp_path / "patched" / "worker.log").exists() and children(process.pid))
    workers = children(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    wait_for(lambda: not [pid for pid in workers if is_alive(pid)], seconds=10)
    if number != signal.SIGKILL:
        assert not [pid for pid in workers if is_alive(pid)]
        way = "goes on from its last checkpoint" if has_checkpoint else "starts over"
        assert f"train patched: {way}" in said


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_servers_end_with_their_parent(
    tmp_path: Path, recipe_data: dict[str, Any], vllm_python: Path, number: int
) -> None:
    engine = {"kind": "vllm", "server_python": str(vllm_python), "devices": ["0", "1"]}
    recipe, run = tmp_path / "r.toml", tmp_path / "run"
    recipe.write_text(toml({**recipe_data, "engine": engine, "sample": {"num_rollouts": MANY}}))
    process = start("sample", str(recipe), "--run-dir", str(run))
    wait_for(lambda: len(children(process.pid)) == 2)
    servers = children(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number, said
        assert not [pid for pid in servers if is_alive(pid)]
        assert said.startswith("midcourse: interrupted by SIG")
    wait_for(lambda: not [pid for pid in servers if is_alive(pid)], seconds=10)


def test_ctrl_c_on_a_terminal_ends_a_stage_in_one_line(tmp_path: Path, recipe_file: Path) -> None:
    run, many = tmp_path / "run", f"sample.num_rollouts={MANY}"
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "midcourse", "sample", str(recipe_file), "--run-dir", str(run),
         "--set", many],
        preexec_fn=lambda: os.login_tty(theirs), env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    os.close(theirs)
    reader = Thread(target=read_all, args=(ours, said := bytearray()))
    reader.start()
    wait_for(lambda: has_begun(run, "sample"))
    os.write(ours, b"\x03")
    assert process.wait(60) == 130
    reader.join(60)
    os.close(ours)
    last = said.decode().strip().splitlines()[-1]
    assert re.search(r"interrupted by SIGINT; sample train: [\d,]+ of 900,000 kept; to go", last)
    assert b"Traceback" not in said
    assert not (run / ".lock").exists()


def read_all(descriptor: int, into: bytearray) -> None:
    """Read until the other end of a terminal is closed, which is an error to the system."""
    with suppress(OSError):
        while piece := os.read(descriptor, 65_536):
            into.extend(piece)


CLUSTER = """
import signal
from midcourse.engines.ray_engine import _import_ray, _join_cluster
from midcourse.processes import raise_on_signals

raise_on_signals()
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
ray = _import_ray()
_join_cluster(ray, "")
assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
ray.shutdown()
"""


@pytest.mark.faults
def test_a_cluster_leaves_our_signals_alone() -> None:
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER], check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
