"""A model card next to every model that a run trained: what it is, made of what, measured how.

Written after a training, and again with the report, when evaluations are known. It is no part of
what tells models apart, and of no checksum (`midcourse.engines.is_card`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from midcourse.config import ModelConfig, Recipe
from midcourse.engines import CARD_MARK
from midcourse.engines.bundled import BUNDLED
from midcourse.metrics import Count
from midcourse.pipeline import Graded, Method, Model
from midcourse.pipeline.models import SelfDistillSettings, TuneSettings
from midcourse.records import Role, RowOutcome, Start
from midcourse.report.collect import count_by_problem
from midcourse.report.estimates import accuracy_of, by_place
from midcourse.run import Run
from midcourse.store.files import write_durably
from midcourse.table import Table
from midcourse.warmup.run import Warmup

_CARD = "README.md"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_USE = """\
```python
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

name = "."  # this folder, or where it was pushed
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
question = [{"role": "user", "content": "What is 6 times 7?"}]
inputs = tokenizer.apply_chat_template(
    question, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
with torch.no_grad():
    reply = model.generate(**inputs, max_new_tokens=200)
print(tokenizer.decode(reply[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```"""

_LIMITS = """\
For research on how models learn from their own mistakes. Only what stands above was measured:
nothing is known of other tasks, of languages, of safety, or of whether a derivation is sound whose
answer is right. The licence is that of the base model; what was trained on may add conditions of
its own: set `license` before you share this."""


def write_cards(run: Run, made: Method) -> list[Path]:
    """Write the card of every trained model that is complete; return the cards.

    Nothing is written in a run directory that cannot be written. What TRL says of itself in a file
    of the same name, next to the model's folder, goes: it knows neither base nor data.
    """
    if not os.access(run.directory, os.W_OK):
        return []
    cards = list[Path]()
    for model in _trained(run, made):
        assert model.trained is not None
        folder = run.path(model.trained)
        (folder / _CARD).unlink(missing_ok=True)
        write_durably(folder / model.folder / _CARD, model_card(run, made, model).encode())
        cards.append(folder / model.folder / _CARD)
    return cards


def _trained(run: Run, made: Method) -> Iterator[Model]:
    """Yield the models that are there: patched, after RL, and those kept along RL."""
    models = [made.models.patched]
    models += (model for start in Start for model in made.models.course(start).values())
    for model in {model.name: model for model in models}.values():
        trained = model.trained
        if trained and run.is_complete(trained) and (run.path(trained) / model.folder).is_dir():
            yield model


def write_warmup_cards(prepared: Warmup, checked: Table) -> list[Path]:
    """Write the cards of a warm-up that is complete; `checked` says how well each verifies."""
    run, cards = prepared.session.run, list[Path]()
    taught = {
        "worked solutions": prepared.worked,
        "the verification of attempts whose first error is known": prepared.verification,
    }
    for what, model in taught.items():
        assert model.trained is not None
        manifest = run.artifact(model.trained).manifest
        rows = run.artifact(model.trained.settings.rows).manifest["counts"]
        done = f"SFT on {rows[RowOutcome.READY]:,} rows: {what}."
        measured = [f"{checked.title}.", "", *checked.markdown()]
        path = run.path(model.trained) / model.folder / _CARD
        write_durably(path, _card(run.recipe, model, manifest, done, measured).encode())
        cards.append(path)
    return cards


def model_card(run: Run, made: Method, model: Model) -> str:
    """Return the card of a trained model that is complete, from its manifest and evaluations."""
    assert model.trained is not None
    manifest = run.artifact(model.trained).manifest
    done, measured = _what_was_done(run, made, model), _evaluation(run, made, model)
    return _card(run.recipe, model, manifest, done, measured)


def _card(
    recipe: Recipe, model: Model, manifest: Mapping[str, Any], done: str, measured: list[str]
) -> str:
    lines = [
        *_metadata(recipe.model, model),
        "",
        f"# {recipe.name}: {model.label}",
        "",
        f"{_base(recipe.model)}, trained by midcourse as its recipe `{recipe.name}` says (seed "
        f"{recipe.seed}): {done}",
        "",
        "## Use",
        "",
        _USE,
        "",
        "## Training",
        "",
        *_table(("", ""), _training(model, manifest).items()),
        "",
        "## Evaluation",
        "",
        *measured,
        "",
        "## Intended use and limits",
        "",
        _LIMITS,
    ]
    return "\n".join(lines) + "\n"


def _metadata(base: ModelConfig, model: Model) -> list[str]:
    settings = model.trained.settings if model.trained else None
    method = (
        settings.config.method
        if isinstance(settings, TuneSettings | SelfDistillSettings)
        else "grpo"
    )
    name = hub_name(base.path)
    return [
        f"{CARD_MARK} Set `license` before you share it.",
        "license: unknown",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"base_model: {name}"] if name else []),
        "tags:",
        "- midcourse",
        "- intervention-training",
        f"- {method}",
        "---",
    ]


def hub_name(path: str) -> str | None:
    """Return OWNER/NAME if a model's path is one; None of a folder, here or on another machine."""
    return path if _HUB_NAME.fullmatch(path) and not Path(path).exists() else None


def _base(base: ModelConfig) -> str:
    """Return what was trained, in words; of an absolute path the last name, not where it lies."""
    if base.path in BUNDLED:
        return "The toy model of midcourse's lab"
    name = Path(base.path).name if Path(base.path).is_absolute() else base.path
    return f"`{name}`" + (f" at revision `{base.revision}`" if base.revision else "")


def _what_was_done(run: Run, made: Method, model: Model) -> str:
    """Say what it was trained on, with counts from manifests."""
    assert model.trained is not None
    counts = run.artifact(model.trained).manifest["counts"]
    source = run.recipe.build_sft.source
    patched = made.models.patched
    rows = f"rows of source `{source}`"
    if source == "intervention":
        chosen = "verified" if run.recipe.build_sft.filter else "whether verified or not"
        rows = f"interventions in its own failed attempts ({chosen})"
    if isinstance(model.trained.settings, TuneSettings):
        how = "preferring them to the steps they replace" if patched.label == "Step-DPO" else "SFT"
        return f"{counts['num_rows']:,.0f} {rows}, by {how}."
    if isinstance(model.trained.settings, SelfDistillSettings):
        return (
            "self-distillation on its own rollouts, from itself shown the reference solutions of "
            f"{counts['num_problems']:,.0f} problems."
        )
    start = "the base itself"
    if model.role and model.role.start is Start.PATCHED:
        start = f"the model that was fine-tuned on {rows}"
    return (
        f"reinforcement learning (GRPO) from {start}, rewarded for the final answers of "
        f"{counts['num_problems']:,.0f} problems."
    )


def _training(model: Model, manifest: Mapping[str, Any]) -> dict[str, object]:
    """Return every setting that was given, what was counted, and with what it was made."""
    assert model.trained is not None
    config = model.trained.settings.config
    given = config.model_dump(mode="json", exclude_none=True, exclude={"accelerate"})
    plain = {key: value for key, value in given.items() if not isinstance(value, dict | list)}
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    counts = {name: f"{value:.6g}" for name, value in manifest["counts"].items()}
    return {
        **counts,
        **plain,
        **{f"sampling.{name}": value for name, value in given.get("sampling", {}).items()},
        "code": manifest["code_revision"],
        "versions": versions,
        "finished": manifest["finished"],
    }


def _evaluation(run: Run, made: Method, model: Model) -> list[str]:
    """Return accuracy with its interval on every set that was evaluated, next to the base's."""
    rows = list[tuple[object, ...]]()
    for (role, eval_set), drawn in made.evaluation.all.items():
        if made.models.in_role(role).name != model.name or not run.is_complete(drawn.grades):
            continue
        counts = _counts(run, made, drawn, eval_set)
        base = made.evaluation.all.get((Role(), eval_set))
        known = base is not None and run.is_complete(base.grades)
        before = _shown(_counts(run, made, base, eval_set)) if base and known else "not measured"
        rollouts = sum(count.num_samples for count in counts)
        rows.append((f"`{eval_set}`", len(counts), rollouts, before, _shown(counts)))
    if not rows:
        return ["Not evaluated in this run."]
    head = ("set", "problems", "graded rollouts", "base", "this model")
    said = (
        "Correct final answers per graded rollout, with 95 % intervals (bootstrap over problems, "
        "Wilson over rollouts where none or all are correct)."
    )
    return [said, "", *_table(head, rows)]


def _counts(run: Run, made: Method, drawn: Graded, eval_set: str) -> list[Count]:
    return count_by_problem(run, drawn, made.evaluation.problems(run, eval_set))


def _shown(counts: list[Count]) -> str:
    found = accuracy_of(by_place(counts))
    return f"{found.estimate:.1%} [{found.low:.1%}, {found.high:.1%}]"


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    return Table("", head, tuple(tuple(map(str, row)) for row in rows)).markdown()
