"""The plan of a recipe as tables: stages, memory, the assumptions behind them, the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from midcourse.config import Recipe
from midcourse.errors import ConfigError
from midcourse.pipeline.session import Setup
from midcourse.plan.assumptions import Assumptions, Settled, fill_in, settle
from midcourse.plan.compose import compose, count_problems
from midcourse.plan.devices import Device, choose_device
from midcourse.plan.expected import Expected
from midcourse.plan.measure import Clock, measure
from midcourse.plan.memory import Memory, memory_of
from midcourse.plan.rates import Pace, Timed
from midcourse.plan.search import PassRates, parse_pass_rates, rollouts_of_search, search_table
from midcourse.plan.shapes import ModelShape, load_shape
from midcourse.plan.work import Kind, Work, schedule
from midcourse.run import Step, Training
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

    @property
    def device_hours(self) -> float:
        """Hours of all devices that are held."""
        return sum(step.seconds * step.devices for step in self.steps) / 3600

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
    expected = _expect(made.setup, fill_in(settled.values, recipe), rates, shape)
    works = schedule(made.steps(), expected)
    shapes, unknown = _shapes(works, recipe.model.path, shape)
    pace = Pace(
        given=expected.given, shapes=shapes, device=chosen, num_graders=recipe.grade.num_workers
    )
    candidates = expected.candidates(made.interventions.candidates())
    return Plan(
        recipe=recipe,
        device=chosen,
        settled=settled,
        given=expected.given,
        funnel=f"{expected.hard(made.hard):,.0f} hard problems, {candidates:,.0f} interventions, "
        f"{expected.ready(made.models.rows):,.0f} SFT rows.",
        unknown=unknown,
        steps=[pace.timed(step, work) for step, work in works],
        memory=memory_of(recipe, [work for _, work in works], expected.given, shape, chosen),
        pass_rates=rates,
        measured_seconds=measured.seconds if measured else None,
    )


def _expect(setup: Setup, given: Assumptions, pass_rates: PassRates, shape: ModelShape) -> Expected:
    """Follow the problems as far as their rollouts; what is not given follows from pass rates."""
    counts, sample = count_problems(setup, given), setup.recipe.sample
    rounds = sample.rounds or (sample.num_rollouts,)
    draws = given.rollouts_per_problem or rollouts_of_search(pass_rates, rounds).rollouts
    hard = sum(share * (1 - rate) ** sample.num_rollouts for rate, share in pass_rates)
    hard = hard if given.hard_share is None else given.hard_share
    found = {
        "num_problems": counts.problems,
        "num_held_out": counts.held_out,
        "hard_share": hard,
        "rollouts_per_problem": draws if sample.rounds else sample.num_rollouts,
    }
    given = given.model_copy(update=found)
    return Expected(given=given, counts=counts, draws=draws, hard_share=hard, shape=shape)


def _shapes(
    works: Sequence[tuple[Step, Work]], policy_path: str, policy: ModelShape
) -> tuple[dict[str, ModelShape], tuple[str, ...]]:
    """Return the shape of every model by its path, and for whom the policy's stands in."""
    shapes, unknown = {policy_path: policy}, []
    for path in {work.model.source.path: None for _, work in works if work.model}:
        if path != policy_path:
            try:
                shapes[path] = load_shape(path)
            except ConfigError:
                shapes[path] = policy
                unknown.append(path)
    return shapes, tuple(unknown)


def _assumption_table(plan: Plan) -> Table:
    rows = []
    for key, field in Assumptions.model_fields.items():
        value = getattr(plan.given, key)
        number = "by formula" if value is None else f"{value:,.4g}"
        shown = f"{value:,.0f}" if value is not None and value >= 1000 else number
        source = plan.settled.sources.get(key, "default")
        rows.append((key, shown, source, " ".join((field.description or "").split())))
    note = "Change one with --assume key=value; measure them with --from RUN_DIR."
    if plan.measured_seconds is not None:
        note += f" The measured run itself took {duration(plan.measured_seconds)}."
    return Table("Assumptions", ("key", "value", "from", "meaning"), tuple(rows), note)


def _stage_table(plan: Plan) -> Table:
    grades = [item for item in plan.steps if item.work.kind is Kind.GRADE]
    others = [item for item in plan.steps if item.work.kind is not Kind.GRADE]
    rows = [(_name(item.step), *_cells([item], str(item.devices or "–"))) for item in others]
    rows.append(("grade", *_cells(grades, "–")))
    _, prefill, tokens, _, _, _, _, disk = _cells(plan.steps, "")
    total = (duration(plan.seconds), hours(plan.device_hours))
    rows.append(("all", "", prefill, tokens, "", "", *total, disk))
    columns = (
        "stage",
        "requests",
        "prefill",
        "tokens",
        "tokens/s",
        "devices",
        "time",
        "device h",
        "disk",
    )
    passing = sum(item.work.passing_bytes for item in plan.steps)
    note = (
        f"{plan.device.name}. Prefill: tokens of distinct contexts. Tokens: sampled, trained on or "
        f"scored; for grading, answers. Beyond the disk that is kept, RL checkpoints take "
        f"{size(passing)} until their training is done. {plan.funnel}"
    )
    if plan.unknown:
        note += f" Of unknown shape, so timed as the base: {', '.join(plan.unknown)}."
    return Table(f"Plan of {plan.recipe.name}", columns, tuple(rows), note)


def _name(step: Step) -> str:
    return f"train {step.label}" if isinstance(step, Training) else f"{step.name} {step.label}"


def _cells(items: Sequence[Timed], devices: str) -> tuple[str, ...]:
    """Return the cells of steps that share a row; they are equally fast."""
    works = [item.work for item in items]
    return (
        amount(sum(work.requests for work in works)),
        amount(sum(work.prefill_tokens for work in works)),
        amount(sum(work.tokens for work in works)),
        amount(items[0].rate),
        devices,
        duration(sum(item.seconds for item in items)),
        hours(sum(item.seconds * item.devices for item in items) / 3600),
        size(sum(work.disk_bytes for work in works)),
    )


def _memory_table(plan: Plan) -> Table:
    rows = [
        (
            part.name + (f", {part.copies} at once" if part.copies > 1 else ""),
            *(
                size(part.copies * x)
                for x in (
                    part.weights,
                    part.gradients,
                    part.optimiser,
                    part.activations,
                    part.kv_cache,
                )
            ),
            size(part.total),
            part.verdict(plan.device),
        )
        for part in plan.memory
    ]
    columns = ("part", "weights", "gradients", "optimiser", "activations", "cache", "total", "fits")
    note = (
        f"Per device, against {size(plan.device.memory_bytes)} of {plan.device.name}. Where it "
        "does not fit: lora_rank, micro_batch_size, gradient_checkpointing, accelerate with FSDP2, "
        "vllm_gpu_share, kv_cache_gib, max_tokens."
    )
    return Table("Memory", columns, tuple(rows), note)


def amount(number: float) -> str:
    """Return a count to three digits, e.g. ``3.01 B``."""
    for unit, factor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 10 * factor or (factor > 1e3 and number >= factor):
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
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
