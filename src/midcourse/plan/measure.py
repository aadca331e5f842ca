"""Reads a finished run: how long its texts were, what came of them, how fast it went.

The measured values take the names of `midcourse.plan.assumptions.Assumptions`, whose defaults they
replace. A stage that was resumed counts with the records of its last session, whose time the
manifest holds. Time is the clock's, or the processor's: on a machine that is shared with others,
only the latter says what the work takes.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from midcourse.errors import ArtifactError
from midcourse.pipeline.evaluation import LikelihoodSettings
from midcourse.pipeline.models import RlSettings, TuneSettings
from midcourse.pipeline.stages import GradeSettings, ProposeSettings, SampleSettings
from midcourse.plan.devices import TrainingProcesses
from midcourse.plan.search import PassRates
from midcourse.plan.work import Kind, compose, kind_of
from midcourse.records import Condition, ProposalOutcome, RowOutcome, Solvability
from midcourse.run import Stage, in_order, read_recipe
from midcourse.store.stage import read_manifest, read_stage

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


class _Made:
    """The last session of one complete stage or training, in the time that is measured."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self.manifest = path, read_manifest(path)
        self.started, self.finished = (_time(self.manifest[n]) for n in ("started", "finished"))
        self.span = max(0.0, self.finished - self.started)  # a clock may be set back
        is_wall = clock == "wall" or not self.span
        self.pace = 1.0 if is_wall else self.manifest["cpu_seconds"] / self.span
        self.seconds = self.span * self.pace
        self.loading = self.manifest.get("loading_seconds", 0.0) * self.pace

    @property
    def train_seconds(self) -> float:
        """Time of training at its steady pace, which the first step never has.

        Libraries load what they need as they go: that counts as starting.
        """
        logged, steps = self.logged("seconds")[:-1], set(self.logged("step"))
        # The last entry sums up. A training that was resumed starts its clock again.
        begun = max((i for i, (a, b) in enumerate(pairwise(logged), 1) if b < a), default=0)
        steady = logged[begun:]
        if len(steady) < 2:
            return self.logged("train_runtime")[-1] * self.pace
        return (steady[-1] - steady[0]) / (len(steady) - 1) * len(steps) * self.pace

    def logged(self, name: str) -> list[float]:
        """Return what a training logged under `name`, oldest first."""
        lines = (self.path / "metrics.jsonl").read_text("utf-8").splitlines()
        return [float(entry[name]) for entry in map(json.loads, lines) if name in entry]


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _one_by_one(steps: Iterable[_Made]) -> list[_Made]:
    """Return the steps that ran one after the other: of trainings that ran together, one."""
    return list({m.path if "num_records" in m.manifest else m.started: m for m in steps}.values())


class _RunDir:
    """The complete steps of a run, and what they show: each value is one sum over another."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        file = directory / "config.resolved.json"
        if not file.is_file():
            raise ArtifactError(
                f"--from {directory} is not a run directory: it has no config.resolved.json"
            )
        self.directory, self.recipe = directory, read_recipe(file)
        self._sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        self.method = compose(self.recipe)
        folders = sorted(path.parent for path in directory.glob("*/*/manifest.json"))
        self.all = [_Made(folder, clock) for folder in folders]
        # Problems are not read for a plan, so keys differ from the run's: names say which is which.
        self._named = {(made.manifest["stage"], made.manifest["label"]): made for made in self.all}

    def steps(self) -> Iterator[tuple[Any, _Made]]:
        """Yield the complete steps, in order."""
        for step in in_order(self.method.steps()):
            if made := self._named.get((step.name, step.label)):
                yield step, made

    def read(self, stage: Stage[R, Any], without: Collection[str] = ()) -> list[R]:
        """Return the records of a stage. Raises ArtifactError if the run never made it."""
        made, name = self._named.get((stage.name, stage.label)), f"{stage.name} {stage.label}"
        if made is None:
            raise ArtifactError(f"--from {self.directory}: {name} is not complete there")
        return list(read_stage(made.path, stage.record, without))

    def add(self, name: str, amount: float, per: float = 1.0) -> None:
        """Add to both sums of a mean, a share or a rate."""
        above, below = self._sums[name]
        self._sums[name] = (above + amount, below + per)

    def add_rate(self, name: str, amount: float, made: _Made) -> None:
        """Add what one stage made in its last session, and how long it took."""
        fresh = 1 - made.manifest.get("num_resumed", 0) / max(made.manifest["num_records"], 1)
        self.add(f"{name}_per_second", amount * fresh, max(made.seconds - made.loading, 1e-3))

    def values(self) -> dict[str, float]:
        """Return the ratios by name. A rate of nothing says nothing."""
        return {
            name: max(0.0, above / below)
            for name, (above, below) in self._sums.items()
            if below and (above or not name.endswith("_per_second"))
        }


def measure(directory: Path, clock: Clock = "wall") -> Measured:
    """Measure a run. Raises ArtifactError if it has not come as far as its SFT rows."""
    run = _RunDir(directory, clock)
    pass_rates = _funnel(run)
    for step, made in run.steps():
        if measure_step := _BY_SETTINGS.get(type(step.settings)):
            measure_step(run, step, made)
    if arms := [made for step, made in run.steps() if isinstance(step.settings, RlSettings)]:
        _reinforced(run, arms)
    for made in run.all:
        if made.loading:
            run.add("load_seconds", made.loading)
    values = {"load_seconds": 0.0} | run.values()
    # The proposer's replies are kept as text: their tokens are estimated.
    characters_per_token = values.pop("characters_per_token")
    for name in {"guided_tokens", "review_tokens", "propose_tokens_per_second"} & values.keys():
        values[name] /= characters_per_token
    if "prefix_share" in values:
        values["prefix_share"] = min(1.0, values["prefix_share"] / values["rollout_tokens"])
    # Between stages no processor time is counted: there the clock's is taken.
    steps = _one_by_one(run.all)
    busy, worked = sum(made.span for made in steps), sum(made.seconds for made in steps)
    report = run.directory / "report" / "tables.json"
    told = json.loads(report.read_text("utf-8")).get("finished") if report.is_file() else None
    finished = max(_time(told) if told else 0.0, *(made.finished for made in run.all))
    idle = max(0.0, finished - min(made.started for made in run.all) - busy)
    values["other_seconds"] = idle * worked / busy if busy else 0.0
    return Measured(values, pass_rates, worked + values["other_seconds"])


def _funnel(run: _RunDir) -> PassRates | None:
    """Measure who is hard, what was accepted, what was verified, and what rows are made of."""
    method, sampling = run.method, run.recipe.sample
    statuses = run.read(method.statuses)
    hard = sum(status.status is Solvability.HARD for status in statuses)
    run.add("hard_share", hard, len(statuses))
    if method.hinted_statuses is not None:
        hinted = run.read(method.hinted_statuses)
        hard = sum(status.status is Solvability.HARD for status in hinted)
        run.add("hinted_share", hard, len(hinted))
    proposals = run.read(method.proposals, ("turns",))
    accepted = {p.rollout_id for p in proposals if p.outcome is ProposalOutcome.ACCEPTED}
    run.add("candidate_share", len(accepted), len({p.rollout_id for p in proposals}) or 1)
    rows = run.read(method.models.step_rows, _ROW_IDS)
    run.add("verified_share", len({row.problem_id for row in rows if row.num_correct}), hard)
    for row in rows:
        if row.outcome is RowOutcome.READY:
            run.add("prefix_share", row.prefix_tokens)
            run.add("intervention_tokens", row.intervention_tokens)
    if sampling.rounds:
        drawn = sum(status.num_rollouts - status.num_skipped for status in statuses)
        run.add("rollouts_per_problem", drawn, len(statuses))
        return None
    rates = Counter(status.num_correct / status.num_rollouts for status in statuses)
    return [(rate, count / len(statuses)) for rate, count in sorted(rates.items())]


def _sampled(run: _RunDir, stage: Any, made: _Made) -> None:
    kind = kind_of(stage.settings)
    if kind is Kind.HELP:
        return
    rollouts = run.read(stage, ("token_ids",))
    tokens = sum(rollout.num_tokens for rollout in rollouts)
    run.add_rate(f"{kind}_tokens", tokens / stage.settings.model.engine.num_devices, made)
    run.add("disk_bytes_per_token", sum(p["bytes"] for p in made.manifest["parts"]), tokens)
    run.add("characters_per_token", sum(len(rollout.text) for rollout in rollouts), tokens)
    for rollout in rollouts:
        if rollout.condition.continues is not Condition.PROBLEM:
            run.add("continuation_tokens", rollout.num_tokens)
        elif rollout.condition is Condition.PROBLEM:
            run.add("prompt_tokens", rollout.prompt_tokens)
            if kind is Kind.SAMPLE:
                run.add("rollout_tokens", rollout.num_tokens)


def _proposed(run: _RunDir, stage: Any, made: _Made) -> None:
    """Measure the proposer, in characters."""
    shares_solution = stage.settings.config.shares_solution
    said = [
        # A shared solution was said once, before the first question.
        [len(turn.reply) for turn in (p.turns[1:] if shares_solution and p.index else p.turns)]
        for p in run.read(stage)
        if not p.item
    ]
    devices = stage.settings.proposer.engine.num_devices
    run.add_rate("propose_tokens", sum(map(sum, said)) / devices, made)
    for turns in filter(None, said):
        run.add("review_tokens", turns[-1])
        if len(turns) > 1:
            run.add("guided_tokens", turns[0])


def _scored(run: _RunDir, stage: Any, made: _Made) -> None:
    items = run.read(stage)
    run.add_rate("likelihood_tokens", sum(item.num_tokens for item in items), made)
    for item in items:
        if item.what == "reference":
            run.add("reference_tokens", item.num_tokens)


def _tuned(run: _RunDir, training: Any, made: _Made) -> None:
    settings, seconds = training.settings, made.train_seconds
    rows = run.read(settings.rows, _ROW_IDS)
    ready = [row for row in rows if row.outcome is RowOutcome.READY]
    tokens = sum(r.prompt_tokens + r.prefix_tokens + r.intervention_tokens for r in ready)
    tokens *= made.logged("epoch")[-1] * (1 if settings.rejected is None else 2)
    processes = TrainingProcesses.of(settings.config.accelerate).number
    run.add("sft_tokens_per_second", tokens / processes, seconds)
    run.add("train_start_seconds", made.seconds - seconds)


def _reinforced(run: _RunDir, arms: Sequence[_Made]) -> None:
    config, times = run.recipe.train_rl, [arm.train_seconds for arm in arms]
    # One entry per iteration of the last session, the one whose time is known.
    lengths = [length for arm in arms for length in arm.logged("completions/mean_length")]
    seconds = sum(times) if config.takes_all_devices else max(times)
    tokens = sum(lengths) * config.prompts_per_iteration * config.num_generations
    processes = TrainingProcesses.of(config.accelerate).number
    run.add("rl_tokens", sum(lengths), len(lengths))
    run.add("rl_tokens_per_second", tokens / processes, seconds)
    worked = sum(arm.seconds for arm in _one_by_one(arms))
    run.add("train_start_seconds", worked - seconds)


_BY_SETTINGS: dict[type, Callable[[_RunDir, Any, _Made], None]] = {
    SampleSettings: _sampled,
    ProposeSettings: _proposed,
    LikelihoodSettings: _scored,
    GradeSettings: lambda run, _, made: run.add_rate(
        "grades", made.manifest["num_records"] / run.recipe.grade.num_workers, made
    ),
    TuneSettings: _tuned,
}
