"""Reads a finished run: how long its texts were, what came of them, how fast it went.

The measured values take the names of `midcourse.plan.assumptions.Assumptions`, so a plan for
another seed, size or scale uses them in place of the defaults. A stage that was resumed counts
with the records of its last sitting, whose time the manifest holds. Time is the clock's, or the
processor's: on a machine that is shared with others, only the latter says what the work takes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeVar

from midcourse.config import Recipe
from midcourse.errors import ArtifactError
from midcourse.plan.devices import TrainingProcesses, sampling_devices
from midcourse.plan.search import PassRates
from midcourse.records import (
    Condition,
    Likelihood,
    ProblemStatus,
    Proposal,
    ProposalOutcome,
    Rollout,
    RowOutcome,
    SftRow,
    Solvability,
)
from midcourse.store import read_manifest, read_stage

R = TypeVar("R")

Clock = Literal["wall", "cpu"]
"""Which time to measure; ``cpu`` only means something where no GPU works."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run showed."""

    values: dict[str, float]
    """By the name of the assumption they replace."""
    pass_rates: PassRates | None
    """Pass rate and share of the problems; None if a search stopped at what it looked for."""
    seconds: float
    """The run's time by the clock, from its first stage to its report."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """One complete stage or training."""

    path: Path
    manifest: Mapping[str, Any]
    clock: Clock

    @property
    def label(self) -> str:
        return str(self.manifest["label"])

    @property
    def span(self) -> tuple[float, float]:
        """Start and end of the last sitting, seconds."""
        times = (self.manifest["started"], self.manifest["finished"])
        started, finished = (datetime.fromisoformat(time).timestamp() for time in times)
        return started, finished

    @property
    def seconds(self) -> float:
        """Time of the last sitting, without opening an engine."""
        return max(self.told(self.span[1] - self.span[0]) - self.loading, 1e-3)

    @property
    def loading(self) -> float:
        """Time of opening an engine within it."""
        return self.told(float(self.manifest.get("loading_seconds", 0.0)))

    def told(self, wall_seconds: float) -> float:
        """Return a part of the sitting in the time that is measured."""
        span = self.span[1] - self.span[0]
        if self.clock == "wall" or not span:
            return wall_seconds
        if "cpu_seconds" not in self.manifest:
            raise ArtifactError(f"--cpu-time: {self.path} does not tell processor time")
        return wall_seconds * float(self.manifest["cpu_seconds"]) / span

    @property
    def fresh(self) -> float:
        """Share of the records that the last sitting made."""
        total = max(int(self.manifest["num_records"]), 1)
        return 1 - int(self.manifest.get("num_resumed", 0)) / total

    def read(self, record_type: type[R], without: Sequence[str] = ()) -> Iterator[R]:
        return read_stage(self.path, record_type, without)


class _RunDir:
    """The complete stages of a run, by name."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        file = directory / "config.resolved.json"
        if not file.is_file():
            raise ArtifactError(f"--from {directory}: no run directory: no config.resolved.json")
        self.recipe = Recipe.model_validate(json.loads(file.read_text("utf-8")))
        self.directory = directory
        folders = sorted(path.parent for path in directory.glob("*/*/manifest.json"))
        self.all = [_Stage(folder, read_manifest(folder), clock) for folder in folders]
        if not self.all:
            raise ArtifactError(f"--from {directory}: no stage is complete yet")

    def stages(self, name: str) -> list[_Stage]:
        return [stage for stage in self.all if stage.manifest["stage"] == name]

    def one(self, name: str, label: str) -> _Stage:
        """Return one stage. Raises ArtifactError if the run never made it."""
        found = [stage for stage in self.stages(name) if stage.label == label]
        if not found:
            raise ArtifactError(f"--from {self.directory}: {name} {label} is not complete there")
        return found[0]


def measure(directory: Path, clock: Clock = "wall") -> Measured:
    """Measure a run. Raises ArtifactError if it has not come as far as its SFT rows."""
    run = _RunDir(directory, clock)
    values = _sampling(run) | _outcomes(run)
    values |= _proposing(run, values.pop("characters_per_token"))
    values |= _rows(run, values["rollout_tokens"]) | _scoring(run)
    values |= _training(run)
    answers = [
        (stage.manifest["num_records"] * stage.fresh, stage) for stage in run.stages("grade")
    ]
    values["grades_per_second"] = _rate(answers) / run.recipe.grade.num_workers
    loads = [stage.loading for stage in run.all]
    # Older manifests do not tell loading apart: then it is within the rates.
    values["load_seconds"] = fmean([load for load in loads if load] or [0.0])
    wall = _finished(run) - min(stage.span[0] for stage in run.all)
    busy = _busy(stage.span for stage in run.all)
    # Between the stages nobody counts processor time: there it is the clock's, as within them.
    values["other_seconds"] = max(0.0, wall - busy) * _worked(run.all) / busy
    seconds = _worked(run.all) + values["other_seconds"]
    return Measured(values, _pass_rates(run), seconds)


def _rate(amounts: Iterable[tuple[float, _Stage]]) -> float:
    """Return the amount per second over several stages."""
    pairs = list(amounts)
    return sum(amount for amount, _ in pairs) / sum(stage.seconds for _, stage in pairs)


def _sampling(run: _RunDir) -> dict[str, float]:
    """Measure lengths and rates of everything that was sampled from the policy."""
    devices = sampling_devices(run.recipe.engine)
    amounts: dict[str, list[tuple[float, _Stage]]] = {}
    lengths: dict[str, list[int]] = {
        name: [] for name in ("rollout_tokens", "prompt_tokens", "continuation_tokens")
    }
    characters = tokens = disk = 0
    for stage in run.stages("sample"):
        if not (kind := _kind(stage.label)):
            continue
        rollouts = list(stage.read(Rollout, without=("token_ids",)))
        sampled = sum(rollout.num_tokens for rollout in rollouts)
        amounts.setdefault(kind, []).append((sampled * stage.fresh, stage))
        tokens, disk = tokens + sampled, disk + sum(p["bytes"] for p in stage.manifest["parts"])
        characters += sum(len(rollout.text) for rollout in rollouts)
        plain = [r for r in rollouts if r.condition is Condition.PROBLEM]
        continued = [r for r in rollouts if r.condition.continues is not Condition.PROBLEM]
        if kind == "sample":
            lengths["rollout_tokens"] += [r.num_tokens for r in plain]
        lengths["prompt_tokens"] += [r.prompt_tokens for r in plain]
        lengths["continuation_tokens"] += [r.num_tokens for r in continued]
    run.one("sample", "train")  # the least that can be measured
    found = {f"{k}_tokens_per_second": _rate(pairs) / devices for k, pairs in amounts.items()}
    found |= {name: fmean(counts) for name, counts in lengths.items() if counts}
    found["characters_per_token"] = characters / tokens
    return found | {"disk_bytes_per_token": disk / tokens}


def _kind(label: str) -> str:
    """Return which stage of a plan a sampling belongs to; empty if it is in none."""
    if label == "train":
        return "sample"
    if label in {str(condition) for condition in Condition}:
        return "verify"
    return "evaluate" if label.startswith(("held_out ", "known ", "control ")) else ""


def _outcomes(run: _RunDir) -> dict[str, float]:
    """Measure which share of the problems is hard, and what a search drew."""
    statuses = list(run.one("select", "train").read(ProblemStatus))
    hard = sum(status.status is Solvability.HARD for status in statuses)
    found = {"hard_share": hard / len(statuses)}
    if run.recipe.sample.rounds:
        drawn = sum(s.num_rollouts - s.num_skipped for s in statuses)
        found["rollouts_per_problem"] = drawn / len(statuses)
    return found


def _pass_rates(run: _RunDir) -> PassRates | None:
    if run.recipe.sample.rounds:
        return None
    statuses = list(run.one("select", "train").read(ProblemStatus))
    rates = Counter(s.num_correct / s.num_rollouts for s in statuses)
    return [(rate, count / len(statuses)) for rate, count in sorted(rates.items())]


def _proposing(run: _RunDir, characters_per_token: float) -> dict[str, float]:
    """Measure the proposer. Its replies are kept as text: their tokens are estimated."""
    devices = sampling_devices(run.recipe.proposer_engine or run.recipe.engine)
    amounts, turns = [], [list[float](), list[float]()]
    for stage in run.stages("propose"):
        proposals = [p for p in stage.read(Proposal) if not p.item]
        said = [[len(turn.reply) / characters_per_token for turn in p.turns] for p in proposals]
        amounts.append((sum(map(sum, said)) * stage.fresh, stage))
        turns[0] += [lengths[0] for lengths in said if len(lengths) > 1]
        turns[1] += [lengths[-1] for lengths in said if lengths]
    found = {"propose_tokens_per_second": _rate(amounts) / devices}
    names = ("guided_tokens", "review_tokens")
    found |= {n: fmean(lengths) for n, lengths in zip(names, turns, strict=True) if lengths}
    asked: dict[str, bool] = {}
    for proposal in run.one("propose", "train").read(Proposal, without=("turns",)):
        accepted = proposal.outcome is ProposalOutcome.ACCEPTED
        asked[proposal.rollout_id] = asked.get(proposal.rollout_id, False) or accepted
    return found | {"candidate_share": sum(asked.values()) / max(len(asked), 1)}


def _rows(run: _RunDir, rollout_tokens: float) -> dict[str, float]:
    """Measure the SFT rows: their parts, and for how many hard problems there are some."""
    steps = "original_step" if run.recipe.build_sft.source == "original_step" else "intervention"
    rows = list(run.one("build-sft", steps).read(SftRow, without=("input_ids", "labels")))
    ready = [row for row in rows if row.outcome is RowOutcome.READY]
    hard = run.one("select", "train").manifest["counts"].get("hard", 0)
    verified = len({row.problem_id for row in rows if row.num_correct})
    found = {"verified_share": verified / hard} if hard else {}
    if ready:
        found["prefix_share"] = min(1.0, fmean(r.prefix_tokens for r in ready) / rollout_tokens)
        found["intervention_tokens"] = fmean(r.intervention_tokens for r in ready)
    return found


def _scoring(run: _RunDir) -> dict[str, float]:
    stages = run.stages("likelihood")
    if not stages:
        return {}
    items = [(stage, list(stage.read(Likelihood))) for stage in stages]
    scored = [(sum(i.num_tokens for i in found) * stage.fresh, stage) for stage, found in items]
    references = [i.num_tokens for _, found in items for i in found if i.what == "reference"]
    values = {"likelihood_tokens_per_second": _rate(scored)}
    return values | ({"reference_tokens": fmean(references)} if references else {})


def _training(run: _RunDir) -> dict[str, float]:
    """Measure tokens per second of SFT and RL, and how long a training takes to start."""
    found: dict[str, float] = {}
    starts: list[float] = []
    for is_rl, measured in ((False, _sft), (True, _rl)):
        trained = run.stages("checkpoints")
        stages = [stage for stage in trained if stage.label.endswith("RL") == is_rl]
        if stages:
            values, seconds = measured(run, stages)
            found |= values
            starts.append(_worked(stages) - seconds)
    return found | ({"train_start_seconds": max(0.0, fmean(starts))} if starts else {})


def _sft(run: _RunDir, stages: Sequence[_Stage]) -> tuple[dict[str, float], float]:
    """Return what SFT showed, and the seconds it trained."""
    [stage] = stages
    seconds = stage.told(_train_seconds(stage))
    rows = run.one("build-sft", run.recipe.build_sft.source).read(
        SftRow, without=("input_ids", "labels")
    )
    tokens = _logged(stage, "epoch")[-1] * sum(
        row.prompt_tokens + row.prefix_tokens + row.intervention_tokens
        for row in rows
        if row.outcome is RowOutcome.READY
    )
    processes = TrainingProcesses.of(run.recipe.train_sft.accelerate).number
    return {"sft_tokens_per_second": tokens / seconds / processes}, seconds


def _rl(run: _RunDir, stages: Sequence[_Stage]) -> tuple[dict[str, float], float]:
    """Return what RL showed, both arms together, and the seconds they trained."""
    config = run.recipe.train_rl
    # One entry per iteration of the last sitting, the one whose time is known.
    lengths = [x for arm in stages for x in _logged(arm, "completions/mean_length")]
    times = [arm.told(_train_seconds(arm)) for arm in stages]
    seconds = sum(times) if config.takes_all_devices else max(times)
    tokens = sum(lengths) * config.prompts_per_iteration * config.num_generations
    rate = tokens / seconds / TrainingProcesses.of(config.accelerate).number
    return {"rl_tokens": fmean(lengths), "rl_tokens_per_second": rate}, seconds


def _train_seconds(stage: _Stage) -> float:
    """Return the seconds of training at its steady pace, which the first step never has.

    Libraries load what they need as they go: that counts as starting.
    """
    logged = _logged(stage, "seconds")[:-1]  # the last entry sums up
    if len(logged) < 2:
        return _logged(stage, "train_runtime")[-1]
    return (logged[-1] - logged[0]) * len(logged) / (len(logged) - 1)


def _logged(stage: _Stage, name: str) -> list[float]:
    """Return what a training logged under `name`, oldest first."""
    lines = (stage.path / "metrics.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [float(entry[name]) for entry in entries if name in entry]


def _finished(run: _RunDir) -> float:
    """Return when the run ended: its report, or its last stage."""
    last = max(stage.span[1] for stage in run.all)
    report = run.directory / "report" / "tables.json"
    told = json.loads(report.read_text("utf-8")).get("finished") if report.is_file() else None
    return max(last, datetime.fromisoformat(told).timestamp()) if told else last


def _worked(stages: Iterable[_Stage]) -> float:
    """Return the time of several stages. Trainings side by side began together and count once."""
    blocks = {
        stage.span[0] if stage.path.parent.name == "checkpoints" else str(stage.path): stage
        for stage in stages
    }
    return sum(stage.told(stage.span[1] - stage.span[0]) for stage in blocks.values())


def _busy(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of time spans."""
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
