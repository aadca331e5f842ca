"""The plan of a recipe as tables: stages, memory, the assumptions behind them, the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from midcourse.config import Recipe
from midcourse.data.rows import is_hub, read_rows
from midcourse.errors import ConfigError, DataError
from midcourse.plan.assumptions import Assumptions, Settled, fill_in, settle
from midcourse.plan.devices import Device, choose_device
from midcourse.plan.measure import Clock, measure
from midcourse.plan.memory import Memory, memory_of
from midcourse.plan.rates import Pace, Timed, timed
from midcourse.plan.search import PassRates, parse_pass_rates, search_table
from midcourse.plan.shapes import load_shape
from midcourse.plan.work import Sizes, stages
from midcourse.table import Table

#: A guess: 5 % of the problems never solved, the rest spread over all pass rates.
DEFAULT_PASS_RATES = "0:0.05,0.02:0.1,0.1:0.15,0.3:0.2,0.6:0.25,0.9:0.25"
#: Held-out problems where the recipe names a file that is not there.
_HELD_OUT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will take."""

    recipe: Recipe
    device: Device
    settled: Settled
    given: Assumptions
    """The settled values with every length filled in."""
    sizes: Sizes
    stages: list[Timed]
    memory: list[Memory]
    pass_rates: PassRates
    measured_seconds: float | None
    """What the measured run itself took, where there is one."""

    @property
    def seconds(self) -> float:
        """Time by the clock, from the first stage to the report."""
        return sum(stage.seconds for stage in self.stages) + self.given.other_seconds

    @property
    def device_hours(self) -> float:
        """Hours of all devices that are held."""
        return sum(stage.seconds * stage.devices for stage in self.stages) / 3600

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
    given, chosen = fill_in(settled.values, recipe), choose_device(device, recipe)
    rates = parse_pass_rates(pass_rates or DEFAULT_PASS_RATES)
    if pass_rates is None and measured and measured.pass_rates:
        rates = measured.pass_rates
    shape = load_shape(recipe.model.path, model_config)
    proposer = load_shape(recipe.proposer_model.path) if recipe.proposer_model else shape
    problems, held_out, probes = _problems(recipe, given)
    sizes = Sizes.of(recipe, given, problems, held_out, probes, rates)
    given = given.model_copy(
        update={
            "num_problems": problems,
            "num_held_out": held_out,
            "hard_share": sizes.hard / problems,
            "rollouts_per_problem": sizes.draws,
        }
    )
    pace = Pace(recipe=recipe, given=given, shape=shape, proposer=proposer, device=chosen)
    return Plan(
        recipe=recipe, device=chosen, settled=settled, given=given, sizes=sizes,
        stages=[timed(work, pace) for work in stages(recipe, given, sizes, shape)],
        memory=memory_of(recipe, given, shape, chosen), pass_rates=rates,
        measured_seconds=measured.seconds if measured else None,
    )  # fmt: skip


def _problems(recipe: Recipe, given: Assumptions) -> tuple[int, int, int]:
    """Return the numbers of training, held-out and probe problems."""
    config = recipe.problems
    if config.kind == "lab":
        train = config.num_composed + config.num_single + config.num_known
        held_out, probes = config.num_held_out, 2 * config.num_probe
    else:
        train, probes = _count(config.path, config.limit) or 0, 0
        held_out = (_count(config.held_out_path, None) or _HELD_OUT) if config.held_out_path else 0
    train = given.num_problems or train
    if not train:
        raise ConfigError(
            f"plan: no problems at {config.path!r} and no problems.limit: say how many there will "
            "be, e.g. --assume num_problems=50000"
        )
    return train, held_out if given.num_held_out is None else given.num_held_out, probes


def _count(path: str, limit: int | None) -> int | None:
    """Return the rows of a file, at most `limit`; without a file, `limit`: the hub is not asked."""
    if is_hub(path):
        return limit
    try:
        number = sum(1 for _ in read_rows(path))
    except DataError:
        return limit
    return min(number, limit or number)


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
    rows = [
        (
            item.work.name, amount(item.work.requests), amount(item.work.prefill_tokens),
            amount(item.work.tokens), amount(item.rate), str(item.devices or "–"),
            duration(item.seconds), hours(item.seconds * item.devices / 3600),
            size(item.work.disk_bytes),
        )
        for item in plan.stages
    ]  # fmt: skip
    kept = sum(item.work.disk_bytes for item in plan.stages)
    passing = sum(item.work.passing_bytes for item in plan.stages)
    rows.append(
        ("all", "", amount(sum(i.work.prefill_tokens for i in plan.stages)),
         amount(sum(i.work.tokens for i in plan.stages)), "", "", duration(plan.seconds),
         hours(plan.device_hours), size(kept))
    )  # fmt: skip
    columns = ("stage", "requests", "prefill", "tokens", "tokens/s", "devices", "time", "device h",
               "disk")  # fmt: skip
    note = (
        f"{plan.device.name}. Prefill: tokens of distinct contexts. Tokens: sampled, trained on or "
        f"scored; for grading, answers. Beyond the disk that is kept, RL checkpoints take "
        f"{size(passing)} until their training is done. "
        f"{plan.sizes.hard:,.0f} hard problems, {plan.sizes.candidates:,.0f} interventions, "
        f"{plan.sizes.rows:,.0f} SFT rows."
    )
    return Table(f"Plan of {plan.recipe.name}", columns, tuple(rows), note)


def _memory_table(plan: Plan) -> Table:
    rows = [
        (
            part.name + (f", {part.copies} at once" if part.copies > 1 else ""),
            *(size(part.copies * x) for x in (part.weights, part.gradients, part.optimiser,
                                              part.activations, part.kv_cache)),
            size(part.total), part.verdict(plan.device),
        )
        for part in plan.memory
    ]  # fmt: skip
    columns = ("part", "weights", "gradients", "optimiser", "activations", "cache", "total",
               "fits")  # fmt: skip
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
