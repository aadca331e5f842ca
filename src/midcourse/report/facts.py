"""What was run, from a recipe and from the manifests of its stages: models, time, tokens, cost.

What a manifest does not say is unknown, and stays unknown in every sum: it is never counted as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from midcourse.config import PricesConfig, Recipe
from midcourse.errors import ArtifactError
from midcourse.store.index import read_index
from midcourse.store.stage import MANIFEST, read_manifest
from midcourse.table import Table
from midcourse.tokens import Asked, TokenCount, Tokens, add_tokens, duration, read_tokens

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What one complete stage or training took."""

    stage: str
    label: str
    started: datetime
    finished: datetime
    code: str
    tokens: Tokens | None
    """By role; None where the manifest does not say."""
    trained: int | None = None
    """Tokens that a training's optimiser saw; None of other stages, or where it is not said."""

    @property
    def seconds(self) -> float:
        """From the beginning of its last session to its end."""
        return (self.finished - self.started).total_seconds()


def read_costs(run_dir: Path) -> list[StageCost]:
    """Return what every complete stage of a run took, in the order of the flow."""
    found = []
    for folder in read_index(run_dir).entries:
        if (run_dir / folder / MANIFEST).is_file():
            with suppress(ArtifactError, KeyError):  # damage is the matter of `repair`
                found.append(_cost(read_manifest(run_dir / folder)))
    return found


def _cost(manifest: Mapping[str, Any]) -> StageCost:
    seen = manifest.get("trained_tokens")
    started, finished = (
        datetime.fromisoformat(str(manifest[key])) for key in ("started", "finished")
    )
    return StageCost(
        stage=str(manifest["stage"]),
        label=str(manifest["label"]),
        started=started,
        finished=finished,
        code=str(manifest.get("code_revision", UNKNOWN)),
        tokens=read_tokens(manifest["tokens"]) if "tokens" in manifest else None,
        trained=seen["total"] if isinstance(seen, dict) else None,
    )


def wall_seconds(costs: Iterable[StageCost]) -> float:
    """Return how long at least one stage was at work; trainings may work side by side."""
    total, end = 0.0, datetime.min.replace(tzinfo=UTC)
    for cost in sorted(costs, key=lambda cost: cost.started):
        total += max(0.0, (cost.finished - max(cost.started, end)).total_seconds())
        end = max(end, cost.finished)
    return total


def totals(costs: Iterable[StageCost]) -> dict[str, TokenCount] | None:
    """Return the tokens of all stages by role; None if any stage does not say."""
    found: dict[str, TokenCount] = {}
    for cost in costs:
        if cost.tokens is None:
            return None
        found = add_tokens(found, cost.tokens)
    return found


def cost_of(tokens: Tokens | None, prices: PricesConfig) -> str:
    """Return what the tokens cost, and of whom; empty without prices."""
    if prices == PricesConfig():
        return ""
    if tokens is None:
        return f"{UNKNOWN}: a stage did not count its tokens"
    priced = [role for role in tokens if prices.cost({role: tokens[role]}) is not None]
    free = sorted(set(tokens) - set(priced))
    beyond = f"; no price for {', '.join(free)}" if free else ""
    return f"{prices.cost(tokens) or 0.0:,.2f} USD ({', '.join(priced)}{beyond})"


def run_facts(recipe: Recipe, costs: Sequence[StageCost], code: str) -> dict[str, str]:
    """Return what was run, by name, in the order in which it is read.

    `code` is the revision that writes the report; that of the stages is in their manifests.
    """
    tokens = totals(costs) if costs else None
    revisions = ", ".join(dict.fromkeys(cost.code for cost in costs)) or UNKNOWN
    facts = {
        "recipe": recipe.name,
        **models_of(recipe),
        "problems": _problems(recipe),
        "seed": str(recipe.seed),
        "code": revisions if revisions == code else f"{revisions} (report: {code})",
        "date": _dates(costs),
        "wall time": duration(wall_seconds(costs)) if costs else UNKNOWN,
        **token_facts(tokens),
    }
    cost = cost_of(tokens, recipe.prices)
    return facts | ({"cost": cost} if cost else {})


def models_of(recipe: Recipe) -> dict[str, str]:
    """Return who took part: the base model, and whoever else the recipe names."""
    at = f" at {recipe.model.revision}" if recipe.model.revision else ""
    writes = recipe.reference.write != "none"
    source, engine = recipe.proposer_model, recipe.proposer_engine
    asked = source.path if source else getattr(engine, "model_name", "") or "the base model"
    found = {"base model": recipe.model.path + at, "proposer": asked}
    found |= {"reference writer": recipe.reference.model or "the base model"} if writes else {}
    return found | ({"teacher": recipe.build_sft.teacher} if recipe.build_sft.teacher else {})


def _problems(recipe: Recipe) -> str:
    config = recipe.problems
    if config.kind == "lab":
        return "the lab's own"
    return config.path + (f"; held out: {config.held_out_path}" if config.held_out_path else "")


def _dates(costs: Sequence[StageCost]) -> str:
    if not costs:
        return UNKNOWN
    ends = min(c.started for c in costs), max(c.finished for c in costs)
    first, last = (f"{end:%Y-%m-%d %H:%M}" for end in ends)
    return f"{first} to {last[11:] if first[:10] == last[:10] else last} UTC"


def token_facts(tokens: Tokens | None) -> dict[str, str]:
    """Return the tokens of each role in words."""
    if tokens is None:
        return {"tokens": UNKNOWN}
    return {
        f"tokens, {role}": f"{tokens[role].tokens_in:,} in, {tokens[role].tokens_out:,} out, "
        f"{tokens[role].requests:,} requests{_estimated(tokens[role])}"
        for role in (*Asked, *sorted(set(tokens) - set(Asked)))
        if role in tokens
    }


def _estimated(count: TokenCount) -> str:
    return f", {count.estimated:,} of them estimated" if count.estimated else ""


def cost_table(costs: Sequence[StageCost]) -> Table:
    """Build what every stage took: time, requests, tokens in and out by role."""
    rows: list[tuple[str, ...]] = []
    for cost in costs:
        name = f"{cost.stage} {cost.label}".strip()
        seen = "–" if cost.trained is None else f"{cost.trained:,}"
        if not cost.tokens:
            said = "–" if cost.tokens is not None else UNKNOWN
            rows.append((name, "–", duration(cost.seconds), said, said, said, seen))
        for role, of in (cost.tokens or {}).items():
            numbers = (f"{number:,}" for number in (of.requests, of.tokens_in, of.tokens_out))
            rows.append((name, role, duration(cost.seconds), *numbers, seen))
    columns = ("stage", "role", "time", "requests", "tokens in", "tokens out", "trained on")
    note = (
        "Time is from the start of a stage's last session to its end, by the clock. “unknown”: "
        "the stage was made by a release that did not count tokens."
    )
    return Table("By stage", columns, tuple(rows), note)
