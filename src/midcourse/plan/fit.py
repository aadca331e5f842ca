"""Whether a run fits on a device: every phase that holds a model, and what to change if not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from midcourse import config as c
from midcourse.plan.memory import Memory, Placed, sampling
from midcourse.plan.remedy import change_engine, change_training
from midcourse.plan.training import TrainConfig, reinforcing, sampler_of, tuning
from midcourse.plan.work import Kind, Work


@dataclass(frozen=True, slots=True)
class Fit:
    """One phase, and what to change where it, or one of the same training, does not fit."""

    memory: Memory
    remedy: str = ""


def fits(recipe: c.Recipe, works: Sequence[tuple[Work, Placed]], policy: Placed) -> list[Fit]:
    """Return the phases of a run that hold a model whose shape is known."""
    found = _engines(recipe, works)
    for kind in (Kind.SFT, Kind.RL):
        asked = [work for work, _ in works if work.kind is kind]
        if asked and asked[0].training:
            found += _training(recipe, policy, asked[0].training, asked)
    return found


def _engines(recipe: c.Recipe, works: Sequence[tuple[Work, Placed]]) -> list[Fit]:
    """Return what sampling takes, by model and engine: a server's cache holds its own length."""
    asked: dict[tuple[str, str], tuple[Placed, c.EngineConfig, float]] = {}
    for work, placed in works:
        if work.engine and work.engine.loads_models and work.kind is not Kind.LIKELIHOOD:
            key = (placed.source.path, work.engine.model_dump_json())
            longest = max(work.longest, asked[key][2] if key in asked else 0.0)
            asked[key] = (placed, work.engine, longest)
    found = []
    for placed, engine, longest in asked.values():
        memory = sampling(placed, engine, longest)
        if placed.source.path != recipe.model.path:
            memory = replace(memory, name=f"{memory.name} {placed.source.path}")
        remedy, section = "", _section(recipe, engine)
        if memory.problem(placed.device):
            remedy = change_engine(placed, engine, longest, section)
        found.append(Fit(memory, remedy))
    return found


def _section(recipe: c.Recipe, engine: c.EngineConfig) -> str:
    sections = ("engine", "proposer_engine", "teacher_engine", "reference_engine")
    return next((name for name in sections if getattr(recipe, name) == engine), "engine")


def _training(
    recipe: c.Recipe, policy: Placed, config: TrainConfig, works: Sequence[Work]
) -> list[Fit]:
    """Return the phases of a training; arms of RL that leave room for each other run together."""

    def phases(config: TrainConfig) -> list[Memory]:
        row = works[0].longest
        if isinstance(config, c.TrainSftConfig):
            return [tuning(policy, config, row)]
        copies = 1 if config.takes_all_devices else len(works)
        return reinforcing(policy, config, recipe.engine, row, sampler_of(config), copies)

    found = [Fit(memory) for memory in phases(config)]
    if any(fit.memory.problem(policy.device) for fit in found):
        found[-1] = replace(found[-1], remedy=change_training(config, policy.device, phases))
    return found
