"""Reads a finished run: how long its texts were, what came of them, how fast it went.

The run's own method says what each of its stages is. The measured values take the names of
`midcourse.plan.assumptions.Assumptions`, so a plan for another seed, size or scale uses them in
place of the defaults. A stage that was resumed counts with the records of its last sitting, whose
time the manifest holds. Time is the clock's, or the processor's: on a machine that is shared with
others, only the latter says what the work takes.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeVar

from midcourse.errors import ArtifactError
from midcourse.pipeline.evaluation import LikelihoodSettings
from midcourse.pipeline.models import RlSettings, TuneSettings
from midcourse.pipeline.stages import GradeSettings, ProposeSettings, SampleSettings
from midcourse.plan.compose import compose, in_order
from midcourse.plan.devices import TrainingProcesses
from midcourse.plan.search import PassRates
from midcourse.plan.work import Kind, kind_of
from midcourse.records import Condition, Proposal, ProposalOutcome, RowOutcome, Solvability
from midcourse.run import Stage, read_recipe
from midcourse.store import read_manifest, read_stage

R = TypeVar("R")

Clock = Literal["wall", "cpu"]
"""Which time to measure; ``cpu`` only means something where no GPU works."""

_ROW_IDS = ("input_ids", "labels")


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
class _Made:
    """One complete stage or training."""

    path: Path
    manifest: Mapping[str, Any]
    clock: Clock

    @property
    def span(self) -> tuple[float, float]:
        """Start and end of the last sitting, seconds."""
        times = (self.manifest["started"], self.manifest["finished"])
        started, finished = (datetime.fromisoformat(time).timestamp() for time in times)
        return started, finished

    @property
    def whole(self) -> float:
        """Time of the last sitting."""
        return self.told(self.span[1] - self.span[0])

    @property
    def loading(self) -> float:
        """Time of opening an engine within it."""
        return self.told(float(self.manifest.get("loading_seconds", 0.0)))

    @property
    def fresh(self) -> float:
        """Share of the records that the last sitting made."""
        total = max(int(self.manifest["num_records"]), 1)
        return 1 - int(self.manifest.get("num_resumed", 0)) / total

    @property
    def train_seconds(self) -> float:
        """Time of training at its steady pace, which the first step never has.

        Libraries load what they need as they go: that counts as starting.
        """
        logged = self.logged("seconds")[:-1]  # the last entry sums up
        if len(logged) < 2:
            return self.told(self.logged("train_runtime")[-1])
        return self.told((logged[-1] - logged[0]) * len(logged) / (len(logged) - 1))

    def told(self, wall_seconds: float) -> float:
        """Return a part of the sitting in the time that is measured."""
        span = self.span[1] - self.span[0]
        if self.clock == "wall" or not span:
            return wall_seconds
        if "cpu_seconds" not in self.manifest:
            raise ArtifactError(f"--cpu-time: {self.path} does not tell processor time")
        return wall_seconds * float(self.manifest["cpu_seconds"]) / span

    def logged(self, name: str) -> list[float]:
        """Return what a training logged under `name`, oldest first."""
        lines = (self.path / "metrics.jsonl").read_text("utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        return [float(entry[name]) for entry in entries if name in entry]


class _RunDir:
    """The complete steps of a run, by what they are."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        file = directory / "config.resolved.json"
        if not file.is_file():
            raise ArtifactError(f"--from {directory}: no run directory: no config.resolved.json")
        self.directory, self.recipe = directory, read_recipe(file)
        self.method = compose(self.recipe)
        folders = sorted(path.parent for path in directory.glob("*/*/manifest.json"))
        self.all = [_Made(folder, read_manifest(folder), clock) for folder in folders]
        if not self.all:
            raise ArtifactError(f"--from {directory}: no stage is complete yet")
        # Problems are not read for a plan, so keys differ from the run's: names say which is which.
        self._named = {(made.manifest["stage"], made.manifest["label"]): made for made in self.all}

    def steps(self, settings: type) -> Iterator[tuple[Any, _Made]]:
        """Yield the complete steps with such settings."""
        for step in (step for steps in in_order(self.method.steps()) for step in steps):
            made = self._named.get((step.name, step.label))
            if made is not None and isinstance(step.settings, settings):
                yield step, made

    def read(self, stage: Stage[R, Any], without: Collection[str] = ()) -> list[R]:
        """Return the records of a stage. Raises ArtifactError if the run never made it."""
        made = self._named.get((stage.name, stage.label))
        if made is None:
            place = f"--from {self.directory}"
            raise ArtifactError(f"{place}: {stage.name} {stage.label} is not complete there")
        return list(read_stage(made.path, stage.record, without))


def measure(directory: Path, clock: Clock = "wall") -> Measured:
    """Measure a run. Raises ArtifactError if it has not come as far as its SFT rows."""
    run = _RunDir(directory, clock)
    rates, values = _Rates(), _funnel(run)
    values |= _rollouts(run, rates)
    values |= _proposing(run, rates, values.pop("characters_per_token"))
    values |= _rows(run, values["rollout_tokens"]) | _scoring(run, rates) | _training(run)
    for _, made in run.steps(GradeSettings):
        workers = run.recipe.grade.num_workers
        rates.add("grades_per_second", made.manifest["num_records"] / workers, made)
    loads = [made.loading for made in run.all if made.loading]
    # Older manifests do not tell loading apart: then it is within the rates.
    values |= rates.values() | {"load_seconds": fmean(loads or [0.0])}
    wall = _finished(run) - min(made.span[0] for made in run.all)
    busy, worked = _busy(made.span for made in run.all), _worked(run.all)
    # Between the stages nobody counts processor time: there it is the clock's, as within them.
    values["other_seconds"] = max(0.0, wall - busy) * worked / busy
    return Measured(values, _pass_rates(run), worked + values["other_seconds"])


class _Rates:
    """Amounts per second, each over several stages."""

    def __init__(self) -> None:
        self._amounts: dict[str, float] = defaultdict(float)
        self._seconds: dict[str, float] = defaultdict(float)

    def add(self, name: str, amount: float, made: _Made) -> None:
        """Count what one stage made, the sittings before its last aside, and how long it took."""
        self._amounts[name] += amount * made.fresh
        self._seconds[name] += max(made.whole - made.loading, 1e-3)

    def values(self) -> dict[str, float]:
        """Return the amount per second, by name, where there was any."""
        return {name: x / self._seconds[name] for name, x in self._amounts.items() if x}


def _rollouts(run: _RunDir, rates: _Rates) -> dict[str, float]:
    """Measure lengths and rates of everything that was sampled from the policy."""
    lengths: dict[str, list[int]] = {}
    characters = tokens = disk = 0
    for stage, made in run.steps(SampleSettings):
        kind = kind_of(stage.settings)
        if kind is Kind.HELP:
            continue
        rollouts = run.read(stage, ("token_ids",))
        sampled = sum(rollout.num_tokens for rollout in rollouts)
        rates.add(
            f"{kind}_tokens_per_second", sampled / stage.settings.model.engine.num_devices, made
        )
        tokens, disk = tokens + sampled, disk + sum(p["bytes"] for p in made.manifest["parts"])
        characters += sum(len(rollout.text) for rollout in rollouts)
        for rollout in rollouts:
            if rollout.condition.continues is not Condition.PROBLEM:
                lengths.setdefault("continuation_tokens", []).append(rollout.num_tokens)
            elif rollout.condition is Condition.PROBLEM:
                lengths.setdefault("prompt_tokens", []).append(rollout.prompt_tokens)
                if kind is Kind.SAMPLE:
                    lengths.setdefault("rollout_tokens", []).append(rollout.num_tokens)
    found = {name: fmean(counts) for name, counts in lengths.items()}
    return found | {
        "characters_per_token": characters / tokens,
        "disk_bytes_per_token": disk / tokens,
    }


def _funnel(run: _RunDir) -> dict[str, float]:
    """Measure which share of the problems is hard, and what a search drew."""
    statuses = run.read(run.method.statuses)
    found = {"hard_share": fmean(s.status is Solvability.HARD for s in statuses)}
    if run.recipe.sample.rounds:
        found["rollouts_per_problem"] = fmean(s.num_rollouts - s.num_skipped for s in statuses)
    if run.method.hinted_statuses is not None:
        hinted = run.read(run.method.hinted_statuses)
        found["hinted_share"] = fmean(s.status is Solvability.HARD for s in hinted)
    return found


def _pass_rates(run: _RunDir) -> PassRates | None:
    if run.recipe.sample.rounds:
        return None
    statuses = run.read(run.method.statuses)
    rates = Counter(s.num_correct / s.num_rollouts for s in statuses)
    return [(rate, count / len(statuses)) for rate, count in sorted(rates.items())]


def _proposing(run: _RunDir, rates: _Rates, characters_per_token: float) -> dict[str, float]:
    """Measure the proposer. Its replies are kept as text: their tokens are estimated."""
    turns: dict[str, list[float]] = {"guided_tokens": [], "review_tokens": []}
    for stage, made in run.steps(ProposeSettings):
        proposals: list[Proposal] = [p for p in run.read(stage) if not p.item]
        said = [[len(turn.reply) / characters_per_token for turn in p.turns] for p in proposals]
        devices = stage.settings.proposer.engine.num_devices
        rates.add("propose_tokens_per_second", sum(map(sum, said)) / devices, made)
        turns["guided_tokens"] += [lengths[0] for lengths in said if len(lengths) > 1]
        turns["review_tokens"] += [lengths[-1] for lengths in said if lengths]
    asked: dict[str, bool] = {}
    for proposal in run.read(run.method.proposals, ("turns",)):
        accepted = proposal.outcome is ProposalOutcome.ACCEPTED
        asked[proposal.rollout_id] = asked.get(proposal.rollout_id, False) or accepted
    found = {name: fmean(lengths) for name, lengths in turns.items() if lengths}
    return found | {"candidate_share": sum(asked.values()) / max(len(asked), 1)}


def _rows(run: _RunDir, rollout_tokens: float) -> dict[str, float]:
    """Measure the rows of steps: their parts, and for how many hard problems there are some."""
    rows = run.read(run.method.models.step_rows, _ROW_IDS)
    ready = [row for row in rows if row.outcome is RowOutcome.READY]
    statuses = run.read(run.method.hinted_statuses or run.method.statuses)
    hard = sum(status.status is Solvability.HARD for status in statuses)
    verified = len({row.problem_id for row in rows if row.num_correct})
    found = {"verified_share": verified / hard} if hard else {}
    if ready:
        found["prefix_share"] = min(1.0, fmean(r.prefix_tokens for r in ready) / rollout_tokens)
        found["intervention_tokens"] = fmean(r.intervention_tokens for r in ready)
    return found


def _scoring(run: _RunDir, rates: _Rates) -> dict[str, float]:
    references: list[int] = []
    for stage, made in run.steps(LikelihoodSettings):
        items = run.read(stage)
        rates.add("likelihood_tokens_per_second", sum(i.num_tokens for i in items), made)
        references += [i.num_tokens for i in items if i.what == "reference"]
    return {"reference_tokens": fmean(references)} if references else {}


def _training(run: _RunDir) -> dict[str, float]:
    """Measure tokens per second of SFT and RL, and how long a training takes to start."""
    found: dict[str, float] = {}
    starts: list[float] = []
    for tuned, made in run.steps(TuneSettings):
        settings, seconds = tuned.settings, made.train_seconds
        rows = [r for r in run.read(settings.rows, _ROW_IDS) if r.outcome is RowOutcome.READY]
        tokens = sum(r.prompt_tokens + r.prefix_tokens + r.intervention_tokens for r in rows)
        tokens *= 1 if settings.rejected is None else 2
        processes = TrainingProcesses.of(settings.config.accelerate).number
        found["sft_tokens_per_second"] = made.logged("epoch")[-1] * tokens / seconds / processes
        starts.append(made.whole - seconds)
    if trained := list(run.steps(RlSettings)):
        config, arms = run.recipe.train_rl, [made for _, made in trained]
        # One entry per iteration of the last sitting, the one whose time is known.
        lengths = [length for arm in arms for length in arm.logged("completions/mean_length")]
        times = [arm.train_seconds for arm in arms]
        seconds = sum(times) if config.takes_all_devices else max(times)
        rate = sum(lengths) * config.prompts_per_iteration * config.num_generations / seconds
        processes = TrainingProcesses.of(config.accelerate).number
        found |= {"rl_tokens": fmean(lengths), "rl_tokens_per_second": rate / processes}
        starts.append(_worked(arms) - seconds)
    return found | ({"train_start_seconds": max(0.0, fmean(starts))} if starts else {})


def _finished(run: _RunDir) -> float:
    """Return when the run ended: its report, or its last stage."""
    last = max(made.span[1] for made in run.all)
    report = run.directory / "report" / "tables.json"
    told = json.loads(report.read_text("utf-8")).get("finished") if report.is_file() else None
    return max(last, datetime.fromisoformat(told).timestamp()) if told else last


def _worked(steps: Iterable[_Made]) -> float:
    """Return the time of several steps. Trainings side by side began together and count once."""
    blocks = {
        made.span[0] if "num_records" not in made.manifest else str(made.path): made
        for made in steps
    }
    return sum(made.whole for made in blocks.values())


def _busy(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of time spans."""
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
