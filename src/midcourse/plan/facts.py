"""A plan as plain numbers for a program: seconds, bytes and tokens, nothing rounded."""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf

from midcourse.plan.fit import Fit
from midcourse.plan.hardware import Timed
from midcourse.plan.tables import Plan, step_name


def plan_facts(plan: Plan, warnings: Sequence[str] = ()) -> dict[str, object]:
    """Return what the tables of a plan say; `warnings` are lines about the recipe."""
    settled = plan.settled.sources
    assumptions = {
        key: {"value": value, "from": settled.get(key, "default")}
        for key, value in plan.given.model_dump(mode="json").items()
    }
    return {
        "recipe": plan.recipe.name,
        "device": plan.device.name,
        "seconds": plan.seconds,
        "device_seconds": sum(step.seconds * step.work.devices for step in plan.steps),
        "disk_bytes": sum(step.work.disk_bytes for step in plan.steps),
        "passing_disk_bytes": sum(step.work.passing_bytes for step in plan.steps),
        "expected": plan.funnel,
        "assumptions": assumptions,
        "stages": [_stage(step) for step in plan.steps],
        "memory": [_memory(fit, plan) for fit in plan.memory],
        "unknown_models": list(plan.unknown),
        "measured_seconds": plan.measured_seconds,
        "warnings": list(warnings),
    }


def _stage(timed: Timed) -> dict[str, object]:
    work, latency = timed.work, timed.latency
    replies = latency and {
        "mean_seconds": latency.reply,
        "queued_seconds": latency.queued,
        "limit_seconds": None if isinf(latency.limit) else latency.limit,
    }
    return {
        "stage": step_name([timed]),
        "requests": work.requests,
        "prefill_tokens": work.prefill_tokens,
        "tokens": work.tokens,
        "per_second": timed.rate,
        "devices": work.devices,
        "seconds": timed.seconds,
        "disk_bytes": work.disk_bytes,
        "replies": replies,
    }


def _memory(fit: Fit, plan: Plan) -> dict[str, object]:
    memory = fit.memory
    return {
        "phase": memory.title,
        "bytes": memory.parts.total,
        "device_bytes": plan.device.memory_bytes,
        "parts": memory.parts.by_name(),
        "fits": memory.verdict(plan.device),
        "problem": memory.problem(plan.device),
        "remedy": fit.remedy,
    }
