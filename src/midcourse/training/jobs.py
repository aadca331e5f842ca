"""Training jobs: what they hold, how they are started in processes of their own and followed.

Loads no torch itself. A new algorithm is a module with a `Trainer` named ``run``, a job type in
`TrainingJob` with its case in `midcourse.training.worker`, and its keys in `midcourse.config`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from midcourse.checkers import shown_tests
from midcourse.config import (
    GradeConfig,
    ModelConfig,
    ProposeConfig,
    TrainRlConfig,
    TrainSftConfig,
)
from midcourse.engines import resolve_model
from midcourse.errors import MidcourseError
from midcourse.processes import Interrupted, end, end_with_parent, threads_each, wait_passively
from midcourse.progress import Reporter, Task
from midcourse.prompts import Prompt
from midcourse.recipes import find_accelerate
from midcourse.records import Condition, EnvironmentTurn, Gold, Problem, SftRow
from midcourse.run import trained_files
from midcourse.stages.dialogue import Talk
from midcourse.steps import BLANK_LINES
from midcourse.store.checksums import damaged_files, describe_files, sync_files
from midcourse.store.files import write_json_atomic
from midcourse.store.lock import Owner
from midcourse.store.progress import StepProgress, now, write_progress
from midcourse.training.checkpoints import clear_unusable, drop_checkpoints

#: In the folder of a job: why it ended, in one line, where that is no bug of ours.
ERROR_FILE = "error.txt"
_SUMMARY = "summary.json"

Log = Callable[[Mapping[str, float]], None]
"""Takes the numbers of one log entry, ``{"step": 3.0, "loss": 0.41, …}``."""
OnEntry = Callable[[str, Mapping[str, float]], None]
"""Takes the label of a job, and a log entry of it."""

Trainer = Callable[[Any, Path, Log], object]
"""Does a job: writes an ordinary model folder to ``out/final`` and has it `conclude`d.

Called again after a kill, it goes on from the newest checkpoint or starts over, and ends as if it
had not been killed. It logs ``job.num_steps`` entries with a ``loss``. In a training of several
processes each of them calls it; only the first may write.
"""


def steps_of(config: TrainSftConfig, num_rows: int) -> int:
    """Return the optimiser steps on so many rows."""
    steps_per_epoch = -(-num_rows // config.batch_size)
    return config.max_steps or round(steps_per_epoch * config.num_epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenRows:
    """The rows of a stage's folder that are trained on."""

    path: Path
    row_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SftJob:
    """Fine-tune on rows; with rejected rows by Step-DPO, each against that of its proposal."""

    kind: Literal["sft"] = "sft"
    config: TrainSftConfig
    model: ModelConfig
    seed: int
    rows: ChosenRows
    rejected_rows: Path | None = None
    """The folder of a stage."""

    @property
    def num_steps(self) -> int:
        """Log entries to expect."""
        return steps_of(self.config, len(self.rows.row_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class RlContext:
    """One way to begin a rollout of a problem, e.g. a message of 30 words and 41 prefix ids."""

    condition: Condition
    message: str
    """The user's turn."""
    prefix_ids: tuple[int, ...] = ()
    """What stands in the reply already: ids that were sampled."""
    addition_ids: tuple[int, ...] = ()
    """After them, ids that were encoded: the intervention."""
    open_box: str = ""
    """As `Context.open_box`."""
    parent_id: str | None = None
    """The proposal that it was built from."""
    said: tuple[str, ...] = ()
    given: tuple[EnvironmentTurn, ...] = ()
    """Both as of `Context`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RlProblem:
    """What RL needs of a problem: the gold answer, and the contexts that it may begin from."""

    problem_id: str
    gold: Gold
    contexts: tuple[RlContext, ...]
    """At least one, the first for want of another; several of a condition take turns."""
    pass_rate: float | None = None
    """Measured before RL, where the order of the problems depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews:
    """What online InT asks the policy with, in RL."""

    config: ProposeConfig
    review: Prompt
    """Shows the numbered attempt."""
    guided: Prompt | None
    """Asks for a solution first, guided by the reference; none where all is asked at once."""
    problems: tuple[Problem, ...]
    """Those that it may ask about, each with the reference that is shown."""
    steps: str = BLANK_LINES.name
    """The rule that rollouts are cut by, by name."""


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """How a model is shown more than the problem, to teach itself what it says."""

    prompt: Prompt
    """Has a problem and a solution of it."""
    problems: tuple[Problem, ...]
    """Those that are trained on, each with the reference that may be shown."""

    def message(self, problem_id: str, solution: str) -> str:
        """Return the user's turn that shows a solution of a problem."""
        problem = self._by_id[problem_id]
        tests = shown_tests(problem.checker, problem.entry)
        given = {"problem": problem.text, "answer": problem.answer, "tests": tests}
        return self.prompt.render(reference=solution, **given)

    def reference(self, problem_id: str) -> str:
        """Return a problem's reference solution; empty where there is none."""
        return self._by_id[problem_id].reference_solution or ""

    @cached_property
    def _by_id(self) -> dict[str, Problem]:
        return {problem.problem_id: problem for problem in self.problems}


@dataclass(frozen=True, slots=True, kw_only=True)
class RlJob:
    """Outcome-reward RL on problems."""

    kind: Literal["rl"] = "rl"
    config: TrainRlConfig
    model: ModelConfig
    seed: int
    policy: str
    """What the run is called in the rollouts that are kept, e.g. ``rl:<key>``."""
    grade: GradeConfig
    problems: tuple[RlProblem, ...]
    reviews: Reviews | None = None
    teaching: Teaching | None = None
    talk: Talk | None = None
    """Where an environment answers the policy's turns."""

    @property
    def num_steps(self) -> int:
        """Log entries to expect."""
        return self.config.num_iterations


@dataclass(frozen=True, slots=True, kw_only=True)
class SdftJob:
    """Self-distillation on the model's own rollouts of problems whose references are shown."""

    kind: Literal["sdft"] = "sdft"
    config: TrainSftConfig
    model: ModelConfig
    seed: int
    policy: str
    """As of `RlJob`."""
    grade: GradeConfig
    problems: tuple[RlProblem, ...]
    teaching: Teaching
    num_rows: int
    """Rows that SFT on the same problems would train on: it takes as many steps."""

    @property
    def num_steps(self) -> int:
        """Optimiser steps, each logged."""
        return steps_of(self.config, self.num_rows)


TrainingJob = SftJob | RlJob | SdftJob
"""What ``job.json`` holds for `midcourse.training.worker`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training: what to call it, where it goes, what it does."""

    label: str
    out: Path
    content: TrainingJob


def choose_rows(path: Path, ready: Sequence[SftRow]) -> ChosenRows:
    """Name the `ready` rows of a folder."""
    return ChosenRows(path=path, row_ids=tuple(row.row_id for row in ready))


def read_job(out: Path) -> TrainingJob:
    """Return the job that is to be done in a folder."""
    return _job_file().validate_json((out / "job.json").read_bytes())


def write_job(out: Path, job: TrainingJob) -> None:
    """Write the job that is to be done in a folder."""
    write_json_atomic(out / "job.json", _job_file().dump_python(job, mode="json"))


def _job_file() -> TypeAdapter[TrainingJob]:
    return TypeAdapter(Annotated[TrainingJob, Field(discriminator="kind")])


def conclude(out: Path, summary: Mapping[str, float]) -> None:
    """Write ``summary.json``, with the checksums of all that a training made; drop its checkpoints.

    From then on it is done: a kill before its manifest is written costs nothing.
    """
    sync_files(out)
    files = describe_files(out, trained_files(out))
    write_json_atomic(out / _SUMMARY, {"counts": summary, "files": files})
    drop_checkpoints(out)


def read_summary(out: Path) -> dict[str, Any]:
    """Return the numbers that a training was concluded with."""
    found: dict[str, Any] = json.loads((out / _SUMMARY).read_text("utf-8"))["counts"]
    return found


def run_jobs(
    jobs: Sequence[Job], reporter: Reporter, on_entry: OnEntry | None = None
) -> list[dict[str, Any]]:
    """Run `jobs` side by side, sharing the cores; return their summaries, in order.

    `on_entry` is told the label of a job and every step that it logs, as it comes.
    What was done before a kill is kept; what is damaged among checkpoints is named and not used.
    Raises MidcourseError with the last words of a job that failed; the others are stopped.
    """
    missing = [job for job in jobs if damaged_files(job.out, _SUMMARY)]
    for job in missing:
        for line in clear_unusable(job.out):
            reporter.say(f"{job.label}: {line}")
    if missing:
        _run(missing, reporter, on_entry)
    for job in jobs:
        drop_checkpoints(job.out)  # a kill may have come in between
    return [read_summary(job.out) for job in jobs]


def _run(jobs: Sequence[Job], reporter: Reporter, on_entry: OnEntry | None) -> None:
    num_threads = threads_each(len(jobs))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes += (_start(job, num_threads) for job in jobs)
        with _Logs(jobs, on_entry) as logs:
            with reporter.task(logs.label, logs.total, logs.done, logs.words) as task:
                while any(process.poll() is None for process in processes):
                    _raise_if_failed(jobs, processes)
                    logs.look(task)
                    time.sleep(0.5)
                logs.look(task)
            _raise_if_failed(jobs, processes)
    except Interrupted as interrupted:
        for job in jobs:
            has_checkpoint = any(job.out.glob("checkpoint-*"))
            way = "goes on from its last checkpoint" if has_checkpoint else "starts over"
            interrupted.add_note(f"{job.label}: {way}")
        raise
    finally:
        for process in processes:
            if process.poll() is None:
                end(process)


class _Logs:
    """What trainings under way have logged; their folders say it to whoever looks."""

    def __init__(self, jobs: Sequence[Job], on_entry: OnEntry | None) -> None:
        self._jobs, self._owner, self._started = jobs, Owner.me(), now()
        self._on_entry = on_entry
        self._steps = [logged_steps(job.out) for job in jobs]
        self._resumed = [len(steps) for steps in self._steps]
        self.label = " and ".join(job.label for job in jobs)
        self.total = sum(job.content.num_steps for job in jobs)

    def __enter__(self) -> _Logs:
        self._save()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._save(str(error).partition("\n")[0] if isinstance(error, Exception) else "")

    @property
    def done(self) -> int:
        """The steps of all."""
        return sum(map(len, self._steps))

    def words(self) -> str:
        """Return how each goes."""
        return " | ".join(map(training_note, self._steps))

    def look(self, task: Task) -> None:
        """Read the logs, and tell the task what is new in them."""
        done, seen = self.done, sum(map(tokens_seen, self._steps))
        known = list(map(len, self._steps))
        self._steps = [logged_steps(job.out) for job in self._jobs]
        if self._on_entry:
            for job, steps, number in zip(self._jobs, self._steps, known, strict=True):
                for entry in steps[number:]:
                    self._on_entry(job.label, entry)
        if self.done > done:
            tokens = sum(map(tokens_seen, self._steps)) - seen
            task.advance(self.done - done, tokens=max(tokens, 0))
            self._save()

    def _save(self, error: str = "") -> None:
        for job, steps, resumed in zip(self._jobs, self._steps, self._resumed, strict=True):
            progress = StepProgress(
                owner=self._owner,
                started=self._started,
                updated=now(),
                total=job.content.num_steps,
                resumed=resumed,
                done=len(steps),
                note=training_note(steps),
                error=error,
            )
            write_progress(job.out, progress)


#: Written to the log where a training starts, or goes on: an earlier failure is not this one's.
_STARTS = "=== training starts\n"


def _start(job: Job, num_threads: int) -> subprocess.Popen[bytes]:
    job.out.mkdir(parents=True, exist_ok=True)
    write_job(job.out, job.content)
    for name in (ERROR_FILE, _SUMMARY):
        (job.out / name).unlink(missing_ok=True)
    _begin_log(job.out / "metrics.jsonl", goes_on=any(job.out.glob("checkpoint-*")))
    with (job.out / "worker.log").open("ab", buffering=0) as log:  # above what the process says
        log.write(_STARTS.encode())
        return subprocess.Popen(
            [*_launcher(job), "midcourse.training.worker", str(job.out), str(num_threads)],
            preexec_fn=end_with_parent(),
            stdout=log,
            stderr=log,
            env=_environment(job, num_threads),
        )


def _begin_log(path: Path, *, goes_on: bool) -> None:
    """Keep the log of a training that goes on, up to its last whole line; drop any other.

    A step that is done again will be in it twice.
    """
    if not goes_on:
        path.unlink(missing_ok=True)
    elif path.is_file():
        kept = path.read_bytes()
        path.write_bytes(kept[: kept.rfind(b"\n") + 1])


def _environment(job: Job, num_threads: int) -> dict[str, str]:
    """Return ours with what libraries read when they are imported."""
    counts = {name: str(num_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    made = {**os.environ, **_network(job), **counts, "TOKENIZERS_PARALLELISM": "false"}
    wait_passively(made)
    return made


def _network(job: Job) -> dict[str, str]:
    """Return what keeps libraries from the network; they read it when they are imported.

    Nobody is told what is trained, and where the model lies on this disk nothing is looked up.
    """
    silent = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    is_local = Path(resolve_model(job.content.model.path)).is_dir()
    return {**silent, "HF_HUB_OFFLINE": "1"} if is_local else silent


def _launcher(job: Job) -> list[str]:
    """Return what starts a module: the interpreter, or accelerate with its config."""
    accelerate = job.content.config.accelerate
    if not accelerate:
        return [sys.executable, "-m"]
    config = str(find_accelerate(accelerate))
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "--module"]


def _raise_if_failed(jobs: Sequence[Job], processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for job, process in zip(jobs, processes, strict=True):
        if process.poll():
            words = _last_words(job.out, process.returncode)
            raise MidcourseError(f"{job.label} failed: {words} (all of it: {job.out}/worker.log)")


#: The last line of a traceback, as a process of several prints it too: ``[rank1]: ValueError: …``.
_ERROR_LINE = re.compile(r"^(?:\[rank\d+\]: ?)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*)")


def _last_words(out: Path, code: int) -> str:
    """Return why a training ended: in its own words, else the last error that it printed."""
    if (out / ERROR_FILE).is_file():
        return (out / ERROR_FILE).read_text("utf-8")
    log = (out / "worker.log").read_text("utf-8", "replace")
    lines = log.rpartition(_STARTS)[2].splitlines()
    # Launchers end with a summary of their own, below what a process said.
    errors = [found[1] for line in lines if (found := _ERROR_LINE.search(line))]
    if code < 0:  # its last line is then a step's figures, and no cause
        ended = f"it was killed (signal {-code}, {signal.strsignal(-code)})"
        if code == -signal.SIGKILL:
            ended += ", as happens where the machine is out of memory"
        return f"{ended}; its last error: {errors[-1].strip()}" if errors else ended
    said = errors or [line for line in lines if any(map(str.isalnum, line))]
    return said[-1].strip() if said else "no output"


def logged_steps(out: Path) -> list[dict[str, float]]:
    """Return what a training logged of each of its steps; of one that was done again, the last."""
    path = out / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    return list({entry["step"]: entry for entry in entries if "loss" in entry}.values())


def tokens_seen(entries: Sequence[Mapping[str, float]]) -> int:
    """Return the tokens that steps sampled or, where nothing is sampled, trained on."""
    if any("groups/sampled_tokens" in entry for entry in entries):
        return round(sum(entry.get("groups/sampled_tokens", 0.0) for entry in entries))
    return round(max((entry.get("num_tokens", 0.0) for entry in entries), default=0.0))


def training_note(entries: Sequence[Mapping[str, float]]) -> str:
    """Return how a training goes: "loss 0.412", or reward and share of groups without advantage."""
    if not entries:
        return "loading the model"
    last = entries[-1]
    if "reward" not in last:
        return f"loss {last['loss']:.3f}"
    idle = last.get("frac_reward_zero_std", 0.0)
    return f"reward {last['reward']:.3f}, {100 * idle:.0f} % of groups without advantage"
