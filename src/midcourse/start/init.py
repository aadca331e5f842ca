"""`midcourse init`: a short recipe for one's own model, problems and engine.

What is written is small on purpose: a first run that ends in minutes on a CPU, in an hour on a GPU,
and shows each stage. Its sizes are choices of ours, not the paper's.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from midcourse.config import ModelConfig, Recipe, TransformersConfig, load_recipe
from midcourse.data.columns import as_options, as_toml
from midcourse.data.parts import require_disjoint
from midcourse.engines import open_renderer
from midcourse.engines.models import context_length
from midcourse.errors import ConfigError, DataError
from midcourse.prompts import load_prompt_set
from midcourse.start.machine import gpus, installed
from midcourse.start.model import (
    as_it_lies,
    count_parameters,
    describe_model,
    is_whole,
    local_folder,
    longest_prompt,
)
from midcourse.start.problems import Survey

_PROMPTS = "default"
#: Adapters are trained instead of all weights from so many parameters.
_LARGE = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Proposer:
    """An OpenAI-compatible server that proposes, e.g. ``http://127.0.0.1:8000/v1``."""

    url: str
    served_model: str
    api_key_env: str | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the first run is."""

    max_tokens: int
    proposer_tokens: int
    num_rollouts: int
    limit: int
    num_continuations: int
    iterations: int
    lora_rank: int

    @classmethod
    def of(
        cls, *, has_gpu: bool, context: int | None, prompt: int, parameters: int | None
    ) -> Sizes:
        """Choose by device, context length, longest prompt and parameters of the model."""
        room = (context or 32_768) - prompt
        most = min(8192 if has_gpu else 512, max(32, room - room // 8))
        return cls(
            max_tokens=most,
            proposer_tokens=max(32, min(most, (context or 32_768) // 4)),
            num_rollouts=16 if has_gpu else 4,
            limit=200 if has_gpu else 20,
            num_continuations=8 if has_gpu else 4,
            iterations=20 if has_gpu else 2,
            lora_rank=32 if (parameters or 0) >= _LARGE else 0,
        )


@dataclass(frozen=True, slots=True)
class FirstRun:
    """What a recipe is written from."""

    name: str
    model: str
    model_words: str
    engine: str
    """``transformers`` or ``vllm``."""
    train: Survey
    held_out: Survey | None
    proposer: Proposer | None
    sizes: Sizes


def plan_first_run(
    name: str,
    model: str,
    engine: str | None,
    train: Survey,
    held_out: Survey | None,
    proposer: Proposer | None,
) -> FirstRun:
    """Look at the model, and choose. Raises MidcourseError where a run could not begin."""
    for found in (train, held_out):
        if found is not None and found.complaints:
            raise DataError(_unusable(found))
    if held_out is not None:
        require_disjoint(train.problems, {"held_out": held_out.problems})
    source, has_gpu = ModelConfig(path=model), bool(gpus())
    folder = local_folder(source)
    words, prompt, context, parameters = f"{model}, fetched at the first run", 0, None, None
    if folder is not None and is_whole(source):
        words = describe_model(source, folder).partition(": ")[2]
        parameters, context = count_parameters(folder), context_length(str(folder))
        solve = load_prompt_set(_PROMPTS)["solve"]
        renderer = open_renderer(TransformersConfig(), as_it_lies(source, folder), str(folder))
        prompt = longest_prompt(renderer, [solve.render(problem=p.text) for p in train.problems])
    kind = engine or ("vllm" if has_gpu and installed("vllm") else "transformers")
    sizes = Sizes.of(has_gpu=has_gpu, context=context, prompt=prompt, parameters=parameters)
    return FirstRun(name, model, words, kind, train, held_out, proposer, sizes)


def _unusable(found: Survey) -> str:
    """Say which rows stand in the way, and the command that takes them out."""
    number = len(found.complaints)
    rows = "1 row" if number == 1 else f"{number:,} rows"
    options = f" {as_options(found.column_map)}" if found.column_map else ""
    source = re.sub(r"\W+", "-", Path(found.place).stem) or "problems"
    return (
        f"{rows} of {found.num_rows:,} cannot be used (first: {found.complaints[0]}): take them "
        f"out with midcourse curate {shlex.quote(found.place)}{options} --no-need-reference --out "
        f"{source}-kept.jsonl, and give that file"
    )


def recipe_text(plan: FirstRun) -> str:
    """Return the recipe as TOML, at most 40 lines."""
    head, *sections = _head(plan), _problems(plan), _sampling(plan), _training(plan)
    return "\n\n".join("\n".join(lines) for lines in (head, *sections)) + "\n"


def _head(plan: FirstRun) -> list[str]:
    """Return what stands above the sections: names, servers, who writes missing references."""
    lines = [
        f"# A first, small run. Check: midcourse doctor {plan.name}.toml; all keys: midcourse keys",
        f"name = {_text(plan.name)}",
        f"model.path = {_text(plan.model)}  # {plan.model_words}",
        f"engine.kind = {_text(plan.engine)}  # other kinds: docs/engines.md",
    ]
    if plan.proposer is not None:
        lines.append(f"proposer_engine = {_server(plan.proposer)}")
    if _writes_references(plan):
        sampling = f"sampling = {{ max_tokens = {plan.sizes.max_tokens} }}"
        lines.append(f'reference = {{ write = "missing", {sampling} }}')
        if plan.proposer is not None:
            lines.append(f"reference_engine = {_server(plan.proposer)}")
    return lines


def _server(server: Proposer) -> str:
    key = f", api_key_env = {_text(server.api_key_env)}" if server.api_key_env else ""
    named = f"urls = [{_text(server.url)}], served_model = {_text(server.served_model)}"
    return f'{{ kind = "openai", {named}, chat = true{key} }}'


def _problems(plan: FirstRun) -> list[str]:
    train, held_out = plan.train, plan.held_out
    lines = ["[problems]", f"path = {_text(train.place)}  # {len(train.problems):,} problems"]
    if train.column_map:
        lines.append(f"columns = {as_toml(train.column_map)}")
    if held_out is not None:
        lines.append(f"held_out_path = {_text(held_out.place)}  # pass@k is about these")
        if dict(held_out.column_map) != dict(train.column_map):
            lines.append(f"held_out_columns = {as_toml(held_out.column_map)}")
    if len(train.problems) > plan.sizes.limit:
        lines.append(f"limit = {plan.sizes.limit}  # without this line: all")
    return lines


def _sampling(plan: FirstRun) -> list[str]:
    sizes, own = plan.sizes, f"sampling.max_tokens = {plan.sizes.max_tokens}"
    asked = 4096 if plan.proposer else sizes.proposer_tokens
    without = ['reference = "none"  # there are none'] if _goes_without(plan) else []
    return [
        "[sample]",
        f"num_rollouts = {sizes.num_rollouts}  # a problem is hard if none of so many is correct",
        f"{own}  # the longest reply",
        "[propose]",
        *without,
        "num_rollouts = 2  # incorrect ones of each hard problem",
        "num_proposals = 2  # questions about each",
        f"sampling.max_tokens = {asked}",
        "[verify]",
        f"num_continuations = {sizes.num_continuations}  # of each intervention",
        own,
    ]


def _lacks_all(plan: FirstRun) -> bool:
    return plan.train.num_without_reference == len(plan.train.problems)


def _goes_without(plan: FirstRun) -> bool:
    """Whether nobody but the base could write references, which has no example either."""
    return _lacks_all(plan) and plan.proposer is None


def _writes_references(plan: FirstRun) -> bool:
    return bool(plan.train.num_without_reference) and not _goes_without(plan)


def _training(plan: FirstRun) -> list[str]:
    sizes = plan.sizes
    rate, lora = ("1e-4", [f"lora_rank = {sizes.lora_rank}"]) if sizes.lora_rank else ("1e-5", [])
    return [
        "[train_sft]",
        "batch_size = 8",
        f"learning_rate = {rate}",
        *lora,
        "[train_rl]",
        f"num_iterations = {sizes.iterations}",
        "prompts_per_iteration = 4",
        "num_generations = 4",
        f"learning_rate = {rate}",
        *lora,
        f"sampling.max_tokens = {sizes.max_tokens}",
        "[evaluate]",
        "num_rollouts = 8",
        f"sampling.max_tokens = {sizes.max_tokens}",
        *([] if plan.held_out else ["sets.train = {}  # better: problems.held_out_path"]),
    ]


def _text(value: str) -> str:
    """Return a TOML string."""
    return json.dumps(value, ensure_ascii=False)


def write_recipe(file: Path, plan: FirstRun, *, force: bool) -> Recipe:
    """Write a recipe and load it. Raises ConfigError if a file is there and not to be replaced."""
    if file.exists() and not force:
        raise ConfigError(f"{file} is there already: give --force to overwrite it")
    file.write_text(recipe_text(plan), "utf-8")
    return load_recipe(file)


def remarks(plan: FirstRun) -> Iterator[str]:
    """Yield what a user should know of what was chosen."""
    lacking = plan.train.num_without_reference
    if _goes_without(plan):
        yield (
            "no problem has a reference solution, so interventions are proposed without one "
            "(propose.reference = 'none'), which is weaker: a proposer server could write them"
        )
    elif lacking:
        writer = "the proposer" if plan.proposer else "the model itself"
        yield f"{lacking:,} reference solutions are missing: {writer} writes them for hard problems"
    if plan.proposer is None:
        yield "the model proposes its own interventions; a stronger one finds more: --proposer URL"


def name_of(file: Path) -> str:
    """Return a run's name for a recipe's file. Raises ConfigError if it is no .toml file."""
    if file.suffix != ".toml":
        raise ConfigError(f"{file}: a recipe's file ends in .toml")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._") or "mine"
