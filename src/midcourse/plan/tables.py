"""The plan of a recipe as tables: stages, memory, the assumptions behind them, the search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from midcourse.config import Recipe
from midcourse.errors import ConfigError
from midcourse.plan.assumptions import Assumptions, Settled, settle
from midcourse.plan.devices import Device, choose_device
from midcourse.plan.hardware import Memory, Placed, Timed, memory_of, timed
from midcourse.plan.measure import Clock, measure
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
    memory: list[Memory]
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
        return [_assumption_table(self), search, _stage_table(self), _memory_table(self)]


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
        memory=memory_of(recipe, [work for _, work in planned], policy),
        pass_rates=rates,
        measured_seconds=measured.seconds if measured else None,
    )


def _shape(path: str) -> ModelShape | None:
    try:
        return load_shape(path)
    except ConfigError:
        return None


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


def _name(items: Sequence[Timed]) -> str:
    step = items[0].step
    if items[0].work.kind is Kind.GRADE:
        return "grade"
    return f"train {step.label}" if isinstance(step, Training) else f"{step.name} {step.label}"


#: The columns of the stages; steps that share a row are equally fast.
_STAGE_COLUMNS: dict[str, Callable[[Sequence[Timed]], str]] = {
    "stage": _name,
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


def _memory_table(plan: Plan) -> Table:
    rows = []
    for part in plan.memory:
        name = part.name + (f", {part.copies} at once" if part.copies > 1 else "")
        rows.append((name, *map(size, (*part.parts, part.total)), part.verdict(plan.device)))
    columns = ("part", "weights", "gradients", "optimiser", "activations", "cache", "total", "fits")
    note = (
        f"Per device, against {size(plan.device.memory_bytes)} of {plan.device.name}. Where it "
        "does not fit: lora_rank, micro_batch_size, gradient_checkpointing, accelerate with FSDP2, "
        "vllm_gpu_share, kv_cache_gib, max_tokens."
    )
    return Table("Memory", columns, tuple(rows), note)


def amount(number: float) -> str:
    """Return a count to three digits, e.g. ``3.01 B``."""
    for unit, factor, least in (("B", 1e9, 1e9), ("M", 1e6, 1e6), ("k", 1e3, 1e4)):
        if number >= least:
            return f"{number / factor:.3g} {unit}"
    return f"{number:,.0f}" if number else "–"


def size(number: float) -> str:
    """Return bytes in powers of ten, e.g. ``8.0 GB``."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return "–" if number < 1 else f"{number:.0f} B"


def hours(number: float) -> str:
    """Return hours, e.g. ``1,070`` or ``0.21``."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}" if number else "–"


def duration(seconds: float) -> str:
    """Return a time, e.g. ``42 s``, ``7 min``, ``84 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds else "–"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
