"""What was run, from a recipe and from the manifests of its stages: models, time, tokens, cost.

What a manifest does not say is unknown, and stays unknown in every sum: it is never counted as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from midcourse.config import Recipe
from midcourse.errors import ArtifactError
from midcourse.store.index import read_index
from midcourse.store.stage import MANIFEST, read_manifest
from midcourse.table import Table

#: The order in which who was asked is listed.
ROLES = ("policy", "proposer", "teacher", "reference")
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one role was given and what it wrote."""

    requests: int
    given: int
    written: int
    estimated: int = 0
    """Requests whose tokens are an estimate, as a server did not say."""

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.requests + other.requests,
            self.given + other.given,
            self.written + other.written,
            self.estimated + other.estimated,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What one complete stage or training took."""

    stage: str
    label: str
    started: datetime
    finished: datetime
    code: str
    tokens: Mapping[str, Tokens] | None
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


def _cost(manifest: Mapping[str, object]) -> StageCost:
    said = manifest.get("tokens")
    tokens = None
    if isinstance(said, dict):
        tokens = {
            role: Tokens(of["requests"], of["in"], of["out"], of.get("estimated", 0))
            for role, of in said.items()
        }
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
        tokens=tokens,
        trained=seen["total"] if isinstance(seen, dict) else None,
    )


def wall_seconds(costs: Iterable[StageCost]) -> float:
    """Return how long at least one stage was at work; trainings may work side by side."""
    total, end = 0.0, datetime.min.replace(tzinfo=UTC)
    for cost in sorted(costs, key=lambda cost: cost.started):
        total += max(0.0, (cost.finished - max(cost.started, end)).total_seconds())
        end = max(end, cost.finished)
    return total


def totals(costs: Iterable[StageCost]) -> dict[str, Tokens] | None:
    """Return the tokens of all stages by role; None if any stage does not say."""
    found: dict[str, Tokens] = {}
    for cost in costs:
        if cost.tokens is None:
            return None
        for role, of in cost.tokens.items():
            found[role] = found.get(role, Tokens(0, 0, 0)) + of
    return found


def prices_of(recipe: Recipe) -> dict[str, tuple[float, float]]:
    """Return USD per million tokens in and out, by role, where the recipe has them."""
    said = recipe.model_dump().get("prices") or {}
    return {
        role: (of["input"], of["output"])
        for role, of in said.items()
        if of["input"] is not None and of["output"] is not None
    }


def cost_of(tokens: Mapping[str, Tokens] | None, prices: Mapping[str, tuple[float, float]]) -> str:
    """Return what the tokens cost, and of whom; empty without prices."""
    if not prices:
        return ""
    if tokens is None:
        return f"{UNKNOWN}: a stage did not count its tokens"
    priced = [role for role in tokens if role in prices]
    usd = sum(
        tokens[role].given * prices[role][0] + tokens[role].written * prices[role][1]
        for role in priced
    )
    free = sorted(set(tokens) - set(priced))
    beyond = f"; no price for {', '.join(free)}" if free else ""
    return f"{usd / 1e6:,.2f} USD ({', '.join(priced)}{beyond})"


def duration(seconds: float) -> str:
    """Return a time as people say it, ``1 h 04 min`` or ``12.3 s``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, past = divmod(minutes, 60)
    return f"{hours:,} h {past:02d} min" if hours else f"{minutes} min {rest:02d} s"


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
    cost = cost_of(tokens, prices_of(recipe))
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


def token_facts(tokens: Mapping[str, Tokens] | None) -> dict[str, str]:
    """Return the tokens of each role in words."""
    if tokens is None:
        return {"tokens": UNKNOWN}
    return {
        f"tokens, {role}": f"{tokens[role].given:,} in, {tokens[role].written:,} out, "
        f"{tokens[role].requests:,} requests{_estimated(tokens[role])}"
        for role in (*ROLES, *sorted(set(tokens) - set(ROLES)))
        if role in tokens
    }


def _estimated(tokens: Tokens) -> str:
    return f", {tokens.estimated:,} of them estimated" if tokens.estimated else ""


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
            numbers = (f"{number:,}" for number in (of.requests, of.given, of.written))
            rows.append((name, role, duration(cost.seconds), *numbers, seen))
    columns = ("stage", "role", "time", "requests", "tokens in", "tokens out", "trained on")
    note = (
        "Time is from the start of a stage's last session to its end, by the clock. “unknown”: "
        "the stage was made by a release that did not count tokens."
    )
    return Table("By stage", columns, tuple(rows), note)
