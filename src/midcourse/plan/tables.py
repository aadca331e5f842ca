"""The plan of a recipe as tables: stages, memory, the assumptions behind them, the search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from pathlib import Path

from midcourse.config import Recipe
from midcourse.errors import ConfigError
from midcourse.plan.assumptions import Assumptions, Settled, settle
from midcourse.plan.devices import Device, choose_device
from midcourse.plan.fit import Fit, fits
from midcourse.plan.hardware import Timed, timed
from midcourse.plan.measure import Clock, measure
from midcourse.plan.memory import Parts, Placed, size
from midcourse.plan.search import PassRates, parse_pass_rates, search_table
from midcourse.plan.shapes import ModelShape, load_shape
from midcourse.plan.work import Expected, Kind, Work, compose, schedule
from midcourse.run import Training
from midcourse.table import Table

#: A guess: 5 % of the problems never solved, the rest spread over all pass rates.
DEFAULT_PASS_RATES = "0:0.05,0.02:0.1,0.1:0.15,0.3:0.2,0.6:0.25,0.9:0.25"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will take."""

    recipe: Recipe
    device: Device
    settled: Settled
    given: Assumptions
    """The settled values with every length filled in."""
    funnel: str
    """How many of what there will be, in words."""
    unknown: tuple[str, ...]
    """Helpers whose shape is not known: they are timed as the policy."""
    steps: list[Timed]
    """Every step that a run completes, in order."""
    memory: list[Fit]
    pass_rates: PassRates
    measured_seconds: float | None
    """What the measured run itself took, where there is one."""

    @property
    def seconds(self) -> float:
        """Time by the clock, from the first stage to the report."""
        return sum(step.seconds for step in self.steps) + self.given.other_seconds

    def tables(self) -> list[Table]:
        """Return everything worth printing; the total stands below the stages."""
        sample = self.recipe.sample
        search = search_table(self.pass_rates, sample.num_rollouts, sample.rounds)
        tables = [_assumption_table(self), search, _stage_table(self)]
        if any(step.latency for step in self.steps):
            tables.append(_latency_table(self))
        if self.memory:
            tables.append(_memory_table(self))
        return tables


def make_plan(
    recipe: Recipe,
    *,
    assume: Sequence[str] = (),
    pass_rates: str | None = None,
    run_dir: Path | None = None,
    clock: Clock = "wall",
    device: str | None = None,
    model_config: Path | None = None,
) -> Plan:
    """Plan a recipe. Raises ConfigError if something must be told, e.g. the number of problems."""
    measured = measure(run_dir, clock) if run_dir else None
    settled = settle(assume, measured.values if measured else {})
    rates = parse_pass_rates(pass_rates or DEFAULT_PASS_RATES)
    if pass_rates is None and measured and measured.pass_rates:
        rates = measured.pass_rates
    chosen, shape = choose_device(device, recipe), load_shape(recipe.model.path, model_config)
    made = compose(recipe)
    expected = Expected.of(made.setup, settled.values, rates, shape)
    given, planned = expected.given, schedule(made.steps(), expected)
    helpers = {work.model.source.path: None for _, work in planned if work.model}
    shapes = {path: _shape(path) for path in helpers} | {recipe.model.path: shape}

    def placed(work: Work) -> Placed:
        source = work.model.source if work.model else recipe.model
        return Placed(source, shapes[source.path] or shape, chosen, given)

    policy, num_graders = Placed(recipe.model, shape, chosen, given), recipe.grade.num_workers
    candidates = expected.number(made.interventions.candidates())
    return Plan(
        recipe=recipe,
        device=chosen,
        settled=settled,
        given=given,
        funnel=f"{expected.number(made.hard):,.0f} hard problems, {candidates:,.0f} interventions, "
        f"{expected.ready(made.models.rows):,.0f} SFT rows.",
        unknown=tuple(path for path, found in shapes.items() if found is None),
        steps=[timed(step, work, placed(work), num_graders) for step, work in planned],
        memory=fits(recipe, [(w, placed(w)) for _, w in planned if _is_known(w, shapes)], policy),
        pass_rates=rates,
        measured_seconds=measured.seconds if measured else None,
    )


def _shape(path: str) -> ModelShape | None:
    try:
        return load_shape(path)
    except ConfigError:
        return None


def _is_known(work: Work, shapes: Mapping[str, ModelShape | None]) -> bool:
    return work.model is None or shapes[work.model.source.path] is not None


def _assumption_table(plan: Plan) -> Table:
    rows = []
    for key, field in Assumptions.model_fields.items():
        value, source = getattr(plan.given, key), plan.settled.sources.get(key, "default")
        if isinstance(value, dict):
            shown = ", ".join(f"{name} {share:g}" for name, share in value.items()) or "–"
        elif value is None:
            shown = "by formula"
        else:
            shown = f"{value:,.0f}" if value >= 1000 else f"{value:,.4g}"
        rows.append((key, shown, source, " ".join((field.description or "").split())))
    note = "Change one with --assume key=value; measure them with --from RUN_DIR."
    if plan.measured_seconds is not None:
        note += f" The measured run itself took {duration(plan.measured_seconds)}."
    return Table("Assumptions", ("key", "value", "from", "meaning"), tuple(rows), note)


def step_name(items: Sequence[Timed]) -> str:
    """Return the name of steps that share a row."""
    step = items[0].step
    if items[0].work.kind is Kind.GRADE:
        return "grade"
    return f"train {step.label}" if isinstance(step, Training) else f"{step.name} {step.label}"


#: The columns of the stages; steps that share a row are equally fast.
_STAGE_COLUMNS: dict[str, Callable[[Sequence[Timed]], str]] = {
    "stage": step_name,
    "requests": lambda items: amount(sum(item.work.requests for item in items)),
    "prefill": lambda items: amount(sum(item.work.prefill_tokens for item in items)),
    "tokens": lambda items: amount(sum(item.work.tokens for item in items)),
    "tokens/s": lambda items: amount(items[0].rate),
    "devices": lambda items: str(items[0].work.devices or "–"),
    "time": lambda items: duration(sum(item.seconds for item in items)),
    "device h": lambda items: hours(sum(i.seconds * i.work.devices for i in items) / 3600),
    "disk": lambda items: size(sum(item.work.disk_bytes for item in items)),
}


def _stage_table(plan: Plan) -> Table:
    rows = [[item] for item in plan.steps if item.work.kind is not Kind.GRADE]
    rows.append([item for item in plan.steps if item.work.kind is Kind.GRADE])
    cells = [tuple(cell(items) for cell in _STAGE_COLUMNS.values()) for items in rows]
    total = {title: cell(plan.steps) for title, cell in _STAGE_COLUMNS.items()}
    total |= {"stage": "all", "requests": "", "tokens/s": "", "devices": ""}
    cells.append(tuple((total | {"time": duration(plan.seconds)}).values()))
    passing = sum(item.work.passing_bytes for item in plan.steps)
    note = (
        f"{plan.device.name}. Prefill: tokens of distinct contexts. Tokens: sampled, trained on or "
        f"scored; for grading, answers. Beyond the disk that is kept, RL checkpoints take "
        f"{size(passing)} until their training is done. {plan.funnel}"
    )
    if plan.unknown:
        note += f" Of unknown shape, so timed as the base: {', '.join(plan.unknown)}."
    return Table(f"Plan of {plan.recipe.name}", tuple(_STAGE_COLUMNS), tuple(cells), note)


def _latency_table(plan: Plan) -> Table:
    rows = []
    for item in plan.steps:
        if (latency := item.latency) is None:
            continue
        said = "yes" if latency.reply < latency.limit else "no"
        limit = "of silence" if isinf(latency.limit) else duration(latency.limit)
        times = map(duration, (latency.reply, latency.queued))
        rows.append((step_name([item]), *times, limit, said))
    note = (
        "Little's law: requests in flight × tokens of one / tokens a second; long replies take "
        "longer than the mean. A time-out of silence ends no request while its server sends "
        "anything. Where it is no, lower the engine's concurrency or raise its timeout_seconds."
    )
    columns = ("replies of servers", "mean reply", "of it queued", "time-out", "enough")
    return Table("Waiting", columns, tuple(rows), note)


def _memory_table(plan: Plan) -> Table:
    memories, device = [fit.memory for fit in plan.memory], plan.device
    totals = [memory.parts.total for memory in memories]
    rows = [
        (name, *(size(memory.parts.by_name()[name]) for memory in memories))
        for name in Parts().by_name()
    ]
    rows += [
        ("total", *map(size, totals)),
        ("free", *(size(device.memory_bytes - total) for total in totals)),
        ("fits", *(memory.verdict(device) for memory in memories)),
    ]
    notes = [f"Per device, of {size(device.memory_bytes)} of {device.name}."]
    for fit in plan.memory:
        if problem := fit.memory.problem(device):
            notes.append(f"{fit.memory.title}: {problem}.")
        if fit.remedy:
            notes.append(f"What fits: {fit.remedy}.")
    if plan.unknown:
        notes.append(f"Of unknown shape, so not counted: {', '.join(plan.unknown)}.")
    columns = ("part", *(memory.title for memory in memories))
    return Table("Memory", columns, tuple(rows), " ".join(notes))


def amount(number: float) -> str:
    """Return a count to three digits, e.g. ``3.01 B``."""
    for unit, factor, least in (("B", 1e9, 1e9), ("M", 1e6, 1e6), ("k", 1e3, 1e4)):
        if number >= least:
            return f"{number / factor:.3g} {unit}"
    return f"{number:,.0f}" if number else "–"


def hours(number: float) -> str:
    """Return hours, e.g. ``1,070`` or ``0.21``."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}" if number else "–"


def duration(seconds: float) -> str:
    """Return a time, e.g. ``42 s``, ``7 min``, ``84 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds else "–"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
